"""Scenarios for real: what hvd chaos runs, finds, writes and repeats, and that its verdict can be bad."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hvd import Cluster, Scenario
from hvd.toolstack.chaos.scenario import rows_of
from hvd.toolstack.cluster import Domain, DomainState
from hvd.toolstack.faults.bank import StoreChecker, check_balances, open_bank
from hvd.toolstack.faults.conservation import census, settled
from hvd.transport.history import RECORD_SIZE
from hvd.transport.messages import DomainConfig, StoreRead, StoreWrite
from hvd.transport.protocols.bank import account, client_count, client_slot
from hvd.transport.run_dir import CONTROL, DOMAINS, ENDPOINT
from tests.nobody import nobody

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "chaos"
KERNELS = Path(__file__).with_name("kernels")
DEADLINE_S = 280
BANK = "/test/bank"


def hvd(*words: str, cwd: Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hvd", *words]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert result.returncode == check, f"{result.returncode}: {result.stdout}{result.stderr}"
    return result


# ---- runs that are as expected --------------------------------------------------------------------------------------


def test_a_short_campaign_of_every_workload_loses_and_leaks_nothing(tmp_path):
    result = hvd("chaos", str(EXAMPLES / "plan.toml"), "--seeds", "1-2", "--out", "out", "--json", cwd=tmp_path)
    *runs, told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(run["seed"], run["ok"]) for run in runs] == [(1, True), (2, True)]
    assert told["totals"]["injected"] == told["totals"]["recovered"] >= 20
    assert told["totals"]["activated"] >= 0.9 * told["totals"]["injected"]
    assert told["bound_95"] == 3 / told["totals"]["activated"]
    assert {"detect", "fence", "reap", "respawn", "reconnect", "first response"} == set(told["stages_ms"])
    faults = [fault for row in rows_of(tmp_path / "out") for fault in row["faults"]]
    for stages in (stages for fault in faults for stages in fault["stages_ms"].values()):
        moments = [stages[stage] for stage in ("detect", "fence", "reap") if stage in stages]
        assert moments == sorted(moments)
    assert told["stages_ms"]["detect"]["p50"] < told["stages_ms"]["reap"]["p50"]
    assert told["operations"]["ok"] > 1000
    assert told["durability"]["flushes"] > 10
    assert told["durability"]["lost"] == told["broker_crashes"] == told["leaking_runs"] == 0
    assert (tmp_path / "out" / "report.html").read_text().count("<svg") == 2
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == told


def test_a_seed_that_has_a_run_is_not_run_again_and_a_run_cut_off_is(tmp_path):
    plan = short_plan(tmp_path)
    hvd("chaos", str(plan), "--seeds", "5-6", "--out", "out", cwd=tmp_path)
    runs = tmp_path / "out" / "runs.jsonl"
    first, second = runs.read_text().splitlines()
    runs.write_text(f"{first}\n{second[:40]}\n")
    result = hvd("chaos", str(plan), "--seeds", "5-7", "--out", "out", cwd=tmp_path)
    told = [line.split(":")[0] for line in result.stdout.splitlines() if line.startswith("seed")]
    assert told == ["seed 6", "seed 7"]
    assert [row["seed"] for row in rows_of(tmp_path / "out")] == [5, 6, 7]


def test_a_dry_run_prints_what_the_seed_does_and_starts_nothing(tmp_path):
    plan = short_plan(tmp_path)
    result = hvd("chaos", str(plan), "--seeds", "5", "--dry-run", "--json", cwd=tmp_path)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert not (tmp_path / "hvd-chaos").exists()
    outcome = Scenario.load(plan).run(5)
    said = [(line["step"], each["name"], each["victims"], each["seed"]) for line in lines for each in line["faults"]]
    assert said == [
        (fault.step, fault.planned.name, list(fault.planned.victims), fault.planned.seed) for fault in outcome.faults
    ]


def test_the_example_for_ones_own_driver_passes(tmp_path):
    example = shutil.copytree(EXAMPLES, tmp_path / "chaos", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_echo.py"]
    result = subprocess.run(
        command, cwd=example, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout


# ---- runs that are not ----------------------------------------------------------------------------------------------


CLUSTER = """
[[domain]]
name = "storage"
kernel = "{driver}"
driver_domain = true

