"""Lives of domains: when they start, what a death takes with it, and what no failure of one does to the others."""

import errno
from dataclasses import replace

import pytest

from hvd.broker.domain import Life, Shutdown
from hvd.broker.errors import Refused
from hvd.broker.event_channels import VIRQ_TIMER, PortState
from hvd.broker.grant_tables import UnmapNotify
from hvd.broker.hardware import NoHardware
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.lives import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from hvd.transport.ids import DOM0, DOMID_FIRST_RESERVED, DomId, Incarnation, Port
from hvd.transport.limits import DOMAINS_MAX, HEARTBEAT_MS_LEAST, IO_BPS_LEAST
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy

MS, S = 1_000_000, 1_000_000_000
ECHO = DeviceConfig("echo", 0, "drv")


def refusal(call, *args, **named):
    with pytest.raises(Refused) as refused:
        call(*args, **named)
    return refused.value.errno


def events(board):
    """What was announced: (event, name)."""
    return [(event.event, event.name or None) for _, event in board.hardware.named("publish")]


def signals(board, dom):
    return [number for _, domain, number in board.hardware.named("signal_domain") if domain.domid == dom]


def life(board, dom):
    return board.h.domains[dom].life


def store(board, path):
    return board.h.store.read(DOM0, 0, path).decode()


# ---- creating --------------------------------------------------------------------------------------------------------


def test_a_domain_starts_when_all_that_it_comes_after_is_ready(board):
    drv = board.create("drv")
    guest = board.create("guest", devices=[ECHO], after=["drv"])
    assert (life(board, drv), life(board, guest)) == (Life.STARTING, Life.WAITING)
    board.started(drv)
    assert life(board, guest) is Life.WAITING
    board.h.domain_ready(drv, board.now)
    assert life(board, guest) is Life.STARTING


def test_one_that_is_ready_before_its_process_has_been_reported_is_ready_then(board):
    drv = board.create("drv")
    guest = board.create("guest", after=["drv"])
    board.h.domain_ready(drv, board.now)
    assert (board.h.domains[drv].serves, life(board, guest)) == (False, Life.WAITING)
    board.started(drv)
    assert (board.h.domains[drv].serves, life(board, guest)) == (True, Life.STARTING)


def test_everybody_comes_after_domain_0_whatever_its_name_is():
    h = Hypervisor(b"secret", 0)
    h.create(DomainConfig("control", "hvd:dom0"), 0)
    h.started(DOM0, Incarnation(1), 100, 0)
    guest = h.create(DomainConfig("guest", "hvd:idle"), 0)
    waiting = guest.life
    h.domain_ready(DOM0, 0)
    assert (waiting, guest.life) == (Life.WAITING, Life.STARTING)


def test_one_that_was_ready_and_died_is_nobody_to_start_after(board):
    drv = board.boot("drv", on_crash="preserve")
    board.dies(drv)
    guest = board.create("guest", after=["drv"])
    assert life(board, guest) is Life.WAITING


def test_a_driver_domain_that_comes_back_lets_those_start_that_waited_for_it(board):
    drv = board.boot("drv")
    board.dies(drv)
    guest = board.create("guest", devices=[ECHO])
    assert life(board, guest) is Life.WAITING
    board.started(drv)
    board.h.domain_ready(drv, board.now)
    assert life(board, guest) is Life.STARTING


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a\nb", "a b", "x" * 65, "-v", "\u00e9"])
def test_a_name_that_is_no_file_name_and_no_store_path_is_refused(board, name):
    assert refusal(board.create, name) == errno.EINVAL
    assert len(board.h.domains) == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "Domain-0"}, errno.EEXIST),
        ({"after": ["nobody"]}, errno.EINVAL),
        ({"after": ["ivi"]}, errno.EINVAL),
        ({"devices": [ECHO]}, errno.EINVAL),
        ({"on_crash": "explode"}, errno.EINVAL),
        ({"on_watchdog": ""}, errno.EINVAL),
        ({"heartbeat_ms": HEARTBEAT_MS_LEAST - 1}, errno.EINVAL),
        ({"io_bps": IO_BPS_LEAST - 1}, errno.EINVAL),
    ],
)
def test_a_config_that_cannot_be_is_refused_and_changes_nothing(board, fields, expected):
    config = replace(DomainConfig("ivi", "hvd:idle"), **fields)
    assert refusal(board.h.create, config, board.now) == expected
    assert board.create("next") == 1


