"""Manual pages: there is one of every command, it says what the help says, and groff finds nothing wrong with it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import typer
from typer.testing import CliRunner

from hvd.toolstack.cli.app import app
from hvd.toolstack.cli.man import escape, page

PROGRAM = typer.main.get_command(app)
COMMANDS = sorted(PROGRAM.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_command_has_a_page_with_its_options_and_examples(name):
    text = page(name, PROGRAM)
    assert text.startswith(f'.TH "HVD{f"-{name}".upper() if name else ""}" 1')
    for param in (PROGRAM.commands[name] if name else PROGRAM).params:  # type: ignore[attr-defined]
        if param.param_type_name == "option":
            assert all(escape(word) in text for word in param.opts)
    assert ".SH EXAMPLES" in text and "  " not in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff here to read the pages")
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_groff_finds_nothing_wrong(name):
    command = ["groff", "-man", "-Tutf8", "-P-bcu", "-ww", "-K", "utf8"]
    result = subprocess.run(command, input=page(name, PROGRAM), capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    assert "SYNOPSIS" in result.stdout


@pytest.mark.parametrize("name", ["pause", "list", "block-list", "block-attach", "networks", "evtchn"])
def test_an_argument_that_may_be_several_says_so(name):
    (several,) = [param for param in PROGRAM.commands[name].params if param.nargs == -1]  # type: ignore[attr-defined]
    assert several.metavar.endswith("...")
    assert f"{several.metavar}" in page(name, PROGRAM).partition(".SH DESCRIPTION")[0]


def test_hvds_own_page_names_every_command():
    text = page("", PROGRAM)
    assert all(f".B hvd\\-{escape(name)}(1)" in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("-d", "\\-d"), (".x", "\\&.x"), ("a\\b", "a\\eb"), ("it's `so`", "it\\(aqs \\(gaso\\(ga")],
)
def test_what_troff_would_obey_is_printed(text, expected):
    assert escape(text) == expected


def test_all_pages_are_written_where_man_finds_them(tmp_path):
    result = CliRunner().invoke(app, ["man", "--all", str(tmp_path / "man1"), "--json"])
    assert sorted(json.loads(result.stdout)) == sorted(map(str, (tmp_path / "man1").iterdir()))
    assert (tmp_path / "man1" / "hvd-list.1").exists()


def test_a_command_that_is_none_is_bad_input():
    result = CliRunner().invoke(app, ["man", "frobnicate"])
    assert "expected one of" in str(result.exception)
