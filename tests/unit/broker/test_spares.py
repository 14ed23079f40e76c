"""Spares in the tables: when one is begun, what it may hold, how it takes over, and what its own death does not do."""

import errno

import pytest

from hvd.broker import changes, hotplug, spares
from hvd.broker.domain import Life
from hvd.broker.event_channels import PortState
from hvd.broker.hardware import NoHardware
from hvd.broker.spares import DEATHS_MAX, DELAY_NS, QUIET_NS
from hvd.broker.sysctl import describe
from hvd.transport.ids import DOM0, Port
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy

DISK = DeviceConfig("vbd", 768, "drv")
OFFER = {"hvd-incarnation": "1", "state": "4", "sectors": "8"}


@pytest.fixture
def drv(board):
    """A driver domain whose spare stands by."""
    dom = board.boot("drv", spare=True)
    stand_by(board, dom)
    return dom


def stand_by(board, dom):
    """Have the spare that is due begun, its process reported, and its report come in."""
    board.after(QUIET_NS)
    domain = board.h.domains[dom]
    board.h.started(dom, domain.spare.incarnation, 1000 + domain.spare.incarnation, board.now)
    board.h.spare_reports(dom, domain.spare.incarnation, {"cgroup": "refused"}, "")


def spare_dies(board, dom, how="killed by SIGKILL"):
    board.h.died(dom, board.h.domains[dom].spare.incarnation, how, board.now)


def described(board, dom):
    return describe(board.h, board.h.domains[dom], board.now)["spare"]


def announced(board, event):
    return [told.detail for _, told in board.hardware.named("publish") if told.event == event]


def write(board, path, keys):
    for key, value in keys.items():
        board.h.store.write(DOM0, 0, f"{path}/{key}", value.encode())


def read(board, path):
    return board.h.store.read(DOM0, 0, path).decode()


# ---- while it stands by ----------------------------------------------------------------------------------------------


def test_a_spare_is_begun_when_its_domain_has_been_ready_for_a_while(board):
    dom = board.create("drv", spare=True)
    board.started(dom)
    board.after(QUIET_NS)
    assert (board.h.domains[dom].spare, described(board, dom)) == (None, "none")
    board.h.domain_ready(dom, board.now)
    board.after(QUIET_NS - 1)
    assert board.h.domains[dom].spare is None
    board.after(1)
    assert described(board, dom) == "starting"
    steps = [call[0] for call in board.hardware.named("create_spare", "fork_spare", "start_spare")]
    assert steps == ["create_spare", "fork_spare", "start_spare"]


def test_a_domain_that_wants_none_has_none(board):
    dom = board.boot("drv")
    board.after(QUIET_NS)
    assert (board.h.domains[dom].spare, described(board, dom)) == (None, "")


def test_a_spare_has_no_port_no_grant_no_page_of_its_domain(board):
    dom = board.boot("drv", spare=True)
    before = board.h.channels.ports[dom].copy(), board.h.grants.extents(), board.h.domains[dom].incarnation
    stand_by(board, dom)
    assert (board.h.channels.ports[dom], board.h.grants.extents(), board.h.domains[dom].incarnation) == before
    assert described(board, dom) == "stands by"
    assert announced(board, "spare stands by") == ["2"]


def test_its_process_is_expected_and_another_of_its_domain_is_not(board, drv):
    assert [board.h.is_expected(drv, n) for n in (1, 2, 3)] == [True, True, False]


def test_a_spare_that_dies_is_replaced_under_another_number_and_its_domain_goes_on(board, drv):
    domain = board.h.domains[drv]
    spare = domain.spare
    spare_dies(board, drv)
    assert (domain.life, domain.incarnation, domain.restarts, domain.spare) == (Life.RUNNING, 1, 0, None)
    assert described(board, drv) == "none: killed by SIGKILL"
    released = {call[1] for call in board.hardware.named("release_channel")}
    assert {spare.console_channel, spare.upcall_channel} <= released
    assert ("release_extent", spare.console) in board.hardware.calls
    assert ("release_spare", drv) in board.hardware.calls
    board.after(DELAY_NS)
    assert domain.spare.incarnation == 3


