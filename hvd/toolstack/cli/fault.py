"""`hvd fault`: lists the faults, says what one would do, injects it, and says what became of it."""

from __future__ import annotations

from collections.abc import Iterable

from hvd.toolstack.cli.output import FAILED, print_json, print_line, print_table
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.faults.fault import BadFault, Fault, Order
from hvd.toolstack.faults.injection import Injection, fault_named, plan
from hvd.toolstack.faults.registry import FAULTS


def list_faults(*, as_json: bool) -> None:
    """Every fault, a line each."""
    if as_json:
        print_json([_described(fault) for fault in FAULTS.values()])
        return
    rows = [(fault.name, _lasts(fault), fault.aim.name.lower(), fault.summary) for fault in FAULTS.values()]
    print_table(("Fault", "Lasts", "For", "What"), rows)


def _described(fault: Fault) -> dict[str, object]:
    takes = {p.name: {"default": p.default, "least": p.least, "most": p.most, "what": p.summary}
             for p in fault.parameters}  # fmt: skip
    return {
        "fault": fault.name, "summary": fault.summary, "aim": fault.aim.name.lower(), "for_s": fault.for_s,
        "parameters": takes, "witness": fault.witness, "expected": fault.expected, "undone_by": fault.undone_by,
    }  # fmt: skip


def _lasts(fault: Fault) -> str:
    return "" if fault.for_s is None else f"{fault.for_s:g}s"


def fault(
    name: str,
    victims: list[str],
    *,
    for_s: float | None,
    seed: int | None,
    settings: list[str],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Inject one, wait until its time is over, and say what its witness saw; the exit status."""
    given = _parameters(settings)
    kind = fault_named(name)
    with Cluster.attach() as cluster, Progress(quiet=as_json) as progress:
        order = plan(cluster, name, victims, for_s, seed, **given)
        if dry_run:
            _tell_plan(kind, order, as_json=as_json)
            return 0
        injection = Injection(kind, order, kind.begin(order))
        progress(f"injecting {kind.name} (seed {order.seed})")
        injection.begin()
        with injection:
            progress(f"waiting for its witness: {kind.witness}")
            injection.wait_activated()
            progress(f"waiting for {kind.name} to be over")
            injection.wait_over()
    _tell(injection, as_json=as_json)
    return 0 if injection.activated else FAILED


def _parameters(settings: Iterable[str]) -> dict[str, str]:
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise BadFault(f"--set: expected PARAMETER=NUMBER, found {setting!r}")
        found[key] = value
    return found


def _tell_plan(kind: Fault, order: Order, *, as_json: bool) -> None:
    names = [victim.name for victim in order.victims]
    if as_json:
        facts = {"victims": names, "for_s": order.for_s, "seed": order.seed, "parameters": dict(order.parameters)}
        print_json(_described(kind) | facts | {"injected": False})
        return
    lasts = f" for {order.for_s:g} s" if order.for_s else ""
    print_line(f"would inject {kind.name}{lasts} into {', '.join(names) or 'the machine'} (seed {order.seed})")
    details = ", ".join(f"{name} {value}" for name, value in order.parameters.items())
    for line in (f"what: {kind.summary}" + (f"; {details}" if details else ""), f"witness: {kind.witness}",
                 f"expected: {kind.expected}"):  # fmt: skip
        print_line(f"  {line}")


def _tell(injection: Injection, *, as_json: bool) -> None:
    if as_json:
        print_json(injection.as_dict())
        return
    order = injection.order
    names = ", ".join(victim.name for victim in order.victims) or "the machine"
    print_line(f"injected {injection.fault.name} into {names} (seed {order.seed})")
    print_line(f"  {'activated' if injection.activated else 'not activated'}: {injection.evidence}")
    if order.for_s:
        print_line(f"  its {order.for_s:g} s are over, and nothing of it is left")
