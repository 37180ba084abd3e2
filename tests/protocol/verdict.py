"""Everything that is counted when a world has come to rest. Each check raises Wrong."""

from __future__ import annotations

import numpy as np

from headrace.models import progressive
from headrace.rpc.causes import OLD
from tests import naive
from tests.protocol import oracle
from tests.protocol.jobs import EFFECT, BackfillJob, TrainJob, causes_of
from tests.protocol.join import Sample
from tests.protocol.servers import MODELS, ParameterServer
from tests.protocol.world import World
from tests.protocol.wrong import Wrong

Cause = tuple[int, int]


def judge(world: World) -> None:
    """All checks that hold of how this world ended; a ring that was too short is mended by a backfill here, and counted then."""
    if world.features_job.stopped:
        Wrong.unless(world.plan.short == "features", f"the features job stopped: {world.features_job.stopped}")
        _folded_at_most_once(world)
        return
    _features(world)
    _labels(world)
    first = first_samples(world)
    for trainer in world.trainers:
        if trainer.stopped:
            Wrong.unless(world.plan.short == "ps", f"{trainer.name} stopped: {trainer.stopped}")
            _never_too_often(world, trainer.model, first)
        else:
            _trained(world, trainer.model, first)
    if any(trainer.stopped for trainer in world.trainers):
        _mended(world, first)
    if world.ailment.recovers:
        _same_after_recovery(world)


def first_samples(world: World) -> dict[Cause, Sample]:
    """The first record of each cause in `samples`: the truth for every reader."""
    first: dict[Cause, Sample] = {}
    for sample in world.samples:
        first.setdefault(sample.cause, sample)
    return first


def _folded_at_most_once(world: World) -> None:
    retries = len(world.log) - len({event.event for event in world.log})
    if world.features.verbs is None:
        world.features.open()
    sequence = world.features.shard.sequence
    Wrong.unless(sequence <= len(world.log) - retries, f"{sequence} events folded of {len(world.log) - retries}")


def _features(world: World) -> None:
    """Frozen values, reads and rows are those of a shard that folded the same order and was never killed."""
    missing = [event.cause for event in world.log if event.cause not in world.answers]
    Wrong.unless(not missing, f"causes {missing[:3]} were never answered")
    reference = oracle.Reference(world.log, world.answers, world.reads, world.plan.rings[0])
    for record in world.enriched:
        if record.keys:
            Wrong.unless(reference.frozen.get(record.event.cause) == (record.keys, record.values, record.numbers),
                         f"cause {record.event.cause} was frozen with other values than in the run without kills")
    for (sequence, _, answer), want in zip(world.reads, reference.assembled, strict=True):
        Wrong.unless(all(np.array_equal(answer[name], want[name]) for name in want),
                     f"a read at sequence {sequence} differs from the run without kills")
    if world.features.verbs is None:
        world.features.open()
    world.features.shard.flush()
    reference.shard.flush()
    for family in ("users", "items", "rings"):
        Wrong.unless(list(world.features.shard.store.scan(family)) == list(reference.shard.store.scan(family)),
                     f"{family} differ from the run without kills")
    Wrong.unless(world.features.shard.counts == reference.shard.counts,
                 f"{world.features.shard.counts}, without kills {reference.shard.counts}")


def _labels(world: World) -> None:
    first, want = first_samples(world), oracle.labels(world.log, world.plan.eager)
    got = {cause: sample.label for cause, sample in first.items()}
    wrong = sorted(cause for cause in got.keys() | want.keys() if got.get(cause) != want.get(cause))
    Wrong.unless(not wrong, f"labels of {wrong[:3]}: {[got.get(c) for c in wrong[:3]]}, expected {[want.get(c) for c in wrong[:3]]}")
    frozen = {record.event.cause: record for record in world.enriched if record.keys}
    Wrong.unless(all((s.keys, s.values) == (frozen[c].keys, frozen[c].values) for c, s in first.items()), "a sample's features changed")


