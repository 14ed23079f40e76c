"""The hvd command over real machines, from `up` to nothing left, and what bad input starts: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.cluster import Cluster, DomainState
from hvd.toolstack.cluster.sandbox_trial import lacking_here
from hvd.transport.run_dir import CORES, LOG
from hvd.transport.sandbox import LAYERS
from tests.waiting import wait_for

DEADLINE_S = 60.0
XL_FILES = Path(__file__).parents[1] / "unit/toolstack/config/xl"
DRIVER = '[[domain]]\nname = "driver"\nkernel = "hvd:driver_domain"\ndriver_domain = true\n'
GUEST = '[[domain]]\nname = "guest"\nkernel = "guest.py"\nafter = ["driver"]\n'
TALKATIVE = """
def main(guest):
    print("good morning from", guest.name, *guest.args)
    while True:
        print("you said", input())
"""
STUBBORN = """
import signal
def main(guest):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    guest.run_forever()
"""
Hvd = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a user whose cluster lives in a directory of its own; whatever a failed test leaves running there is ended."""
    variables = os.environ | {"HVD_RUN_DIR": str(tmp_path / "run")}
    yield variables
    with contextlib.suppress(FileNotFoundError):
        left = {entry.name for entry in Path(variables["HVD_RUN_DIR"]).iterdir()}
        if left - {LOG, CORES}:  # a machine that was ended leaves no more
            down = [sys.executable, "-m", "hvd", "down"]
            subprocess.run(down, env=variables, timeout=DEADLINE_S, capture_output=True, check=False)


@pytest.fixture
def hvd(environment: dict[str, str], tmp_path: Path) -> Hvd:
    """Runs the command in a directory with guest.py in it."""
    (tmp_path / "guest.py").write_text(TALKATIVE)
    (tmp_path / "pair.toml").write_text(DRIVER + GUEST)

    def run(*words: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hvd", *words]
        result = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert status in (None, result.returncode), f"{result.stdout}\n{result.stderr}"
        return result

    return run


def listed(hvd: Hvd) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(hvd("list", "--json").stdout)}


