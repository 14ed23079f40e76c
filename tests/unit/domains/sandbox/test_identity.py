"""Whether somebody else could use a file is found out without being him for good."""

import os
from pathlib import Path

import pytest

from hvd.domains.sandbox.identity import FIRST_UID, Unreadable, check_access, give_up_privileges, take_uid
from tests.forks import words_of

UID = FIRST_UID + 7
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def who():
    return os.getresuid(), os.getresgid(), os.getgroups()


def in_a_process_of_its_own(body):
    return words_of(lambda tell: tell(repr(body())))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """In the working directory: whoever is there need not get there."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open").write_text("")
    (tmp_path / "shut").write_text("")
    (tmp_path / "shut").chmod(0o600)
    (tmp_path / "closed").mkdir(mode=0o744)


def refusal(path, mode):
    os.setgroups([0, 4])
    before = who()
    try:
        check_access(UID, [(path, mode)])
    except Unreadable as error:
        return str(error.strerror).split()[0], who() == before
    return "", who() == before


@pytest.mark.parametrize(("name", "mode", "refused"), [
    ("open", os.R_OK, False), ("open", os.R_OK | os.W_OK, True), ("shut", os.R_OK, True), ("closed", os.R_OK, True),
    ("absent", os.R_OK, False),
])  # fmt: skip
@pytest.mark.usefixtures("files")
def test_what_others_cannot_use_is_named_and_whoever_asks_stays_who_he_is(name, mode, refused):
    told = in_a_process_of_its_own(lambda: refusal(name, mode))
    assert told == repr((name if refused else "", True))


def taken(needed):
    try:
        take_uid(UID, needed)
    except Unreadable:
        return "refused", who()[0]
    give_up_privileges()
    status = Path("/proc/self/status").read_text()
    return who(), [line.split()[1] for line in status.splitlines() if line.startswith("Cap")]


def test_who_is_somebody_else_has_no_group_but_his_own_and_can_have_no_capability():
    somebody = (UID,) * 3
    assert in_a_process_of_its_own(lambda: taken([])) == f"(({somebody}, {somebody}, []), {['0' * 16] * 5})"


@pytest.mark.usefixtures("files")
def test_who_could_not_use_what_is_needed_stays_root():
    told = in_a_process_of_its_own(lambda: taken([("shut", os.R_OK)]))
    assert told == repr(("refused", (0, 0, 0)))