def _trained(world: World, model: str, first: dict[Cause, Sample]) -> None:
    """The model has counted every sample once, on every shard."""
    _counted(world, model, oracle.counts([(sample.keys, 1) for sample in first.values()]))
    told = progressive.summary(_pull(world, model, "metrics", progressive.keys_of(progressive.MODEL)).ravel())
    least = sum(sample.label for sample in first.values())
    # A shard that came back older may meet the late positive of a cause before it meets the first record again.
    most = len({s.cause for s in world.samples if s.label}) if world.counts["older shards"] else least
    Wrong.unless(told["samples"] == len(first) and told["positives"] is not None and least <= told["positives"] <= most,
                 f"{model} scored {told['samples']} samples, {told['positives']} positives, expected {len(first)}, {least} to {most}")
    for server in world.shards if world.ailment.recovers else []:
        shard = _shard(server)
        applied = shard.rings.count(shard.specs[model].scope, EFFECT)
        Wrong.unless(applied == len(first), f"{server.name} applied {applied} causes of {model}, expected {len(first)}")


def _counted(world: World, model: str, most: dict[int, int], least: dict[int, int] | None = None) -> None:
    """The counts of `model` by key lie between `least` (`most` by default) and `most`, and no other key has one."""
    keys = np.array(sorted(most), np.uint64)
    got = dict(zip(keys.tolist(), _pull(world, model, "counts", keys).ravel().tolist(), strict=True))
    least = most if least is None else least
    wrong = [key for key in got if not least.get(key, 0) <= got[key] <= most[key]]
    Wrong.unless(not wrong, f"{model} counted {len(wrong)} keys wrongly, key {wrong and wrong[0]} {wrong and got[wrong[0]]} times,"
                            f" expected {wrong and most[wrong[0]]}")
    total = sum(_shard(server).tables[model, "counts"].sum() for server in world.shards)
    Wrong.unless(total == sum(got.values()), f"{model} counted {total} in all, of known keys {sum(got.values())}")


def _never_too_often(world: World, model: str, first: dict[Cause, Sample]) -> None:
    _counted(world, model, oracle.counts([(sample.keys, 1) for sample in first.values()]), {})


def _mended(world: World, first: dict[Cause, Sample]) -> None:
    """With a longer ring a backfill applies what is known to be missing and tells what cannot be known; a new version gets everything."""
    for server in world.shards:
        server.kill()
        server.ring_length = 1 << 20
        server.forget()  # pages that a short ring drops while it reads its log, a long one keeps
    causes = causes_of(list(first))
    for model in MODELS:
        known = [_shard(server).known(model, EFFECT, causes) for server in world.shards]
        _backfill(world, model)
        for server, status in zip(world.shards, known, strict=True):
            least = oracle.counts([(sample.keys, int(status[i] != OLD)) for i, sample in enumerate(first.values())])
            most = oracle.counts([(sample.keys, 1) for sample in first.values()])
            mine = [key for key in most if _owns(server, key)]
            got = _shard(server).pull(model, "counts", np.array(mine, np.uint64)).ravel().tolist()
            Wrong.unless(all(least[key] <= count <= most[key] for key, count in zip(mine, got, strict=True)),
                         f"a backfill of {model} with a longer ring counted wrongly on {server.name}")
    for server in world.shards:
        server.kill()
        server.version = 2
        server.forget()
    for model in MODELS:
        _backfill(world, model)
        _trained(world, model, first)


def _backfill(world: World, model: str) -> None:
    job = BackfillJob(world, model)
    world.rest(job)
    Wrong.unless(not job.stopped, f"{job.name} stopped: {job.stopped}")


def _same_after_recovery(world: World) -> None:
    for server in world.shards:
        before = _shard(server).digest()
        server.close()
        Wrong.unless(_shard(server).digest() == before, f"{server.name} is another one after a recovery")
        server.close()


def _pull(world: World, model: str, table: str, keys: np.ndarray) -> np.ndarray:
    return TrainJob(world, model).client(0).pull(model, table, keys)[0]


def _shard(server: ParameterServer):
    if server.verbs is None:
        server.open()
    return server.store.shard


def _owns(server: ParameterServer, key: int) -> bool:
    low, high = _shard(server).slots
    return low <= naive.ps_mix(key) >> 58 < high
