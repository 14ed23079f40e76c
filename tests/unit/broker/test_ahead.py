"""What is asked ahead for a spare that takes over: what its predecessor had of its clients, and not more."""

import pickle

import pytest

from hvd.broker import ahead
from hvd.broker.dispatch import handle
from hvd.broker.domain import Life
from hvd.broker.event_channels import PortState
from hvd.broker.spares import QUIET_NS
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, unpack_call
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE
from hvd.transport.ids import DOM0
from hvd.transport.messages import DeviceConfig

IMAGE = "/images/disk"


def disk(number):
    return DeviceConfig("vbd", number, "drv", {"params": f"{IMAGE}{number}", "mode": "w"})


class Disk:
    """One of a guest's, as its driver domain has it."""

    def __init__(self, board, drv, guest, number):
        self.board, self.drv, self.guest, self.number = board, drv, guest, number
        self.ring = self._share(1)
        self.pool = self._share(8)
        self.port = board.h.channels.alloc_unbound(guest, drv)
        board.h.media.open(board.h.domains[drv], board.h.domains[guest], "vbd", number)
        self.had = {self._map(self.ring, 1), self._map(self.pool, 0)}
        """Handles."""
        board.h.channels.bind_interdomain(drv, guest, self.port)

    def _share(self, pages):
        extent = self.board.h.grants.allocate(self.guest, self.drv, pages, readonly=False)
        return self.board.h.grants.share(self.guest, extent.id, 0, pages)

    def _map(self, ref, count):
        return self.board.h.grants.map(self.drv, self.guest, ref, count, writable=True).handle

    @property
    def asked(self):
        return {
            m.PhysdevOpenMedium(self.guest, "vbd", self.number), m.GnttabMap(self.guest, self.ring, 1, True),
            m.GnttabMap(self.guest, self.pool, 0, True), m.EvtchnBindInterdomain(self.guest, self.port),
        }  # fmt: skip


def spare_of(board, dom):
    board.after(QUIET_NS)
    domain = board.h.domains[dom]
    board.h.started(dom, domain.spare.incarnation, 1000 + domain.spare.incarnation, board.now)
    board.h.spare_reports(dom, domain.spare.incarnation, {}, "")


@pytest.fixture
def drv(board):
    dom = board.boot("drv", spare=True, driver_domain=True)
    spare_of(board, dom)
    return dom


def takes_over(board, dom):
    """It dies, and its spare is let run: a command each."""
    board.dies(dom)
    board.after(0)


def client(board, drv, name="guest", devices=1):
    guest = board.boot(name, devices=[disk(number) for number in range(devices)])
    return guest, [Disk(board, drv, guest, number) for number in range(devices)]


def answered(board, drv):
    return {unpack_call(call): (value, references) for call, value, references in board.h.domains[drv].ahead}


def test_it_has_what_its_predecessor_had_of_its_clients_as_its_own(board, drv):
    guest, (one,) = client(board, drv)
    takes_over(board, drv)
    answers = answered(board, drv)
    assert one.asked <= answers.keys()
    value, references = answers[m.GnttabMap(guest, one.ring, 1, True)]
    assert value["handle"] not in one.had
    assert references == ((f"extent:{value['extent']}", 0),)
    port, channel = answers[m.EvtchnBindInterdomain(guest, one.port)]
    assert board.h.channels.status(drv, port["port"])["status"] == PortState.INTERDOMAIN
    assert len(channel) == 3
    (medium,) = board.h.media.opened.values()
    assert answers[m.PhysdevOpenMedium(guest, "vbd", 0)] == (None, ((f"medium:{medium}", 0),))


def test_its_clients_devices_are_watched_and_read_for_it_when_they_have_been_offered_again(board, drv):
    guest, _ = client(board, drv)
    back, front = f"/local/domain/{drv}/backend/vbd/{guest}/0", f"/local/domain/{guest}/device/vbd/0"
    for key, value in (("hvd-incarnation", b"1"), ("state", b"4")):
        board.h.store.write(DOM0, 0, f"{back}/{key}", value)
    takes_over(board, drv)
    answers = answered(board, drv)
    assert answers[m.StoreWatch(f"{front}/state", f"{front}/state", True)] == (None, ())
    keys, _ = answers[m.StoreReadAll(f"backend/vbd/{guest}/0")]
    assert (keys["hvd-incarnation"], keys["state"], keys["params"]) == (b"2", b"2", f"{IMAGE}0".encode())
    board.h.store.write(guest, 0, f"{front}/state", b"3")
    board.h.collect_store_events()
    queue = board.h.upcalls[drv]
    assert (f"{front}/state", f"{front}/state") in queue.unsent
    assert queue.follows == {f"{front}/state": front}


