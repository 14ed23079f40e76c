"""One [[domain]] table: what each key may hold, and what it becomes on the wire."""

import os
from collections.abc import Callable

import pytest

from hvd.toolstack.config import ClusterConfig, Problem
from hvd.transport.codec import pack_request, unpack_request
from hvd.transport.messages import DeviceConfig, DomainConfig, DomctlCreate, RestartPolicy

DOMAIN = '[[domain]]\nname = "ivi"\nkernel = "hvd:driver_domain"\n'
CPU = min(os.sched_getaffinity(0))


def test_a_domain_with_only_what_it_must_have_has_the_wires_defaults(cluster: Callable[[str], ClusterConfig]) -> None:
    assert cluster(DOMAIN).domain("ivi") == DomainConfig("ivi", "hvd:driver_domain")


def test_every_key_reaches_the_wire_and_the_broker(cluster: Callable[[str], ClusterConfig]) -> None:
    config = cluster(
        DOMAIN
        + f"""
args = ["--fast", ""]
memory = 128
vcpus = 2
cpus = [{CPU}]
driver_domain = true
spare = true
service = "gate"
on_poweroff = "preserve"
on_reboot = "destroy"
on_crash = "rename-restart"
on_watchdog = "coredump-restart"
heartbeat_ms = 50
io_bps = 10_000_000_000
seclabel = "safety_t"
restart_limit = 0
restart_window_ms = 1
restart_delay_ms = 2
restart_delay_max_ms = 3
after = ["other", "dom0", "other"]
[[domain.device]]
type = "echo"
backend = "other"
speed = "9600"
[[domain.device]]
type = "echo"
[[domain.device]]
type = "net"
[[domain]]
name = "other"
kernel = "hvd:driver_domain"
driver_domain = true
"""
    ).domain("ivi")
    assert config == DomainConfig(
        name="ivi",
        kernel="hvd:driver_domain",
        args=["--fast", ""],
        memory=128,
        vcpus=2,
        cpus=[CPU],
        driver_domain=True,
        spare=True,
        service="gate",
        on_poweroff="preserve",
        on_reboot="destroy",
        on_crash="rename-restart",
        on_watchdog="coredump-restart",
        heartbeat_ms=50,
        io_bps=10_000_000_000,
        restart=RestartPolicy(limit=0, window_ms=1, delay_ms=2, delay_max_ms=3),
        after=["other", "Domain-0"],
        devices=[
            DeviceConfig("echo", 0, "other", {"speed": "9600"}, {"speed": "9600"}),
            DeviceConfig("echo", 1, "Domain-0"),
            DeviceConfig("net", 0, "Domain-0"),
        ],
        seclabel="safety_t",
    )
    assert unpack_request(pack_request(DomctlCreate(config), 1, 0, 0))[3] == DomctlCreate(config)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("memory = 0", "a whole number from 1 to"),
        ('memory = "64"', "a whole number from 1 to"),
        ("memory = true", "a whole number from 1 to"),
        ("memory = 64.0", "a whole number from 1 to"),
        (f"memory = 0x{'f' * 9000}", "a whole number from 1 to"),
        ("vcpus = 129", "a whole number from 1 to 128"),
        ("vcpus = -1", "a whole number from 1 to 128"),
        ("driver_domain = 1", "true or false"),
        ('on_crash = "explode"', "one of destroy, restart"),
        ('on_reboot = ["restart"]', "one of destroy, restart"),
        ("restart_limit = -1", "a whole number from 0 to"),
        ("heartbeat_ms = 49", "0, for none, or a whole number from 50 to"),
        ("heartbeat_ms = true", "0, for none, or a whole number from 50 to"),
        ("io_bps = 10", "0, for none, or a whole number from 65536 to"),
        ('io_bps = "10M"', "0, for none, or a whole number from 65536 to"),
        ("spare = 1", "true or false"),
        ('service = "a/b"', "1 to 64 letters, digits"),
        ("service = true", "a text of 1 to"),
        ("restart_window_ms = 0", "a whole number from 1 to"),
        ("restart_delay_ms = 30001", "at most restart_delay_max_ms, 30000"),
        ('args = "x"', "a list of at most 1024 arguments"),
        ("args = {}", "a list of at most 1024 arguments"),
        (f"args = [{'1,' * 1025}]", "a list of at most 1024 arguments"),
        ('after = "storage"', "a list of at most 1024 names"),
        ("cpus = []", "a list of CPUs of this machine"),
        ("cpus = [99999]", "a list of CPUs of this machine"),
        ("cpus = [true]", "a list of CPUs of this machine"),
        ("cpus = 0", "a list of CPUs of this machine"),
        ('cpus = "0-"', "a list of CPUs of this machine"),
        ('cpus = "^0"', "a list of CPUs of this machine"),
        ('cpus = "node:0"', "a list of CPUs of this machine"),
        ('cpus = ["0", "1-"]', "a list of CPUs of this machine"),
        ('cpus = ["all", "99999"]', "a list of CPUs of this machine"),
        ('cpus = ["0", ["0"]]', "a list of CPUs of this machine"),
        ('cpus = "all,^0-9999"', "a list of CPUs of this machine"),
        ("device = 3", "at most 1024 tables"),
        ("device = {}", "at most 1024 tables"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(problem: Callable[[str], Problem], line: str, expected: str) -> None:
    told = problem(DOMAIN + "\n" + line + "\n")
    assert (told.key, told.line) == (f'domain[0] "ivi".{line.partition(" ")[0]}', 5)
    assert told.expected.startswith(expected)


def test_a_first_delay_may_be_the_longest(cluster: Callable[[str], ClusterConfig]) -> None:
    assert cluster(DOMAIN + "restart_delay_ms = 7\nrestart_delay_max_ms = 7\n").domain("ivi").restart.delay_ms == 7


def test_texts_are_measured_in_bytes(
    cluster: Callable[[str], ClusterConfig], problem: Callable[[str], Problem]
) -> None:
    longest = "\u00e4" * 2048
    assert cluster(DOMAIN + f'args = ["{longest}"]\n').domain("ivi").args == [longest]
    assert problem(DOMAIN + f'args = ["{longest}x"]\n').found.endswith("(2049 characters)")


def test_a_wrong_item_of_a_list_is_named_with_its_own_line(problem: Callable[[str], Problem]) -> None:
    told = problem(DOMAIN + 'args = [\n  "a",\n  7,\n]\n')
    assert (told.key, told.line, told.found) == ('domain[0] "ivi".args[1]', 6, "7")


@pytest.mark.parametrize(
    ("value", "cpus"),
    [
        (f'"{CPU}"', [CPU]),
        (f'"{CPU}-{CPU}"', [CPU]),
        ('"all"', []),
        (f'" {CPU} , {CPU}"', [CPU]),
        (f'"0-{CPU},^1-9999,{CPU}"', None),
        (f'["{CPU}", "{CPU}-{CPU}"]', [CPU]),
        (f'["0-{CPU},^1-9999", {CPU}]', None),
        ('["all"]', []),
        ('"all,^1-9999"', [0]),
        ('["all,^0-9998", "0"]', [0]),
    ],
)
def test_cpus_may_be_written_as_xl_writes_them(
    cluster: Callable[[str], ClusterConfig], value: str, cpus: list[int] | None
) -> None:
    found = cluster(DOMAIN + f"cpus = {value}\n").domain("ivi").cpus
    assert found == (sorted({0, CPU}) if cpus is None else cpus)


@pytest.mark.parametrize(
    ("lines", "memory", "maxmem"),
    [("", 64, 0), ("memory = 32", 32, 0), ("maxmem = 128", 128, 128), ("memory = 32\nmaxmem = 128", 32, 128)],
)
def test_a_domain_boots_with_memory_and_may_be_given_maxmem(
    cluster: Callable[[str], ClusterConfig], lines: str, memory: int, maxmem: int
) -> None:
    found = cluster(DOMAIN + lines + "\n").domain("ivi")
    assert (found.memory, found.maxmem) == (memory, maxmem)


@pytest.mark.parametrize("value", ['"nodes:0-3,^node:2"', '["0", "node:1"]', '"all,^node:0"'])
def test_numa_nodes_are_refused_by_name(problem: Callable[[str], Problem], value: str) -> None:
    assert problem(DOMAIN + f"cpus = {value}\n").hint == "hvd knows no NUMA nodes"


def test_maxmem_is_no_less_than_memory(problem: Callable[[str], Problem]) -> None:
    told = problem(DOMAIN + "memory = 64\nmaxmem = 63\n")
    assert (told.key, told.line, told.expected) == ('domain[0] "ivi".maxmem', 5, "at least memory, which is 64")


@pytest.mark.parametrize("name", ["a", "A-b_c.d+e", "0x", "x" * 64])
def test_names_fit_paths_store_and_command_line(cluster: Callable[[str], ClusterConfig], name: str) -> None:
    assert cluster(DOMAIN.replace("ivi", name)).domains[0].name == name


@pytest.mark.parametrize(
    "name",
    ["", "12", "-a", ".", "..", "a/b", "a b", "x" * 65, "\u00e4", "a\\n", "a\\u0000", "\u0661", "Domain-0", "dom0"],
)
def test_any_other_name_is_refused(problem: Callable[[str], Problem], name: str) -> None:
    assert problem(DOMAIN.replace("ivi", name)).line == 2


@pytest.mark.parametrize("key", ["name", "kernel"])
def test_a_key_that_must_be_there_is_missed_at_its_table(problem: Callable[[str], Problem], key: str) -> None:
    lines = [line for line in DOMAIN.splitlines() if not line.startswith(key)]
    told = problem("\n".join(lines))
    assert told.key.endswith(f".{key}")
    assert (told.line, told.found) == (1, "nothing")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("kernal", 'did you mean "kernel"?'),
        ("on-crash", 'did you mean "on_crash"?'),
        ("disks", 'did you mean "disk"?'),
        ("vtpm", "xl has this key, hvd does not"),
        ("maxvcpus", "xl has this key, hvd does not"),
        ("zzzzz", ""),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(
    problem: Callable[[str], Problem], key: str, hint: str
) -> None:
    told = problem(DOMAIN + f"{key} = 1\n")
    assert (told.key, told.line, told.hint) == (f'domain[0] "ivi".{key}', 4, hint)
    assert ("kernel" in told.expected) == (not hint)


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("", "type"),
        ("type = 5", "type"),
        ('type = "Echo"', "type"),
        ('type = "a/b"', "type"),
        ('type = "vbd"', "type"),
        ('type = "echo"\nbackend = ""', "backend"),
        ('type = "echo"\nbackend = "nobody"', "backend"),
        ('type = "echo"\nstate = "4"', "state"),
        ('type = "echo"\nbackend-id = "0"', "backend-id"),
        ('type = "echo"\n"a/b" = "0"', '"a/b"'),
        ('type = "echo"\n"" = "0"', '""'),
        ('type = "echo"\nspeed = 9600', "speed"),
        (f'type = "echo"\nspeed = "{"x" * 2049}"', "speed"),
        ('type = "echo"\nspeed = "\\u0000"', "speed"),
    ],
)
def test_a_wrong_key_of_a_device_is_named(problem: Callable[[str], Problem], lines: str, key: str) -> None:
    assert problem(DOMAIN + "[[domain.device]]\n" + lines + "\n").key == f'domain[0] "ivi".device[0].{key}'


