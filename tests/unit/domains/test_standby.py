"""One that stands by: it lives when it has a name and the machine knows of it, and waits where it may not know."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from hvd.domains import standby
from hvd.domains.sandbox import Sandbox
from hvd.transport.descriptors import send_message, socket_pair
from tests.forks import words_of

SANDBOX = cast(Sandbox, SimpleNamespace(mounts=-1, begin=lambda waits: None))


def told(monkeypatch: pytest.MonkeyPatch, act: Callable[[socket.socket], None]) -> str:
    """What becomes of one that stands by, of which the zygote does this and then dies."""
    read, write = os.pipe()
    kept = fcntl.fcntl(write, fcntl.F_DUPFD, 100)  # out of the way of those that it puts in their places
    os.close(write)

    def stand_by(_: Callable[[str], None]) -> None:
        ours, theirs = socket_pair()
        act(ours)
        ours.close()
        os.dup2(theirs.fileno(), standby.UPCALL)
        monkeypatch.setattr(time, "sleep", lambda seconds: os.write(kept, f"waits {seconds:g} s, ".encode()))
        identity = standby._wait_for_identity(SANDBOX, waits=True)
        os.write(kept, b"ends" if identity is None else b"lives")

    raised = words_of(stand_by)
    os.close(kept)
    with open(read, encoding="utf-8") as words:
        return words.read() + raised


def give_name(link: socket.socket) -> None:
    upcalls, _ = socket_pair()
    send_message(link, ["guest"], (upcalls.fileno(), os.open(os.devnull, os.O_RDWR)))


def test_one_that_has_no_name_when_the_zygote_dies_ends(monkeypatch):
    assert told(monkeypatch, lambda link: None) == "ends"


def test_one_that_has_a_name_and_is_let_live_lives(monkeypatch):
    def act(link: socket.socket) -> None:
        give_name(link)
        send_message(link, [standby.LIVE])

    assert told(monkeypatch, act) == "lives"


def test_one_that_has_a_name_only_waits_for_the_machine_to_kill_it_and_touches_nothing(monkeypatch):
    monkeypatch.setattr(standby, "ORPHANED_LOOKS", 2)
    assert told(monkeypatch, give_name) == "waits 0.1 s, waits 0.1 s, lives"
