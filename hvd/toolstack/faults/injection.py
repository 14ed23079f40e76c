"""Injects a fault and says what became of it: injected, activated (by a witness), undone."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from hvd.toolstack.cluster.errors import NoSuchDomain
from hvd.toolstack.faults.fault import Aim, BadFault, Effect, Fault, Order, Seen
from hvd.transport.ids import DOM0

if TYPE_CHECKING:
    from hvd.toolstack.cluster import Cluster, Domain

LOOK_S = 0.005
"""Between two looks at a witness whom nothing wakes us for."""
AFTER_S = 5.0
"""How long the witness of a fault that is over may take: a death is reaped, a peer looks at its ring."""
SEED_BITS = 32


class Injection:
    """One fault that was injected. As a context manager it is undone at the end."""

    def __init__(self, fault: Fault, order: Order, effects: Sequence[Effect]) -> None:
        """Begun is none of the effects; `begin` does that."""
        self.fault, self.order = fault, order
        self._effects = effects
        self._seen: list[Seen] = [Seen(None, "not injected")] * len(effects)
        self.injected_at_ns = 0
        """On CLOCK_MONOTONIC; 0: not yet."""
        self.undone = False

    def begin(self) -> None:
        """Inject it. Where one victim's is refused, those that were begun are undone."""
        self.injected_at_ns = time.monotonic_ns()
        for number, effect in enumerate(self._effects):
            try:
                effect.begin()
            except BaseException:
                for begun in self._effects[:number]:
                    begun.undo()
                raise

    # ---- what became of it ------------------------------------------------------------------------------------------

    @property
    def witness(self) -> str:
        """Who tells whether it was activated."""
        return self.fault.witness

    @property
    def activated(self) -> bool | None:
        """Whether its witness has seen it take effect on every victim; None: not yet, and it is not over."""
        self._look()
        answers = [seen.activated for seen in self._seen]
        unseen = False if self.undone else None
        return False if False in answers else unseen if None in answers else True

    @property
    def evidence(self) -> str:
        """By what the witness says so."""
        return "; ".join(seen.evidence for seen in self._seen)

    def _look(self, *, again: bool = False) -> None:
        """What was seen once has been seen: it is looked at `again` for the last numbers only."""
        if self.undone:
            return
        for number, effect in enumerate(self._effects):
            if again or self._seen[number].activated is not True:
                seen = effect.look()
                if seen.activated or not self._seen[number].activated:
                    self._seen[number] = seen

    def wait_activated(self, deadline_s: float | None = None) -> bool | None:
        """Until the witness has seen it, or cannot any more: by default a while after its time."""
        until = time.monotonic() + (self.order.for_s + AFTER_S if deadline_s is None else deadline_s)
        while (answer := self.activated) is None and time.monotonic() < until:
            time.sleep(LOOK_S)
        return answer

    @property
    def over(self) -> bool:
        """Whether its time is over."""
        return self.undone or time.monotonic_ns() >= self.injected_at_ns + self.order.for_s * 1e9

    def wait_over(self) -> None:
        """Until its time is over, looking at the witness meanwhile; then it is undone, by whoever does that."""
        while not self.over:
            self._look()
            time.sleep(min(LOOK_S, self.order.for_s))
        self.undo()

    def undo(self) -> None:
        """End it before its time, and ask the witness no more. Nothing when that was done."""
        if self.undone:
            return
        self._look(again=True)
        self.undone = True
        for effect in self._effects:
            effect.undo()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        order = self.order
        return {
            "fault": self.fault.name, "victims": [victim.name for victim in order.victims], "for_s": order.for_s,
            "seed": order.seed, "parameters": dict(order.parameters), "injected": self.injected_at_ns != 0,
            "injected_at_ns": self.injected_at_ns, "activated": self.activated, "witness": self.witness,
            "evidence": self.evidence, "undone": self.undone,
        }  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


def plan(
    cluster: Cluster,
    name: str,
    victims: Iterable[Domain | str] = (),
    for_s: float | None = None,
    seed: int | None = None,
    **parameters: int | str,
) -> Order:
    """Everything checked and decided, and nothing done; BadFault says what is wrong."""
    fault = fault_named(name)
    chosen = _victims(cluster, fault, victims)
    lasts, values = fault.duration(for_s), fault.check(parameters)
    drawn = random.SystemRandom().getrandbits(SEED_BITS) if seed is None else seed
    return Order(cluster, chosen, lasts, drawn, values)


def inject(
    cluster: Cluster,
    name: str,
    victims: Iterable[Domain | str] | Domain | str = (),
    for_s: float | None = None,
    seed: int | None = None,
    **parameters: int | str,
) -> Injection:
    """Inject a fault; what the broker refuses is a HypercallError, and then nothing is left of it."""
    several = [victims] if isinstance(victims, str) or not isinstance(victims, Iterable) else victims
    order = plan(cluster, name, several, for_s, seed, **parameters)
    fault = fault_named(name)
    injection = Injection(fault, order, fault.begin(order))
    injection.begin()
    return injection


def fault_named(name: str) -> Fault:
    """BadFault lists those there are."""
    from hvd.toolstack.faults.registry import FAULTS

    if name not in FAULTS:
        raise BadFault(f"no fault {name!r}; there are: {', '.join(FAULTS)} (`hvd fault list` describes them)")
    return FAULTS[name]


def _victims(cluster: Cluster, fault: Fault, named: Iterable[Domain | str]) -> tuple[Domain, ...]:
    """Each once, in order."""
    try:
        each = [cluster.domain(victim) if isinstance(victim, str) else victim for victim in named]
    except NoSuchDomain as error:
        raise BadFault(str(error)) from None
    domains = list({domain.domid: domain for domain in each}.values())
    infos = cluster.infos()
    for domain in domains if fault.aim is not Aim.SPARED else ():
        info = infos.get(domain.domid)  # before the first is hit: a death is not undone
        if info is None:
            raise BadFault(f"domain {domain.name} does not exist (any more)")
        if info.pid is None:
            raise BadFault(f"domain {info.name} is {info.state_text}: it has no process that a fault could meet")
    guests = [domain for domain in cluster.domains() if domain.domid != DOM0]
    alive = [domain for domain in guests if domain.domid in infos and infos[domain.domid].pid is not None]
    match fault.aim:
        case Aim.MACHINE:
            if domains:
                raise BadFault(f"fault {fault.name} is the machine's: expected no domain, found {domains[0].name}")
        case Aim.DOMAINS if not domains:
            names = ", ".join(domain.name for domain in guests)
            raise BadFault(f"fault {fault.name}: expected a domain to meet it; there are: {names}")
        case Aim.SPARED:
            if len(domains) != 1:
                raise BadFault(f"fault {fault.name}: expected the one domain to spare, found {len(domains)}")
            others = tuple(domain for domain in alive if domain.domid != domains[0].domid)
            if not others:
                raise BadFault(f"fault {fault.name}: expected a domain beside {domains[0].name} that has a process")
            return others
        case Aim.GROUP if not domains:
            return tuple(alive)
    return tuple(domains)
