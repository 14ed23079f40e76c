"""Reads a file that is TOML: its text, bounded, and the document in it, or where it ceases to be one."""

import os
import re
from pathlib import Path

from hvd.toolstack.config.problems import ConfigError, Problem

FILE_BYTES_MAX = 1 << 20
_WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


def text_of(path: str | os.PathLike[str], what: str = "a cluster file") -> str:
    """The file's text, read once and at most a bound: it may be a pipe."""
    found: object
    line = column = None
    try:
        str(Path(path).absolute()).encode()  # every kernel's and image's path, which hypercalls carry, begins so
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) <= FILE_BYTES_MAX:
            return content.decode("utf-8-sig")
        found = "more"
    except OSError as error:
        found = error.strerror
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
        found = f"the byte 0x{error.object[error.start]:02x}, which is none"
    except ValueError as error:  # a NUL in the path; a path that is no UTF-8
        found = error
    expected = f"{what} of at most {FILE_BYTES_MAX} bytes in UTF-8"
    raise ConfigError([Problem(os.fspath(path), "", expected, str(found), line=line, column=column)])


def document_of(path: str | os.PathLike[str], text: str) -> dict[str, object]:
    """The TOML in a text; ConfigError with line and column when it is none."""
    import tomllib  # not for whoever boots without a file

    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = Problem(os.fspath(path), "", "TOML", "brackets nested too deep")
    except ValueError as error:  # TOMLDecodeError, and what int() and datetime say of absurd numbers
        message = str(error)
        where = _WHERE.search(message)
        line, column = (int(where[1]), int(where[2])) if where and where[1] else (None, None)
        if where and line is None:
            line = text.count("\n") + 1
        what = message[: where.start()] if where else message
        problem = Problem(os.fspath(path), "", "TOML", what[:1].lower() + what[1:], line=line, column=column)
    raise ConfigError([problem])
