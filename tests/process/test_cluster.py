"""hvd.Cluster over real machines: what it starts, what it says, what it waits for, and that nothing outlives it."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import zmq

import hvd
from hvd.toolstack.cluster import (
    BadRunDir,
    Cluster,
    ClusterError,
    DomainState,
    NoSuchDomain,
    NotReached,
    NotRunning,
    StartFailed,
    connection,
)
from hvd.toolstack.cluster import domain as domain_module
from hvd.toolstack.cluster.process_times import is_stopped
from hvd.transport.end_moments import REAPED_EVENT
from hvd.transport.errors import HvdError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, Port
from hvd.transport.messages import DeviceConfig, DomainConfig, EvtchnStatus, RestartPolicy

DEADLINE_S = 60.0
NEVER_READY = "AUTO_READY = False\ndef main(guest):\n    guest.run_forever()\n"
CRASHING = "AUTO_READY = False\ndef main(guest):\n    print('on my way')\n    raise ValueError('no fuel')\n"
STUBBORN = """
import signal
def main(guest):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    guest.run_forever()
"""
FOREVER = RestartPolicy(limit=0)
DRIVER = DomainConfig("driver", "hvd:driver_domain", driver_domain=True, restart=FOREVER)
GUEST = DomainConfig("guest", "hvd:idle", after=["driver"], restart=FOREVER)


@pytest.fixture
def cluster_config() -> list[DomainConfig]:
    return [GUEST, DRIVER]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[object]:
    """Writes a kernel's text to a file of its own; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / f"kernel{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        return str(path)

    yield write