def members(session: int) -> list[int]:
    """The processes of a machine's session that are not yet gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def machine_of(hvd: Hvd) -> int:
    return int(json.loads(hvd("info", "--json").stdout)["machine_pid"])


# ---- up and down -----------------------------------------------------------------------------------------------------


def test_up_without_a_file_starts_dom0_alone_and_down_leaves_nothing_but_logs(hvd, tmp_path):
    assert hvd("up", "-d").stdout == f"hvd is up in {tmp_path / 'run'}: Domain-0\n"
    machine = machine_of(hvd)
    assert list(listed(hvd)) == ["Domain-0"]
    assert hvd("down").stdout == f"powered off {tmp_path / 'run'}: 1 domains (Domain-0)\n"
    assert members(machine) == []
    assert {entry.name for entry in (tmp_path / "run").iterdir()} <= {"log"}
    assert "removed log" in hvd("clean").stdout
    assert not (tmp_path / "run").exists()


def test_up_tells_programs_everything_in_one_object(hvd, tmp_path):
    up = json.loads(hvd("up", "-d", "--json", "pair.toml").stdout)
    assert (up["name"], up["run_dir"], up["machine_pid"]) == ("pair", str(tmp_path / "run"), machine_of(hvd))
    assert [domain["name"] for domain in up["domains"]] == ["Domain-0", "driver", "guest"]
    steps = list(up["timings_ms"].values())
    assert "dom0's first line" in up["timings_ms"]
    assert steps[0] > 0


def test_info_tells_what_each_domain_has_of_what_it_may_have(hvd):
    hvd("up", "-d", "pair.toml")
    rows = json.loads(hvd("info", "--quotas", "--json").stdout)
    assert [row["name"] for row in rows] == ["Domain-0", "driver", "guest"]
    used, most = rows[2]["quotas"]["event channels"]
    assert 2 <= used < most == 1023
    shown = hvd("info", "--quotas").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["Name", "Domain-0", "driver", "guest", "(at"]
    assert "1,023" in shown[-1]


def test_info_and_the_log_tell_which_layers_of_each_sandbox_are_in_force_and_why_others_are_not(hvd):
    hvd("up", "-d", "pair.toml")
    rows = json.loads(hvd("info", "--sandbox", "--json").stdout)
    console = hvd("dmesg").stdout.splitlines()
    shown = hvd("info", "--sandbox").stdout
    assert [row["name"] for row in rows] == ["Domain-0", "driver", "guest"]
    for row in rows:
        lacking = row["lacking"]
        assert sorted([*row["in_force"], *lacking]) == sorted(LAYERS)
        assert all(lacking.values()) and all(f"{name}: {why}" in shown for name, why in lacking.items())
        (line,) = [line for line in console if f"domain {row['domid']} {row['name']}: sandbox" in line]
        assert all(f"{name} ({why}" in line for name, why in lacking.items())
        assert all(layer in line.partition("lacking")[0] for layer in row["in_force"])


def test_a_layer_that_is_required_and_lacks_here_or_that_there_is_not_starts_nothing(hvd, tmp_path):
    lacking = lacking_here()
    assert lacking, "of user and uid one lacks everywhere"
    layer, why = next(iter(lacking.items()))
    for required, told in ((f"root,{layer}", f"the layer {layer}"), ("root,rot", "root"), (",", "at least one layer")):
        refused = hvd("up", "-d", f"--require-sandbox={required}", "pair.toml", status=2)
        assert "--require-sandbox" in refused.stderr and told in refused.stderr
    assert not (tmp_path / "run").exists()
    assert why in hvd("up", "-d", f"--require-sandbox={layer}", status=2).stderr
    in_force = [name for name in LAYERS if name not in lacking]
    hvd("up", "-d", f"--require-sandbox={','.join(in_force)}")
    assert list(listed(hvd)) == ["Domain-0"]


def test_up_shows_timings_when_asked(hvd):
    assert "ms  broker ready" in hvd("up", "-d", "--timings").stdout


def test_a_second_machine_in_the_same_directory_is_refused_and_harms_nothing(hvd):
    hvd("up", "-d")
    assert "a machine runs in" in hvd("up", "-d", status=1).stderr
    assert list(listed(hvd)) == ["Domain-0"]
    assert "end it with `hvd down`" in hvd("clean", status=1).stderr


def test_a_domain_that_does_not_come_up_is_told_and_nothing_is_left(hvd, tmp_path):
    (tmp_path / "guest.py").write_text("AUTO_READY = False\ndef main(guest):\n    raise ValueError('no fuel')\n")
    (tmp_path / "pair.toml").write_text(DRIVER + GUEST + "restart_limit = 1\n")
    result = hvd("up", "-d", "pair.toml", status=1)
    assert "domain guest (domid 2) is failed" in result.stderr
    assert "ValueError: no fuel" in result.stderr
    hvd("list", status=1)
    assert "ValueError: no fuel" in hvd("logs", "guest").stdout


def test_commands_find_what_other_commands_did(hvd):
    hvd("up", "-d", "pair.toml")
    hvd("pause", "guest")
    assert listed(hvd)["guest"]["state"] == "paused"
    hvd("unpause", "guest")
    assert listed(hvd)["guest"]["state"] == "running"
    hvd("reboot", "guest", "driver")
    assert [listed(hvd)[name]["incarnation"] for name in ("guest", "driver")] == [2, 2]
    hvd("create", "--kernel", "guest.py", "--name", "third", "--after", "driver", "--arg", "x y", "--memory", "32")
    assert listed(hvd)["third"]["memory"] == 32
    hvd("shutdown", "third")
    assert "third" not in listed(hvd)
    hvd("destroy", "guest")
    assert list(listed(hvd)) == ["Domain-0", "driver"]


def test_a_file_can_be_added_to_a_running_cluster(hvd, tmp_path):
    hvd("up", "-d", "pair.toml")
    device = '[[domain.device]]\ntype = "echo"\nbackend = "driver"\n'
    more = '[[domain]]\nname = "more"\nkernel = "hvd:idle"\nafter = ["guest"]\n'
    (tmp_path / "more.toml").write_text(more + device)
    assert "created more (domid 3)" in hvd("create", "more.toml").stdout
    assert listed(hvd)["more"]["ready"]
    refused = hvd("create", "more.toml", status=2)
    assert "the name of a running domain" in refused.stderr


def test_an_xl_cfg_is_added_to_a_running_cluster(hvd, tmp_path):
    (tmp_path / "web.cfg").write_text("name = 'web'\nkernel = '/boot/vmlinuz'\nmemory = '32'\nvfb = [ '' ]\n")
    hvd("up", "-d")
    refused = hvd("create", "web.cfg", status=2)
    assert "web.cfg:2:10: kernel: expected a program" in refused.stderr
    created = hvd("create", "web.cfg", "--kernel", "guest.py", "--json")
    assert "warning: web.cfg:4: vfb is left out: xl has it, hvd does not" in created.stderr
    assert json.loads(created.stdout) == [{"done": "created", "domid": 1, "name": "web"}]
    assert listed(hvd)["web"]["memory"] == 32


READER = """
def main(guest):
    for name, disk in sorted(guest.disks().items()):
        print(name, disk.read(0, 1)[:4].decode(), "ro" if disk.readonly else "rw")
    print("told:", *guest.args)
    guest.run_forever()
