"""docs/threats.md is what the code says; no case and no advisory is without an attack, or a reason and a test."""

import runpy
from pathlib import Path

import pytest

from hvd.toolstack.attacks.suite import ATTACKS, chosen
from hvd.toolstack.attacks.threats import ELSEWHERE, INSTEAD, THREATS, advisories, attacks_on

ROOT = Path(__file__).resolve().parents[2]
LISTED = {advisory for threat in THREATS.values() for advisory in threat.advisories}
TESTS = sorted({test for threat in THREATS.values() for test in threat.tests} | {e.test for e in ELSEWHERE.values()})


def test_the_page_is_what_the_script_writes():
    page = runpy.run_path(str(ROOT / "scripts" / "generate_threats.py"))["page"]
    assert (ROOT / "docs" / "threats.md").read_text() == page(), "run scripts/generate_threats.py"


def test_the_cases_are_numbered_without_a_gap():
    assert list(THREATS) == list(range(1, 36))


@pytest.mark.parametrize("number", THREATS)
def test_a_case_has_an_attack_and_each_of_its_advisories_one_or_a_reason(number):
    threat = THREATS[number]
    found = attacks_on(threat, ATTACKS.values())
    assert found, f"nobody tries case {number}"
    tried = {advisory for attack in found for advisory in advisories(attack.name)}
    for advisory in threat.advisories:
        assert (advisory in tried) != (advisory in ELSEWHERE), f"XSA-{advisory}: an attack, or why there is none"
    for begin in threat.attacks:
        assert any(attack.name.startswith(begin) for attack in found), f"case {number}: no attack begins {begin!r}"


def test_an_advisory_in_an_attacks_name_is_one_of_the_list():
    assert {advisory for name in ATTACKS for advisory in advisories(name)} <= LISTED
    assert {*ELSEWHERE, *INSTEAD} <= LISTED


@pytest.mark.parametrize("test", TESTS)
def test_a_test_that_is_named_is_there(test):
    file, _, name = test.partition("::")
    assert not name or f"def {name}(" in (ROOT / file).read_text()
    assert (ROOT / file).exists()


def test_an_advisory_chooses_every_attack_that_tries_it_wherever_it_stands_in_the_name():
    assert {"XSA-90", "XSA-216"} <= {word for attack in chosen(["XSA-216"]) for word in attack.name.split()}
    assert all(216 in advisories(attack.name) for attack in chosen(["XSA-216"]))