def members(session: int) -> list[int]:
    """The processes of a machine's session; those that are gone but for their parent's notice do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def wait_dead(pidfd: int) -> None:
    assert select.select([pidfd], [], [], DEADLINE_S)[0]


# ---- starting and ending ---------------------------------------------------------------------------------------------


def test_a_cluster_is_ready_inside_the_block_and_gone_behind_it():
    with hvd.Cluster.build([GUEST, DRIVER]) as cluster:
        infos = cluster.infos()
        assert [info.name for info in infos.values()] == ["Domain-0", "driver", "guest"]
        assert all(info.ready and info.state is DomainState.RUNNING for info in infos.values())
        machine = cluster.connection.machine_pid
        assert len(members(machine)) >= 6
        assert cluster.run_dir.stat().st_mode & 0o777 == 0o700
    assert members(machine) == []
    assert not cluster.run_dir.exists()


def test_a_file_describes_a_cluster(tmp_path):
    (tmp_path / "k.py").write_text("def main(guest):\n    print('arguments:', guest.args)\n    guest.run_forever()\n")
    (tmp_path / "c.toml").write_text('[[domain]]\nname = "one"\nkernel = "k.py"\nargs = ["a", "b"]\n')
    with Cluster.load(tmp_path / "c.toml") as cluster:
        assert cluster.domain("one").state is DomainState.RUNNING


def test_an_empty_cluster_is_dom0_alone():
    with Cluster.build() as cluster:
        assert [domain.name for domain in cluster.domains()] == ["Domain-0"]


def test_a_directory_that_was_named_keeps_its_logs_and_nothing_else(tmp_path):
    with Cluster.build([DRIVER], run_dir=tmp_path / "run"):
        assert (tmp_path / "run" / "control").exists()
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {"log"}


def test_a_long_path_is_no_obstacle(tmp_path):
    run_dir = tmp_path / ("a" * 100) / ("b" * 100)
    with Cluster.build([DRIVER], run_dir=run_dir) as cluster, cluster.events() as events:
        cluster.domain("driver").kill()
        assert events.next(DEADLINE_S)


def test_clusters_run_side_by_side(tmp_path):
    with (
        Cluster.build([DRIVER], run_dir=tmp_path / "a") as first,
        Cluster.build([DRIVER], run_dir=tmp_path / "b") as second,
    ):
        first.domain("driver").kill()
        first.domain("driver").wait_ready()
        assert first.domain("driver").incarnation == 2
        assert second.domain("driver").incarnation == 1
        assert first.connection.machine_pid != second.connection.machine_pid


def test_a_cluster_keeps_nothing_open_of_the_program_that_started_it():
    read, write = os.pipe()
    os.set_inheritable(write, True)
    with Cluster.build():
        os.close(write)
        assert select.select([read], [], [], 0)[0]  # end of file: nobody else can write
    os.close(read)


def test_a_directory_has_one_machine_at_a_time(tmp_path):
    with Cluster.build(run_dir=tmp_path / "run") as cluster:
        with pytest.raises(StartFailed, match="a machine runs in"):
            Cluster.build(run_dir=tmp_path / "run").start()
        assert [domain.name for domain in cluster.domains()] == ["Domain-0"]


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BadRunDir):
        Cluster.build(run_dir=tmp_path).start()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_directory_that_the_host_does_not_make_is_bad_input():
    """Access rights say that root may make one there; only the attempt says that nobody can."""
    with pytest.raises(BadRunDir, match=r"/proc/hvd/run (cannot be made|takes no new)"):
        Cluster.build(run_dir=Path("/proc/hvd/run")).start()


def test_a_cluster_can_be_started_again_when_it_is_down(tmp_path):
    cluster = Cluster.build([DRIVER], run_dir=tmp_path / "run")
    for _ in range(2):
        cluster.start()
        assert cluster.domain("driver").incarnation == 1
        cluster.down()
    cluster.down()


def test_what_does_not_run_cannot_be_asked():
    with pytest.raises(ClusterError, match="not running"):
        Cluster.build([DRIVER]).domains()


def test_guests_are_stopped_before_those_that_serve_them(tmp_path):
    config = [DRIVER, DomainConfig("user", "hvd:idle", devices=[DeviceConfig("echo", 0, "driver")])]
    with Cluster.build(config) as cluster:
        watcher = Cluster.attach(cluster.run_dir)
        with watcher, watcher.events() as events:
            cluster.down()
            news = [(event.event, event.name) for event in events]
    assert news.index(("died", "user")) < news.index(("shutting down", "driver")) < news.index(("died", "driver"))


def test_a_guest_that_does_not_stop_is_killed_when_its_grace_is_over(kernel):
    cluster = Cluster.build([DomainConfig("stubborn", kernel(STUBBORN))])
    cluster.start()
    machine = cluster.connection.machine_pid
    cluster.down(grace_s=0.1)
    assert members(machine) == []


# ---- what does not come up -------------------------------------------------------------------------------------------


def test_a_domain_that_fails_is_named_with_its_last_death_and_nothing_is_left(kernel, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    config = DomainConfig("car", kernel(CRASHING), restart=RestartPolicy(limit=1, delay_ms=1))
    before = set(tmp_path.iterdir())
    with pytest.raises(StartFailed) as caught:
        Cluster.build([config]).start()
    text = str(caught.value)
    assert "domain car (domid 1) is failed" in text
    assert "ValueError: no fuel" in text
    assert set(tmp_path.iterdir()) == before


def test_a_domain_that_dies_and_is_not_started_again_is_named(kernel):
    with pytest.raises(StartFailed, match=r"car \(domid 1\) is gone; its last death: crash: ValueError: no fuel"):
        Cluster.build([DomainConfig("car", kernel(CRASHING), on_crash="destroy")]).start()


def test_a_domain_that_is_gone_before_anybody_listens_is_named(kernel):
    cluster = Cluster.build([DomainConfig("car", kernel(CRASHING), on_crash="destroy")])
    cluster.switch_on()
    cluster.wait_until(lambda: len(cluster.infos()) == 1, "car to be gone")
    with pytest.raises(StartFailed, match=r"car \(domid 1\) is gone; its last death: crash: ValueError: no fuel"):
        cluster.boot()


def test_a_dom0_that_fails_takes_the_machine_with_it_and_is_named(kernel):
    with pytest.raises(StartFailed, match=r"Domain-0.*ValueError: no fuel"):
        Cluster.build([DomainConfig("Domain-0", kernel(CRASHING), restart=RestartPolicy(limit=1, delay_ms=1))]).start()


def test_a_domain_that_is_not_ready_in_time_is_named_with_its_state(kernel):
    told = ""
    for deadline_s in (1, 4, 16, 64):  # whichever is long enough for all that comes before
        with pytest.raises(StartFailed) as caught:
            Cluster.build([DomainConfig("slow", kernel(NEVER_READY))]).start(deadline_s=deadline_s)
        told = str(caught.value)
        if "slow (domid 1) is running" in told:
            break
    assert re.search(r"after [\d.]+ s domain slow \(domid 1\) is running, not ready", told), told


def test_a_domain_that_is_done_before_anybody_looks_was_ready(kernel):
    with Cluster.build([DomainConfig("short", kernel("def main(guest): pass\n")), DRIVER]) as cluster:
        cluster.wait_until(lambda: len(cluster.infos()) == 2, "short to be gone")


def test_a_domain_that_is_created_paused_is_not_waited_for_nor_those_behind_it():
    paused = DomainConfig("driver", "hvd:driver_domain", driver_domain=True, paused=True)
    with Cluster.build([paused, GUEST]) as cluster:
        assert cluster.domain("guest").state is DomainState.WAITING
        cluster.domain("driver").wait_state(DomainState.PAUSED)
        cluster.domain("driver").unpause()
        cluster.domain("guest").wait_ready()


# ---- domains ---------------------------------------------------------------------------------------------------------


def test_a_killed_domain_comes_back_with_its_domid_and_a_new_incarnation(cluster):
    driver = cluster.domain("driver")
    domid, pid = driver.domid, driver.pid
    driver.kill()
    driver.wait_ready()
    info = driver.info()
    assert (info.domid, info.incarnation, info.restarts) == (domid, 2, 1)
    assert info.last_death == "killed by SIGKILL"
    assert info.pid != pid


def test_waiting_after_a_kill_is_for_the_next_incarnation_every_time(cluster):
    guest = cluster.domain("guest")
    for incarnation in range(2, 6):
        cluster.domain("guest").kill()
        cluster.domain("guest").wait_ready()
        assert guest.incarnation == incarnation


def test_a_domain_that_has_been_killed_but_does_not_know_it_yet_is_not_ready(cluster):
    os.kill(cluster.connection.machine_pid, signal.SIGSTOP)  # it would pass the signal on
    cluster.domain("guest").kill()
    with pytest.raises(NotReached, match=r"guest \(domid 2\) is running, not ready"):
        cluster.domain("guest").wait_ready(deadline_s=0.3)
    os.kill(cluster.connection.machine_pid, signal.SIGCONT)
    cluster.domain("guest").wait_ready()
    assert cluster.domain("guest").incarnation == 2


def test_a_paused_domains_time_stands_still(cluster):
    guest = cluster.domain("guest")
    guest.pause()
    assert guest.info().state is DomainState.PAUSED
    assert guest.info().uptime_ns == guest.info().uptime_ns
    with pytest.raises(HypercallError, match="is paused: cannot pause"):
        guest.pause()
    guest.unpause()
    assert guest.info().state is DomainState.RUNNING


def test_a_domain_has_stopped_when_its_pause_is_over_and_one_that_does_not_stop_is_told_of(cluster, monkeypatch):
    guest = cluster.domain("guest")
    os.kill(cluster.connection.machine_pid, signal.SIGSTOP)  # it would pass the signal on
    try:
        monkeypatch.setattr(domain_module, "WAIT_DEADLINE_S", 0.1)
        with pytest.raises(NotReached, match=f"domain guest is paused, but process {guest.pid} of it has not stopped"):
            guest.pause()
        monkeypatch.undo()
        with ThreadPoolExecutor(1) as other, Cluster.attach(cluster.run_dir) as theirs:
            again = other.submit(theirs.domain("guest").wait_paused)
            assert not wait([again], 0.1).done
            os.kill(cluster.connection.machine_pid, signal.SIGCONT)
            again.result(DEADLINE_S)
    finally:
        os.kill(cluster.connection.machine_pid, signal.SIGCONT)
    assert is_stopped(guest.pid)
    guest.unpause()


def test_a_socket_that_nobody_knows_does_not_keep_a_connection_from_being_closed(cluster, monkeypatch):
    """A signal's exception may come out of its making, before it is among those of its context."""
    monkeypatch.setattr(connection, "CLOSE_S", 0.1)
    threads = set(threading.enumerate())
    other = Cluster.attach(cluster.run_dir)
    unknown = zmq.Socket(other.connection._context, zmq.SUB)
    other.close()
    unknown.close()
    for thread in set(threading.enumerate()) - threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_a_signal_that_does_not_kill_is_not_waited_for(cluster):
    guest = cluster.domain("guest")
    guest.kill(signal.SIGCONT)
    guest.wait_ready()
    assert guest.incarnation == 1