def test_an_option_that_is_no_text_is_shown_as_one(problem: Callable[[str], Problem]) -> None:
    assert problem(DOMAIN + '[[domain.device]]\ntype = "echo"\nspeed = 9600').hint == 'write "9600"'


def test_a_device_has_a_bounded_number_of_options(problem: Callable[[str], Problem]) -> None:
    options = "".join(f'o{number} = ""\n' for number in range(57))
    told = problem(DOMAIN + '[[domain.device]]\ntype = "echo"\n' + options)
    assert (told.key, told.expected) == ('domain[0] "ivi".device[0]', "at most 56 options")


def test_dom0_may_be_given_a_machine_of_its_own(cluster: Callable[[str], ClusterConfig]) -> None:
    config = cluster(f'[dom0]\nmemory = 256\nvcpus = 2\ncpus = [{CPU}]\nkernel = "guest.py"\nargs = ["x"]\n')
    assert (config.dom0.name, config.dom0.memory, config.dom0.vcpus, config.dom0.cpus) == ("Domain-0", 256, 2, [CPU])
    assert config.dom0.kernel.endswith("/guest.py")
    assert (config.dom0.args, config.dom0.driver_domain) == (["x"], True)


@pytest.mark.parametrize("line", ['name = "boss"', "disk = []", 'on_crash = "destroy"', 'kernel = ""', "memory = 0"])
def test_what_dom0_may_not_be_given_is_refused(problem: Callable[[str], Problem], line: str) -> None:
    told = problem("[dom0]\n" + line)
    assert (told.key, told.line) == ("dom0." + line.partition(" ")[0], 2)