"""


@pytest.mark.parametrize(
    ("name", "vifs", "expected"),
    [
        ("pv-linux.cfg", 1, "xvda 0000 rw\ntold: root=/dev/xvda1\n"),
        ("hvm-linux.cfg", 1, "hdc 0001 ro\nxvda 0000 rw\ntold:\n"),
        ("netbsd.cfg", 1, "0x1 0000 rw\n0x2 0001 ro\ntold: root=xbd0 -v -s\n"),
        ("debian-pygrub.cfg", 1, "xvda1 0001 rw\nxvda2 0000 rw\ntold: root=/dev/xvda2 ro\n"),
        ("router.cfg", 3, "51760 0004 ro\nhdc 0002 ro\nxvda 0000 rw\nxvdb 0001 rw\nxvdc 0003 rw\n"
                          "told: console=hvc0 root=/dev/xvda1\n"),
    ],
)  # fmt: skip
def test_a_file_like_those_of_real_hosts_boots_with_a_kernel_of_ours(hvd, tmp_path, name, vifs, expected):
    text = (XL_FILES / name).read_text().replace("/srv/xen/", f"{tmp_path}/")
    for number, image in enumerate(re.findall(rf"{tmp_path}/[\w-]+\.(?:img|iso)", text)):
        Path(image).write_bytes(b"%04d" % number + bytes(4092))
    (tmp_path / name).write_text(text)
    (tmp_path / "reader.py").write_text(READER)
    hvd("up", "-d")
    created = json.loads(hvd("create", name, "--kernel", "reader.py", "--json").stdout)[0]
    told = lambda: hvd("logs", created["name"], status=None).stdout  # noqa: E731, there is none before dom0 writes it
    wait_for(lambda: told() == expected, told)
    assert len(json.loads(hvd("network-list", created["name"], "--json").stdout)) == vifs


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [("--memory", "0", "memory: expected a whole number from 1"),
     ("--vcpus", "0", "vcpus: expected a whole number from 1"),
     ("--name", "", "name: expected a text"), ("--seclabel", "", "seclabel: expected a text"),
     ("--on-crash", "", "on_crash: expected one of"), ("--disk", "", "disk[0]: expected a text")],
)  # fmt: skip
def test_an_option_that_says_nothing_is_bad_input_and_not_left_out(hvd, option, value, expected):
    hvd("up", "-d")
    given = {"--kernel": "hvd:idle", "--name": "idle", option: value}
    result = hvd("create", *(word for pair in given.items() for word in pair), status=2)
    assert f"command line: {expected}" in result.stderr
    assert list(listed(hvd)) == ["Domain-0"]


def test_a_new_domain_that_does_not_fit_is_bad_input_and_changes_nothing(hvd):
    hvd("up", "-d", "pair.toml")
    result = hvd("create", "--kernel", "gest.py", "--name", "guest", "--after", "driwer", status=2)
    for expected in ("kernel: expected a Python file", "the name of a running domain", 'did you mean "driver"?'):
        assert expected in result.stderr
    assert list(listed(hvd)) == ["Domain-0", "driver", "guest"]


def test_a_machine_whose_broker_hangs_can_be_powered_off(hvd):
    hvd("up", "-d")
    os.kill(json.loads(hvd("info", "--json").stdout)["broker_pid"], signal.SIGSTOP)
    assert "powered off" in hvd("down").stdout


def test_a_name_that_is_given_twice_counts_once(hvd):
    hvd("up", "-d", "pair.toml")
    assert hvd("list", "guest", "guest", "2").stdout.count("guest") == 1
    assert hvd("destroy", "guest", "guest").stdout == "destroyed guest (domid 2)\n"


def test_what_a_domain_died_of_makes_no_lines_and_no_colours(hvd, tmp_path):
    (tmp_path / "loud.py").write_text(
        "def main(guest):\n    raise ValueError('one\\nDomain-7   7 \\x1b[31m' + 'x' * 500)\n"
    )
    hvd("up", "-d")
    hvd("create", "--kernel", "loud.py", "--name", "loud", "--on-crash", "preserve", "--no-wait")
    with Cluster.attach(tmp_path / "run") as cluster:
        cluster.domain("loud").wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
    text = hvd("list", "-r").stdout
    assert "crash: ValueError: one…" in text
    assert "Domain-7" not in text
    death = next(d["last_death"] for d in json.loads(hvd("list", "--json").stdout) if d["name"] == "loud")
    assert "\x1b[31m" in death


def test_a_kill_is_followed_by_a_restart_that_list_tells_of(hvd):
    hvd("up", "-d", "pair.toml")
    hvd("kill", "driver")
    wait_for(lambda: listed(hvd)["driver"]["incarnation"] == 2, "the driver domain to be started again")
    assert listed(hvd)["driver"]["last_death"] == "killed by SIGKILL"


def test_a_name_that_nobody_has_is_told_with_those_there_are(hvd):
    hvd("up", "-d", "pair.toml")
    for command in ("destroy", "pause", "kill", "console", "list"):
        assert "there are: Domain-0, driver, guest" in hvd(command, "gest", status=1).stderr
    assert "no log of a domain 'gest'" in hvd("logs", "gest", status=1).stderr


def test_what_was_printed_can_be_followed_until_the_machine_ends_and_read_after(hvd, environment):
    hvd("up", "-d", "pair.toml")
    command = [sys.executable, "-m", "hvd", "logs", "-f", "guest"]
    until = time.monotonic() + DEADLINE_S
    while "guest" not in hvd("logs", "guest", status=None).stdout:  # dom0 writes it, a moment after the guest said it
        assert time.monotonic() < until
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "good morning from guest\n"
        hvd("kill", "guest")
        assert follower.stdout.readline() == "good morning from guest\n"
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as other:
            assert other.stdout is not None
            other.stdout.readline()
            other.send_signal(signal.SIGINT)
            assert other.wait(DEADLINE_S) == 0
        hvd("down")
        assert follower.wait(DEADLINE_S) == 0
    assert json.loads(hvd("logs", "guest", "--json").stdout)["text"] == 2 * "good morning from guest\n"


def test_tab_offers_the_domains_that_are_alive(hvd, environment):
    hvd("up", "-d", "pair.toml")
    completion = environment | {
        "_HVD_COMPLETE": "complete_bash", "COMP_WORDS": "hvd pause g", "COMP_CWORD": "2",
    }  # fmt: skip
    script = "import sys; sys.argv = ['hvd']; from hvd.__main__ import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", script], env=completion, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert result.stdout.split() == ["guest"]


# ---- in the foreground -----------------------------------------------------------------------------------------------


class Foreground:
    """`hvd up --json` and what it says, an object a line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process = process
        self._output = process.stdout.fileno()
        self._read = b""

    def next(self) -> dict[str, Any]:
        until = time.monotonic() + DEADLINE_S
        while b"\n" not in self._read:
            assert select.select([self._output], [], [], max(0.0, until - time.monotonic()))[0], self._read
            data = os.read(self._output, 65536)
            assert data, self._read
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def ends_by(self, number: signal.Signals | None) -> int:
        """Its exit status after this signal."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def foreground(environment: dict[str, str], directory: Path, *words: str) -> Iterator[Foreground]:
    command = [sys.executable, "-m", "hvd", "up", "--json", *words]
    with subprocess.Popen(command, env=environment, cwd=directory, stdout=subprocess.PIPE) as process:
        try:
            yield Foreground(process)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_powers_a_cluster_in_the_foreground_off(hvd, environment, tmp_path, number):
    with foreground(environment, tmp_path, "pair.toml") as up:
        machine = up.next()["machine_pid"]
        assert up.ends_by(number) == 0
    assert members(machine) == []
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {"log"}


def test_events_are_told_in_the_foreground(hvd, environment, tmp_path):
    with foreground(environment, tmp_path, "pair.toml") as up:
        up.next()
        hvd("kill", "driver")
        news = []
        while "ready" not in news:
            event = up.next()
            news += [event["event"]] if event["name"] == "driver" and event["event"] != "reaped" else []
        # When the dead one is reaped is told a moment later, behind the next one's readiness or not.
        assert news == ["signalled", "died", "starting", "ready"]
        assert up.ends_by(signal.SIGINT) == 0


def test_whoever_interrupts_twice_does_not_wait_for_guests(hvd, environment, tmp_path):
    (tmp_path / "guest.py").write_text(STUBBORN)
    with foreground(environment, tmp_path, "pair.toml") as up:
        machine = up.next()["machine_pid"]
        with Cluster.attach(tmp_path / "run") as cluster, cluster.events() as events:
            up.process.send_signal(signal.SIGINT)
            while (event := events.next(DEADLINE_S)).event != "shutting down" or event.name != "guest":
                continue
            assert up.ends_by(signal.SIGINT) == 0
            news = [(event.event, event.name) for event in events]
        assert ("died", "guest") not in news  # one whose grace is over is killed by the broker, which tells so
    assert members(machine) == []


def test_a_cluster_in_the_foreground_ends_when_another_says_so(hvd, environment, tmp_path):
    with foreground(environment, tmp_path, "pair.toml") as up:
        up.next()
        hvd("down")
        assert up.ends_by(None) == 0


def test_a_foreground_command_that_is_killed_takes_its_cluster_with_it(hvd, environment, tmp_path):
    with foreground(environment, tmp_path, "pair.toml") as up:
        machine = up.next()["machine_pid"]
        pidfd = os.pidfd_open(machine)
        up.process.kill()
        assert select.select([pidfd], [], [], DEADLINE_S)[0]
        os.close(pidfd)
    assert members(machine) == []
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {"log"}


# ---- a power cut -----------------------------------------------------------------------------------------------------


def cut_power(machine: int, *others: int) -> None:
    """Kill it, and these; it has its directory until it has come to its end."""
    pidfd = os.pidfd_open(machine)
    try:
        for pid in (machine, *others):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], DEADLINE_S)[0]
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("command", ["down", "clean"])
def test_nothing_is_left_after_everything_was_killed_at_once(hvd, tmp_path, command):
    machine = json.loads(hvd("up", "-d", "--json", "pair.toml").stdout)["machine_pid"]
    cut_power(machine, *members(machine))
    result = hvd(command)
    assert "removed control" in result.stdout
    assert members(machine) == []
    left = {entry.name for entry in (tmp_path / "run").iterdir()} if (tmp_path / "run").exists() else set()
    assert left <= {"log"}
    wait_for(lambda: "nothing was left" in hvd("down").stdout, "the last of the dead to be out of their control groups")


def test_a_machine_starts_where_another_was_killed(hvd):
    machine = json.loads(hvd("up", "-d", "--json", "pair.toml").stdout)["machine_pid"]
    cut_power(machine)
    again = json.loads(hvd("up", "-d", "--json", "pair.toml").stdout)
    assert again["machine_pid"] != machine
    assert [domain["incarnation"] for domain in again["domains"]] == [1, 1, 1]


# ---- bad input: exit status 2, and nothing was started ---------------------------------------------------------------

ONE = '[[domain]]\nname = "one"\nkernel = "guest.py"\n'
IMAGE = 'disk = ["{}"]\n'
BAD_FILES = {
    "a file that is missing": (None, "No such file"),
    "a file that is no TOML": ("[[domain]\n", "bad.toml:1"),
    "a key that nobody knows": (ONE + 'memroy = 64\n', 'did you mean "memory"?'),
    "a value of another type": (ONE + 'memory = "much"\n', 'bad.toml:4: domain[0] "one".memory: expected'),
    "a name that two have": (ONE + ONE, "expected a name of its own"),
    "a cycle": (ONE + 'after = ["two"]\n' + ONE.replace("one", "two") + 'after = ["one"]\n', "→"),
    "a domain that is waited for and is none": (ONE + 'after = ["nobody"]\n', '"nobody"'),
    "a kernel that is missing": (ONE.replace("guest.py", "gone.py"), "gone.py"),
    "a kernel that is no Python": (ONE.replace("guest.py", "broken.py"), "broken.py line 1"),
    "a kernel without main": (ONE.replace("guest.py", "headless.py"), "a function main(guest)"),
    "an image that is missing": (ONE + IMAGE.format("gone.img,raw,xvda,rw"), "gone.img"),
    "an image that is no multiple of 512 bytes": (ONE + IMAGE.format("odd.img,raw,xvda,rw"), "512"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_input_is_told_and_nothing_is_started(hvd, tmp_path, case):
    text, expected = BAD_FILES[case]
    (tmp_path / "broken.py").write_text("def main(guest)\n")
    (tmp_path / "headless.py").write_text("x = 1\n")
    (tmp_path / "odd.img").write_bytes(bytes(1000))
    if text is not None:
        (tmp_path / "bad.toml").write_text(text)
    result = hvd("up", "-d", "bad.toml", status=2)
    assert result.stdout == ""
    assert "bad.toml" in result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("up", "-d", "--deadline", "inf"),
        ("down", "--grace", "nan"),
        ("down", "--grace", "1e8"),
        ("down", "--grace", "-1"),
    ],
    ids=" ".join,
)
def test_a_time_that_nobody_can_wait_is_bad_input(hvd, tmp_path, words):
    assert "a number of seconds from 0 to 4294967" in hvd(*words, status=2).stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["run-\udcff", "file/run"], ids=["no UTF-8", "below a file"])
def test_a_directory_that_cannot_be_one_is_bad_input(environment, tmp_path, name):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "hvd", "up", "-d"]
    environment = environment | {"HVD_RUN_DIR": str(tmp_path / name)}
    result = subprocess.run(command, env=environment, capture_output=True, timeout=DEADLINE_S, check=False)
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"HVD_RUN_DIR" in result.stderr
    assert b"Traceback" not in result.stderr


def test_a_command_without_a_standard_output_fails_in_silence(hvd, environment):
    hvd("up", "-d")
    command = f"exec {sys.executable} -m hvd list >&-"
    result = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, timeout=DEADLINE_S, check=False
    )
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.parametrize("word", ["gone.toml", "--frobnicate"])
def test_a_machine_that_was_started_ahead_is_gone_when_bad_input_is_told(environment, tmp_path, word):
    """`hvd up` forks the machine before it reads its command line."""
    command = [sys.executable, "-m", "hvd", "up", word]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL) as up:
        assert up.wait(DEADLINE_S) == 2
    marked = f"HVD_RUN_DIR={tmp_path / 'run'}".encode()
    assert processes_with(marked) == []


def processes_with(variable: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if variable in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


# ---- the console -----------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal with `hvd console` on it."""

    def __init__(self, environment: dict[str, str], name: str) -> None:
        self._master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hvd", "console", name], env=environment, stdin=slave, stdout=slave, stderr=slave
        )

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def wait_for(self, text: bytes) -> None:
        until = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            assert select.select([self._master], [], [], max(0.0, until - time.monotonic()))[0], self.seen
            self.seen += os.read(self._master, 4096)

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Callable[[str], Terminal]]:
    opened: list[Terminal] = []

    def attach(name: str) -> Terminal:
        opened.append(Terminal(environment, name))
        return opened[-1]

    yield attach
    for each in opened:
        each.close()