[[domain]]
name = "idler"
kernel = "{idler}"
on_crash = "{on_crash}"
"""
NEVER_BACK_MS, DIES_AGAIN_MS, LEAKS_MS = 4000, 5000, 5000
"""Enough for what follows a death to be known, on a busy machine too."""
PLAN = """
[scenario]
cluster = "cluster.toml"
steps = 2
pause_ms = 1
[[workload]]
name = "writer"
kind = "disk"
backend = "storage"
[[fault]]
name = "kill"
victims = ["{victim}"]
[expect]
recovered_ms = {recovered_ms}
"""


def short_plan(
    directory: Path,
    *,
    driver: str = "hvd:driver_domain",
    idler: str = "hvd:idle",
    on_crash: str = "restart",
    victim: str = "storage",
    recovered_ms: int = 20_000,
) -> Path:
    (directory / "cluster.toml").write_text(CLUSTER.format(driver=driver, idler=idler, on_crash=on_crash))
    plan = directory / "plan.toml"
    plan.write_text(PLAN.format(victim=victim, recovered_ms=recovered_ms))
    return plan


def test_a_domain_that_does_not_come_back_stops_the_run_and_its_seed_says_so_again(tmp_path):
    plan = short_plan(tmp_path, on_crash="preserve", victim="idler", recovered_ms=NEVER_BACK_MS)
    result = hvd("chaos", str(plan), "--seeds", "9", "--out", "out", cwd=tmp_path, check=1)
    told = "preserved, not ready, incarnation 1; died last of: killed by SIGKILL"
    late = f"not recovered {NEVER_BACK_MS} ms after kill idler: waiting for idler ({told})"
    assert late in result.stderr
    again = f"again: hvd chaos {plan} --seeds 9 --out out --again"
    assert f"its logs and files: out/seed-9\nhvd: {again}\n" in result.stderr
    kept = {str(path.relative_to(tmp_path / "out" / "seed-9")) for path in (tmp_path / "out" / "seed-9").rglob("*")}
    assert {"files/writer.img", "files/writer.acks", "log/broker.log"} <= kept
    assert "NOT HEALTHY" in (tmp_path / "out" / "report.html").read_text()
    (row,) = rows_of(tmp_path / "out")
    assert [fault["recovered"] for fault in row["faults"]] == [False]
    assert Scenario.load(plan).run(9).problems == row["problems"]


def test_a_run_of_a_plan_that_has_been_changed_since_does_not_count_nor_one_that_is_to_be_made_again(tmp_path):
    plan = short_plan(tmp_path, on_crash="preserve", victim="idler", recovered_ms=NEVER_BACK_MS)
    words = ("--out", "out", "--json")
    hvd("chaos", str(plan), "--seeds", "9", *words, cwd=tmp_path, check=1)
    short_plan(tmp_path, on_crash="restart", victim="idler")
    told = json.loads(hvd("chaos", str(plan), "--seeds", "8", *words, cwd=tmp_path).stdout.splitlines()[-1])
    assert (told["runs"], told["healthy"], told["seeds"]) == (1, 1, "8")
    first, _ = hvd("chaos", str(plan), "--seeds", "8", "--again", *words, cwd=tmp_path).stdout.splitlines()
    assert json.loads(first)["seed"] == 8


BROKEN = """
import pytest

@pytest.mark.scenario("plan.toml")
def test_it_lives(scenario):
    outcome = scenario.run(3)
    assert outcome.ok, outcome.problems
"""
BREAKS = """
AUTO_READY = False

def main(guest):
    if guest.incarnation > 1:
        raise RuntimeError("my driver is broken here")
    guest.ready()
    guest.sleep(1000)