def test_domids_are_never_used_twice(board):
    first = board.boot("one")
    board.h.destroy(first, board.now)
    board.dies(first)
    assert board.create("one") == first + 1


def test_a_machine_has_at_most_domains_max_domains(board):
    for n in range(DOMAINS_MAX - 1):
        board.h.domains[DomId(1000 + n)] = board.h.domains[DOM0]
    assert refusal(board.create, "one-more") == errno.ENOSPC


def test_domids_end_before_the_reserved_ones(board):
    board.h.next_domid = 0x7FF0
    assert refusal(board.create, "one-more") == errno.ENOSPC


# ---- what a start is -------------------------------------------------------------------------------------------------


def test_a_started_domain_has_its_console_its_upcall_port_and_its_place_in_the_store(board):
    dom = board.create("ivi", memory=32)
    assert board.h.channels.status(dom, Port(1))["status"] == PortState.VIRQ
    assert board.h.channels.status(dom, Port(2)) == {"status": 1, "remote_dom": 0, "remote_port": 0, "virq": 0}
    assert store(board, f"/local/domain/{dom}/name") == "ivi"
    assert store(board, f"/local/domain/{dom}/memory/target") == "32768"
    assert store(board, f"/local/domain/{dom}/console/ring-ref") == "0"
    assert store(board, f"/local/domain/{dom}/console/port") == "2"


def test_a_process_is_asked_for_before_it_is_told_who_it_is_and_readies_itself_while_its_endpoint_is_opened(board):
    board.create("ivi")
    steps = ["create_domain", "fork_domain", "start_domain", "deliver_birth", "open_endpoint", "let_run"]
    assert [call[0] for call in board.hardware.named(*steps)[-6:]] == steps


def test_a_domain_created_paused_knows_who_it_is_and_is_not_told_to_run_before_it_is_unpaused(board):
    dom = board.create("ivi", paused=True)
    board.started(dom)
    assert (life(board, dom), signals(board, dom)) == (Life.PAUSED, [])
    assert [call[0] for call in told(board, dom)] == ["deliver_birth"]
    board.h.unpause(dom, board.now)
    board.h.pause(dom, board.now)
    board.h.unpause(dom, board.now)
    assert [call[0] for call in told(board, dom)] == ["deliver_birth", "let_run"]
    assert signals(board, dom) == [SIGCONT, SIGSTOP, SIGCONT]


def told(board, dom):
    return [call for call in board.hardware.named("deliver_birth", "let_run") if call[1].domid == dom]


def test_the_start_of_an_incarnation_that_is_over_is_none(board):
    dom = board.boot("ivi")
    board.dies(dom)
    board.h.started(dom, Incarnation(1), 77, board.now)
    assert (board.h.domains[dom].pid, life(board, dom)) == (None, Life.STARTING)
    board.h.started(DomId(99), Incarnation(1), 77, board.now)


def test_a_process_that_is_reported_twice_is_one(board):
    dom = board.boot("ivi")
    board.h.started(dom, Incarnation(1), 77, board.now)
    assert life(board, dom) is Life.RUNNING


def test_only_the_living_incarnation_of_a_domid_may_run(board):
    dom = board.boot("ivi", on_crash="preserve")
    assert board.h.is_expected(dom, Incarnation(1))
    assert not board.h.is_expected(dom, Incarnation(2))
    assert not board.h.is_expected(DomId(99), Incarnation(1))
    board.dies(dom)
    assert not board.h.is_expected(dom, Incarnation(1))


# ---- a start that fails ----------------------------------------------------------------------------------------------

REFUSED = ["create_domain", "create_channel", "create_extent", "start_domain", "open_endpoint"]


