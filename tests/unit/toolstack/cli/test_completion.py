"""What the shell is offered after Tab that no cluster has to be asked for."""

import os
import subprocess
import sys

import pytest

from hvd.toolstack.attacks.suite import chosen
from hvd.toolstack.cli.completion import attack_names

SCRIPT = "import sys; sys.argv = ['hvd']; from hvd.__main__ import main; main()"


def offered(line: str) -> list[str]:
    asked = {"_HVD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | asked, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("hvd loadpolicy ", ["cockpit", "default", "silo"]),
        ("hvd attack --policy s", ["silo"]),
        ("hvd up --policy d", ["default"]),
        ("hvd setenforce p", ["permissive"]),
        ("hvd create --on-crash r", ["restart", "rename-restart"]),
        ("hvd network-link ivi 0 ", ["up", "down"]),
        ("hvd attack --only ptr", ["ptrace"]),
        ("hvd help block-", ["block-attach", "block-detach", "block-list"]),
        ("hvd man mem", ["mem-max", "mem-set"]),
        ("hvd attack --only XSA-15", ["XSA-155"]),
    ],
)
def test_tab_offers_what_a_command_takes_one_of(line: str, names: list[str]) -> None:
    assert offered(line) == names


def test_whatever_is_offered_chooses_attacks() -> None:
    for word in attack_names(""):
        assert chosen([word]) and " " not in word