"""


def test_whose_driver_is_broken_sees_where_in_his_own_test(tmp_path):
    """The domain's traceback, what it died of, and the seed."""
    (tmp_path / "breaks.py").write_text(BREAKS)
    short_plan(tmp_path, idler=str(tmp_path / "breaks.py"), victim="idler", recovered_ms=DIES_AGAIN_MS)
    (tmp_path / "test_mine.py").write_text(BROKEN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_mine.py"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "RuntimeError: my driver is broken here" in result.stdout
    assert "died last of: " in result.stdout
    assert "seed 3 of " in result.stdout


def test_a_backend_that_answers_before_it_flushes_is_no_healthy_system(tmp_path):
    plan = short_plan(tmp_path, driver=str(KERNELS / "answers_before_sync.py"), victim="idler")
    outcome = Scenario.load(plan).run(1)
    assert "sectors lost by power cuts" in outcome.problems[0]


def test_a_domain_that_holds_more_after_each_death_is_found_by_the_counts(tmp_path):
    plan = short_plan(tmp_path, idler=str(KERNELS / "leaks_a_grant.py"), victim="idler", recovered_ms=LEAKS_MS)
    outcome = Scenario.load(plan).run(1)
    assert "not conserved: " in outcome.problems[0]
    assert outcome.leaks["granted_pages"][1] == outcome.leaks["granted_pages"][0] + 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("steps = 2", "steps = 0", ":4: scenario.steps: expected a whole number from 1 to 10000, found 0"),
        ('name = "kill"', 'name = "kil"',
         'fault[0].name: expected a fault (`hvd fault list`), found "kil"; did you mean "kill"?'),
    ],
)
def test_a_plan_that_is_wrong_is_bad_input_and_nothing_is_started(tmp_path, old, new, told):
    plan = short_plan(tmp_path)
    plan.write_text(plan.read_text().replace(old, new))
    result = hvd("chaos", str(plan), cwd=tmp_path, check=2)
    assert told in result.stderr
    assert not (tmp_path / "hvd-chaos").exists()


def test_seeds_that_are_none_are_bad_input(tmp_path):
    result = hvd("chaos", str(short_plan(tmp_path)), "--seeds", "9-3", cwd=tmp_path, check=2)
    assert "--seeds: expected FIRST or FIRST-LAST" in result.stderr


def test_where_runs_cannot_be_written_nothing_is_run(tmp_path):
    (tmp_path / "taken").touch()
    result = hvd("chaos", str(short_plan(tmp_path)), "--out", "taken", cwd=tmp_path, check=2)
    assert "--out: expected a directory that can be written, found taken: File exists" in result.stderr


# ---- what the checkers of a store would find ------------------------------------------------------------------------


class Till:
    """A teller who has worked and stopped, and the bank behind him, which a test may rob."""

    def __init__(self, cluster: Cluster, acks: Path) -> None:
        acks.touch()
        args = [f"acks={acks}", f"bank={BANK}"]
        self.cluster = cluster
        self.teller = cluster.create(
            DomainConfig("teller", "hvd:store_exerciser", args=args, paths=[f"{acks}:w"], on_poweroff="preserve")
        )
        open_bank(cluster, BANK, [self.teller])
        self.teller.wait_ready()
        self.checker = StoreChecker(cluster, BANK, self.teller, str(acks))
        while self.checker.check().ok < 40:
            assert self.checker.verdict.intact
        self.write(f"/local/domain/{self.teller.domid}/data/finish", "1")
        self.teller.wait_state(DomainState.PRESERVED)
        self.checker.check()

    def read(self, path: str) -> str:
        value: bytes = self.cluster.call(StoreRead(0, path))
        return value.decode()

    def write(self, path: str, value: object) -> None:
        self.cluster.call(StoreWrite(0, path, str(value).encode()))


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    with Cluster.build() as cluster:
        yield Till(cluster, tmp_path / "acks")


def rob(till: Till) -> None:
    till.write(account(BANK, 0), int(till.read(account(BANK, 0))) - 1)


def swap(till: Till) -> None:
    for number, change in ((0, -1), (1, 1)):
        till.write(account(BANK, number), int(till.read(account(BANK, number))) + change)


@pytest.mark.parametrize(("crime", "told"), [(rob, "half done"), (swap, "no choice of the 0 transfers")])
def test_accounts_that_do_not_add_up_are_found(till: Till, crime: Callable[[Till], None], told: str) -> None:
    assert check_balances(till.cluster, BANK, [till.checker]) == []
    crime(till)
    assert told in check_balances(till.cluster, BANK, [till.checker])[0]


def test_a_transfer_that_is_missing_or_there_twice_is_found(till: Till) -> None:
    count = client_count(BANK, till.teller.domid)
    done = int(till.read(count))
    till.write(count, done + 1)
    assert till.checker.check().duplicated == 1
    till.write(count, done - 1)
    assert till.checker.check().lost == 1