def assert_failed_cleanly(board, dom, text):
    domain = board.h.domains[dom]
    assert domain.life is Life.FAILED
    assert text in domain.last_death
    assert ("failed", domain.name) in events(board)
    assert board.h.channels.ports[dom] == {}
    assert board.h.grants.tables[dom].extents == {}
    assert dom not in board.h.upcalls
    assert board.h.next_deadline_ns() is None


@pytest.mark.parametrize("refused", REFUSED)
def test_a_domain_that_the_host_has_no_room_for_fails_alone(board, refused):
    board.hardware.refused = {refused}
    dom = board.create("ivi")
    board.hardware.refused = set()
    assert_failed_cleanly(board, dom, "the host refused: Too many open files")
    other = board.boot("other")
    assert life(board, other) is Life.RUNNING


@pytest.mark.parametrize("refused", REFUSED)
def test_a_restart_that_the_host_has_no_room_for_fails_the_domain_and_nothing_else(board, refused):
    drv = board.boot("drv")
    guest = board.boot("guest", devices=[ECHO])
    board.hardware.refused = {refused}
    board.dies(drv)
    board.hardware.refused = set()
    assert_failed_cleanly(board, drv, "the host refused")
    assert life(board, guest) is Life.RUNNING
    board.h.request_shutdown(drv, reboot=True, grace_ms=0, now_ns=board.now)
    assert life(board, drv) is Life.STARTING


def test_a_retry_that_the_host_has_no_room_for_fails_the_domain(board):
    dom = board.create("ivi")
    board.started(dom)
    board.dies(dom)
    assert life(board, dom) is Life.BACKING_OFF
    board.hardware.refused = {"create_channel"}
    board.after(S)
    assert_failed_cleanly(board, dom, "the host refused")


def test_one_that_becomes_ready_is_not_harmed_by_another_that_cannot_start(board):
    drv = board.create("drv")
    first, second = board.create("first", after=["drv"]), board.create("second", after=["drv"])
    board.started(drv)
    board.hardware.refused = {"start_domain"}
    board.h.domain_ready(drv, board.now)
    assert (life(board, drv), life(board, first), life(board, second)) == (Life.RUNNING, Life.FAILED, Life.FAILED)


def test_a_device_whose_keys_are_no_store_names_fails_its_domain(board):
    board.boot("drv")
    dom = board.create("ivi", devices=[DeviceConfig("echo", 0, "drv", backend_keys={"not//a name": "x"})])
    assert_failed_cleanly(board, dom, "cannot be started: ")
    assert life(board, board.boot("other")) is Life.RUNNING


def test_a_domain_0_that_cannot_start_ends_the_machine():
    hardware = NoHardware()
    hardware.refusals = [["start", 0, errno.EMFILE]]
    h = Hypervisor(b"secret", 0, hardware)
    h.create(DomainConfig("Domain-0", "hvd:dom0"), 0)
    assert h.stopping is False


def test_a_domain_that_failed_to_start_can_be_destroyed(board):
    board.hardware.refused = {"create_domain"}
    dom = board.create("ivi")
    board.hardware.refused = set()
    board.h.destroy(dom, board.now)
    assert dom not in board.h.domains
    assert board.create("ivi") == dom + 1


# ---- death -----------------------------------------------------------------------------------------------------------


def test_a_death_takes_ports_grants_mappings_watches_and_transactions_with_it(board):
    drv = board.boot("drv", on_crash="preserve")
    guest = board.boot("guest", on_crash="preserve")
    extent = board.h.grants.allocate(guest, drv, 4, readonly=False)
    ref = board.h.grants.share(guest, extent.id, 0, 4)
    board.h.grants.map(drv, guest, ref, 0, writable=True)
    port = board.h.channels.alloc_unbound(guest, drv)
    board.h.channels.bind_interdomain(drv, guest, port)
    board.h.store.watch(drv, "backend", "token")
    board.h.store.transaction_start(drv)
    board.dies(drv)
    statistics = board.h.store.statistics().domains[drv]
    assert (statistics.watches, statistics.transactions, statistics.events) == (0, 0, 0)
    assert board.h.channels.ports[drv] == {}
    assert board.h.channels.status(guest, port)["status"] == PortState.UNBOUND
    assert board.h.grants.tables[drv].mappings == {}
    board.h.grants.end_access(guest, ref, 4)
    assert board.hardware.named("release_domain")[-1] == ("release_domain", drv)