def test_a_domain_reboots_when_asked(cluster):
    guest = cluster.domain("guest")
    guest.reboot()
    guest.wait_ready()
    assert (guest.incarnation, guest.last_death) == (2, "reboot")


def test_rebooting_dom0_reboots_the_machine_and_everything_boots_anew(cluster):
    cluster.domain("guest").kill()
    cluster.domain("guest").wait_ready()
    broker = cluster.info()["broker_pid"]
    cluster.domain("dom0").reboot()
    infos = cluster.infos().values()
    assert [(info.name, info.incarnation, info.ready) for info in infos] == [
        ("Domain-0", 1, True), ("driver", 1, True), ("guest", 1, True),
    ]  # fmt: skip
    assert cluster.info()["broker_pid"] != broker


def test_when_dom0_powers_off_the_machine_does(cluster):
    dom0 = cluster.domain("dom0")
    machine = cluster.connection.machine_pid
    incarnation = dom0.incarnation
    dom0.shutdown()
    dom0.wait_stopped(incarnation)
    wait_dead(cluster.connection.machine_pidfd)
    assert members(machine) == []


def test_a_domain_that_powers_off_is_gone(cluster):
    guest = cluster.domain("guest")
    guest.shutdown()
    guest.wait_gone()
    with pytest.raises(NoSuchDomain, match="does not exist"):
        guest.info()
    with pytest.raises(NoSuchDomain, match="there are: Domain-0, driver"):
        cluster.domain("guest")


