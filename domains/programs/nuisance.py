"""A domain that wants all it can get, in the way that its argument names: what fairness is measured with.

It takes every refusal, and goes on until it is stopped.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count

import zmq

from hvd.domains.guest import Guest
from hvd.domains.hostile.messages import be_deaf, certificate, own_address
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, pack_request
from hvd.transport.errors import HvdError
from hvd.transport.ids import DOM0
from hvd.transport.limits import EXTENTS_MAX, GRANTS_MAX

AUTO_READY = False
PAGE = 4096
THREADS, PROCESSES = 63, 511
VALUE = b"x" * 2000
READS, READ_BYTES = 64, 1900
"""That are one reply of as many bytes as there may be in one."""
FIRST_SEQUENCE = 10**6
"""Behind all that it has asked itself."""
FOR_EVER_S = 2**31
BURST_S = 0.015
ITERATIONS = 10**7
"""Of a computation that takes seconds."""


def spins(guest: Guest) -> None:
    """All of its CPU, with as many threads as it may have."""
    for _ in range(THREADS):
        with suppress(RuntimeError):
            threading.Thread(target=_for_ever, daemon=True).start()
    _for_ever()


def storms(guest: Guest) -> None:
    """Notifications of its console's back without anything in the ring."""
    endpoint = guest.runtime.console_endpoint
    while True:
        endpoint.notify()


def prints(guest: Guest) -> None:
    """A console that never ends its line."""
    while True:
        print(VALUE.decode(), end="")


def calls(guest: Guest) -> None:
    """One hypercall after the other."""
    while True:
        guest.runtime.hypercalls.call(m.XenVersion())


def bursts(guest: Guest) -> None:
    """Hypercalls for a while and none for as long: whoever works for it comes and goes."""
    while True:
        until = time.monotonic() + BURST_S
        while time.monotonic() < until:
            guest.runtime.hypercalls.call(m.XenVersion())
        time.sleep(BURST_S)


def crowds(guest: Guest) -> None:
    """Hypercalls, while as many threads as it may have compute: whoever works for it where it runs has to wait."""
    for _ in range(THREADS):
        with suppress(RuntimeError):
            threading.Thread(target=_compute_for_ever, daemon=True).start()
    calls(guest)


def reads_no_replies(guest: Guest) -> None:
    """As much as one reply brings, asked for without end on a connection that it never reads."""
    guest.runtime.store.write("data/read", VALUE[:READ_BYTES])
    large = m.Multicall([pack_call(m.StoreRead(0, "data/read"))] * READS)
    deaf: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    deaf.linger, deaf.rcvhwm, deaf.sndhwm = 0, 1, 1
    deaf.curve_serverkey = certificate()["server_key"]
    deaf.curve_publickey, deaf.curve_secretkey = zmq.curve_keypair()
    deaf.connect(own_address(guest))
    for sequence in count(FIRST_SEQUENCE):
        deaf.send(pack_request(large, sequence, 0, 0))


def reads_no_descriptors(guest: Guest) -> None:
    """Pages without end, whose descriptors it never takes from its socket: it dies of it, and is started again."""
    be_deaf(guest)


def fills_store(guest: Guest) -> None:
    """As many nodes as it may have, then each anew."""
    for number in count():
        with suppress(HvdError):
            guest.runtime.store.write(f"data/{number % 2000}", VALUE)


def watches(guest: Guest) -> None:
    """As many watches as it may have, on nodes that it then changes: its events pile up, since it never takes them."""
    store = guest.runtime.store
    with suppress(HvdError):
        for _ in count():
            store.watch("data", lambda _: None)
    while True:
        with suppress(HvdError):
            store.write("data/watched", VALUE)


def transacts(guest: Guest) -> None:
    """Transactions that it leaves open, each with all it may hold."""
    store = guest.runtime.store
    call = guest.runtime.hypercalls.call
    while True:
        with suppress(HvdError):
            transaction = call(m.StoreTransactionStart())
            for number in range(1000):
                store.write(f"data/{number}", VALUE, transaction)


def grants(guest: Guest) -> None:
    """Pages for domain 0 that it never takes back."""
    while True:
        with suppress(HvdError, OSError):
            guest.runtime.grants.share(DOM0, 16)


def ports(guest: Guest) -> None:
    """Event channels that nobody binds."""
    while True:
        with suppress(HvdError, OSError):
            guest.runtime.alloc_unbound(DOM0, lambda: None)


def allocates(guest: Guest) -> None:
    """Shared pages without end: it dies of it, and is started again."""
    held = []
    while True:
        held.append(mmap.mmap(-1, 1 << 24))
        for at in range(0, 1 << 24, PAGE):
            held[-1][at] = 1


def forks(guest: Guest) -> None:
    """Processes that spin, as many as it may have; for a program domain."""
    for _ in range(PROCESSES):
        with suppress(OSError):
            if os.fork() == 0:
                _for_ever()
    _for_ever()


def fills_all(guest: Guest) -> None:
    """Every table that `hvd info --quotas` lists to its bound; then it is ready, and prints."""
    store, call, grants = guest.runtime.store, guest.runtime.hypercalls.call, guest.runtime.grants
    own = grants.share(guest.domid, 1)
    _until_refused(lambda: call(m.GnttabMap(guest.domid, own.ref, 1, True)))
    _until_refused(lambda: call(m.SchedWatchdog(0, FOR_EVER_S)))
    _until_refused(lambda: store.watch("data", lambda _: None))
    _until_refused(lambda: guest.runtime.alloc_unbound(DOM0, lambda: None))
    _until_refused(lambda: grants.share(DOM0, GRANTS_MAX // EXTENTS_MAX))
    _until_refused(lambda: grants.share(DOM0, 1))
    numbers = count()
    _until_refused(partial(_write_next, guest, numbers, 0))
    transactions: list[int] = []
    _until_refused(lambda: transactions.append(call(m.StoreTransactionStart())))
    for transaction in transactions:
        _until_refused(partial(_write_next, guest, count(), transaction))
    guest.ready()
    prints(guest)


def _write_next(guest: Guest, numbers: Iterator[int], transaction: int) -> None:
    """A few hundred names are as many as one node may have children; half of the memory is the transactions'."""
    number, size = next(numbers), len(VALUE) - (1 if transaction else 700)
    guest.runtime.store.write(f"data/{number // 100}/{number}", VALUE[:size], transaction)


def _until_refused(act: Callable[[], object]) -> None:
    with suppress(HvdError, OSError):
        while True:
            act()


def _for_ever() -> None:
    while True:
        pass


def _compute_for_ever() -> None:
    """Without the interpreter's lock."""
    while True:
        hashlib.pbkdf2_hmac("sha256", b"", b"", ITERATIONS)


WAYS: dict[str, Callable[[Guest], None]] = {
    way.__name__: way
    for way in (
        spins, storms, prints, calls, bursts, crowds, reads_no_replies, reads_no_descriptors, fills_store, watches,
        transacts, grants, ports, allocates, forks, fills_all,
    )
}  # fmt: skip


def main(guest: Guest) -> None:
    way = WAYS[guest.args[0]]
    if way is not fills_all:
        guest.ready()
    way(guest)