def test_a_death_removes_the_state_nodes_of_both_kinds_of_ends(board):
    drv = board.boot("drv")
    guest = board.boot("guest", devices=[ECHO])
    front, back = f"/local/domain/{guest}/device/echo/0", f"/local/domain/{drv}/backend/echo/{guest}/0"
    board.h.domains[drv].config = replace(board.h.domains[drv].config, on_crash="preserve")
    assert store(board, f"{front}/backend") == back
    assert store(board, f"{back}/frontend") == front
    board.dies(drv)
    assert "state" not in board.h.store.directory(DOM0, 0, back)
    assert "state" in board.h.store.directory(DOM0, 0, front)


def test_a_restarted_domain_keeps_its_domid_and_counts_its_incarnations(board):
    dom = board.boot("ivi")
    board.dies(dom, "killed by SIGSEGV")
    domain = board.h.domains[dom]
    assert (domain.life, domain.incarnation, domain.restarts) == (Life.STARTING, 2, 1)
    assert (domain.ready, domain.pid, domain.last_death) == (False, None, "killed by SIGSEGV")
    assert store(board, f"/local/domain/{dom}/incarnation") == "2"


def test_a_death_is_heard_once_and_only_of_the_living_incarnation(board):
    dom = board.boot("ivi")
    board.dies(dom)
    board.h.died(dom, Incarnation(1), "again", board.now)
    assert (board.h.domains[dom].incarnation, life(board, dom)) == (2, Life.STARTING)
    board.h.died(DomId(99), Incarnation(1), "who", board.now)


@pytest.mark.parametrize(("reason", "text", "death"), [
    (3, "ValueError: x", "crash: ValueError: x"), (0, "", "poweroff"), (4, "", "watchdog"),
])
def test_what_a_domain_said_of_its_end_is_the_reason_of_its_death(board, reason, text, death):
    dom = board.boot("ivi", on_poweroff="preserve", on_crash="preserve", on_watchdog="preserve")
    board.h.domain_shutdown(dom, reason, text)
    assert (life(board, dom), signals(board, dom)) == (Life.DYING, [SIGKILL])
    board.dies(dom)
    assert board.h.domains[dom].last_death == death


def test_a_reason_that_xen_has_no_name_for_ends_a_domain_for_good(board):
    dom = board.boot("ivi", on_poweroff="preserve", on_crash="preserve")
    board.h.domain_shutdown(dom, 6, "")
    board.dies(dom)
    assert dom not in board.h.domains


def test_a_paused_domain_is_not_woken_by_a_signal(board):
    dom = board.boot("ivi")
    board.h.pause(dom, board.now)
    assert refusal(board.h.kill, dom, SIGCONT) == errno.EINVAL
    assert signals(board, dom) == [SIGSTOP]


def test_domids_that_are_used_up_are_said_to_be(board):
    board.h.next_domid = DOMID_FIRST_RESERVED
    with pytest.raises(Refused, match="32752 domids have been used"):
        board.create("late")


def test_one_that_does_not_run_cannot_shut_down(board):
    dom = board.boot("ivi", on_crash="preserve")
    board.dies(dom)
    assert refusal(board.h.domain_shutdown, dom, 0, "") == errno.ESRCH
    assert board.h.domains[dom].shutdown is None


def test_a_domain_that_is_asked_to_reboot_and_powers_off_reboots_and_a_crash_stays_a_crash(board):
    dom = board.boot("ivi", on_crash="preserve")
    board.h.request_shutdown(dom, reboot=True, grace_ms=1000, now_ns=board.now)
    board.h.domain_shutdown(dom, 0, "")
    board.dies(dom)
    assert (life(board, dom), board.h.domains[dom].last_death) == (Life.STARTING, "reboot")
    board.started(dom)
    board.h.request_shutdown(dom, reboot=True, grace_ms=1000, now_ns=board.now)
    board.h.domain_shutdown(dom, 3, "no")
    board.dies(dom)
    assert life(board, dom) is Life.PRESERVED


