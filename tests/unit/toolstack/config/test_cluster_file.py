"""A whole cluster file: how it is read, and how everything that is wrong with it is told at once."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hvd.toolstack.config import ClusterConfig, ConfigError, Problem, load
from hvd.transport.errors import HvdError
from hvd.transport.messages import DomainConfig

DOMAIN = '[[domain]]\nname = "ivi"\nkernel = "guest.py"\n'
READ_DEADLINE_S = 60


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "domain = []", "[cluster]\n[dom0]\n", "\ufeff"])
def test_an_empty_cluster_is_dom0_alone(cluster: Callable[[str], ClusterConfig], text: str) -> None:
    config = cluster(text)
    assert (config.domains, config.start_order) == ((), ())
    assert config.dom0 == ClusterConfig().dom0 == DomainConfig("Domain-0", "hvd:dom0", driver_domain=True)


def test_a_cluster_is_called_what_it_says_or_as_its_file(
    cluster: Callable[[str], ClusterConfig], directory: Path
) -> None:
    assert cluster('[cluster]\nname = "cockpit"').name == "cockpit"
    assert cluster("").name == "cluster"
    (directory / "my first cluster.v2.toml").write_text("")
    assert load(directory / "my first cluster.v2.toml").name == "my-first-cluster.v2"


def test_where_the_hypervisor_runs_is_said_in_its_table_as_of_a_domain(
    cluster: Callable[[str], ClusterConfig], problem: Callable[[str], Problem]
) -> None:
    cpu = min(os.sched_getaffinity(0))
    assert cluster(f"[cluster]\ncpus = [{cpu}]").cpus == (cpu,)
    assert cluster("[cluster]\n").cpus == ()
    wrong = problem("[cluster]\ncpus = [4000]")
    assert (wrong.line, "a list of CPUs of this machine" in str(wrong)) == (2, True)


def test_a_domain_is_found_by_its_name(cluster: Callable[[str], ClusterConfig]) -> None:
    config = cluster(DOMAIN)
    assert config.domain("ivi") is config.domains[0]
    assert config.domain("Domain-0") is config.dom0
    with pytest.raises(KeyError):
        config.domain("nobody")


def test_paths_start_at_the_files_directory_wherever_it_is_loaded_from(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "cluster.toml").write_text(DOMAIN + 'disk = ["a.img,,xvda"]')
    monkeypatch.chdir(directory.parent)
    config = load(f"{directory.name}/cluster.toml")
    assert config.file == directory / "cluster.toml"
    assert config.domain("ivi").kernel == str(directory / "guest.py")
    assert config.domain("ivi").devices[0].backend_keys["params"] == str(directory / "a.img")


def test_every_mistake_is_told_in_the_order_of_the_lines(problems: Callable[[str], list[Problem]]) -> None:
    found = problems(
        '[clutser]\n[[domain]]\nname = "ivi"\nkernel = "gone.py"\nmemory = 0\nafter = ["nobody"]\n'
        'disk = [\n  "gone.img,,xvda",\n  "a.img,,xvda",\n]\n[[domain]]\nname = "ivi"\nkernel = "guest.py"\n'
    )
    assert [(told.line, told.key) for told in found] == [
        (1, "clutser"),
        (4, 'domain[0] "ivi".kernel'),
        (5, 'domain[0] "ivi".memory'),
        (6, 'domain[0] "ivi".after[0]'),
        (8, 'domain[0] "ivi".disk[0].target'),
        (9, 'domain[0] "ivi".disk[1].vdev'),
        (12, 'domain[1] "ivi".name'),
    ]


def test_a_problem_reads_as_file_line_key_expected_found_hint(
    problem: Callable[[str], Problem], directory: Path
) -> None:
    told = problem(DOMAIN + 'on_crash = "restrat"')
    actions = "destroy, restart, rename-restart, preserve, coredump-destroy, coredump-restart"
    assert str(told) == (
        f'{directory}/cluster.toml:4: domain[0] "ivi".on_crash: expected one of {actions}, found "restrat"; '
        'did you mean "restart"?'
    )


def test_the_error_is_one_line_a_problem_and_one_record_a_problem(problems: Callable[[str], list[Problem]]) -> None:
    found = problems("a = 1\nb = 2")
    error = ConfigError(found)
    assert isinstance(error, HvdError)
    assert str(error).splitlines() == [str(told) for told in found]
    records = json.loads(json.dumps([told.as_dict() for told in error.problems]))
    assert [Problem(**record) for record in records] == found


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a = 1\nb = = 2\n", 2, 5),
        ("[cluster\n", 1, 9),
        ('a = "open', 1, None),
        ("a = 1\n\na = 2", 3, None),
        ("[a]\n[a]", 2, None),
        ("a = [1,\n2", 2, None),
        ("a = 1979-99-99", 1, None),
    ],
)
def test_a_grammar_error_is_told_with_its_line(
    problem: Callable[[str], Problem], text: str, line: int, column: int | None
) -> None:
    told = problem(text)
    assert (told.expected, told.line) == ("TOML", line)
    assert column is None or told.column == column


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "{b=" * 5000, "a = " + "9" * 5000, "a.b" * 2000 + "\0"])
def test_absurd_documents_are_refused_too(problem: Callable[[str], Problem], text: str) -> None:
    assert problem(text).expected == "TOML"


@pytest.mark.parametrize(
    ("content", "found", "where"),
    [
        (b"a = '\xff'", "the byte 0xff", (1, 6)),
        (b"\xef\xbb\xbf# one\n# f\xc3\xbcr \xfc\n", "the byte 0xfc", (2, 7)),
        (b"a = '\xc3", "the byte 0xc3", (1, 6)),
        (b"#" * (1 << 20) + b"\n", "more", (None, None)),
    ],
)
def test_a_file_is_bounded_utf8(
    directory: Path, content: bytes, found: str, where: tuple[int | None, int | None]
) -> None:
    (directory / "cluster.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(directory / "cluster.toml")
    [told] = caught.value.problems
    assert found in told.found
    assert (told.line, told.column) == where


@pytest.mark.parametrize("path", ["gone.toml", ".", "guest.py/x", "a\0b", "x" * 5000, "", "\udcff/cluster.toml"])
def test_a_file_that_cannot_be_read_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(directory)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [told.file for told in caught.value.problems] == [path]


def test_a_directory_whose_name_is_no_utf8_is_told(directory: Path) -> None:
    odd = directory / os.fsdecode(b"\xff")
    odd.mkdir()
    (odd / "cluster.toml").write_text("")
    with pytest.raises(ConfigError, match="surrogates not allowed"):
        load(odd / "cluster.toml")


def test_a_file_may_come_through_a_pipe(directory: Path) -> None:
    os.mkfifo(directory / "pipe")
    writer = threading.Thread(target=(directory / "pipe").write_text, args=(DOMAIN,), daemon=True)
    writer.start()
    assert load(directory / "pipe").domain("ivi").kernel == str(directory / "guest.py")
    writer.join(READ_DEADLINE_S)
    assert not writer.is_alive()


@pytest.mark.parametrize(
    "text", ["cluster = 1", "cluster = []", "dom0 = 'x'", "domain = 1", "domain = {}", "domain = [1]", "[[cluster]]"]
)
def test_a_table_of_the_wrong_kind_is_told(problem: Callable[[str], Problem], text: str) -> None:
    assert problem(text).key in {"cluster", "dom0", "domain", "domain[0]"}


def test_a_single_bracket_is_answered_with_the_double_one(problem: Callable[[str], Problem]) -> None:
    assert problem('[domain]\nname = "ivi"').hint == "write [[domain]] above each"


@pytest.mark.parametrize("line", ["name = 5", 'name = ""', 'name = "a b"', 'nam = "x"'])
def test_a_wrong_key_of_the_cluster_is_named(problem: Callable[[str], Problem], line: str) -> None:
    assert problem("[cluster]\n" + line).line == 2


def test_the_machine_has_a_bounded_number_of_domains(problem: Callable[[str], Problem]) -> None:
    domains = "".join(f'[[domain]]\nname = "d{number}"\nkernel = "guest.py"\n' for number in range(1024))
    assert problem(domains).expected == "at most 1023 domains beside dom0"


def test_a_domain_that_no_hypercall_can_hold_is_refused(problem: Callable[[str], Problem]) -> None:
    told = problem(DOMAIN + "args = [" + f'"{"x" * 4096}", ' * 16 + "]")
    assert told.expected == "a domain that fits a hypercall of 65536 bytes"


def test_what_was_loaded_cannot_be_changed(cluster: Callable[[str], ClusterConfig]) -> None:
    config = cluster(DOMAIN)
    for target, name in ((config, "name"), (config.domains[0], "memory")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(target, name, 1)


def test_the_package_loads_no_library_that_the_toolstack_shows_things_with() -> None:
    code = "import sys, hvd.toolstack.config; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=READ_DEADLINE_S
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"typer", "rich", "click", "psutil", "structlog", "zmq", "msgpack", "difflib", "subprocess"}