def test_a_console_passes_both_ways_until_ctrl_right_bracket(hvd, terminal):
    hvd("up", "-d", "pair.toml")
    console = terminal("guest")
    console.type(b"open ")  # ahead of the attachment
    console.wait_for(b"Ctrl-] detaches")
    console.type(b"sesame\r")
    console.wait_for(b"you said open sesame")
    console.type(b"\x1d")
    assert console.process.wait(DEADLINE_S) == 0
    console.wait_for(b"detached")
    assert console.modes() == console.before
    assert listed(hvd)["guest"]["incarnation"] == 1


def test_an_attached_console_goes_on_when_its_domain_is_killed(hvd, terminal, tmp_path):
    (tmp_path / "guest.py").write_text(TALKATIVE.replace("guest.name", "guest.incarnation"))
    hvd("up", "-d", "pair.toml")
    console = terminal("guest")
    console.wait_for(b"Ctrl-] detaches")
    hvd("kill", "guest")
    console.wait_for(b"good morning from 2")
    console.type(b"again\r")
    console.wait_for(b"you said again")


def test_an_attached_console_ends_with_the_machine(hvd, terminal):
    hvd("up", "-d", "pair.toml")
    console = terminal("guest")
    console.wait_for(b"Ctrl-] detaches")
    hvd("down")
    console.wait_for(b"the console is gone")
    assert console.process.wait(DEADLINE_S) == 0
    assert console.modes() == console.before