@pytest.mark.parametrize(("action", "expected"), [
    ("destroy", None), ("coredump-destroy", None), ("preserve", Life.PRESERVED),
    ("restart", Life.STARTING), ("coredump-restart", Life.STARTING),
])
def test_the_crash_action_is_done(board, action, expected):
    dom = board.boot("ivi", on_crash=action)
    board.dies(dom)
    assert (board.h.domains[dom].life if dom in board.h.domains else None) == expected


def test_rename_restart_keeps_the_dead_one_and_starts_another_under_its_name(board):
    dom = board.boot("ivi", on_crash="rename-restart")
    board.dies(dom)
    old, new = board.h.domains[dom], board.h.by_name("ivi")
    assert (old.name, old.life) == (f"ivi-{dom}", Life.PRESERVED)
    assert new is not None
    assert (new.domid, new.life, new.incarnation) == (dom + 1, Life.STARTING, 1)


def test_rename_restart_without_room_for_another_keeps_the_dead_one(board):
    dom = board.boot("ivi", on_crash="rename-restart")
    board.h.next_domid = 0x7FF0
    board.dies(dom)
    assert life(board, dom) is Life.PRESERVED
    assert "could not be replaced" in board.h.domains[dom].last_death


def test_a_preserved_domain_no_longer_hosts_its_successors_devices(board):
    drv = board.boot("drv", on_crash="rename-restart")
    guest = board.boot("guest", devices=[ECHO])
    board.dies(drv)
    assert board.h.client_devices(board.h.domains[drv]) == []
    successor = board.h.by_name("drv")
    assert successor is not None
    assert [client.domid for client, _ in board.h.client_devices(successor)] == [guest]


def test_a_crash_loop_ends_in_failed_and_only_reboot_moves_it(board):
    dom = board.boot("ivi", restart=RestartPolicy(limit=2))
    for _ in range(3):
        board.dies(dom)
        if life(board, dom) is Life.STARTING:
            board.started(dom)
            board.h.domain_ready(dom, board.now)
    assert life(board, dom) is Life.FAILED
    assert "2 restarts within 10 s" in board.h.domains[dom].last_death
    board.h.request_shutdown(dom, reboot=True, grace_ms=0, now_ns=board.now)
    assert life(board, dom) is Life.STARTING


def test_a_broken_start_is_tried_again_after_its_delay(board):
    dom = board.create("ivi")
    board.started(dom)
    board.dies(dom)
    assert life(board, dom) is Life.BACKING_OFF
    assert board.h.next_deadline_ns() == board.now + 100 * MS
    board.after(99 * MS)
    assert life(board, dom) is Life.BACKING_OFF
    board.after(1 * MS)
    assert life(board, dom) is Life.STARTING
    assert board.h.next_deadline_ns() is None


def test_a_domain_that_never_started_died_too(board):
    dom = board.create("ivi")
    board.dies(dom, "never started: fork: Resource temporarily unavailable")
    assert life(board, dom) is Life.BACKING_OFF
    assert board.h.domains[dom].last_death.startswith("never started")


@pytest.mark.parametrize("action", ["destroy", "preserve", "coredump-destroy"])
def test_a_domain_0_that_is_not_restarted_ends_the_machine(board, action):
    board.h.domains[DOM0].config = replace(board.h.domains[DOM0].config, on_crash=action)
    board.dies(DOM0)
    assert board.h.stopping is False
    assert DOM0 in board.h.domains


@pytest.mark.parametrize("action", ["restart", "rename-restart"])
def test_a_domain_0_that_crashes_comes_back_as_domain_0(board, action):
    board.h.domains[DOM0].config = replace(board.h.domains[DOM0].config, on_crash=action)
    board.dies(DOM0)
    assert (life(board, DOM0), board.h.domains[DOM0].incarnation, board.h.stopping) == (Life.STARTING, 2, None)


