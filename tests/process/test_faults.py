"""Every fault on a cluster under load: its witness sees it, it is undone, and then nothing is lost and all is well."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.faults import FAULTS, BadFault, inject
from hvd.toolstack.faults.checker import Checker
from hvd.toolstack.faults.processes import Watched
from hvd.transport import messages as m
from hvd.transport.errors import HvdError
from hvd.transport.faults import RingKind, words_of
from hvd.transport.hypercalls import HypercallError
from tests.waiting import wait_for

KERNELS = Path(__file__).with_name("kernels")
DEADLINE_S = 30.0
FOREVER = m.RestartPolicy(limit=0)
IMAGE_BYTES = 32 << 20
SEED = 7
COUNTED = ("ports", "granted_pages", "mappings", "extents", "descriptors", "domains")
DEVID = 51712
SLOWLY = ("depth=2", "largest=4", "flush_every=2", "blocks=256", "pace_ms=1")
"""So that the checker keeps up."""


class Load:
    """A driver domain, a guest that exercises its disk, one that makes hypercalls; and who looks at them.

    They have no heartbeat: who is stopped goes on when the fault is over, and only then.
    """

    def __init__(self, directory: Path) -> None:
        image, acks = directory / "disk.img", directory / "acks"
        image.touch()
        os.truncate(image, IMAGE_BYTES)
        disk = m.DeviceConfig("vbd", DEVID, "driver", {"params": str(image), "mode": "w", "dev": "xvda"})
        driver = m.DomainConfig("driver", "hvd:driver_domain", driver_domain=True, restart=FOREVER, heartbeat_ms=0)
        caller = m.DomainConfig("caller", str(KERNELS / "caller.py"), restart=FOREVER, heartbeat_ms=0)
        self.guest = m.DomainConfig(
            "guest", "hvd:disk_exerciser", args=[f"acks={acks}", f"seed={SEED}", *SLOWLY], devices=[disk],
            restart=FOREVER, paths=[f"{acks}:w"], heartbeat_ms=0,
        )  # fmt: skip
        self.checker = Checker(str(image), str(acks), SEED)
        self.cluster = Cluster.build([driver, caller])

    def start(self) -> None:
        self.cluster.start()
        self.cluster.create(self.guest).wait_ready()
        wait_for(lambda: self.operations() >= 200, lambda: "requests")
        self.before = min((self.at_rest() for _ in range(100)), key=lambda counts: counts["extents"])
        """What is in use while the caller is between two hypercalls: the least of many looks."""

    def wait_well(self) -> None:
        """All serve, requests and hypercalls go on, nothing acknowledged is lost, and what the dead held is back."""
        self.cluster.wait_ready(DEADLINE_S)
        self.checker.follow()
        operations, calls = self.checker.verdict.operations, self.calls()
        wait_for(lambda: self.operations() >= operations + 50, lambda: f"requests; {self.cluster.infos()}")
        wait_for(lambda: self.calls() not in (calls, -1), lambda: f"hypercalls; {self.cluster.infos()}")
        wait_for(lambda: self.at_rest() == self.before, lambda: f"{self.before}, found {self.at_rest()}")
        assert self.checker.check().intact, self.checker.verdict

    def operations(self) -> int:
        self.checker.follow()
        return self.checker.verdict.operations

    def calls(self, name: str = "caller") -> int:
        """What the caller has counted up to in the store: it begins anew with each incarnation."""
        domid = self.cluster.domain(name).domid
        try:
            return int(self.cluster.call(m.StoreRead(0, f"/local/domain/{domid}/data/count")))
        except HypercallError:  # the incarnation has not come to it yet
            return -1

    def has_called(self, name: str, before: int) -> bool:
        return self.calls(name) > before

    def at_rest(self) -> dict[str, int]:
        info = self.cluster.info()
        return {name: info[name] for name in COUNTED}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    made = Load(tmp_path_factory.mktemp("faults"))
    try:
        made.start()
        yield made
    finally:
        made.cluster.down(grace_s=0)


CALLERS = ("hypercalls", "transaction")
"""Faults that show in whoever makes hypercalls."""


def victims_of(name: str) -> list[list[str]]:
    if FAULTS[name].aim.name == "MACHINE":
        return [[]]
    if name == "kill-all-but":
        return [["guest"]]
    if name == "swizzle":
        return [[]]
    if name.endswith(CALLERS):
        return [["caller"]]
    return [["guest"]] if name == "fill-shm" else [["driver"], ["guest"]]


SEPARATE = {"fill-disk", "corrupt-ring", "corrupt-page"}
CASES = [(name, victims) for name in FAULTS if name not in SEPARATE for victims in victims_of(name)
         if (name, victims) != ("kill-with-grants", ["guest"])]  # fmt: skip


def durations(for_s):
    """What is tried until one is long enough for the witness to look, or whoever else, before it is over."""
    return [for_s, max(5 * for_s, 4.0), 30.0] if for_s else [None]


@pytest.mark.parametrize(("name", "victims"), CASES, ids=["-".join([name, *victims]) for name, victims in CASES])
def test_a_fault_is_seen_by_its_witness_and_undone_and_all_is_well_again(load, name, victims):
    for_s = min(FAULTS[name].for_s or 0.0, 1.0) or None
    if name == "kill-in-transaction":
        for_s = 10.0
    for lasts_s in durations(for_s):
        with load.cluster.fault(name, *victims, for_s=lasts_s, seed=SEED) as injection:
            activated = injection.wait_activated()
            injection.wait_over()
        if activated:
            break
        load.wait_well()
    told = injection.as_dict()
    assert told["activated"] is True, told
    assert (told["injected"], told["activated"], told["undone"], told["seed"]) == (True, True, True, SEED)
    assert load.cluster.call(m.FaultList()) == []
    load.wait_well()


def test_one_that_maps_nothing_is_not_stopped_to_be_killed_with_what_it_maps(load, monkeypatch):
    """It was stopped some 75 times a second, and a heartbeat took it for dead."""
    monkeypatch.setattr("hvd.toolstack.faults.moments.MAPPED_DEADLINE_S", 0.3)
    guest = load.cluster.domain("guest")
    before = guest.incarnation
    with load.cluster.events() as events:
        with pytest.raises(HvdError, match=r"domain guest maps no grant of another's within 0\.3 s"):
            load.cluster.fault("kill-with-grants", "guest")
        told = []
        while (event := events.next_until(time.monotonic() + 0.2)) is not None:
            told.append(event.event)
    assert (guest.incarnation, [event for event in told if event.startswith("fault")]) == (before, [])


@pytest.mark.parametrize("word", words_of(RingKind.DEVICE))
def test_a_broken_ring_is_found_by_an_end_of_it_and_goes_on_with_the_others_next_incarnation(load, word):
    for seed in range(SEED, SEED + 4):  # other bits
        with load.cluster.fault("corrupt-ring", "guest", seed=seed, amount=word) as injection:
            assert injection.wait_activated() is True, injection.as_dict()
        assert "closed by the peer's fault" in injection.evidence
        found_by_guest = injection.evidence.startswith(f"/local/domain/{load.cluster.domain('guest').domid}/device/")
        load.cluster.domain("driver" if found_by_guest else "guest").reboot(grace_s=0)
        load.wait_well()


def _says(domain: Domain, words: str) -> bool:
    return words in domain.console_log()


@pytest.fixture
def client(load):
    """A domain that brings its own xenbus client, beside the others."""
    domain = load.cluster.create(m.DomainConfig("client", "hvd:xenbus_client", restart=FOREVER, heartbeat_ms=0))
    domain.wait_ready()
    yield domain
    domain.destroy()
    domain.wait_gone()
    load.wait_well()
    assert load.cluster.domain("dom0").incarnation == 1


def test_a_broken_console_is_found_by_an_end_of_it_and_served_again_with_its_domains_next_incarnation(load, client):
    for word in words_of(RingKind.CONSOLE):
        with load.cluster.fault("corrupt-ring", client, seed=SEED, ring="console", amount=word) as injection:
            assert injection.wait_activated() is True, injection.as_dict()
        assert injection.evidence.startswith(f"{word.title} of a console ring: ")
        assert "closed by the peer's fault" in injection.evidence
        client.reboot(grace_s=0)
        client.wait_ready()


def test_xenstores_end_finds_its_ring_broken_and_the_client_reconnects(load, client):
    for number, word in enumerate(words_of(RingKind.STORE), 1):
        with load.cluster.fault("corrupt-ring", client, seed=SEED, amount=word) as injection:
            assert injection.wait_activated() is True, injection.as_dict()
        assert f"{word.title} of a store ring: broker.log: its connection to XenStore is closed: " in injection.evidence
        wanted = f"reconnected {number} times"
        wait_for(partial(_says, client, wanted), client.console_log)
    assert client.incarnation == 1


def test_flipped_data_is_found_by_the_workloads_checksums_and_crashes_nobody_else(tmp_path):
    load = Load(tmp_path)
    try:
        load.start()
        calls, guest = load.calls(), load.cluster.domain("guest")
        until = time.monotonic() + DEADLINE_S
        while load.checker.check().intact and guest.incarnation == 1:
            assert time.monotonic() < until, "nobody has noticed"
            with load.cluster.fault("corrupt-page", "guest", seed=SEED, amount=4096) as injection:
                assert injection.wait_activated() is True, injection.as_dict()
        wait_for(lambda: load.calls() > calls, lambda: "the bystander's hypercalls")
        assert [load.cluster.domain(name).incarnation for name in ("driver", "caller")] == [1, 1]
    finally:
        load.cluster.down(grace_s=0)


def test_lost_notifications_are_found_although_all_are_lost(load):
    with load.cluster.fault("drop-events", "guest", for_s=3.0, seed=SEED, rate=1000) as injection:
        assert injection.wait_activated() is True
        operations = load.operations()
        wait_for(lambda: load.operations() >= operations + 20, lambda: "requests of whoever cannot notify")
    load.wait_well()


def test_who_took_the_signal_over_has_no_such_fault(load):
    deaf = load.cluster.create(m.DomainConfig("deaf", str(KERNELS / "deaf.py")))
    deaf.wait_ready()
    try:
        with inject(load.cluster, "busy", deaf, for_s=0.5) as injection:
            assert injection.wait_activated(deadline_s=0.5) is None
        assert injection.activated is False
    finally:
        deaf.destroy()
    load.wait_well()


def test_a_guest_is_refused_memory_as_long_as_the_fault_lasts(load):
    """With a soft limit of 0 the kernel had refused nothing, while /proc showed the limit."""
    hungry = load.cluster.create(m.DomainConfig("hungry", str(KERNELS / "hungry.py")))
    try:
        hungry.wait_ready()
        with inject(load.cluster, "oom", hungry, for_s=60.0) as injection:
            wait_for(lambda: "it is refused\n" in hungry.console_log(), hungry.console_log)
            assert injection.activated is True, injection.as_dict()
        wait_for(lambda: "it is not refused\n" in hungry.console_log(), hungry.console_log)
        assert hungry.incarnation == 1
    finally:
        hungry.destroy()


def test_a_hang_is_found_by_the_heartbeat_and_is_over_with_the_death_that_follows(load):
    domain = load.cluster.create(m.DomainConfig("watched", "hvd:idle", heartbeat_ms=50))
    domain.wait_ready()
    try:
        since = load.cluster.call(m.SysctlEvents(0))["last"]
        with inject(load.cluster, "hang", domain, for_s=DEADLINE_S) as injection:
            wait_for(lambda: domain.incarnation == 2, lambda: f"another incarnation; {domain.info()}")
            assert injection.wait_activated(), injection.evidence  # nobody had looked before
        events = [event for event in load.cluster.call(m.SysctlEvents(since))["events"] if event[4] == "watched"]
        assert [event[2] for event in events[:5]] == ["fault injected", "hangs", "fault over", "died", "starting"]
        assert "its process has been stopped for " in events[1][6]
    finally:
        domain.destroy()
    load.wait_well()


def test_a_hang_outlives_the_broker_and_ends_in_time_with_the_next(load):
    process = Watched(load.cluster.domain("guest").pid)
    try:
        for for_s in durations(3.0):
            hang = inject(load.cluster, "hang", "guest", for_s=for_s)
            with hang, inject(load.cluster, "broker-kill") as kill:
                activated = hang.wait_activated()
                assert kill.wait_activated() is True
                load.cluster.info()  # the next broker answers
                outlived = activated and process.state() == "T"
                wait_for(lambda: process.state() != "T", lambda: "the end of the hang")
            if outlived:
                break
        assert outlived
    finally:
        process.close()
    load.wait_well()


# ---- the command -----------------------------------------------------------------------------------------------------


def hvd(load: Load, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HVD_RUN_DIR": str(load.cluster.run_dir)}
    command = [sys.executable, "-m", "hvd", "fault", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


COUNTS_OF = {"drop-events": "dropped", "delay-events": "delayed", "storm": "repeated"}


def test_a_fault_is_undone_although_its_injector_is_killed(load):
    process = Watched(load.cluster.domain("guest").pid)
    try:
        outlived = any(is_hung_behind_its_injector(load, process, for_s) for for_s in durations(2.0))
        assert outlived
    finally:
        process.close()
    load.wait_well()


def is_hung_behind_its_injector(load: Load, process: Watched, for_s: float) -> bool:
    """Whether it was stopped still when the injector was dead; by then it goes on again."""
    environment = os.environ | {"HVD_RUN_DIR": str(load.cluster.run_dir)}
    command = [sys.executable, "-m", "hvd", "fault", "hang", "guest", "--for", f"{for_s:g}"]
    injector = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: process.state() == "T" or injector.poll() is not None, "the guest to be stopped")
    finally:
        injector.kill()
    killed = injector.wait(DEADLINE_S) == -signal.SIGKILL
    outlived = process.state() == "T"
    wait_for(lambda: process.state() != "T", lambda: "the broker to end the hang")
    return killed and outlived


def test_the_command_says_what_became_of_a_fault(load):
    for for_s in durations(0.3):
        told = hvd(load, "stall", "guest", "--for", f"{for_s:g}", "--seed", "5", "--json")
        facts = json.loads(told.stdout)
        assert told.returncode == (0 if facts["activated"] else 1), told
        if facts["activated"]:
            break
        load.wait_well()
    assert (facts["fault"], facts["victims"], facts["seed"]) == ("stall", ["guest"], 5)
    assert (facts["activated"], facts["undone"], facts["witness"]) == (True, True, "/proc/PID/stat")
    load.wait_well()


def test_who_replaced_its_transport_has_no_such_fault_and_the_command_says_so(load):
    echo = m.DeviceConfig("echo", 0, "driver")
    own = load.cluster.create(m.DomainConfig("own", str(KERNELS / "own_doorbell.py"), devices=[echo], heartbeat_ms=0))
    try:
        own.wait_ready(DEADLINE_S)
        for fault, count in COUNTS_OF.items():
            done = hvd(load, fault, "own", "--for", "0.3", "--set", "rate=1000", "--json")
            told = json.loads(done.stdout)
            assert (done.returncode, told["injected"], told["activated"], told["undone"]) == (1, True, False, True)
            assert f"0 {count}" in told["evidence"].split(", ")
            before = load.calls("own")
            wait_for(functools.partial(load.has_called, "own", before), "answers to what it notifies of")
        assert own.incarnation == 1
    finally:
        own.destroy()
    load.wait_well()


def test_a_dry_run_says_what_would_happen_to_whom_and_nothing_does(load):
    pids = [info.pid for info in load.cluster.infos().values()]
    told = hvd(load, "kill-all-but", "guest", "--dry-run", "--seed", "5")
    assert told.returncode == 0
    assert told.stdout.startswith("would inject kill-all-but into driver, caller (seed 5)\n")
    assert [info.pid for info in load.cluster.infos().values()] == pids


@pytest.mark.parametrize(("words", "expected"), [
    (["gremlins"], "no fault 'gremlins'; there are: kill,"),
    (["kill"], "expected a domain to meet it; there are: driver, caller, guest"),
    (["kill", "nobody"], "no domain 'nobody'"),
    (["kill", "guest", "--for", "1"], "it takes no duration, found 1 s"),
    (["hang", "guest", "--for", "0"], "expected a duration above 0"),
    (["hang", "guest", "--for", "soon"], "expected a number of seconds"),
    (["hang", "guest", "--set", "rate=1"], "has no parameter 'rate'; it takes: no parameter"),
    (["slow", "guest", "--set", "rate=1000"], "rate: expected a whole number from 1 to 999"),
    (["corrupt-ring", "guest", "--set", "ring=tin"], "or device, console, store, any (whose word it is: 1 device"),
    (["corrupt-ring", "guest", "--set", "ring=console", "--set", "amount=2"],
     "expected a word of a console ring (3 in_cons, 4 in_prod, 5 out_cons, 6 out_prod), found 2"),
    (["slow", "guest", "--set", "rate"], "expected PARAMETER=NUMBER, found 'rate'"),
    (["broker-kill", "guest"], "expected no domain, found guest"),
    (["kill-all-but"], "expected the one domain to spare, found 0"),
    (["swizzle", "guest"], "expected two domains or more, found 1"),
    (["fill-disk", "--set", "most=1"], "MiB free; expected at most 1 (parameter most)"),
])  # fmt: skip
def test_bad_input_ends_with_2_and_names_what_was_expected(load, words, expected):
    told = hvd(load, *words)
    assert told.returncode == 2, told
    assert expected in told.stderr


def test_who_has_no_process_is_said_so_before_the_first_is_hit_and_is_nobody_of_all_the_others(load):
    dead = load.cluster.create(m.DomainConfig("dead", "hvd:idle", on_crash="preserve", heartbeat_ms=0))
    try:
        dead.wait_ready()
        with load.cluster.fault("kill", dead) as injection:
            assert injection.wait_activated(), injection.evidence
        pids = [info.pid for info in load.cluster.infos().values()]
        for words in (["kill", "caller", "dead"], ["swizzle", "caller", "dead"], ["kill-in-recovery", "dead"]):
            told = hvd(load, *words)
            assert (told.returncode, told.stdout) == (2, ""), told
            assert told.stderr == "hvd: domain dead is preserved: it has no process that a fault could meet\n"
        assert [info.pid for info in load.cluster.infos().values()] == pids
        for words in (["kill-all-but", "guest"], ["swizzle"]):
            would = hvd(load, *words, "--dry-run", "--seed", "5").stdout.splitlines()[0]
            assert would.endswith(f" into {'driver, caller' if 'guest' in words else 'driver, caller, guest'} (seed 5)")
    finally:
        dead.destroy()
    load.wait_well()


def test_the_list_has_every_fault_and_needs_no_cluster(tmp_path):
    command = [sys.executable, "-m", "hvd", "fault", "list"]
    environment = os.environ | {"HVD_RUN_DIR": str(tmp_path / "none")}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert [line.split()[0] for line in told.stdout.splitlines()[1:]] == list(FAULTS)


# ---- a full file system ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
def test_a_cluster_whose_file_system_is_full_goes_on_and_has_its_room_back(tmp_path):
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", tmp_path]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    try:
        with Cluster.build([m.DomainConfig("idle", "hvd:idle", restart=FOREVER)], run_dir=tmp_path / "run") as cluster:
            with cluster.fault("fill-disk", for_s=1.0) as injection:
                assert injection.wait_activated() is True, injection.as_dict()
                cluster.domain("idle").kill()
                cluster.domain("idle").wait_ready()
            assert os.statvfs(tmp_path).f_bavail > 0
            cluster.domain("idle").kill()
            cluster.domain("idle").wait_ready()
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_file_system_with_too_much_room_is_left_alone(load):
    with pytest.raises(BadFault, match="expected at most 1"):
        inject(load.cluster, "fill-disk", most=1)