def test_spares_that_die_one_after_another_come_later_each_time_and_then_no_more(board, drv):
    for number in range(DEATHS_MAX):
        spare_dies(board, drv, f"death {number}")
        assert board.h.domains[drv].spare is None
        board.after((DELAY_NS << number) - 1)
        assert board.h.domains[drv].spare is None
        board.after(1)
    assert board.h.domains[drv].spare is None
    (text,) = announced(board, "spare given up")
    assert text == "5 spares in a row died, the last: death 4; no other until the domain is started again"
    assert described(board, drv) == f"none: {text}"
    assert board.h.console[-1] == f"(XEN) domain {drv} drv: {text}"
    board.dies(drv)
    board.started(drv)
    board.h.domain_ready(drv, board.now)
    stand_by(board, drv)
    assert described(board, drv) == "stands by"


def test_a_spare_that_says_why_it_cannot_take_over_is_killed_and_the_reason_kept(board):
    dom = board.boot("drv", spare=True)
    board.after(QUIET_NS)
    board.h.spare_reports(dom, board.h.domains[dom].spare.incarnation, {}, "kernel x.py does not import")
    assert len(board.hardware.named("signal_spare")) == 1
    spare_dies(board, dom)
    assert described(board, dom) == "none: kernel x.py does not import"


def test_a_spare_whose_sandbox_lacks_what_is_required_is_killed(board):
    dom = board.boot("drv", spare=True, sandbox_require=["seccomp"])
    board.after(QUIET_NS)
    board.h.spare_reports(dom, board.h.domains[dom].spare.incarnation, {"seccomp": "no such kernel"}, "")
    assert len(board.hardware.named("signal_spare")) == 1
    spare_dies(board, dom)
    assert described(board, dom) == "none: its sandbox lacks what is required of it: seccomp: no such kernel"


def test_a_report_of_one_that_is_no_spare_any_more_is_nothing(board, drv):
    board.h.spare_reports(drv, 2, {}, "twice")
    board.h.spare_reports(drv, 7, {}, "never was")
    board.h.spare_reports(99, 1, {}, "nobody")
    assert board.hardware.named("signal_spare") == []


@pytest.mark.parametrize("refused", ["create_channel", "create_extent", "create_spare", "start_spare"])
def test_a_host_that_refuses_a_spare_leaves_its_domain_alone_and_is_asked_again(board, refused):
    dom = board.boot("drv", spare=True)
    board.hardware.refused = {refused}
    board.after(QUIET_NS)
    assert (board.h.domains[dom].life, board.h.domains[dom].spare) == (Life.RUNNING, None)
    assert described(board, dom) == "none: the host refused: Too many open files"
    board.hardware.refused = set()
    board.after(DELAY_NS)
    assert described(board, dom) == "starting"


# ---- taking over -----------------------------------------------------------------------------------------------------


def test_at_its_domains_death_it_is_the_domain_and_runs_without_a_fork(board, drv):
    domain, spare = board.h.domains[drv], board.h.domains[drv].spare
    forks = len(board.hardware.named("fork_domain"))
    board.dies(drv)
    assert (domain.life, domain.incarnation, domain.pid, domain.spare) == (Life.RUNNING, 2, 1002, None)
    assert (domain.ready, domain.restarts, domain.sandbox_lacking) == (False, 1, {"cgroup": "refused"})
    board.after(0)
    assert len(board.hardware.named("fork_domain")) == forks
    assert [call[0] for call in board.hardware.named("promote_spare", "let_run")[-2:]] == ["promote_spare", "let_run"]
    ports = board.h.channels.ports[drv]
    assert (ports[Port(1)].channel, ports[Port(2)].channel) == (spare.upcall_channel, spare.console_channel)
    assert board.h.channels.status(drv, Port(1))["status"] == PortState.VIRQ
    assert board.h.grants.tables[drv].refs[0].id == spare.console
    assert announced(board, "starting")[-1] == "its spare takes over"


def test_one_that_the_host_does_not_let_take_over_goes_with_its_domain_and_nothing_of_it_is_left(board, drv):
    """Without root the kernel may refuse to send what it holds under another name."""
    domain, spare, live = board.h.domains[drv], board.h.domains[drv].spare, board.hardware
    live.refused = {"promote_spare"}
    board.dies(drv)
    assert (domain.life, domain.spare, live.refusals) == (Life.FAILED, None, [["promote", drv, errno.EMFILE]])
    assert domain.last_death == "cannot be started: the host refused: Too many open files"
    assert [call[0] for call in live.named("disown_spare", "release_spare")[-2:]] == ["disown_spare", "release_spare"]
    assert {spare.upcall_channel, spare.console_channel} <= {call[1] for call in live.named("release_channel")}
    assert spare.console in {call[1] for call in live.named("release_extent")}