@pytest.mark.parametrize(("reason", "reboot"), [(Shutdown.POWEROFF, False), (Shutdown.REBOOT, True)])
def test_domain_0s_end_is_the_machines(board, reason, reboot):
    board.h.domain_shutdown(DOM0, reason, "")
    board.dies(DOM0)
    assert board.h.stopping is reboot
    assert board.hardware.calls[-1] == ("stop_machine", reboot)


# ---- control ---------------------------------------------------------------------------------------------------------


def test_destroying_waits_for_the_fence(board):
    dom = board.boot("ivi")
    board.h.destroy(dom, board.now)
    assert (life(board, dom), signals(board, dom)) == (Life.DYING, [SIGKILL])
    assert board.h.channels.ports[dom]
    board.dies(dom)
    assert dom not in board.h.domains
    assert dom not in board.h.channels.ports
    assert dom not in board.h.grants.tables
    assert not board.h.store.is_introduced(dom)
    assert refusal(board.h.domain, dom) == errno.ESRCH


@pytest.mark.parametrize("action", ["restart", "preserve", "rename-restart"])
def test_a_destroyed_domain_is_gone_whatever_its_actions_say(board, action):
    dom = board.boot("ivi", on_crash=action, on_poweroff=action)
    board.h.destroy(dom, board.now)
    board.dies(dom)
    assert board.h.by_name("ivi") is None


def test_one_without_a_process_is_destroyed_at_once(board):
    waiting = board.create("waiting", after=[board.h.domains[board.create("slow")].name])
    failed = board.boot("failed", on_crash="preserve")
    board.dies(failed)
    for dom in (waiting, failed):
        board.h.destroy(dom, board.now)
        assert dom not in board.h.domains


def test_domain_0_cannot_be_destroyed(board):
    assert refusal(board.h.destroy, DOM0, board.now) == errno.EPERM


def test_destroying_a_driver_domain_leaves_its_clients_alive(board):
    drv = board.boot("drv")
    guest = board.boot("guest", devices=[ECHO])
    board.h.destroy(drv, board.now)
    board.dies(drv)
    assert life(board, guest) is Life.RUNNING
    board.dies(guest)
    assert life(board, guest) is Life.STARTING
    board.h.destroy(guest, board.now)
    board.dies(guest)
    assert set(board.h.domains) == {DOM0}


def test_pausing_stops_the_process_and_its_time(board):
    dom = board.boot("ivi")
    domain = board.h.domains[dom]
    board.h.pause(dom, board.now)
    then = domain.clock.system_time_ns(board.now)
    assert refusal(board.h.pause, dom, board.now) == errno.EINVAL
    board.now += S
    assert domain.clock.system_time_ns(board.now) == then
    board.h.unpause(dom, board.now)
    assert refusal(board.h.unpause, dom, board.now) == errno.EINVAL
    assert domain.clock.system_time_ns(board.now) == then
    assert signals(board, dom) == [SIGSTOP, SIGCONT]


def test_a_request_to_shut_down_asks_in_the_store_and_kills_after_the_grace(board):
    dom = board.boot("ivi", on_poweroff="preserve")
    board.h.request_shutdown(dom, reboot=False, grace_ms=50, now_ns=board.now)
    assert store(board, f"/local/domain/{dom}/control/shutdown") == "poweroff"
    assert signals(board, dom) == [SIGTERM]
    board.after(49 * MS)
    assert life(board, dom) is Life.RUNNING
    board.after(1 * MS)
    assert (life(board, dom), signals(board, dom)) == (Life.DYING, [SIGTERM, SIGKILL])
    board.dies(dom)
    assert board.h.domains[dom].last_death == "poweroff: killed after its grace"


def test_a_paused_domain_is_let_go_on_to_shut_down(board):
    dom = board.boot("ivi")
    board.h.pause(dom, board.now)
    board.h.request_shutdown(dom, reboot=False, grace_ms=50, now_ns=board.now)
    assert life(board, dom) is Life.RUNNING


