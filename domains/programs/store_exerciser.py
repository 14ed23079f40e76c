"""A guest that moves money between accounts in XenStore, one transaction at a time, and notes each for a checker.

Arguments `acks=FILE` (its history is appended there), `bank=PATH`, `seed=N`, `pace_ms=N` between two transactions. The
bank is made outside (hvd/toolstack/faults/bank.py) and may have several clients. A transaction moves an amount, counts
itself, and writes down which one it was: a client is never without a trace of what it did.
Whoever writes `data/finish` into its XenStore home ends it.
"""

from __future__ import annotations

import random

from hvd.domains.finishing import Finish
from hvd.domains.guest import Guest
from hvd.domains.store import StoreClient, TransactionConflict
from hvd.transport.history import INCARNATION_SHIFT, Event, HistoryWriter, Kind, Phase
from hvd.transport.hypercalls import HypercallError
from hvd.transport.protocols.bank import ACCOUNTS, AMOUNT_MAX, SLOTS, account, client_count, client_slot, entry, place
from hvd.transport.records import replace

AUTO_READY = False


class Teller:
    """Carries out transfers and keeps the history."""

    def __init__(self, guest: Guest, options: dict[str, str]) -> None:
        self._store: StoreClient = guest.runtime.store
        self._domid = guest.domid
        self._bank = options["bank"]
        self._history = HistoryWriter(options["acks"])
        self._random = random.Random(int(options.get("seed", "1")) + guest.incarnation)
        self._id = guest.incarnation << INCARNATION_SHIFT

    @property
    def bank_is_open(self) -> bool:
        return self._store.read(client_count(self._bank, self._domid)) is not None

    def transfer(self) -> None:
        """One, whose fate is known when this returns."""
        self._id += 1
        giver, taker = self._random.sample(range(ACCOUNTS), 2)
        amount = self._random.randint(1, AMOUNT_MAX)
        event = Event(Phase.INVOKED, Kind.TRANSFER, self._id, place(giver, taker), amount)
        self._history.record(event)
        try:
            self._store.transaction(lambda tx: self._move(tx, giver, taker, amount))
        except (TransactionConflict, HypercallError):
            phase = Phase.FAILED  # no commit was answered with ok
        else:
            phase = Phase.OK
        self._history.record(replace(event, phase=phase))

    def _move(self, tx: int, giver: int, taker: int, amount: int) -> None:
        for number, change in ((giver, -amount), (taker, amount)):
            self._add(tx, account(self._bank, number), change)
        self._add(tx, client_count(self._bank, self._domid), 1)
        slot = client_slot(self._bank, self._domid, self._id % SLOTS)
        self._store.write(slot, entry(self._id, giver, taker, amount), tx)

    def _add(self, tx: int, path: str, change: int) -> None:
        self._store.write(path, int(self._store.read_text(path, tx=tx)) + change, tx)


def main(guest: Guest) -> None:
    options = dict(argument.split("=", 1) for argument in guest.args)
    teller, finish = Teller(guest, options), Finish(guest)
    guest.runtime.store.watch(options["bank"], lambda path: None)
    while not teller.bank_is_open:
        guest.wait()
    guest.ready()
    pace_s = int(options.get("pace_ms", "2")) / 1000
    while not finish.told:
        teller.transfer()
        guest.sleep(pace_s)
