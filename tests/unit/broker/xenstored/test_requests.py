"""Each request of the scenarios, through the wire's codec and the store, as xenstored answers it."""

import errno

import pytest

from hvd.broker.hypervisor import Hypervisor
from hvd.broker.store import WatchEvent
from hvd.broker.store.accounts import Tally
from hvd.broker.store.engine import NODES_CHECKED_AT_ONCE
from hvd.broker.xenstored import control, requests
from hvd.broker.xenstored.doors import LATER
from hvd.transport import xs_wire
from hvd.transport.ids import DOM0, DomId
from hvd.transport.messages import DomainConfig
from hvd.transport.xs_wire import Message, Type
from tests.unit.broker.xenstored.scenarios import SCENARIOS, Row

CONNECTIONS = {DOM0: -2, DomId(1): 1, DomId(2): 1}


def machine() -> Hypervisor:
    """Dom0 and two guests, as the scenarios begin."""
    hypervisor = Hypervisor(b"x" * 32, 0)
    for name in ("Domain-0", "one", "two"):
        hypervisor.create(DomainConfig(name=name, kernel="hvd:idle"), 0)
    for guest in (DomId(1), DomId(2)):
        hypervisor.store.introduce(guest)
        home = f"/local/domain/{guest}"
        hypervisor.store.mkdir(DOM0, 0, f"{home}/data")
        hypervisor.store.set_perms(DOM0, 0, home, ["n0", f"r{guest}"])
        hypervisor.store.set_perms(DOM0, 0, f"{home}/data", [f"n{guest}"])
    hypervisor.store.take_events()
    return hypervisor


def play(hypervisor: Hypervisor, row: Row) -> tuple[bytes | str, tuple[bytes, ...]]:
    """The reply and the events, as a row has them."""
    domid = DomId(row.who)
    kind, payload = requests.answer(hypervisor, domid, CONNECTIONS[domid], Message(row.kind, 7, row.tx, row.payload))
    heard = tuple(as_payload(event) for event in hypervisor.store.take_events() if event.domid == domid)
    if kind == Type.ERROR:
        return errno.errorcode[xs_wire.error_number(payload)], heard
    assert kind == row.kind
    return payload, heard