def test_there_is_nothing_to_shut_down_or_reboot_in_what_does_not_run(board):
    board.create("slow")
    waiting = board.create("waiting", after=["slow"])
    dead = board.boot("dead", on_crash="preserve")
    board.dies(dead)
    for dom, reboot in ((waiting, False), (waiting, True), (dead, False)):
        assert refusal(board.h.request_shutdown, dom, reboot=reboot, grace_ms=0, now_ns=board.now) == errno.EINVAL
    assert life(board, waiting) is Life.WAITING


def test_only_a_process_can_be_sent_a_signal(board):
    dom = board.boot("ivi", on_crash="preserve")
    board.h.kill(dom, 11)
    assert signals(board, dom) == [11]
    board.dies(dom)
    assert refusal(board.h.kill, dom, 9) == errno.ESRCH
    assert refusal(board.h.kill, DomId(99), 9) == errno.ESRCH


def test_a_domain_taken_down_for_what_it_did_died_of_that(board):
    dom = board.boot("ivi", on_crash="preserve")
    board.h.crash(dom, "its hypercall 7 was found open")
    board.dies(dom)
    assert board.h.domains[dom].last_death == "crash: its hypercall 7 was found open"
    board.h.crash(dom, "again")
    assert life(board, dom) is Life.PRESERVED


# ---- time ------------------------------------------------------------------------------------------------------------


def test_a_timer_raises_its_virq_once_in_system_time(board):
    dom = board.boot("ivi")
    port = board.h.channels.bind_virq(dom, VIRQ_TIMER)
    channel = board.h.channels.ports[dom][port].channel
    board.will_be_due(dom, timer_ns=500 * MS)
    board.after(400 * MS)
    board.h.pause(dom, board.now)
    board.after(S)
    board.h.unpause(dom, board.now)
    board.hardware.calls.clear()
    board.after(99 * MS)
    assert not board.hardware.named("raise_end")
    board.after(1 * MS)
    board.after(S)
    assert board.hardware.named("raise_end") == [("raise_end", channel, 0)]
    assert board.h.next_deadline_ns() is None


def test_what_is_due_once_leaves_what_is_due_later(board):
    dom = board.boot("ivi", on_watchdog="preserve")
    board.will_be_due(dom, timer_ns=S, watchdogs={1: 2 * S})
    board.after(S)
    assert (board.h.domains[dom].timer_ns, life(board, dom)) == (None, Life.RUNNING)
    board.after(S)
    assert life(board, dom) is Life.DYING


def test_a_timer_without_a_virq_is_silent(board):
    dom = board.boot("ivi")
    board.will_be_due(dom, timer_ns=1)
    board.after(S)
    assert board.h.domains[dom].timer_ns is None


def test_a_watchdog_that_runs_out_ends_its_domain_and_its_key_decides(board):
    dom = board.boot("ivi", on_watchdog="preserve", on_crash="restart")
    board.will_be_due(dom, watchdogs={1: 2 * S, 2: None})
    board.after(2 * S)
    assert (life(board, dom), signals(board, dom)) == (Life.DYING, [SIGKILL])
    assert board.h.next_deadline_ns() is None
    board.dies(dom)
    assert life(board, dom) is Life.PRESERVED
    assert board.h.domains[dom].last_death == "watchdog: its watchdog timer ran out"


def test_a_domain_that_hangs_ends_as_by_a_watchdog_and_its_key_decides(board):
    dom = board.boot("ivi", on_watchdog="preserve", on_crash="restart", heartbeat_ms=HEARTBEAT_MS_LEAST)
    board.h.hung(dom, board.h.domains[dom].incarnation, "it hangs: stopped")
    assert (life(board, dom), signals(board, dom)[-1]) == (Life.DYING, SIGKILL)
    board.dies(dom)
    assert (life(board, dom), board.h.domains[dom].last_death) == (Life.PRESERVED, "watchdog: it hangs: stopped")
    assert ("hangs", "ivi") in events(board)