def test_a_replay_refuses_it_alike(board, drv):
    replayed = NoHardware()
    replayed.refusals = [["promote", drv, errno.EMFILE]]
    board.h.attach(replayed)
    board.dies(drv)
    assert (board.h.domains[drv].life, replayed.refusals) == (Life.FAILED, [])


def test_what_the_dead_one_held_is_taken_back_before_its_spare_runs(board, drv):
    board.dies(drv)
    board.after(0)
    steps = [call[0] for call in board.hardware.calls if call[0] in ("release_domain", "promote_spare", "let_run")]
    assert steps[-3:] == ["release_domain", "promote_spare", "let_run"]


def test_it_is_let_run_in_a_command_of_its_own_that_is_due_at_once_and_once(board, drv):
    """What its guests are to hear is in the journal before that."""
    ran = len(board.hardware.named("let_run"))
    board.dies(drv)
    domain = board.h.domains[drv]
    assert (len(board.hardware.named("let_run")), domain.released) == (ran, False)
    assert board.h.next_deadline_ns() == board.now
    board.after(0)
    board.after(0)
    assert (len(board.hardware.named("let_run")), domain.released) == (ran + 1, True)


def test_one_that_dies_before_it_is_let_run_is_not_let_run(board, drv):
    board.dies(drv)
    ran = len(board.hardware.named("let_run"))
    board.dies(drv)
    board.after(0)
    domain = board.h.domains[drv]
    assert (domain.life, domain.runs_at_ns) == (Life.BACKING_OFF, None)
    assert len(board.hardware.named("let_run")) == ran


def test_one_that_has_not_come_to_stand_by_takes_over_all_the_same(board):
    dom = board.boot("drv", spare=True)
    board.after(QUIET_NS)
    board.dies(dom)
    domain = board.h.domains[dom]
    assert (domain.life, domain.incarnation, domain.pid) == (Life.STARTING, 2, None)
    board.h.started(dom, 2, 77, board.now)
    assert (domain.life, domain.pid) == (Life.RUNNING, 77)


def test_its_offer_is_its_predecessors_under_its_own_number(board, drv):
    guest = board.create("guest", devices=[DISK])
    path = f"/local/domain/{drv}/backend/vbd/{guest}/768"
    write(board, path, OFFER)
    board.dies(drv)
    assert {key: read(board, f"{path}/{key}") for key in OFFER} == OFFER | {"hvd-incarnation": "2", "state": "2"}


def test_a_device_that_was_never_offered_is_not(board, drv):
    guest = board.create("guest", devices=[DISK])
    board.dies(drv)
    assert "hvd-incarnation" not in board.h.store.directory(DOM0, 0, f"/local/domain/{drv}/backend/vbd/{guest}/768")


@pytest.mark.parametrize("theirs", [True, False])
def test_it_finds_the_home_of_a_domain_that_has_just_been_started(board, drv, theirs):
    home = f"/local/domain/{drv}"
    fresh = tree(board, home)
    write(board, home, {"data/left": "1", "control/shutdown": "reboot", "own": "1"})
    board.h.store.set_perms(drv, 0, f"{home}/data", [f"n{drv}", "b0"])
    if theirs:
        board.h.store.set_perms(drv, 0, f"{home}/control/shutdown", [f"n{drv}", "b0"])
    else:
        write(board, home, {"control/shutdown/below": "1"})
    board.dies(drv)
    board.after(QUIET_NS)
    changed = {f"{home}/incarnation": "2", f"{home}/console/incarnation": "2"}
    assert tree(board, home) == {path: (changed.get(path, value), perms) for path, (value, perms) in fresh.items()}


def tree(board, path):
    """Path -> (value, permissions) of everything at and below it."""
    store = board.h.store
    nodes = {path: (read(board, path), store.get_perms(DOM0, 0, path))}
    for name in store.directory(DOM0, 0, path):
        nodes |= tree(board, f"{path}/{name}")
    return nodes


def test_domain_0_hears_of_its_console_when_nobody_waits_any_more(board, drv):
    board.dies(drv)
    assert read(board, f"/local/domain/{drv}/console/incarnation") == "1"
    board.after(QUIET_NS)
    assert read(board, f"/local/domain/{drv}/console/incarnation") == "2"


