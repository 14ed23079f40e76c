"""Groups against a model of a few lines: the same domains live in the same incarnations, whatever happens."""

from __future__ import annotations

from enum import Enum, auto

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hvd.broker.domain import ACTING, ALIVE, Domain, Life
from hvd.broker.groups import Groups
from hvd.broker.hypervisor import Hypervisor
from hvd.transport.messages import DomainConfig, GroupConfig

MEMBERS = ["a", "b", "c", "d"]
NOW = 1_000_000_000
WHO = st.sampled_from(MEMBERS)


class Is(Enum):
    """What a member is, for the model."""

    RUNNING = auto()
    STOPPING = auto()
    """Killed for the group: it comes back with the others."""
    DOOMED = auto()
    """Killed because the group has failed."""
    LEAVING = auto()
    """Told to go for good."""
    WAITING = auto()
    GONE = auto()
    PRESERVED = auto()
    FAILED = auto()


LIVES = {
    Is.RUNNING: {Life.RUNNING}, Is.STOPPING: {Life.DYING}, Is.DOOMED: {Life.DYING}, Is.LEAVING: ALIVE,
    Is.WAITING: {Life.WAITING}, Is.PRESERVED: {Life.PRESERVED}, Is.FAILED: {Life.FAILED},
}  # fmt: skip


class Model:
    """One group, whose members start at once and are ready at once."""

    def __init__(self, strategy: str, limit: int, actions: dict[str, str]) -> None:
        self.strategy, self.limit, self.actions = strategy, limit, actions
        self.state = dict.fromkeys(MEMBERS, Is.RUNNING)
        self.incarnation = dict.fromkeys(MEMBERS, 1)
        self.restarts = 0

    def fault(self, name: str) -> None:
        if self.actions[name] != "restart":
            self.state[name] = {"destroy": Is.GONE, "preserve": Is.PRESERVED}[self.actions[name]]
        elif self.limit and self.restarts == self.limit:
            self.state[name] = Is.FAILED
            change = {Is.RUNNING: Is.DOOMED, Is.STOPPING: Is.DOOMED, Is.WAITING: Is.FAILED}
            self.state = {each: change.get(state, state) for each, state in self.state.items()}
        else:
            self.restarts += 1
            self.state[name] = Is.WAITING
            first = {"one_for_all": 0, "rest_for_one": MEMBERS.index(name)}.get(self.strategy, len(MEMBERS))
            for other in MEMBERS[first:]:
                if self.state[other] is Is.RUNNING:
                    self.state[other] = Is.STOPPING
            if self.strategy == "one_for_one":
                self.start(name)
            self.settle()

    def gone(self, name: str) -> None:
        after = {Is.STOPPING: Is.WAITING, Is.DOOMED: Is.FAILED, Is.LEAVING: Is.GONE}
        self.state[name] = after[self.state[name]]
        self.settle()

    def settle(self) -> None:
        if Is.STOPPING not in self.state.values() and not self.leaving_late:
            for name in MEMBERS:
                if self.state[name] is Is.WAITING:
                    self.start(name)

    @property
    def leaving_late(self) -> bool:
        """Somebody who was stopped for the group and then destroyed is waited for like the others."""
        return any(self.state[name] is Is.LEAVING for name in self.destroyed_while_stopping)

    destroyed_while_stopping: frozenset[str] = frozenset()

    def start(self, name: str) -> None:
        self.state[name] = Is.RUNNING
        self.incarnation[name] += 1


class Supervised(RuleBasedStateMachine):
    """The tables and the model, told the same."""

    @initialize(
        strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        limit=st.sampled_from([0, 1, 3]),
        actions=st.fixed_dictionaries(
            {name: st.sampled_from(["restart", "restart", "destroy", "preserve"]) for name in MEMBERS}
        ),
    )
    def boot(self, strategy: str, limit: int, actions: dict[str, str]) -> None:
        group = GroupConfig("g", MEMBERS, strategy=strategy, limit=limit)
        self.h = Hypervisor(b"secret", NOW, groups=Groups([group]))
        self.h.create(DomainConfig("Domain-0", "hvd:dom0"), NOW)
        self.all_start()
        self.domids = {
            name: self.h.create(DomainConfig(name, "hvd:idle", on_crash=actions[name]), NOW).domid for name in MEMBERS
        }
        self.all_start()
        self.model = Model(strategy, limit, actions)

    def all_start(self) -> None:
        while starting := [d for d in self.h.domains.values() if d.life is Life.STARTING]:
            for domain in starting:
                self.h.started(domain.domid, domain.incarnation, 100, NOW)
                self.h.domain_ready(domain.domid, NOW)

    def domain(self, name: str) -> Domain:
        return self.h.domains[self.domids[name]]

    def dies(self, name: str) -> None:
        domain = self.domain(name)
        self.h.died(domain.domid, domain.incarnation, "killed by SIGKILL", NOW)
        self.all_start()

    def named(self, *states: Is) -> list[str]:
        return [name for name in MEMBERS if self.model.state[name] in states]

    @rule(name=WHO)
    def one_crashes(self, name: str) -> None:
        if self.model.state[name] is Is.RUNNING:
            self.dies(name)
            self.model.fault(name)

    @rule(name=WHO)
    def one_that_was_killed_is_gone(self, name: str) -> None:
        if self.model.state[name] in (Is.STOPPING, Is.DOOMED, Is.LEAVING):
            self.dies(name)
            self.model.gone(name)

    @rule(name=WHO)
    def one_is_asked_to_stop(self, name: str) -> None:
        if self.model.state[name] is Is.RUNNING:
            self.h.request_shutdown(self.domids[name], reboot=False, grace_ms=1000, now_ns=NOW)
            self.model.state[name] = Is.LEAVING

    @rule(name=WHO)
    def one_is_destroyed(self, name: str) -> None:
        state = self.model.state[name]
        if state is Is.GONE:
            return
        self.h.destroy(self.domids[name], NOW)
        if state is Is.STOPPING:
            self.model.destroyed_while_stopping |= {name}
        self.model.state[name] = Is.LEAVING if self.domids[name] in self.h.domains else Is.GONE
        assert (state in (Is.RUNNING, Is.STOPPING, Is.DOOMED, Is.LEAVING)) == (self.model.state[name] is Is.LEAVING)

    @precondition(lambda self: self.named(Is.STOPPING))
    @rule()
    def all_that_were_killed_are_gone(self) -> None:
        for name in self.named(Is.STOPPING, Is.LEAVING, Is.DOOMED):
            self.dies(name)
            self.model.gone(name)

    @invariant()
    def the_tables_are_as_the_model_says(self) -> None:
        for name in MEMBERS:
            state = self.model.state[name]
            assert (state is Is.GONE) == (self.domids[name] not in self.h.domains)
            if state is not Is.GONE:
                domain = self.domain(name)
                assert (domain.life in LIVES[state], domain.incarnation) == (True, self.model.incarnation[name]), name

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        """Whoever waits does so for somebody who is being ended."""
        for name in self.named(Is.WAITING):
            waited_for = self.h.waits_for(self.domain(name))
            assert waited_for
            assert all(self.domain(other).life in ALIVE - ACTING for other in waited_for)


TestSupervised = Supervised.TestCase
TestSupervised.settings = settings(max_examples=300, stateful_step_count=40)
