"""A replica that also holds published versions, and answers each pull from one: live, its fold, or the one that was chosen.

Changes come in two steps. `prepare` reads and checks a version's files outside of the replica's turn, while pulls go on; `serve` then takes
it between two pulls. Which one is served says ROOT/serving.json (ps/versions.py): a replica that starts serves that or nothing, and one
that was not told of a change finds it there by itself. A version that was chosen and cannot be read is not replaced by another here: pulls
are refused with a sentence, since other replicas serve what was chosen.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from prometheus_client.core import GaugeMetricFamily

from headrace.ps import versions
from headrace.ps.replica import Replica
from headrace.ps.service import replica_verbs
from headrace.ps.spec import ModelSpec
from headrace.ps.table import Table
from headrace.ps.versions import LIVE, Choice, Version, VersionError
from headrace.rpc.errors import BadMessage, Refused, Unavailable
from headrace.rpc.message import Arrays, Header, column
from headrace.rpc.owner import Owner
from headrace.rpc.server import Later, Verb

log = logging.getLogger(__name__)
FOLLOW_S = 0.25


class Loaded(NamedTuple):
    """A version in memory."""

    about: Version
    tables: dict[str, Table]

    @property
    def sequence(self) -> int:
        return max(self.about.sequence)


class Offer:
    """What a replica serves of one model: `choice`, and the versions `held` for it. `trouble`: why pulls are refused, else ""."""

    def __init__(self, root: Path, spec: ModelSpec) -> None:
        self.root, self.spec = root, spec
        self.choice, self.trouble = Choice(), ""
        self.held: dict[int, Loaded] = {}


class Versioned:
    """`replica` with versions from FOLDER/MODEL. Its owner's thread calls `verbs`; `prepare` runs on any. What was chosen before is loaded
    when this is made: it serves that, or says in `trouble` why it cannot."""

    def __init__(self, replica: Replica, specs: Iterable[ModelSpec], folder: Path, rows_max: int, now_ms: Callable[[], int]) -> None:
        self._replica, self._rows_max, self._now_ms = replica, rows_max, now_ms
        self._loading = threading.Lock()
        self.offers = {spec.model: Offer(folder / spec.model, spec) for spec in specs}
        for offer in self.offers.values():
            self._restore(offer)

    def _restore(self, offer: Offer) -> None:
        try:
            choice = versions.chosen(offer.root)
            self.prepare(offer.spec.model, choice.version)
            self._take(offer, choice)
        except VersionError as error:
            log.error("what was chosen of %s cannot be served: %s", offer.spec.model, error)
            offer.trouble = str(error)

    def prepare(self, model: str, number: int) -> None:
        """Have version `number` in memory, checked. Raises VersionError. Not in the owner's turn: it takes as long as its files."""
        offer = self.offer(model)
        with self._loading:
            if number != LIVE and number not in offer.held:
                offer.held[number] = Loaded(*versions.load(offer.root, number, offer.spec, self._rows_max))

    def serve(self, model: str, choice: Choice) -> int:
        """Serve what was chosen from the next pull on; the version that is served then, which is another when a later choice came before.
        In the owner's turn. Raises Refused for one that is not prepared."""
        offer = self.offer(model)
        if choice.turn >= offer.choice.turn:
            if choice.version != LIVE and choice.version not in offer.held:
                raise Refused(f"version {choice.version} of {model} is not prepared here")
            self._take(offer, choice)
        return offer.choice.version

    def _take(self, offer: Offer, choice: Choice) -> None:
        offer.choice, offer.trouble = choice, ""
        offer.held = {number: one for number, one in offer.held.items() if number == choice.version}

    def pull(self, model: str, name: str, keys: np.ndarray, asked: int | None) -> tuple[Header, np.ndarray] | None:
        """(header, float32[n, dim]) of a version, None for live. Raises Refused, Unavailable."""
        offer = self.offers.get(model)
        if offer is None:
            return None
        if asked is None and offer.trouble:
            raise Unavailable(f"what was chosen of {model} cannot be served: {offer.trouble}")
        number = offer.choice.version if asked is None else asked
        if number == LIVE:
            return None
        held = offer.held.get(number)
        if held is None or name not in held.tables:
            raise Refused(f"version {number} of {model}/{name} is not held here; held are {', '.join(map(str, (LIVE, *offer.held)))}")
        age_ms = max(0, self._now_ms() - held.about.created_ms)
        return {"sequence": held.sequence, "age_ms": age_ms, "newest": None, "version": number, "whole": True}, held.tables[name].pull(keys)

    def trouble(self) -> str:
        """Why some model is not served, "" when all are."""
        return "; ".join(offer.trouble for offer in self.offers.values() if offer.trouble)

    def offer(self, model: str) -> Offer:
        if model not in self.offers:
            raise Refused(f"no model {model!r} is served here; there are {', '.join(sorted(self.offers))}")
        return self.offers[model]

    def verbs(self) -> dict[str, Verb]:
        """Those of a replica, whose pulls say their `version` and may ask for one, and `prepare` and `serve`."""
        live = replica_verbs(self._replica)

        def pull(header: Header, arrays: Arrays) -> tuple[Header, Arrays] | Later:
            asked, keys = header.get("version"), column(arrays, "keys", "uint64", (None,))
            if asked is not None and (not isinstance(asked, int) or asked < 0):
                raise BadMessage(f"header 'version' is {asked!r}: a number, 0 is live; without it what is served answers")
            found = self.pull(str(header.get("model")), str(header.get("table")), keys, asked)
            return live["pull"](header, arrays) if found is None else (found[0], {"values": found[1]})

        def stats(header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
            told, more = live["stats"](header, arrays)  # type: ignore[misc]
            for model, offer in self.offers.items():
                told["models"][model] |= {"serving": offer.choice.version, "turn": offer.choice.turn, "held": sorted(offer.held),
                                          "trouble": offer.trouble}
            return told, more

        def prepare(header: Header, arrays: Arrays) -> Later:
            model, number = str(header.get("model")), int(header["version"])
            self.offer(model)
            told: Header = {"version": number}

            def then() -> None:
                try:
                    self.prepare(model, number)
                except VersionError as error:
                    raise Refused(str(error)) from None

            return Later(told, {}, then)

        def serve(header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
            return {"version": self.serve(str(header.get("model")), Choice(**header["choice"]))}, {}

        return {**live, "pull": pull, "stats": stats, "prepare": prepare, "serve": serve}

    def follow(self, owner: Owner) -> None:
        """Take a choice that was made while nobody told this replica. Raises nothing of a version: it says so in `trouble`."""
        for model, offer in self.offers.items():
            try:
                choice = versions.chosen(offer.root)
                if choice.turn > offer.choice.turn or offer.trouble:
                    self.prepare(model, choice.version)
                    owner.call(partial(self.serve, model, choice))
                    log.info("%s: version %d is served (%s: %s)", model, choice.version, choice.by, choice.reason)
            except (VersionError, Refused) as error:  # Refused: another choice came between the two; the next look sees it
                if isinstance(error, VersionError) and str(error) != offer.trouble:
                    log.error("what was chosen of %s cannot be served: %s", model, error)
                    offer.trouble = str(error)

    def keep_following(self, owner: Owner, stop: threading.Event, pause_s: float = FOLLOW_S) -> None:
        """`follow` until `stop`."""
        while not stop.wait(pause_s):
            try:
                self.follow(owner)
            except Exception:
                log.exception("looking for what is to be served failed; again in %.2f s", pause_s)


class VersionFigures:
    """A Prometheus collector of what is served."""

    def __init__(self, versioned: Versioned) -> None:
        self._versioned = versioned

    def collect(self) -> Sequence[Any]:
        serving = GaugeMetricFamily("headrace_serving_version", "Version that pulls are answered from; 0 is live", labels=["model"])
        refused = GaugeMetricFamily("headrace_serving_refused", "1 while what was chosen cannot be served", labels=["model"])
        for model, offer in self._versioned.offers.items():
            serving.add_metric([model], offer.choice.version)
            refused.add_metric([model], float(bool(offer.trouble)))
        return [serving, refused]
