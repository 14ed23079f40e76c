"""A domain that measures, or is measured: it carries out one order of the toolstack after the other until stopped.

An order is a JSON object in `data/order` of the domain's own part of the store; what came of it is written beside it.
Store nodes and not a file or a socket: a domain may see neither. While an order is carried out nothing else happens in
this domain.
"""

from __future__ import annotations

import json
from typing import Any

from hvd.domains.guest import Guest
from hvd.domains.measuring.channels import ManyChannels
from hvd.domains.measuring.link import Link
from hvd.domains.measuring.packets import Packets
from hvd.domains.measuring.work import Disk, Hypercalls, RingDevice, Work
from hvd.domains.store import StoreClient

CHUNK = 1500
"""Characters of a result in one node: a node of a guest holds at most 2,048 bytes."""


def main(guest: Guest) -> None:
    store, orders = guest.runtime.store, [""]
    answers: dict[str, Any] = {}
    devices = (RingDevice(guest), Disk(guest), Packets(guest))
    for player in (Link(guest), ManyChannels(guest), *devices, Hypercalls(guest), Work()):
        answers |= {name: getattr(player, name) for name in player.ORDERS}
    store.watch("data/order", lambda _: orders.append(store.read_text("data/order")))
    carried_out = 0
    while True:
        guest.wait()
        order = json.loads(orders[-1] or "{}")
        if order.get("number", 0) > carried_out:
            carried_out = order.pop("number")
            _tell(store, carried_out, answers[order.pop("do")](**order))


def _tell(store: StoreClient, number: int, result: dict[str, Any]) -> None:
    """`done` last: whoever reads it finds the rest."""
    text = json.dumps(result)
    chunks = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
    nodes = {f"result-{index}": chunk for index, chunk in enumerate(chunks)}
    store.write_all("data", nodes | {"done": f"{number} {len(chunks)}"})