# ---- scripts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Hvd:
    def run(name: str, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        path = request.config.rootpath / "scripts" / name
        command = [sys.executable, str(path), *words]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert result.returncode == status, f"{result.stdout}\n{result.stderr}"
        return result

    return run


@pytest.mark.parametrize("name", ["launch_cluster.py", "inject_faults.py"])
def test_scripts_explain_themselves_with_examples(script, name):
    assert f"scripts/{name} " in script(name, "--help").stdout.partition("Examples:")[2]


@pytest.mark.parametrize("name", ["launch_cluster.py", "inject_faults.py"])
def test_scripts_refuse_bad_input(script, tmp_path, name):
    (tmp_path / "bad.toml").write_text("[[domain]\n")
    assert "bad.toml:1" in script(name, "bad.toml", status=2).stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--kills", "-3"), "a whole number from 1 on"),
        (("--interval", "nan"), "a number of seconds"),
        (("--victim", "nobody"), "there are: driver, guest"),
    ],
    ids=["kills", "interval", "victim"],
)
def test_inject_faults_refuses_what_makes_no_sense(hvd, script, words, expected):
    assert expected in script("inject_faults.py", "pair.toml", *words, status=2).stderr


def test_launch_cluster_starts_any_file(hvd, script, tmp_path):
    lines = script("launch_cluster.py", "pair.toml", "--for", "0.1", "--json").stdout.splitlines()
    launched = json.loads(lines[0])
    assert [domain["name"] for domain in launched["domains"]] == ["Domain-0", "driver", "guest"]
    assert not Path(launched["run_dir"]).exists()


def test_inject_faults_kills_and_times_what_comes_back(hvd, script):
    words = ("inject_faults.py", "pair.toml", "--kills", "6", "--seed", "1", "--interval", "0.01")
    report = json.loads(script(*words, "--json").stdout)
    assert len(report["kills"]) == 6
    assert report["lost"] == 0
    assert all(kill["recovered"] and kill["detected_ms"] < kill["ready_ms"] for kill in report["kills"])
    again = json.loads(script(*words, "--json").stdout)
    assert [kill["victim"] for kill in again["kills"]] == [kill["victim"] for kill in report["kills"]]


def test_inject_faults_fails_when_a_domain_does_not_come_back(hvd, script, tmp_path):
    (tmp_path / "pair.toml").write_text(DRIVER + GUEST + 'on_crash = "destroy"\n')
    result = script("inject_faults.py", "pair.toml", "--kills", "3", "--victim", "guest", status=1)
    assert "guest did not come back from kill 1: destroyed" in result.stdout
