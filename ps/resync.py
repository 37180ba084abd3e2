"""Closes a replica's gaps: exports a table from its training shard, page by page, while blocks go on being folded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import partial

from headrace.ps.encoding import NO_SCALES, decode
from headrace.ps.replica import Gap, Replica
from headrace.rpc.client import Client
from headrace.rpc.errors import Refused, RpcError
from headrace.rpc.owner import Owner

log = logging.getLogger(__name__)
TRIES = 50


def close_gap(replica: Replica, owner: Owner, client: Client, gap: Gap) -> int:
    """Export `gap` from `client`'s shard into `replica`, on `owner`'s thread page by page; rows put. Raises RpcError, with the gap open.

    A page that a newer block has overtaken is exported again. When the shard was restarted meanwhile (another epoch) it begins anew.
    """
    whole = False
    try:
        rows = _export(replica, owner, client, gap)
        whole = True
        return rows
    finally:
        owner.call(lambda: replica.end_closing(gap, whole))


def _export(replica: Replica, owner: Owner, client: Client, gap: Gap) -> int:
    cursor, rows, tries, begun = 0, 0, 0, -1
    while cursor >= 0:
        header, arrays = client.call("export", {"model": gap.model, "table": gap.table, "cursor": cursor, "slots": list(replica.slots),
                                                "served": True})
        epoch, sequence = header["epoch"], header["sequence"]
        if epoch != begun:
            if cursor > 0:
                cursor, rows, begun = 0, 0, -1
                continue
            begun = epoch
            owner.call(partial(replica.begin_closing, gap, epoch, sequence, header.get("encoding", "float32")))
        values = decode(arrays["values"], arrays.get("scales", NO_SCALES))
        if owner.call(partial(replica.take_page, gap, epoch, sequence, arrays["keys"], values)):
            cursor, rows, tries = header["cursor"], rows + len(arrays["keys"]), 0
        else:
            tries += 1
            if tries > TRIES:
                raise Refused(f"{client.address} exports {gap.model}/{gap.table} older than it has published: another stack's shard?")
    start = 0
    while start >= 0:
        start = owner.call(partial(replica.drop_stale, gap, start))
    return rows


def keep_closed(replica: Replica, owner: Owner, addresses: Sequence[str], stop: threading.Event, pause_s: float = 0.25) -> None:
    """Until `stop`: close the gaps that there are; a shard that does not answer is tried again."""
    clients = [Client(address) for address in addresses]
    while not stop.is_set():
        for gap in sorted(owner.call(lambda: list(replica.gaps))):
            if stop.is_set():
                break
            try:
                rows = close_gap(replica, owner, clients[gap.shard], gap)
                log.info("resync of %s/%s from shard %d: %d rows", gap.model, gap.table, gap.shard, rows)
            except RpcError as error:
                log.warning("resync of %s/%s from shard %d is put off: %s", gap.model, gap.table, gap.shard, error)
        stop.wait(pause_s)
    for client in clients:
        client.close()
