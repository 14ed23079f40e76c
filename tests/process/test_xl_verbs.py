"""xl's verbs by the hvd command over one real cluster: what each prints, its JSON, and its exit status."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.cluster import Cluster
from hvd.transport import messages as m
from tests.progress import without_progress
from tests.waiting import wait_for

GOLDEN = Path(__file__).parents[1] / "unit/toolstack/cli/golden"
GUEST = """
def main(guest):
    print("up")
    guest.run_forever()
"""
CLUSTER = """
[[domain]]
name = "driver"
kernel = "hvd:driver_domain"
driver_domain = true

[[domain]]
name = "guest"
kernel = "guest.py"
memory = 48
maxmem = 64
disk = ["vdev=xvda,backend=driver,target=a.img"]
"""
DEAF = """
import signal, time

def main(guest):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    guest.ready()
    while True:
        time.sleep(1)

AUTO_READY = False
"""
Hvd = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(600)  # a dozen processes each, and each has its own deadline


def load(directory: Path) -> Cluster:
    (directory / "guest.py").write_text(GUEST)
    (directory / "c.toml").write_text(CLUSTER)
    for image in ("a.img", "b.img"):
        (directory / image).write_bytes(bytes(1 << 20))
    return Cluster.load(directory / "c.toml", run_dir=directory / "run")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """For tests that leave it as they found it: to start one takes as long as three commands."""
    with load(tmp_path_factory.mktemp("c")) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """For tests that do not."""
    with load(tmp_path) as running:
        running.wait_ready()
        yield running


def commands_of(cluster: Cluster) -> Hvd:
    environment, directory = os.environ | {"HVD_RUN_DIR": str(cluster.run_dir)}, cluster.run_dir.parent

    def run(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hvd", *words]
        done = subprocess.run(
            command, env=environment, cwd=directory, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, f"{words}: {done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def hvd(shared: Cluster) -> Hvd:
    return commands_of(shared)


@pytest.fixture
def own(cluster: Cluster) -> Hvd:
    return commands_of(cluster)


def told(hvd: Hvd, *words: str) -> Any:
    return json.loads(hvd(*words, "--json").stdout)


def heading(name: str) -> str:
    return (GOLDEN / f"{name}.txt").read_text().splitlines()[0]


TABLES = [
    (["list"], "list"), (["list", "-v"], "list-v"), (["list", "-Z"], "list-Z"), (["vcpu-list"], "vcpu-list"),
    (["uptime"], "uptime"), (["vm-list"], "vm-list"), (["block-list", "guest"], "block-list"),
    (["network-list", "guest"], "network-list"),
]  # fmt: skip


def test_tables_of_live_domains_have_xls_headings_and_a_line_for_each(hvd: Hvd) -> None:
    for words, golden in TABLES:
        first, *lines = hvd(*words).stdout.splitlines()
        assert first == heading(golden)
        rows = told(hvd, *words)
        assert len(lines) == len(rows)
        for line, row in zip(lines, rows, strict=True):
            assert str(row["name"] if "name" in row else row["vdev"]) in line.split()


def test_what_is_told_of_the_machine_is_in_json_too(hvd: Hvd) -> None:
    named = {line.partition(":")[0].strip() for line in hvd("info").stdout.splitlines()}
    facts = told(hvd, "info")
    assert named == facts.keys() - {"uptime_ns"}
    assert told(hvd, "info", "total_memory") == {"total_memory": facts["total_memory"]}


def test_a_domain_is_listed_with_what_it_is_made_of(hvd: Hvd) -> None:
    (listed,) = json.loads(hvd("list", "-l", "guest").stdout)
    expected = json.loads((GOLDEN / "list-l.json").read_text())
    assert listed["config"].keys() == expected["config"].keys()
    for part in ("c_info", "b_info"):
        assert listed["config"][part].keys() <= expected["config"][part].keys()
    assert (listed["domid"], listed["config"]["b_info"]["target_memkb"]) == (2, 48 * 1024)
    assert listed["config"]["disks"][0]["backend_domname"] == "driver"


def test_a_disk_is_plugged_in_listed_and_taken_away(hvd: Hvd) -> None:
    attached = told(hvd, "block-attach", "guest", "vdev=xvdb,backend=driver,target=b.img")
    assert attached == {"done": "attached xvdb to", "domid": 2, "name": "guest", "devid": 51728, "waits": None}
    assert [disk["vdev"] for disk in told(hvd, "block-list", "guest")] == [51712, 51728]
    assert "51728" in hvd("block-list", "guest").stdout
    assert hvd("block-detach", "guest", "xvdb").stdout == "detached xvdb from guest (domid 2)\n"
    assert "Error: Device xvdb not connected." in hvd("block-detach", "guest", "xvdb", status=1).stderr
    for wrong in ("vdev=xvdb,backend=nobody,target=b.img", "nonsense", "vdev=xvdc,backend=driver"):
        hvd("block-attach", "guest", wrong, status=2)
    assert [disk["vdev"] for disk in told(hvd, "block-list", "guest")] == [51712]


def test_what_xl_bears_is_borne(hvd: Hvd) -> None:
    """A domain that is paused already, or runs already, and a name that nobody has where disks are listed."""
    for command in ("pause", "pause", "unpause", "unpause"):
        assert [done["name"] for done in told(hvd, command, "guest")] == ["guest"]
    listed = hvd("block-list", "nobody", "guest")
    assert listed.stdout == hvd("block-list", "guest").stdout
    assert listed.stderr == "hvd: nobody is an invalid domain identifier\n"


def follow(transcript: str, hvd: Hvd) -> None:
    """It has a `$ hvd` line for each command; what differs from run to run is a pattern, `...` any lines."""
    steps = (GOLDEN / f"{transcript}.txt").read_text().removeprefix("$ hvd ").split("\n$ hvd ")
    for step in steps:
        command, *expected = step.splitlines()
        status = int(expected.pop().split()[1]) if expected[-1:] and expected[-1].startswith("status ") else 0
        done = hvd(*command.split(), status=status)
        told_us = (without_progress(done.stderr) if status else done.stdout).splitlines()
        assert is_told(told_us, expected), f"{command}: {told_us} is not {expected}"


@pytest.mark.parametrize(
    ("words", "told_us"),
    [
        (["trigger", "guest", "foo"], 'TRIGGER: expected one of power, reset, nmi, found "foo"'),
        (["rename", "guest", ""], 'NEW-NAME: expected 1 to 64 letters, digits, _ . + -'),
        (["rename", "guest", "a/b"], 'found "a/b"'),
        (["rename", "guest", "1"], "not digits alone (that is a domid), found"),
        (["sysrq", "guest", "\u00e9"], "LETTER: expected one letter or digit, as h for help, found"),
        (["sysrq", "guest", "hh"], "LETTER: expected one letter"),
        (["create", "--kernel", "hvd:idle", "--name", "idle", "--seclabel", "nosuch_t"], "has no label 'nosuch_t'"),
        (["network-attach", "guest", "backend=drivr"],
         'VIF.backend: expected the name of a driver domain, found "drivr"; did you mean "driver"?'),
        (["block-attach", "guest", "b.img,,xvdb,w,backend=drivr"],
         'DISK.backend: expected the name of a driver domain, found "drivr"; did you mean "driver"?'),
        (["block-attach", "driver", "b.img,,xvdb,w,backend=guest"],
         'DISK.backend: expected the name of a driver domain, found "guest", which is none'),
        (["network-attach", "guest", "backend=guest"],
         'VIF.backend: expected the name of a driver domain, found "guest", which is none'),
        (["block-detach", "guest", "9" * 5000], "DEVID: expected xvda … xvdzz, "),
        (["block-attach", "guest", ",hdc:cdrom,r"], "DISK: expected a disk with an image, found a CD-ROM drive"),
        (["console", "-t", "serial", "guest"], "a domain's console is pv"),
        (["console", "-n", "1", "guest"], "-n"),
    ],
)  # fmt: skip
def test_bad_input_is_told_as_such_and_nothing_is_done(hvd: Hvd, words: list[str], told_us: str) -> None:
    before = hvd("list", "-l").stdout
    error = hvd(*words, status=2).stderr
    assert told_us in error and "Domctl" not in error
    assert hvd("list", "-l").stdout == before


def test_a_disk_line_means_to_block_attach_what_it_means_to_xl(own: Hvd, tmp_path: Path) -> None:
    done = own("block-attach", "guest", f"phy:{tmp_path}/b.img,hdc:cdrom,r,direct-io-safe,backend=driver")
    assert done.stdout == "attached hdc to guest (domid 2)\n"
    warning = "command line: DISK does without direct-io-safe: it is advice to Xen's drivers"
    assert without_progress(done.stderr) == f"hvd: warning: {warning}\n"
    (listed,) = json.loads(own("list", "-l", "guest").stdout)
    assert [(disk["vdev"], disk["is_cdrom"]) for disk in listed["config"]["disks"]][1:] == [("hdc", 1)]


def test_a_disk_that_is_to_offer_no_discarding_offers_none(own: Hvd, cluster: Cluster) -> None:
    own("create", "--kernel", "guest.py", "--name", "third", "--disk", "b.img,,xvdb,w,no-discard,backend=driver")
    offers = [f"/local/domain/1/backend/vbd/{disk}/feature-discard" for disk in ("2/51712", "3/51728")]
    assert [cluster.call(m.StoreRead(0, path)) for path in offers] == [b"1", b"0"]


def test_a_file_said_as_an_option_and_lines_behind_it_are_what_they_are_to_xl(own: Hvd, tmp_path: Path) -> None:
    (tmp_path / "next.cfg").write_text("name = 'guest'\nkernel = 'guest.py'\nmemory = 40\n")
    own("config-update", "guest", "-f", "next.cfg", "memory=32")
    own("reboot", "guest")
    (listed,) = json.loads(own("list", "-l", "guest").stdout)
    assert listed["config"]["b_info"]["max_memkb"] == 32 * 1024
    own("create", "--defconfig=next.cfg", "extra='url=http://host/'; name='other'", "memory=33")
    (other,) = json.loads(own("list", "-l", "other").stdout)
    assert other["config"]["b_info"]["cmdline"] == "url=http://host/"
    assert next(row for row in told(own, "list") if row["name"] == "other")["memory"] == 33
    assert "FILE" in own("config-update", "guest", status=2).stderr


def is_told(lines: list[str], expected: list[str]) -> bool:
    if not expected:
        return not lines
    pattern, *rest = expected
    if pattern == "...":
        return any(is_told(lines[skipped:], rest) for skipped in range(len(lines) + 1))
    return bool(lines) and fnmatch.fnmatchcase(lines[0], pattern) and is_told(lines[1:], rest)


@pytest.mark.parametrize("transcript", ["name-verbs", "network-verbs"])
def test_what_a_command_says_is_so_word_for_word(transcript: str, hvd: Hvd) -> None:
    follow(transcript, hvd)


def test_what_looks_says_so_word_for_word(own: Hvd) -> None:
    follow("look-verbs", own)


def test_what_starts_and_stops_says_so_word_for_word(own: Hvd, tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(DEAF)
    own("create", "--name", "deaf", "--kernel", "deaf.py")
    follow("power-verbs", own)


BRIEF = """
name = "brief"
kernel = "brief.py"
extra = "a b"
vcpus = 2
memory = 32
maxmem = 64
disk = ["vdev=xvda,backend=driver,target=b.img"]
on_crash = "coredump-restart"
"""


def test_a_dry_run_and_a_create_that_stays_word_for_word(own: Hvd, tmp_path: Path) -> None:
    (tmp_path / "brief.py").write_text("def main(guest):\n    pass\n")
    (tmp_path / "brief.cfg").write_text(BRIEF)
    follow("create-verbs", own)


def test_who_interrupts_a_create_that_stays_leaves_its_domain_as_it_is(own: Hvd, tmp_path: Path) -> None:
    environment = os.environ | {"HVD_RUN_DIR": str(tmp_path / "run")}
    command = [sys.executable, "-m", "hvd", "create", "-F", "--kernel", "hvd:idle", "--name", "idle"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as staying:
        assert staying.stdout is not None
        assert staying.stdout.readline().startswith("created idle")
        staying.terminate()
        assert staying.wait(60) == 130
    assert own("domid", "idle").stdout


def test_buttons_cores_and_configurations_word_for_word(own: Hvd, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "next.cfg").write_text("name = 'guest'\nkernel = 'guest.py'\nmemory = 40\n")
    (tmp_path / "bad.cfg").write_text("name = 'guest'\nkernel = 'guest.py'\nmemory = ['much']\n")
    follow("button-verbs", own)
    guest = cluster.domain("guest")
    guest.wait_until(lambda info: info.incarnation == 2 and info.ready, "to be reset")
    assert told(own, "trigger", "guest", "power") == {"done": "sent power to", "domid": 2, "name": "guest"}
    guest.wait_gone()


def test_what_the_next_start_is_made_of_is_replaced_and_bad_input_replaces_nothing(own: Hvd, tmp_path: Path) -> None:
    (tmp_path / "next.cfg").write_text("name = 'guest'\nkernel = 'guest.py'\nmemory = 40\n")
    assert told(own, "config-update", "guest", "next.cfg")["done"] == "configured"
    (tmp_path / "bad.cfg").write_text("name = 'guest'\nkernel = 'guest.py'\nmemory = ['much']\n")
    assert "bad.cfg:3:10: memory" in own("config-update", "guest", "bad.cfg", status=2).stderr
    own("reboot", "guest")
    (listed,) = json.loads(own("list", "-l", "guest").stdout)
    assert listed["config"]["b_info"]["max_memkb"] == 40 * 1024


def test_a_disk_that_is_refused_is_not_attached_and_one_of_a_domain_that_is_paused_waits(own: Hvd) -> None:
    other = json.loads(own("create", "--kernel", "hvd:idle", "--name", "other", "--json").stdout)[0]["domid"]
    spec = "vdev=xvda,backend=driver,target=a.img"
    refused = own("block-attach", "other", spec, status=1).stderr
    assert f"xvda was not attached to other (domid {other}): " in refused and "is written by another device" in refused
    assert "DeviceRefused" in own("block-attach", "other", spec, "--json", status=1).stderr
    assert told(own, "block-list", "other") == []
    own("pause", "other")
    told_us = own("block-attach", "other", spec.replace("a.img", "b.img")).stdout
    assert told_us == f"attached xvda to other (domid {other}); it waits for other, which is paused\n"
    own("destroy", "other")


def test_a_create_that_fails_half_way_leaves_nothing_behind(own: Hvd, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("AUTO_READY = False\ndef main(guest):\n    raise ValueError('no fuel')\n")
    disk = 'disk = ["vdev=xvda,backend=driver,target=b.img"]\n'
    (tmp_path / "two.toml").write_text(
        f'[[domain]]\nname = "good"\nkernel = "guest.py"\n{disk}[[domain]]\nname = "bad"\nkernel = "broken.py"\n'
    )

    def held() -> list[dict[str, Any]]:
        """What there is, however often something went through it."""
        return [row | {"sent": None} for what in ("grants", "evtchn") for row in told(own, what, "-d", "0")]

    def is_connected() -> bool:
        return all(row.get("mapped", True) and row.get("status") != "unbound" for row in held())

    wait_for(is_connected, lambda: f"Domain-0 to serve the consoles: {held()}")
    before = held()
    refused = own("create", "two.toml", status=1)
    assert "bad" in refused.stderr and "no fuel" in refused.stderr
    cluster.domain("driver").wait_ready()
    assert [info.name for info in cluster.infos().values()] == ["Domain-0", "driver", "guest"]
    wait_for(lambda: held() == before, lambda: f"{held()} to be {before} again: ends let go when they hear of it")
    (tmp_path / "broken.py").write_text(GUEST)
    assert [each["name"] for each in told(own, "create", "two.toml")] == ["good", "bad"], "nor is the image held"


SHELLS = {
    "bash": {"COMP_WORDS": "hvd pause g", "COMP_CWORD": "2"},
    "zsh": {"_TYPER_COMPLETE_ARGS": "hvd pause g"},
    "fish": {"_TYPER_COMPLETE_ARGS": "hvd pause g", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


def test_every_shell_is_offered_live_domains(shared: Cluster) -> None:
    script = "import sys; sys.argv = ['hvd']; from hvd.__main__ import main; main()"
    for shell, variables in SHELLS.items():
        own = variables | {"HVD_RUN_DIR": str(shared.run_dir), "_HVD_COMPLETE": f"complete_{shell}"}
        command = [sys.executable, "-c", script]
        done = subprocess.run(
            command, env=os.environ | own, capture_output=True, text=True, timeout=60, check=False
        )
        assert "guest" in done.stdout and "driver" not in done.stdout, shell


@pytest.mark.parametrize(
    ("line", "offered"),
    [("hvd trigger guest ", "power reset nmi"), ("hvd block-detach guest ", "xvda"), ("hvd bench bl", "block"),
     ("hvd network-detach guest ", "0"), ("hvd network-link guest ", "0"), ("hvd block-detach driver ", "")],
)  # fmt: skip
def test_tab_offers_what_belongs_behind_a_domain(own: Hvd, cluster: Cluster, line: str, offered: str) -> None:
    own("network-attach", "guest", "bridge=cabin,backend=driver")
    script = "import sys; sys.argv = ['hvd']; from hvd.__main__ import main; main()"
    asked = {"HVD_RUN_DIR": str(cluster.run_dir), "_HVD_COMPLETE": "complete_bash"}
    asked |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == offered.split(), done.stderr