def test_what_a_table_says_of_its_sandbox_reaches_the_wire(cluster: Callable[[str], ClusterConfig], tmp_path) -> None:
    (tmp_path / "sensor").touch()
    text = """
sandbox = "program"
seccomp = "eperm"
paths = ["sensor", "/dev/null", "new.json:w"]
sandbox_off = ["limits"]
sandbox_require = ["root", "pid"]
"""
    config = cluster(DOMAIN + text).domain("ivi")
    assert (config.sandbox, config.seccomp) == ("program", "eperm")
    assert config.paths == [str(tmp_path / "sensor"), "/dev/null", f"{tmp_path / 'new.json'}:w"]
    assert (config.sandbox_off, config.sandbox_require) == (["limits"], ["root", "pid"])


@pytest.mark.parametrize(
    ("line", "expected", "found"),
    [
        ('sandbox = "guests"', "one of guest, driver, network, program", "guests"),
        ('seccomp = "log"', "one of kill, eperm", "log"),
        ('paths = ["nowhere"]', "a file or directory", "it is not there"),
        ('paths = ["nowhere/file:w"]', "a file to be made in one", "it is not there"),
        ('paths = [":w"]', "a file to be made in one", '":w"'),
        ('sandbox_off = ["rot"]', "a layer: user, pid", "rot"),
        ('sandbox_require = ["seccom"]', "a layer: user, pid", "seccom"),
    ],
)
def test_what_is_wrong_with_a_sandbox_is_named_with_its_line(
    problem: Callable[[str], Problem], line: str, expected: str, found: str
) -> None:
    wrong = problem(DOMAIN + line + "\n")
    assert (wrong.line, expected in wrong.expected, found in wrong.found) == (4, True, True), wrong


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("driver_domain = true", "false, since its kernel is a program"),
        ('sandbox = "guest"', '"program", since its kernel is a program'),
        ('disk = ["format=raw,vdev=xvda,access=rw,target=a.img"]', "no disk, since its kernel is a program"),
        (f"vif = {[''] * 9}", "at most 8 vifs, since its kernel is a program"),
    ],
)
def test_what_a_program_has_no_use_for_is_refused(problem: Callable[[str], Problem], line: str, expected: str) -> None:
    wrong = problem(f'[[domain]]\nname = "ivi"\nkernel = "/bin/sh"\n{line}\n')
    assert (wrong.line, wrong.expected) == (4, expected)