def test_another_spare_is_begun_behind_the_one_that_took_over(board, drv):
    board.dies(drv)
    board.h.domain_ready(drv, board.now)
    stand_by(board, drv)
    assert (board.h.domains[drv].spare.incarnation, described(board, drv)) == (3, "stands by")


def test_taking_over_counts_as_the_restart_that_it_is(board):
    dom = board.boot("drv", spare=True, restart=RestartPolicy(limit=2, window_ms=10**6))
    for _ in range(2):
        stand_by(board, dom)
        board.dies(dom)
        board.h.domain_ready(dom, board.now)
    stand_by(board, dom)
    board.dies(dom)
    assert (board.h.domains[dom].life, board.h.domains[dom].spare) == (Life.FAILED, None)
    assert len(board.hardware.named("disown_spare")) == 1


def test_one_that_dies_before_it_is_ready_is_a_broken_start(board, drv):
    board.dies(drv)
    board.dies(drv)
    assert board.h.domains[drv].life is Life.BACKING_OFF


def test_a_guest_is_told_once_that_its_backend_is_another(board, drv):
    guest = board.boot("guest", devices=[DISK])
    path = f"/local/domain/{drv}/backend/vbd/{guest}/768"
    write(board, path, OFFER)
    board.h.store.watch(guest, f"{path}/state", "t")
    board.h.collect_store_events()
    queue = board.h.upcalls[guest]
    while queue.take() is not None:
        continue
    board.dies(drv)
    assert [key for key in queue.unsent if key[1] == "t"] == [(f"{path}/state", "t")]


# ---- when none is wanted any more ------------------------------------------------------------------------------------

ENDS = {
    "destroyed": lambda board, dom: board.h.destroy(dom, board.now),
    "powered off": lambda board, dom: board.h.domain_shutdown(dom, 0, ""),
    "preserved": lambda board, dom: board.h.domain_shutdown(dom, 3, ""),
    "rebooted": lambda board, dom: board.h.domain_shutdown(dom, 1, ""),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_spare_goes_with_a_domain_that_it_is_not_to_replace(board, end):
    dom = board.boot("drv", spare=True, on_crash="preserve")
    stand_by(board, dom)
    domain, spare = board.h.domains[dom], board.h.domains[dom].spare
    ENDS[end](board, dom)
    assert domain.spare is spare
    board.dies(dom)
    assert domain.spare is None
    assert len(board.hardware.named("disown_spare")) == 1
    assert ("release_spare", dom) in board.hardware.calls
    assert not board.h.is_expected(dom, spare.incarnation)
    assert spares.keys(domain) == ([], [])


def test_a_reboot_boots_anew_under_a_number_that_nobody_had(board, drv):
    board.h.domain_shutdown(drv, 1, "")
    board.dies(drv)
    assert (board.h.domains[drv].incarnation, board.h.domains[drv].life) == (3, Life.STARTING)


CHANGES = {
    "a device more": lambda board, dom: hotplug.attach(board.h, dom, DeviceConfig("echo", 0, "Domain-0")),
    "another name": lambda board, dom: changes.rename(board.h, dom, "drv2"),
    "another configuration": lambda board, dom: changes.set_config(
        board.h, dom, DomainConfig("drv", "hvd:idle", spare=True, memory=99)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_domain_is_made_of_is_what_its_spare_is_made_of(board, drv, change):
    CHANGES[change](board, drv)
    assert board.h.domains[drv].spare is None
    assert len(board.hardware.named("disown_spare")) == 1
    board.after(0)
    domain = board.h.domains[drv]
    assert (domain.spare.incarnation, domain.spare.config) == (3, domain.config)


def test_a_spare_of_what_its_domain_is_not_any_more_does_not_take_over(board, drv):
    board.h.domains[drv].config = DomainConfig("drv", "hvd:idle", spare=True, memory=99)
    board.dies(drv)
    assert (board.h.domains[drv].incarnation, board.h.domains[drv].life) == (3, Life.STARTING)


def test_a_renamed_domains_successor_has_a_spare_of_its_own(board):
    dom = board.boot("drv", spare=True, on_crash="rename-restart")
    stand_by(board, dom)
    board.dies(dom)
    successor = board.h.by_name("drv")
    assert successor.domid != dom
    assert (board.h.domains[dom].spare, successor.spare) == (None, None)
    board.started(successor.domid)
    board.h.domain_ready(successor.domid, board.now)
    board.after(QUIET_NS)
    assert successor.spare.incarnation == 2
