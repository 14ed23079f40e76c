"""Buttons and magic letters, pressed on domains that wait, hold a disk, and die of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, DomainState


@pytest.fixture
def cluster(tmp_path: Path):
    (tmp_path / "guest.py").write_text("def main(guest):\n    a_name_to_be_found(guest)\n"
                                       "def a_name_to_be_found(guest):\n    guest.run_forever()\n")  # fmt: skip
    (tmp_path / "a.img").write_bytes(bytes(1 << 20))
    (tmp_path / "c.toml").write_text(
        '[[domain]]\nname = "guest"\nkernel = "guest.py"\non_crash = "preserve"\n'
        'disk = ["vdev=xvda,target=a.img"]\n'
    )
    with Cluster.load(tmp_path / "c.toml", run_dir=tmp_path / "run") as running:
        running.wait_ready()
        yield running


def said(cluster: Cluster, text: str) -> None:
    guest, until = cluster.domain("guest"), time.monotonic() + 30
    while text not in guest.console_log():
        assert time.monotonic() < until, f"{text!r} is not in {guest.console_log()!r}"
        time.sleep(0.005)


def test_letters_are_answered_on_the_console(cluster):
    guest = cluster.domain("guest")
    for letter, answer in (("h", "HELP"), ("s", "xvda is flushed"), ("t", "a_name_to_be_found"), ("q", "HELP")):
        guest.sysrq(letter)
        said(cluster, answer)


def test_a_letter_can_crash_a_domain_reboot_it_or_power_it_off(cluster):
    guest = cluster.domain("guest")
    guest.sysrq("b")
    guest.wait_until(lambda info: info.incarnation == 2 and info.ready, "to be there again")
    guest.sysrq("c")
    assert guest.wait_state(DomainState.PRESERVED).last_death == "crash: sysrq: crash"
    guest.reboot()
    guest.wait_ready()
    guest.sysrq("o")
    guest.wait_gone()


def test_an_nmi_is_a_crash_and_reset_boots_again(cluster):
    guest = cluster.domain("guest")
    guest.trigger("reset")
    guest.wait_until(lambda info: info.incarnation == 2 and info.ready, "to be there again")
    guest.trigger("nmi")
    assert guest.wait_state(DomainState.PRESERVED).last_death == "crash: NMI"
