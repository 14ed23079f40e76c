"""The registry of faults: complete, described, and the same in the documentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hvd.toolstack.faults.fault import Aim, BadFault, Fault, Parameter
from hvd.toolstack.faults.registry import FAMILIES, FAULTS
from hvd.transport.faults import FAMILY, FaultKind

ROOT = Path(__file__).parents[4]
A_FAULT = Fault("a", "", "", "", lambda order: [], for_s=2.0, parameters=(Parameter("rate", "of all", 5, 1, 9),))
A_MOMENT = Fault("b", "", "", "", lambda order: [])


def test_every_fault_of_the_hypervisors_has_a_name_here_and_a_family():
    assert set(map(str, FaultKind)) <= FAULTS.keys()
    assert FAMILY.keys() == set(FaultKind)


def test_no_name_is_used_twice():
    assert sum(map(len, FAMILIES.values())) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_says_what_it_does_who_sees_it_and_who_ends_it(fault):
    assert fault.summary
    assert fault.witness
    assert fault.expected
    assert bool(fault.undone_by) == (fault.for_s is not None)
    assert "|" not in fault.summary + fault.witness + fault.expected, "it stands in a table"


def test_the_documentation_has_the_tables_as_they_are():
    command = [sys.executable, str(ROOT / "scripts/generate_faults.py"), "--check"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0, "run scripts/generate_faults.py"


@pytest.mark.parametrize(("given", "expected"), [({}, 5), ({"rate": 9}, 9), ({"rate": "1"}, 1)])
def test_a_parameter_is_its_default_or_what_was_given(given, expected):
    assert A_FAULT.check(given) == {"rate": expected}


@pytest.mark.parametrize("value", [0, 10, "", "x", "1.5"])
def test_a_value_that_cannot_be_is_refused_with_what_was_expected(value):
    with pytest.raises(BadFault, match=r"rate: expected a whole number from 1 to 9 \(of all\), found"):
        A_FAULT.check({"rate": value})


def test_a_parameter_may_be_said_by_name():
    ring = Parameter("ring", "which", 0, 0, 2, ("", "one", "two"))
    assert [ring.check(value) for value in ("one", "2", 0)] == [1, 2, 0]
    for wrong in ("", "three", "3"):
        with pytest.raises(BadFault, match=r"ring: expected a whole number from 0 to 2 or one, two \(which\), found"):
            ring.check(wrong)


def test_a_parameter_that_a_fault_does_not_take_is_refused_with_those_it_does():
    with pytest.raises(BadFault, match="fault a has no parameter 'speed'; it takes: rate"):
        A_FAULT.check({"speed": 1})
    with pytest.raises(BadFault, match="it takes: no parameter"):
        A_MOMENT.check({"speed": 1})


def test_how_long_a_fault_lasts():
    assert (A_FAULT.duration(None), A_FAULT.duration(0.5), A_MOMENT.duration(None)) == (2.0, 0.5, 0.0)
    assert A_FAULT.aim is Aim.DOMAINS
    for wrong in (0, -1, 3601):
        with pytest.raises(BadFault, match="expected a duration above 0 and up to 3600 s"):
            A_FAULT.duration(wrong)
    with pytest.raises(BadFault, match="takes no duration"):
        A_MOMENT.duration(1)
