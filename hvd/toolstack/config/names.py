"""What a domain may be called, and how dom0 is."""

import re
from pathlib import Path

DOM0_NAME = "Domain-0"
DOM0_NAMES = (DOM0_NAME, "dom0")

NAME_BYTES_MAX = 64
NAME_SYNTAX = "1 to 64 letters, digits, _ . + -, the first a letter or digit, not digits alone (that is a domid)"
_NAME = re.compile(r"(?!\d+\Z)[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether the text fits a path, a XenStore value and a command line, and cannot be taken for a domid."""
    return _NAME.fullmatch(text) is not None


def full_name(name: str) -> str:
    """The name the broker knows: dom0 is Domain-0, and so is domid 0."""
    return DOM0_NAME if name in (*DOM0_NAMES, "0") else name


def name_from(file: Path) -> str:
    """A name for what a file describes."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", file.stem).strip("-._+")[:NAME_BYTES_MAX] or "hvd"
