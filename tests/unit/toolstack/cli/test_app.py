"""Every command explains itself; what cannot be done is told on standard error with the right status."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from hvd.toolstack.cli.app import app
from hvd.toolstack.cli.command import program

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
PRINTING = sorted(set(COMMANDS) - {"console"})


def hvd(run_dir, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hvd", *words]
    environment = {"HVD_RUN_DIR": str(run_dir), "PATH": "/bin:/usr/bin"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_commands_are_those_of_the_manual():
    assert set(COMMANDS) == {
        "up", "down", "clean", "list", "info", "create", "destroy", "pause", "unpause", "reboot", "shutdown", "kill",
        "console", "logs", "dmesg", "doctor", "trace", "bench", "attack", "events", "metrics", "fault",
        "getenforce", "setenforce", "loadpolicy", "vcpu-list", "vm-list", "uptime", "domid", "domname", "rename",
        "man", "chaos", "top", "evtchn", "grants", "ring", "config-update", "trigger", "sysrq", "block-attach",
        "block-detach", "block-list", "mem-set", "mem-max", "dump-core",
        "network-attach", "network-detach", "network-list", "network-link",
        "networks", "help",
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command):
    result = CliRunner().invoke(app, [command, "--help"], prog_name="hvd")
    assert result.exit_code == 0
    assert f"hvd {command}" in result.stdout.partition("Examples:")[2]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_says_of_a_command_what_its_own_help_says(command):
    words = [command] if command else []
    told, alone = (CliRunner().invoke(app, each, prog_name="hvd") for each in (["help", *words], [*words, "--help"]))
    assert (told.exit_code, told.stdout) == (0, alone.stdout)


def test_help_of_no_command_is_bad_input(tmp_path):
    result = hvd(tmp_path / "run", "help", "lsit")
    assert (result.returncode, result.stdout) == (2, "")
    assert "expected one of attack, bench, " in result.stderr and "found 'lsit'" in result.stderr


def test_hvd_itself_has_help_with_examples():
    assert "hvd up -d" in CliRunner().invoke(app, ["--help"], prog_name="hvd").stdout.partition("Examples:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_that_may_be_several_says_so_in_help_without_holes(command):
    told = CliRunner().invoke(app, [command, "--help"], prog_name="hvd").stdout
    params = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    for param in params:
        if param.param_type_name == "argument" and param.nargs == -1:
            assert f"{param.metavar}" in told and param.metavar.endswith("...")
    prose = told.partition("Usage:")[2].partition("\n\n")[2].partition("Examples:")[0]
    assert not [line for line in prose.splitlines() if "  " in line.strip()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_that_names_a_command_is_read_by_that_one_as_by_all(command, capsys):
    alone, told = program(command, "--help"), []
    assert list(alone.commands) == [command]
    for reader in (alone, program()):
        with pytest.raises(SystemExit, match="0"):
            reader(args=[command, "--help"], prog_name="hvd")
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]


@pytest.mark.parametrize("words", [(), ("--help",), ("frobnicate",), ("frobnicate", "list")])
def test_any_other_command_line_is_read_by_all_commands(words):
    assert sorted(program(*words).commands) == COMMANDS


def test_no_other_command_loads_what_traces():
    program = "import sys; from hvd.toolstack.cli import app, look, power, change; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "hvd.toolstack.cli.look" in loaded.stdout
    assert not [name for name in loaded.stdout.split() if "perfetto" in name or name.startswith("hvd.toolstack.trace")]


@pytest.mark.parametrize("command", PRINTING)
def test_every_command_that_prints_can_print_json(command):
    assert "--json" in CliRunner().invoke(app, [command, "--help"]).stdout


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["kill"], ["up", "--grace", "1"], ["down", "--grace", "soon"], ["create"]]
)
def test_a_command_line_that_makes_no_sense_is_bad_input(tmp_path, words):
    result = hvd(tmp_path / "run", *words)
    assert result.returncode == 2
    assert result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [["list"], ["info"], ["dmesg"], ["destroy", "a"], ["pause", "a"], ["unpause", "a"], ["reboot", "a"],
     ["vcpu-list"], ["vm-list"], ["uptime"], ["domid", "a"], ["domname", "1"], ["rename", "a", "b"],
     ["config-update", "a", "a.cfg"], ["trigger", "a", "nmi"], ["sysrq", "a", "h"],
     ["top", "-b"], ["evtchn"], ["grants"], ["ring"],
     ["block-attach", "a", "b"], ["block-detach", "a", "xvdb"], ["block-list", "a"],
     ["network-attach", "a", "bridge=b"], ["network-detach", "a", "0"], ["network-list", "a"],
     ["network-link", "a", "0", "down"], ["networks"],
     ["console", "a"], ["shutdown", "a"], ["kill", "a"], ["create", "--kernel", "hvd:idle", "--name", "a"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_without_a_machine_the_error_says_where_and_what_to_do(tmp_path, words):
    result = hvd(tmp_path / "run", *words)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"hvd: no machine runs in {tmp_path / 'run'}; start one with `hvd up`")
    assert not (tmp_path / "run").exists()


def test_errors_are_json_where_json_was_asked_for(tmp_path):
    result = hvd(tmp_path / "run", "list", "--json")
    assert json.loads(result.stderr)["kind"] == "NotRunning"


@pytest.mark.parametrize("command", ["up", "down", "clean", "list"])
def test_a_directory_that_is_no_clusters_is_bad_input(tmp_path, command):
    (tmp_path / "thesis.txt").touch()
    result = hvd(tmp_path, command)
    assert result.returncode == 2
    assert "thesis.txt" in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", ["down", "clean"])
def test_ending_what_does_not_run_is_no_failure(tmp_path, command):
    result = hvd(tmp_path / "run", command)
    assert result.returncode == 0
    assert "nothing was left" in result.stdout
    assert json.loads(hvd(tmp_path / "run", command, "--json").stdout)["was_running"] is False


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path):
    command = f"HVD_RUN_DIR={tmp_path / 'run'} {sys.executable} -m hvd doctor | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.startswith("ok")
    assert result.stderr == ""


def test_reading_the_command_line_loads_nothing_that_only_commands_need():
    script = "import sys; from hvd.toolstack.cli import app; print([m for m in sys.argv[1:] if m in sys.modules])"
    modules = ["rich", "zmq", "structlog", "psutil", "hvd.transport.messages", "hvd.toolstack.cluster.cluster",
               "hvd.toolstack.bench", "hvd.transport.histogram", "multiprocessing"]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", script, *modules], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "[]\n"


def test_an_order_is_given_before_what_talks_to_the_machine_is_loaded():
    script = "import sys; from hvd.toolstack.cli import app, power; print([m for m in sys.argv if m in sys.modules])"
    modules = ["zmq", "tomllib", "hashlib", "hvd.toolstack.cluster.cluster", "hvd.toolstack.cluster.remains"]
    result = subprocess.run(
        [sys.executable, "-c", script, *modules], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "[]\n"


def test_looking_loads_nothing_that_reads_cluster_files_or_draws(tmp_path):
    script = "import sys; from hvd.toolstack.cli import app, look; print([m for m in sys.argv[1:] if m in sys.modules])"
    modules = ["rich.table", "structlog", "psutil", "tomllib", "asyncio", "hvd.toolstack.config",
               "hvd.toolstack.cluster.remains"]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", script, *modules], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["shutdown"], 2), (["shutdown", "-a", "ivi"], 2), (["reboot"], 2), (["reboot", "--all", "ivi"], 2),
        (["shutdown", "-a", "-w", "-F"], 1), (["reboot", "-a", "-F"], 1), (["destroy", "-f", "ivi"], 1),
        (["trigger", "ivi", "nmi", "0"], 1), (["trigger", "ivi", "nmi", "x"], 2), (["domname", "-1"], 2),
    ],
)  # fmt: skip
def test_xls_options_are_taken_as_xl_takes_them(tmp_path, words, status):
    """Where no cluster runs, what is understood fails with 1, and what is not with 2."""
    environment = {"HVD_RUN_DIR": str(tmp_path / "none"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "hvd", *words], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize("words", [["trigger", "ivi", "nmi", "x"], ["domname", "²"], ["top", "-i", "0"]])
def test_what_is_no_number_is_told_what_it_should_be(words):
    told = CliRunner().invoke(app, words, prog_name="hvd")
    assert (told.exit_code, "expected a whole number, " in told.output) == (2, True)


def test_a_look_is_told_as_csv_or_as_json_and_not_as_both():
    told = CliRunner().invoke(app, ["top", "--csv", "--json"], prog_name="hvd")
    assert (told.exit_code, "give --csv or --json" in told.output) == (2, True)
