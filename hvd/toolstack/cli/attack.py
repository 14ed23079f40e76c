"""`hvd attack`: attacks a cluster of its own, and says what was stopped and whether the controls worked."""

from __future__ import annotations

from collections.abc import Sequence

from hvd.toolstack.attacks import suite
from hvd.toolstack.attacks.attack import Result
from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cli.output import FAILED, on_one_line, print_error, print_json, print_line, print_table
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.config.policy_file import load_policy

HEADINGS = ("Attack", "Stopped by", "Stopped", "Control")
INTERRUPTED = 130
STOPPED = {True: "yes", False: "NO", None: "-"}


def list_attacks(*, as_json: bool) -> None:
    """Every attack, with what is to stop it."""
    if as_json:
        print_json({"attacks": [{"name": attack.name, "layer": attack.layer} for attack in suite.ATTACKS.values()]})
    else:
        print_table(HEADINGS[:2], [(attack.name, attack.layer) for attack in suite.ATTACKS.values()])


def attack(names: Sequence[str], *, policy: str | None, as_json: bool) -> int:
    """Carry out those whose names begin so, or all; the exit status. ConfigError for bad input: nothing is attacked."""
    attacks = suite.chosen(names)
    if policy is not None:
        load_policy(policy, "--policy")  # which each attack does, and would fail at
    results: list[Result] = []
    try:
        with ended_by_signals(), Progress(quiet=as_json) as progress, suite.Runner(policy) as runner:
            for number, each in enumerate(attacks, 1):
                progress(f"{number} of {len(attacks)}: {each.name}")
                results.append(runner.run(each))
    except Ended:
        return INTERRUPTED
    if as_json:
        print_json({"attacks": [result.as_dict() for result in results]})
    else:
        _show(results)
    return 0 if suite.all_as_they_should_be(results) else FAILED


def _show(results: Sequence[Result]) -> None:
    print_table(HEADINGS, [_row(result) for result in results])
    tried = [result for result in results if result.stopped is not None]
    stopped = sum(result.stopped is True for result in tried)
    worked = sum(result.control_succeeded is True for result in tried)
    print_line(f"{stopped} of {len(tried)} attacks were stopped; {worked} of {len(tried)} work without what stops them;"
               f" {len(results) - len(tried)} do not apply here")  # fmt: skip
    for result in tried:
        if not result.stopped:
            print_error(f"not stopped: {result.name}: {on_one_line(result.attempt)}", as_json=False)
        if not result.control_succeeded:
            print_error(f"the control did not succeed: {result.name}: {on_one_line(result.control)}", as_json=False)


def _row(result: Result) -> tuple[str, str, str, str]:
    told = result.control if result.stopped is not None else result.attempt
    return result.name, result.layer, STOPPED[result.stopped], on_one_line(told)