@pytest.mark.parametrize("life_", [Life.PAUSED, Life.DUMPING, Life.DYING, Life.STARTING])
def test_a_hang_of_a_domain_that_does_not_run_any_more_is_none(board, life_):
    dom = board.boot("ivi")
    board.h.domains[dom].life = life_
    board.h.hung(dom, board.h.domains[dom].incarnation, "it hangs")
    board.h.hung(dom, Incarnation(7), "it hangs")
    board.h.hung(DomId(99), Incarnation(1), "it hangs")
    assert (life(board, dom), board.h.domains[dom].shutdown) == (life_, None)


def test_two_watchdogs_and_a_grace_that_end_together_kill_once_and_for_all(board):
    dom = board.boot("ivi", on_watchdog="preserve")
    board.will_be_due(dom, watchdogs={1: S, 2: S})
    board.h.request_shutdown(dom, reboot=False, grace_ms=1000, now_ns=board.now)
    board.after(2 * S)
    assert life(board, dom) is Life.DYING
    board.after(S)
    board.dies(dom)
    assert life(board, dom) is Life.PRESERVED


def test_watchdogs_and_timers_do_not_outlive_their_incarnation(board):
    dom = board.boot("ivi")
    board.will_be_due(dom, watchdogs={1: S})
    board.will_be_due(dom, timer_ns=S)
    board.dies(dom)
    board.started(dom)
    assert board.h.next_deadline_ns() is None


# ---- what a hostile guest may leave behind ---------------------------------------------------------------------------


@pytest.mark.parametrize("port", [1, 2, 999], ids=["its upcall port", "its console's", "one it never had"])
def test_a_death_notice_on_any_port_at_all_harms_nobody(board, port):
    guest = board.boot("guest")
    extent = board.h.grants.allocate(guest, DOM0, 1, readonly=False)
    board.h.grants.set_share_notify(guest, extent.id, UnmapNotify(None, Port(port)))
    board.dies(guest)
    assert life(board, guest) is Life.STARTING


def test_rename_restart_of_a_domain_that_never_starts_ends_at_the_limit(board):
    board.create("ivi", on_crash="rename-restart", restart=RestartPolicy(limit=3, window_ms=10_000, delay_ms=10))
    for _ in range(20):
        living = [d for d in board.h.domains.values() if d.life is Life.STARTING]
        for domain in living:
            board.started(domain.domid)
            board.dies(domain.domid)
        board.after(100 * MS)
    names = sorted(d.name for d in board.h.domains.values())
    assert len(names) == len(set(names)) == 5  # dom0, three that were kept, the one that failed
    assert board.h.by_name("ivi").life is Life.FAILED


def test_guests_that_come_and_go_leave_nothing_in_their_driver_domains_directory(board):
    board.boot("drv")
    for n in range(5):
        guest = board.boot(f"guest{n}", devices=[ECHO], on_crash="destroy")
        board.dies(guest)
    assert board.h.store.directory(DOM0, 0, "/local/domain/1/backend/echo") == []


def test_a_request_to_stop_that_comes_before_the_process_is_made_when_it_is_there(board):
    dom = board.create("ivi")
    board.h.request_shutdown(dom, reboot=False, grace_ms=1000, now_ns=board.now)
    board.hardware.calls.clear()
    board.started(dom)
    assert signals(board, dom) == [SIGTERM]


def special_events(board) -> list[str]:
    """What the host's watches of the two special paths have heard."""
    return [call[1].path for call in board.hardware.named("store_event") if call[1].path.startswith("@")]


def test_who_watches_domains_come_and_go_hears_of_a_restart_in_place(board):
    for path in ("@introduceDomain", "@releaseDomain"):
        board.h.store.watch(DOM0, path, "token", connection=9)
    board.h.collect_store_events()
    board.hardware.calls.clear()
    dom = board.boot("guest", on_crash="restart")
    assert special_events(board) == ["@introduceDomain"]
    board.dies(dom)
    assert special_events(board) == ["@introduceDomain", "@releaseDomain", "@introduceDomain"]
    assert board.h.store.is_introduced(dom)
    board.h.destroy(dom, board.now)
    board.dies(dom)
    assert special_events(board)[3:] == ["@releaseDomain"], "its end and its removal are one moment"