def test_a_destroyed_domain_is_gone_when_the_call_returns_and_its_domid_is_not_used_again(cluster):
    domid = cluster.domain("guest").domid
    cluster.domain("guest").destroy()
    assert domid not in cluster.infos()
    again = cluster.create(DomainConfig("guest", "hvd:idle"))
    again.wait_ready()
    assert again.domid > domid


def test_domains_are_found_by_name_and_by_domid(cluster):
    assert cluster.domain("dom0").domid == cluster.domain("Domain-0").domid == cluster.domain(0).domid == 0
    assert cluster.domain("2").name == cluster.domain(2).name == "guest"


def test_waiting_for_a_state_that_does_not_come_ends_at_the_deadline(cluster):
    with pytest.raises(NotReached, match=r"waited 0.2 s for domain guest \(domid 2\) to be paused"):
        cluster.domain("guest").wait_state(DomainState.PAUSED, deadline_s=0.2)


def test_waiting_for_a_domain_that_fails_ends_with_its_last_death(cluster, kernel):
    config = DomainConfig("car", kernel(CRASHING), restart=RestartPolicy(limit=1, delay_ms=1))
    car = cluster.create(config)
    with pytest.raises(NotReached, match="is failed and will not become ready; its last death: 1 restarts within 10 s"):
        car.wait_ready()
    assert car.state is DomainState.FAILED


