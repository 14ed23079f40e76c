"""Tables, durations, and what is said while something takes long."""

import io
import json
import signal
import sys
import threading

import pytest

from hvd.toolstack.cli import look
from hvd.toolstack.cli.change import signal_from
from hvd.toolstack.cli.output import print_error, print_json, print_table, seconds
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.config import ConfigError


def test_columns_are_as_wide_as_their_widest_cell(capsys):
    print_table(("Name", "ID"), [("storage", "1"), ("ivi", "12")])
    assert capsys.readouterr().out == "Name     ID\nstorage  1\nivi      12\n"


def test_a_json_document_is_one_line_whatever_is_in_it(capsys):
    print_json({"text": "one\ntwo", "name": "ä"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"text": "one\ntwo", "name": "ä"}


def test_every_line_of_an_error_says_whose_it_is(capsys):
    print_error("one\ntwo", as_json=False)
    assert capsys.readouterr().err == "hvd: one\nhvd: two\n"


def test_an_error_in_json_has_its_kind(capsys):
    print_error("one", as_json=True, kind="NotRunning")
    assert json.loads(capsys.readouterr().err) == {"error": "one", "kind": "NotRunning"}


@pytest.mark.parametrize(
    ("time_s", "shown"), [(0.04, "0.0s"), (99.94, "99.9s"), (100, "0:01:40"), (90_061, "25:01:01")]
)
def test_durations_are_as_coarse_as_they_are_long(time_s, shown):
    assert seconds(round(time_s * 1e9)) == shown


@pytest.mark.parametrize("text", ["KILL", "kill", "SIGKILL", "sigkill", "9"])
def test_a_signal_has_many_names(text):
    assert signal_from(text) is signal.SIGKILL


@pytest.mark.parametrize("text", ["", "KILLER", "0", "999", "-9"])
def test_what_is_no_signal_is_bad_input(text):
    with pytest.raises(ConfigError, match="expected a signal's name or number"):
        signal_from(text)


class Said(io.StringIO):
    """Standard error that tells when something has come."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        self.came.set()
        return count


def test_what_takes_long_is_told_in_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", said := Said())
    with Progress() as progress:
        progress("waiting for storage")
        assert said.came.wait(60)
    assert said.getvalue() == "hvd: waiting for storage\n"


def test_what_does_not_take_long_is_not_told(monkeypatch, capsys):
    monkeypatch.setattr("hvd.toolstack.cli.progress.PATIENCE_S", 3600.0)
    with Progress() as progress:
        progress("waiting for storage")
    assert capsys.readouterr().err == ""


def test_nothing_is_told_to_programs(monkeypatch):
    monkeypatch.setattr("hvd.toolstack.cli.progress.PATIENCE_S", 0.0)
    monkeypatch.setattr(sys, "stderr", said := Said())
    with Progress(quiet=True) as progress:
        progress("waiting for storage")
    assert said.getvalue() == ""


def test_whoever_looks_on_is_told_beside_what_goes_to_a_program(monkeypatch):
    class Terminal(Said):
        def isatty(self):
            return True

    monkeypatch.setattr("hvd.toolstack.cli.progress.PATIENCE_S", 0.0)
    monkeypatch.setattr(sys, "stderr", said := Terminal())
    with Progress(quiet=True) as progress:
        progress("waiting for storage")
        assert said.came.wait(60)
    assert "waiting for storage" in said.getvalue()


def test_a_line_that_a_domain_chose_moves_no_cursor_and_keeps_its_length(monkeypatch, capsys):
    class Attached:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def dmesg(self):
            return ["(d1) \x1b[2J\x9bgone\r" + "x" * 200, "(d2) häuser"]

    monkeypatch.setattr(Cluster, "attach", Attached)
    look.dmesg(clear=False, as_json=False)
    assert capsys.readouterr().out == "(d1) \\x1b[2J\\x9bgone\\r" + "x" * 200 + "\n(d2) häuser\n"