def as_payload(event: WatchEvent) -> bytes:
    return xs_wire.strings(event.path.encode(), event.token.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_requests_are_answered_as_xenstored_answers_them(name: str) -> None:
    hypervisor = machine()
    for row in SCENARIOS[name]:
        assert play(hypervisor, row) == (row.reply, row.events), row


def test_a_list_that_is_too_long_for_a_reply_is_read_in_parts() -> None:
    hypervisor = machine()
    names = [f"a-rather-long-name-of-a-child-{number}" for number in range(300)]
    for name in names:
        hypervisor.store.write(DOM0, 0, f"/many/{name}", b"")
    assert play(hypervisor, Row(0, Type.DIRECTORY, b"/many\0", "E2BIG"))[0] == "E2BIG"
    parts, generations = b"", set()
    while not parts.endswith(b"\0\0"):
        reply, _ = play(hypervisor, Row(0, Type.DIRECTORY_PART, b"/many\0%d\0" % len(parts), b""))
        assert isinstance(reply, bytes) and len(reply) <= xs_wire.PAYLOAD_MAX
        generation, _, part = reply.partition(b"\0")
        generations.add(generation)
        parts += part
    assert parts.decode().split("\0")[:-2] == names and len(generations) == 1
    hypervisor.store.write(DOM0, 0, "/many/more", b"")
    reply, _ = play(hypervisor, Row(0, Type.DIRECTORY_PART, b"/many\0" + b"0\0", b""))
    assert isinstance(reply, bytes) and reply.partition(b"\0")[0] not in generations


def test_a_check_of_many_nodes_takes_several_turns_and_is_about_the_moment_in_which_it_began() -> None:
    hypervisor, check = machine(), Message(Type.CONTROL, 1, 0, b"check\0")
    for number in range(5 * NODES_CHECKED_AT_ONCE):
        hypervisor.store.write(DOM0, 0, f"/many/{number}", b"")
    assert not requests.is_command(check)
    turns = 0
    while (reply := requests.answer(hypervisor, DOM0, -2, check)) is LATER:
        hypervisor.store.write(DOM0, 0, f"/many/more/{turns}", b"")
        turns += 1
    assert turns >= 5 and reply == (Type.CONTROL, b"OK\0")


def test_a_check_waits_for_what_is_under_way() -> None:
    hypervisor, check = machine(), Message(Type.CONTROL, 1, 0, b"check\0")
    for number in range(300):
        hypervisor.store.write(DOM0, 0, f"/many/{number}", b"")
    hypervisor.store.rm(DOM0, 0, "/many")
    assert requests.answer(hypervisor, DOM0, -2, check) is LATER
    while hypervisor.store.has_unsettled:
        hypervisor.store.settle()
    assert requests.answer(hypervisor, DOM0, -2, check) == (Type.CONTROL, b"OK\0")


def test_a_check_finds_an_account_that_is_wrong() -> None:
    hypervisor = machine()
    hypervisor.store._engine.accounts.count({DomId(1): Tally(nodes=1)})
    _, reply = requests.answer(hypervisor, DOM0, -2, Message(Type.CONTROL, 1, 0, b"check\0"))
    assert b"the accounts of domains [1] are wrong" in reply


@pytest.mark.parametrize("name", control.AT_MOST)
def test_a_quota_beyond_what_bounds_everybody_is_refused_with_a_line_on_the_console_and_not_set(name: str) -> None:
    hypervisor, most = machine(), control.AT_MOST[name]

    def asked(value: int) -> bytes | str:
        words = xs_wire.strings(b"quota", b"set", name.encode(), b"%d" % value)
        return play(hypervisor, Row(0, Type.CONTROL, words, b""))[0]

    assert asked(most) == b"OK\0"
    before = hypervisor.store.unprivileged_limits
    assert asked(most + 1) == "EINVAL" and hypervisor.store.unprivileged_limits == before
    assert hypervisor.console[-1] == f"(XEN) xenstore: quota {name} is at most {most}, not {most + 1}"


def test_a_value_that_is_too_long_for_a_reply_is_e2big() -> None:
    hypervisor = machine()
    hypervisor.store.write(DOM0, 0, "/big", b"x" * 4097)
    assert play(hypervisor, Row(0, Type.READ, b"/big\0", ""))[0] == "E2BIG"


def test_each_connection_of_a_domain_has_its_own_watches_and_transactions() -> None:
    hypervisor = machine()
    watch, start = Message(Type.WATCH, 1, 0, b"data\0t\0"), Message(Type.TRANSACTION_START, 1, 0, b"\0")
    for connection in (2, 3):
        assert requests.answer(hypervisor, DomId(1), connection, watch)[0] == Type.WATCH
    hypervisor.store.take_events()
    hypervisor.store.write(DOM0, 0, "/local/domain/1/data/x", b"v")
    assert sorted(event.connection for event in hypervisor.store.take_events()) == [2, 3]
    _, tx = requests.answer(hypervisor, DomId(1), 2, start)
    read = Message(Type.READ, 1, int(tx[:-1]), b"data\0")
    assert requests.answer(hypervisor, DomId(1), 2, read)[0] == Type.READ
    assert requests.answer(hypervisor, DomId(1), 3, read) == (Type.ERROR, b"ENOENT\0")
    assert requests.answer(hypervisor, DomId(1), 3, Message(Type.RESET_WATCHES, 1, 0, b""))[1] == b"OK\0"
    hypervisor.store.write(DOM0, 0, "/local/domain/1/data/x", b"w")
    assert [event.connection for event in hypervisor.store.take_events()] == [2]


def test_what_only_reads_is_no_command_unless_a_transaction_depends_on_it() -> None:
    assert not requests.is_command(Message(Type.READ, 1, 0, b"/\0"))
    assert requests.is_command(Message(Type.READ, 1, 7, b"/\0"))
    assert requests.is_command(Message(Type.RM, 1, 0, b"/\0"))
    assert not requests.is_command(Message(4711, 1, 7, b"/\0"))
