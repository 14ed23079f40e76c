"""Any text as an xl.cfg: it is read, or refused at a place that it has; and so is the domain that it describes."""

from __future__ import annotations

from hvd.toolstack.config.problems import ConfigError
from hvd.toolstack.config.xl_file import load_xl_cfg
from hvd.toolstack.config.xl_syntax import NUMBER_MAX, SyntaxProblem, Value, parse
from hvd.transport.codec import pack_request, unpack_request
from hvd.transport.errors import LocalError
from hvd.transport.messages import DomctlCreate
from tests.fuzz.python.file_in_memory import FileInMemory

FILE = FileInMemory("guest.cfg")


def play(data: bytes) -> None:
    _syntax(data.decode(errors="ignore"))
    try:
        domain = load_xl_cfg(FILE.hold(data), {}, {}, {})
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.expected and problem.found and "\n" not in str(problem)
        return
    try:
        packed = pack_request(DomctlCreate(domain.config), 1, 0, 0)
    except LocalError:
        return  # too large for a hypercall
    assert unpack_request(packed)[3] == DomctlCreate(domain.config)


def _syntax(text: str) -> None:
    try:
        document = parse(text)
    except SyntaxProblem as problem:
        lines = text.split("\n")
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert len(str(problem)) < 400
        return
    assert {key for (key, *_) in document.lines} == set(document.values)
    for value in document.values.values():
        _check(value)


def _check(value: Value) -> None:
    if isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, int):
        assert 0 <= value <= NUMBER_MAX