def test_a_slot_that_holds_an_older_transfer_or_one_that_nobody_made_is_found(till: Till) -> None:
    slot = client_slot(BANK, till.teller.domid, 3)
    id_, *rest = till.read(slot).split()
    till.write(slot, " ".join([str(int(id_) - 32), *rest]))
    verdict = till.checker.check()
    assert verdict.misplaced + verdict.unexpected == 1
    till.write(slot, "77 1 2 3")
    assert till.checker.check().unexpected >= 1


def test_a_domain_goes_on_with_its_history_behind_what_was_left_when_it_was_killed_in_the_middle_of_a_record(
    tmp_path: Path,
) -> None:
    acks = tmp_path / "acks"
    acks.write_bytes(b"\1" * (RECORD_SIZE - 1))
    with Cluster.build() as cluster:
        till = Till(cluster, acks)
        assert till.checker.check().intact
        assert acks.stat().st_size == till.checker.verdict.invoked * 2 * RECORD_SIZE


def test_a_domain_that_connects_changes_no_count_and_a_connection_to_the_toolstacks_endpoint_does() -> None:
    with Cluster.build([DomainConfig("idler", "hvd:idle")]) as cluster:
        idler = cluster.domain("idler")
        before = settled(cluster)
        connections = connections_of(idler)
        idler.sysrq("h")  # it has asked nothing until then
        until = time.monotonic() + DEADLINE_S / 2
        while connections_of(idler) == connections:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert settled(cluster).difference(before).keys() <= {"store nodes"}
        with connected(cluster.run_dir / CONTROL):
            changed = settled(cluster).difference(before).keys()
            assert changed - {"store nodes"} == {"descriptors of the broker: socket"}


def test_a_spare_that_has_connected_changes_no_count_when_the_next_broker_has_no_connection_of_its() -> None:
    config = DomainConfig("idler", "hvd:driver_domain", driver_domain=True, spare=True)
    with Cluster.build([config]) as cluster:
        until = time.monotonic() + DEADLINE_S / 2
        while cluster.domain("idler").info().spare != "stands by":
            assert time.monotonic() < until
            time.sleep(0.01)
        before = settled(cluster)
        with cluster.fault("broker-kill") as injection:
            assert injection.wait_activated(), injection.evidence
        assert settled(cluster).difference(before) == {}


COUNTS_OF_NOBODY = """
from hvd import Cluster
from hvd.toolstack.faults.conservation import settled
from hvd.transport.messages import DomainConfig
with Cluster.build([DomainConfig("idler", "hvd:idle")]) as cluster:
    cluster.wait_ready()
    before = settled(cluster)
    with cluster.fault("broker-kill") as injection:
        assert injection.wait_activated(), injection.evidence
    print(settled(cluster).difference(before))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")
def test_counts_need_no_root() -> None:
    with nobody() as somebody:
        if somebody is None:
            pytest.skip("no interpreter of this version that other users may execute")
        done = subprocess.run(
            [*somebody.python, "-P", "-c", COUNTS_OF_NOBODY], env=somebody.environment, cwd="/", text=True,
            capture_output=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "{}\n"), done.stderr


def connections_of(domain: Domain) -> int:
    """As the kernel lists them in its network namespace: the broker's ends, by where they were bound."""
    return Path(f"/proc/{domain.pid}/net/unix").read_text().count(f"/{DOMAINS}/{domain.domid}.1.{ENDPOINT}.")


@contextmanager
def connected(path: Path) -> Iterator[None]:
    """To a socket whose path may be long."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"/proc/self/fd/{directory}/{path.name}")
            yield
    finally:
        os.close(directory)


def test_counts_of_a_cluster_are_the_same_after_a_domain_has_come_and_gone() -> None:
    with Cluster.build([DomainConfig("idler", "hvd:idle")]) as cluster:
        before = settled(cluster)
        domain = cluster.create(DomainConfig("guest", "hvd:idle"))
        domain.wait_ready()
        changed = census(cluster).difference(before)
        channels = "shared memory objects: /memfd:hvd-channel"
        assert {"domains", "ports", "processes", "store nodes", channels} <= changed.keys()
        domain.destroy()
        until = time.monotonic() + DEADLINE_S / 2
        while left := census(cluster).difference(before):
            assert time.monotonic() < until, left
