"""The security module: which label each domain has, what the policy lets one do to another, and what becomes of a no.

A check is two look-ups and a mask. It is made where a hypercall is carried out (xsm_hooks.py, store/mandatory.py), and
never where data flows: what was bound and mapped under one policy stays so under the next, as in Xen's FLASK.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

from hvd.broker.errors import Refused
from hvd.broker.hardware import Hardware, NoHardware
from hvd.transport.ids import DOM0, DomId
from hvd.transport.messages import DomainConfig, Policy
from hvd.transport.xsm import EVERY_SECURITY, EVERYTHING, OPEN_POLICY, SECURITY, spelled

LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
POLICY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", re.ASCII)
SECURITY_LABEL = "security_t"
"""What the policy itself counts as in the audit log."""
UNLABELED = "unlabeled_t"
"""The label, in the audit log, of a domid that nobody has."""
NOBODY = -1


class Xsm:
    """The policy, the mode, and the label of every domain there is."""

    def __init__(self, policy: Policy = OPEN_POLICY, *, enforcing: bool = True) -> None:
        self.hardware: Hardware = NoHardware()
        self.enforcing = enforcing
        self._labels: dict[DomId, str] = {}
        self._index: dict[DomId, int] = {}
        self._rows: dict[DomId, list[int]] = {}
        """What a domain has over each label; the last entry is what it has over every label, and so over nobody."""
        self._take(policy)

    # ---- labels ------------------------------------------------------------------------------------------------------

    def label_for(self, domid: DomId | None, config: DomainConfig) -> str:
        """The label of a domain that is to be; EINVAL if the policy has none of that name."""
        if config.seclabel:
            default = config.seclabel
        elif domid == DOM0:
            default = self.policy.dom0
        else:
            default = self.policy.driver_domain if config.driver_domain else self.policy.guest
        if default not in self.policy.labels:
            have = ", ".join(self.policy.labels)
            raise Refused(errno.EINVAL, f"the policy {self.policy.name!r} has no label {default!r}; it has {have}")
        return default

    def admit(self, domid: DomId, config: DomainConfig) -> None:
        """A domain is created: it keeps its label until it is forgotten. EINVAL if the policy has no such label."""
        self._labels[domid] = self.label_for(domid, config)
        self._look_up(domid)

    def forget(self, domid: DomId) -> None:
        """The domain is gone. Nothing if it is not known."""
        for table in (self._labels, self._index, self._rows):
            table.pop(domid, None)

    def label(self, domid: DomId) -> str:
        """A domain's label, or what stands for one where there is none."""
        return self._labels.get(domid, UNLABELED)

    # ---- checks ------------------------------------------------------------------------------------------------------

    def check(self, source: DomId, target: DomId, wanted: int) -> None:
        """Refuse with EACCES what the policy denies. A target that does not exist stands for every label."""
        if not self.allows(source, target, wanted):
            class_name, permissions = spelled(wanted)[0]
            what = f"{class_name} {'/'.join(permissions)} on domain {target}"
            raise Refused(errno.EACCES, f"the security policy denies domain {source} {what}")

    def allows(self, source: DomId, target: DomId, wanted: int) -> bool:
        """Whether the source may, or may because nothing is enforced; what the policy denies is audited."""
        missing = wanted & ~self._rows[source][self._index.get(target, NOBODY)]
        return not missing or source == target or self._denied(source, target, self.label(target), missing)

    def permits(self, source: DomId, target: DomId, wanted: int) -> bool:
        """What the policy says, whatever the mode; nobody has done anything yet, so nothing is audited."""
        row = self._rows.get(source)
        return source == target or (row is not None and not wanted & ~row[self._index.get(target, NOBODY)])

    def allows_all_who_may(self, source: DomId, wanted: int, target: DomId, able: int) -> bool:
        """Whether the source may do `wanted` to every label that has `able` over the target; a denial is audited."""
        row, at, labels = self._rows[source], self._index.get(target), self.policy.labels
        for number, label in enumerate(labels):
            missing = wanted & ~row[number]
            has = EVERYTHING if at is None else self.policy.vectors[number * len(labels) + at]
            if missing and not able & ~has:
                return self._denied(source, None, label, missing)
        return True

    def check_creation(self, source: DomId, config: DomainConfig, wanted: int) -> None:
        """The same for a domain that has no domid yet."""
        label = self.label_for(None, config)
        missing = wanted & ~self._rows[source][self.policy.labels.index(label)]
        if missing and not self._denied(source, None, label, missing):
            raise Refused(errno.EACCES, f"the security policy denies domain {source} to create a domain {label}")

    def check_security(self, source: DomId, wanted: int) -> None:
        """Refuse what the policy does not let this domain do to the policy itself.

        The permissive mode lets dom0 do it, and nobody else: it never gives what there would not be without a policy.
        """
        missing = wanted & ~self.policy.security[self._index[source]]
        if not missing:
            return
        names = [name for number, name in enumerate(SECURITY) if missing >> number & 1]
        self._audit(source, None, SECURITY_LABEL, "security", names)
        if self.enforcing or source != DOM0:
            text = f"the security policy denies domain {source} security {'/'.join(names)}"
            raise Refused(errno.EACCES, text)

    # ---- the policy and the mode -------------------------------------------------------------------------------------

    def load(self, source: DomId, policy: Policy) -> None:
        """Another policy from here on; EINVAL, and the old one stays, if it makes no sense or lacks a label in use."""
        _check_policy(policy)
        lost = sorted(set(self._labels.values()) - set(policy.labels))
        if lost:
            raise Refused(errno.EINVAL, f"policy {policy.name!r} lacks labels that domains have: {', '.join(lost)}")
        self._take(policy)
        self.hardware.audit(source, f"Flask: policy {policy.name} loaded by domain {source}")

    def set_enforcing(self, source: DomId, *, enforcing: bool) -> None:
        """Refuse what the policy denies, or let it pass and log it."""
        self.enforcing = enforcing
        self.hardware.audit(source, f"Flask: {'enforcing' if enforcing else 'permissive'} by domain {source}")

    def _take(self, policy: Policy) -> None:
        self.policy = policy
        for domid in self._labels:
            self._look_up(domid)

    def _look_up(self, domid: DomId) -> None:
        count = len(self.policy.labels)
        index = self.policy.labels.index(self._labels[domid])
        row = self.policy.vectors[index * count : (index + 1) * count]
        over_all = EVERYTHING
        for vector in row:
            over_all &= vector
        self._index[domid] = index
        self._rows[domid] = [*row, over_all]

    # ---- denials -----------------------------------------------------------------------------------------------------

    def _denied(self, source: DomId, target: DomId | None, label: str, missing: int) -> bool:
        for class_name, permissions in spelled(missing):
            self._audit(source, target, label, class_name, permissions)
        return not self.enforcing

    def _audit(self, source: DomId, target: DomId | None, label: str, class_name: str, names: Sequence[str]) -> None:
        """FLASK's line, and whether anything was refused, as SELinux adds it."""
        whom = f"domid={source}" + ("" if target is None else f" target={target}")
        contexts = f"scontext={self.label(source)} tcontext={label} tclass={class_name}"
        permissive = 0 if self.enforcing or (class_name == "security" and source != DOM0) else 1
        line = f"avc:  denied  {{ {' '.join(names)} }} for {whom} {contexts} permissive={permissive}"
        self.hardware.audit(source, line)


def _check_policy(policy: Policy) -> None:
    """EINVAL unless the table is one: whoever may load a policy may not break the broker with it."""
    count, labels = len(policy.labels), set(policy.labels)
    sound = {
        "name": POLICY_NAME.fullmatch(policy.name) is not None,
        "labels": 0 < count == len(labels) and all(LABEL.fullmatch(label) for label in labels),
        "default labels": {policy.dom0, policy.driver_domain, policy.guest} <= labels,
        "vectors": len(policy.vectors) == count * count and not any(bits & ~EVERYTHING for bits in policy.vectors),
        "security": len(policy.security) == count and not any(bits & ~EVERY_SECURITY for bits in policy.security),
    }
    wrong = [what for what, right in sound.items() if not right]
    if wrong:
        raise Refused(errno.EINVAL, f"no policy: its {wrong[0]} cannot be")