def test_nothing_is_asked_before_all_of_the_dead_is_taken_back(board, drv):
    client(board, drv)
    board.hardware.calls.clear()
    takes_over(board, drv)
    names = [call[0] for call in board.hardware.calls]
    assert names.index("release_medium") < names.index("release_domain") < names.index("open_medium")
    assert names.index("open_medium") < names.index("let_run")


def test_it_is_kept_until_the_spare_is_ready_for_a_broker_that_dies(board, drv):
    client(board, drv)
    takes_over(board, drv)
    kept = board.h.domains[drv].ahead
    assert kept
    assert pickle.loads(pickle.dumps(board.h.domains[drv])).ahead == kept
    board.h.domain_ready(drv, board.now)
    assert board.h.domains[drv].ahead == ()


def test_a_spare_that_dies_in_the_middle_leaves_nothing_of_it(board, drv):
    guest, (one,) = client(board, drv)
    takes_over(board, drv)
    board.dies(drv)
    assert (board.h.domains[drv].life, board.h.domains[drv].ahead) == (Life.BACKING_OFF, ())
    assert not board.h.grants.tables[drv].mappings
    assert not board.h.media.opened
    assert board.h.channels.status(guest, one.port)["status"] == PortState.UNBOUND


def test_what_a_client_has_taken_away_meanwhile_is_not_had(board, drv):
    guest, (one,) = client(board, drv)
    board.dies(guest)
    takes_over(board, drv)
    assert one.asked & answered(board, drv).keys() == {m.PhysdevOpenMedium(guest, "vbd", 0)}
    assert not board.h.grants.tables[drv].mappings


def test_a_medium_that_the_host_refuses_now_is_asked_for_by_the_spare_and_the_refusal_is_recorded(board, drv):
    guest, _ = client(board, drv)
    board.hardware.busy.add(f"{IMAGE}0")
    takes_over(board, drv)
    assert m.PhysdevOpenMedium(guest, "vbd", 0) not in answered(board, drv)
    assert [refusal[0] for refusal in board.hardware.refusals] == ["medium"]


def test_who_hosts_no_backends_finds_nothing_answered(board):
    dom = board.boot("drv", spare=True)
    spare_of(board, dom)
    client(board, dom)
    takes_over(board, dom)
    assert (board.h.domains[dom].ahead, board.h.grants.tables[dom].mappings) == ((), {})


def test_descriptors_are_bounded_and_go_to_whole_devices_first(board, drv):
    _, one = client(board, drv, "one")
    for number in range(7):
        client(board, drv, f"other{number}")
    takes_over(board, drv)
    domain = board.h.domains[drv]
    assert sum(len(references) for *_, references in domain.ahead) <= ahead.DESCRIPTORS_MAX
    assert one[0].asked <= answered(board, drv).keys()
    sizes = [len(references) for _, references in ahead.messages(domain.ahead)]
    assert max(sizes) <= DESCRIPTORS_PER_MESSAGE
    told = [entry for entries, _ in ahead.messages(domain.ahead) for entry in entries]
    assert [entry[0] for entry in told] == [call for call, *_ in domain.ahead]


def test_what_is_too_large_to_be_told_ahead_is_left_to_be_read(board, drv):
    guest, _ = client(board, drv)
    back = f"/local/domain/{drv}/backend/vbd/{guest}/0"
    for number in range(10):
        board.h.store.write(DOM0, 0, f"{back}/large{number}", b"x" * 2000)
    takes_over(board, drv)
    assert m.StoreReadAll(f"backend/vbd/{guest}/0") not in answered(board, drv)


def test_answers_of_any_size_go_into_messages_that_a_socket_takes():
    entry = pack_call(m.StoreReadAll("a"))
    many = tuple((entry, {"a": b"x" * 16_000}, ()) for _ in range(8))
    sizes = [sum(len(value["a"]) for _, value, _ in entries) for entries, _ in ahead.messages(many)]
    assert sum(sizes) == 8 * 16_000
    assert max(sizes) < 48_000
    assert list(ahead.messages(())) == [([], ())]


def test_one_that_is_not_ready_and_asks_the_same_again_is_answered_as_anybody(board, drv):
    guest, (one,) = client(board, drv)
    takes_over(board, drv)
    again = handle(board.h, drv, m.GnttabMap(guest, one.ring, 1, True), board.now)
    assert again.descriptors == ()
    assert len(board.h.grants.tables[drv].mappings) == 3
