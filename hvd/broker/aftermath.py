"""Carries out what supervision.py decides of a death: one domain started again, kept or forgotten, or a whole group.

A group that restarts stops whom its strategy names and lets them wait, as at power-on, until the last of them is gone;
then they start in their order, each when those that it comes after are ready. All that is remembered of it stands in
the domains' records, so that a broker's death in the middle changes nothing.
"""

from __future__ import annotations

from hvd.broker import spares
from hvd.broker.domain import Domain, Event, Life, Shutdown
from hvd.broker.errors import Refused
from hvd.broker.groups import Group
from hvd.broker.lives import Lives
from hvd.broker.restarts import GiveUp, back_off_ns, judge_restart
from hvd.broker.supervision import Escalation, Own, Sibling, decide, sibling

NAME_STEM = 56
"""Characters of a name that is made longer when its domain is kept under another."""


class Aftermath(Lives):
    """The tables, and what follows a death."""

    def _after_death(self, domain: Domain, now_ns: int) -> None:
        row = decide(domain)
        group = self.groups.of(domain.name) if row.with_group else None
        awaited = domain.regroup_at_ns
        match row.own:
            case Own.REMOVED:
                self._remove(domain)
            case Own.FAILED:
                self._fail(domain, domain.refused or domain.given_up)
            case Own.MACHINE_STOPS:
                self._preserve(domain)
                self.stop_machine(reboot=domain.shutdown is Shutdown.REBOOT)
            case Own.KEPT:
                self._preserve(domain)
            case Own.AWAITS:
                domain.last_death = "stopped with its group"
                self._await(domain, awaited or now_ns, now_ns)
            case Own.RESTARTED | Own.RENAMED if group is not None:
                self._restart_group(group, domain.name, domain, now_ns)
            case Own.RENAMED:
                self._rename_and_restart(domain, now_ns)
            case Own.RESTARTED:
                self._restart(domain, now_ns)
        if awaited is not None:
            self._start_waiting(now_ns)

    def _preserve(self, domain: Domain) -> None:
        spares.dismiss(self, domain)
        domain.move(Event.PRESERVE)

    # ---- one domain --------------------------------------------------------------------------------------------------

    def _restart(self, domain: Domain, now_ns: int) -> None:
        verdict = judge_restart(domain, now_ns)
        if isinstance(verdict, GiveUp):
            self._fail(domain, verdict.text)
        else:
            self._start_at(domain, verdict.at_ns, now_ns)

    def _start_at(self, domain: Domain, at_ns: int, now_ns: int) -> None:
        if at_ns <= now_ns:
            self._start(domain, now_ns)
            return
        domain.move(Event.BACK_OFF)
        domain.retry_at_ns = at_ns
        self.deadlines.note(domain)
        self.announce("backing off", domain, f"{(at_ns - now_ns) // 1_000_000} ms")

    def _rename_and_restart(self, domain: Domain, now_ns: int) -> None:
        """The dead one is kept under another name; another domain takes its place, its restarts counted on."""
        verdict = judge_restart(domain, now_ns)
        if isinstance(verdict, GiveUp):
            self._fail(domain, verdict.text)
            return
        successor = self._replace(domain, now_ns)
        if successor is not None:
            self._await(successor, verdict.at_ns, now_ns)
            self._start_waiting(now_ns)

    def _replace(self, domain: Domain, now_ns: int) -> Domain | None:
        """Another domain of its name, which waits; None, and told, when there can be none."""
        self._preserve(domain)
        domain.name = self._free_name(domain)
        try:
            successor = self._enrol(domain.config, now_ns)
        except Refused as refusal:
            domain.last_death += f"; and could not be replaced: {refusal.text}"
            self.announce("failed", domain, domain.last_death)
            return None
        successor.restarted_at_ns = domain.restarted_at_ns.copy()
        successor.unready_deaths = domain.unready_deaths
        return successor

    def _free_name(self, domain: Domain) -> str:
        """The name with the domid behind it, made longer while somebody has it."""
        stem, number = domain.name[:NAME_STEM], f"-{domain.domid}"
        while self.by_name(stem + number) is not None:
            number += "+"
        return stem + number

    # ---- a group -----------------------------------------------------------------------------------------------------

    def _restart_group(self, group: Group, at_fault: str, fault: Domain, now_ns: int) -> None:
        """For a fault of this member: `fault` is the domain that has died, the member or in it."""
        if not group.may_restart(now_ns):
            self._escalate(group, fault, now_ns)
            return
        at_ns = now_ns + back_off_ns(fault)
        names = self.groups.restarted(group, at_fault)
        if names != [fault.name]:
            detail = f"{group.config.name} ({group.config.strategy}): {', '.join(names)}"
            self.announce("group restarts", fault, detail)
        if decide(fault).own is Own.RENAMED:
            self._replace(fault, now_ns)
        elif names == [fault.name]:
            self._start_at(fault, at_ns, now_ns)
            return
        for domain in self._present(names)[::-1]:  # the last that was started is stopped first
            self._regroup(domain, at_ns, now_ns)
        self._start_waiting(now_ns)

    def _regroup(self, domain: Domain, at_ns: int, now_ns: int) -> None:
        match sibling(domain):
            case Sibling.LEAVE:
                return
            case Sibling.AWAIT:
                self._await(domain, at_ns, now_ns)
            case Sibling.JOIN:
                domain.regroup_at_ns = at_ns
            case Sibling.STOP:
                domain.regroup_at_ns = at_ns
                self._kill(domain)

    def _await(self, domain: Domain, at_ns: int, now_ns: int) -> None:
        """Wait as at power-on, and at least until then."""
        if domain.life is not Life.WAITING:
            domain.move(Event.AWAIT)
        domain.regroup_at_ns = None
        domain.retry_at_ns = at_ns if at_ns > now_ns else None
        self.deadlines.note(domain)

    def _escalate(self, group: Group, fault: Domain, now_ns: int) -> None:
        """It has restarted too often."""
        parent = self.groups.of(group.config.name)
        if group.escalation is Escalation.PARENT and parent is not None:
            group.restarted_at_ns.clear()
            self._restart_group(parent, group.config.name, fault, now_ns)
        elif group.escalation is Escalation.REBOOT_MACHINE:
            self._give_up(fault, group.reason(f"{fault.name}: {fault.last_death}"))
            self.stop_machine(reboot=True)
        else:
            self._fail_group(group, fault)

    def _fail_group(self, group: Group, fault: Domain) -> None:
        why = group.reason(f"{fault.name}: {fault.last_death}")
        self.announce("group failed", fault, why)
        for domain in self._present(self.groups.domains(group))[::-1]:
            self._give_up(domain, why)

    def _give_up(self, domain: Domain, why: str) -> None:
        match sibling(domain):
            case Sibling.LEAVE:
                return
            case Sibling.AWAIT:
                domain.retry_at_ns = None
                self.deadlines.note(domain)
                self._fail(domain, why)
            case Sibling.JOIN:
                domain.given_up = why
            case Sibling.STOP:
                domain.given_up = why
                self._kill(domain)

    def _present(self, names: list[str]) -> list[Domain]:
        return [domain for name in names if (domain := self.by_name(name)) is not None]