def test_the_console_of_a_domain_can_be_read(cluster, kernel):
    talker = cluster.create(DomainConfig("talker", kernel(CRASHING), on_crash="preserve"))
    talker.wait_state(DomainState.PRESERVED)
    until = time.monotonic() + DEADLINE_S
    while "ValueError: no fuel" not in talker.console_log():  # dom0 writes it, a moment after the death
        assert time.monotonic() < until
        time.sleep(0.01)
    assert talker.console_log().startswith("on my way\n")


def test_a_new_domains_kernel_is_found_from_the_current_directory(cluster, kernel, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = Path(kernel("def main(guest):\n    guest.run_forever()\n")).name
    cluster.create(DomainConfig("local", name)).wait_ready()


def test_a_wrong_domain_is_refused_by_the_broker(cluster):
    with pytest.raises(HypercallError, match="a domain named 'guest' exists already"):
        cluster.create(DomainConfig("guest", "hvd:idle"))


def test_a_port_out_of_range_is_refused_and_harms_nothing(cluster):
    with pytest.raises(HypercallError):
        cluster.call(EvtchnStatus(DomId(0), Port(1 << 30)))
    assert cluster.domain("guest").ready


def test_the_machine_and_its_console_are_told(cluster):
    assert cluster.info()["domains"] == 3
    assert cluster.info()["machine_pid"] == cluster.connection.machine_pid
    assert isinstance(cluster.dmesg(), list)


# ---- events ----------------------------------------------------------------------------------------------------------


def test_no_event_is_missed_from_the_moment_the_stream_is_open(cluster):
    with cluster.events() as events:
        cluster.domain("guest").kill()
        news: list[str] = []
        while not news or news[-1] != "ready":
            event = events.next(DEADLINE_S)
            if event.name == "guest" and event.event != REAPED_EVENT:  # that is told 50 ms after, beside what follows
                news.append(event.event)
    assert news == ["signalled", "died", "starting", "ready"]


def test_a_stream_says_when_nothing_comes(cluster):
    with cluster.events() as events, pytest.raises(NotReached):
        while True:
            events.next(0.05)


def test_a_stream_ends_with_the_machine(tmp_path):
    cluster = Cluster.build([DRIVER], run_dir=tmp_path / "run")
    cluster.start()
    with Cluster.attach(tmp_path / "run") as other, other.events() as events:
        cluster.down()
        assert [event.event for event in events][-1] in ("died", "destroyed", "hello")


# ---- attaching -------------------------------------------------------------------------------------------------------


def test_attaching_does_not_end_a_cluster(cluster):
    with Cluster.attach(cluster.run_dir) as other:
        assert [domain.name for domain in other.domains()] == ["Domain-0", "driver", "guest"]
    assert cluster.domain("guest").ready


def test_whoever_is_attached_can_end_a_cluster(tmp_path):
    cluster = Cluster.build([DRIVER], run_dir=tmp_path / "run")
    cluster.start()
    machine = cluster.connection.machine_pid
    with Cluster.attach(tmp_path / "run") as other:
        other.down()
    assert members(machine) == []
    with pytest.raises(NotRunning):
        cluster.domains()
    cluster.down()


def test_there_is_nothing_to_attach_to_where_nothing_runs(tmp_path):
    with pytest.raises(NotRunning, match="start one with `hvd up`"):
        Cluster.attach(tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- what dies on the way --------------------------------------------------------------------------------------------


def test_a_broker_that_is_killed_is_not_noticed_by_callers(cluster):
    os.kill(cluster.info()["broker_pid"], signal.SIGKILL)
    assert [domain.name for domain in cluster.domains()] == ["Domain-0", "driver", "guest"]
    assert cluster.info()["broker_restarts"] == 1
    cluster.domain("guest").kill()
    cluster.domain("guest").wait_ready()


def test_an_open_stream_survives_the_broker(cluster):
    with cluster.events() as events:
        os.kill(cluster.info()["broker_pid"], signal.SIGKILL)
        while events.next(DEADLINE_S).event != "hello":
            continue
        cluster.domain("guest").kill()
        while events.next(DEADLINE_S).event != "ready":
            continue


def test_a_broker_that_hangs_keeps_nobody_from_powering_off():
    cluster = Cluster.build([DRIVER])
    cluster.start()
    machine = cluster.connection.machine_pid
    os.kill(cluster.info()["broker_pid"], signal.SIGSTOP)
    cluster.down(grace_s=0)
    assert members(machine) == []


def test_a_machine_that_is_killed_takes_everything_with_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    cluster = Cluster.build([GUEST, DRIVER])
    cluster.start()
    machine = cluster.connection.machine_pid
    os.kill(machine, signal.SIGKILL)
    wait_dead(cluster.connection.machine_pidfd)
    with pytest.raises(NotRunning, match="has stopped"):
        cluster.domains()
    cluster.down()
    assert members(machine) == []
    assert list(tmp_path.iterdir()) == []


OWNER = """
import signal, hvd
from hvd.transport.messages import DomainConfig
cluster = hvd.Cluster.build([DomainConfig("driver", "hvd:driver_domain", driver_domain=True)])
cluster.start()
print(cluster.connection.machine_pid, cluster.run_dir, flush=True)
signal.pause()
"""


def test_a_cluster_ends_with_the_program_that_started_it_even_by_sigkill():
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, run_dir = owner.stdout.readline().split()
        pidfd = os.pidfd_open(int(pid))
        owner.kill()
    try:
        wait_dead(pidfd)
    finally:
        os.close(pidfd)
    assert members(int(pid)) == []
    assert not Path(run_dir).exists()


def test_a_cluster_started_in_a_thread_outlives_the_thread():
    cluster = Cluster.build([DRIVER])
    thread = threading.Thread(target=cluster.start)
    thread.start()
    thread.join(DEADLINE_S)
    with cluster:
        assert cluster.domain("driver").ready


def test_threads_may_share_a_cluster(cluster):
    failed: list[Exception] = []

    def ask() -> None:
        try:
            for _ in range(50):
                assert len(cluster.infos()) == 3
        except (HvdError, AssertionError) as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert failed == []


# ---- who may -------------------------------------------------------------------------------------------------------

AS_NOBODY = """
import os, hvd
from hvd.transport.messages import DomainConfig
with hvd.Cluster.build([DomainConfig("driver", "hvd:driver_domain", driver_domain=True)]) as cluster:
    cluster.domain("driver").kill()
    cluster.domain("driver").wait_ready()
    print(os.geteuid(), cluster.domain("driver").incarnation)
print(os.path.exists(cluster.run_dir))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_cluster_needs_no_root():
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="hvd-nobody-", dir="/tmp"))
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        result = subprocess.run(
            [sys.executable, "-c", AS_NOBODY], user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[],
            env=environment, cwd="/", capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert result.stdout.split() == [str(nobody.pw_uid), "2", "False"], result.stderr
        assert list(home.iterdir()) == []
    except PermissionError:
        pytest.skip(f"{sys.executable} is nothing that others may run")
    finally:
        shutil.rmtree(home)


def test_waits_do_not_poll(cluster):
    """A wait that sleeps on events uses no processor time while nothing happens."""
    before = time.process_time()
    with pytest.raises(NotReached):
        cluster.domain("guest").wait_state(DomainState.PAUSED, deadline_s=1.0)
    assert time.process_time() - before < 0.5
