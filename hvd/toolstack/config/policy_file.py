"""Reads a security policy: TOML text in, the wire's `Policy` out, or every mistake in it at once.

Rules are FLASK's: what no `[[allow]]` names is denied. A `[[neverallow]]` is a promise about all of those, and a file
that does not keep its own is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hvd.toolstack.config.document import document_of, text_of
from hvd.toolstack.config.names import name_from
from hvd.toolstack.config.problems import ConfigError, Place, Problem, Report, nearest, shown
from hvd.toolstack.config.table import Table, table_in
from hvd.transport.limits import LABELS_MAX
from hvd.transport.messages import Policy
from hvd.transport.xsm import CLASSES, SECURITY, security_vector, spelled, vector

LABEL_SYNTAX = "1 to 64 letters, digits and _, the first a letter"
RESERVED = ("security_t", "unlabeled_t")
"""What the audit log calls the policy itself, and a domid that nobody has."""
KINDS = ("dom0", "driver_domain", "guest")
ALL = "*"
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_SHIPPED = Path(__file__).parents[1] / "policies"


def is_label(text: str) -> bool:
    """Whether a text may be a label."""
    return _LABEL.fullmatch(text) is not None and text not in RESERVED


def shipped() -> list[str]:
    """The policies that come with hvd, by the names that they are loaded by."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def path_of(policy: str, directory: Path) -> Path | None:
    """The file of a policy that ships, or of one that is named by a path from `directory`; None: there is no such."""
    if "/" in policy or policy.endswith(".toml"):
        return directory / policy
    return _SHIPPED / f"{policy}.toml" if policy in shipped() else None


def load_policy(policy: str | os.PathLike[str], option: str = "policy") -> Policy:
    """The policy of this name or in this file, from the current directory; ConfigError names all that is wrong.

    `option` is where the name was given.
    """
    name = os.fspath(policy)
    path = path_of(name, Path())
    if path is None:
        raise ConfigError([Problem("command line", option, expected_policy(), shown(name), nearest(name, shipped()))])
    return read_policy(path)


def expected_policy() -> str:
    """What may be written where a policy is named."""
    return f"a policy file (….toml) or one of {', '.join(shipped())}"


def read_policy(path: Path) -> Policy:
    """The policy in a file; ConfigError names everything that is wrong with it."""
    text = text_of(path, "a security policy")
    report = Report(os.fspath(path), text)
    root = Table(report, (), document_of(path, text))
    labels = _labels(root)
    dom0, driver_domain, guest = _defaults(root, labels)
    allows = [_rule(table, labels) for table in root.tables("allow", "allow")]
    nevers = [_rule(table, labels) for table in root.tables("neverallow", "neverallow")]
    root.finish()
    _check_promises(report, labels, allows, nevers)
    report.raise_if_wrong()
    vectors, security = _compiled(len(labels), allows)
    return Policy(name_from(path), labels, dom0, driver_domain, guest, vectors, security)


class Rule(NamedTuple):
    """One rule: labels by number, permissions as bits. Without targets it is about the policy itself."""

    place: Place
    sources: list[int]
    targets: list[int]
    bits: int


def _labels(root: Table) -> list[str]:
    """`[labels]`: every label that there is, with a text that says what it is for."""
    table = table_in(root.report, root.at("labels"), root.take("labels") or {})
    labels = list(table.rest()) if table else []
    for label in labels:
        if not is_label(label):
            root.report.wrong(root.at("labels", label), f"a label: {LABEL_SYNTAX}", shown(label))
        elif table:
            table.text(label, "")
    if not 1 <= len(labels) <= LABELS_MAX:
        root.report.wrong(root.at("labels"), f"1 to {LABELS_MAX} labels", str(len(labels)))
    return labels


def _defaults(root: Table, labels: list[str]) -> list[str]:
    """`[defaults]`: the label of a domain of each kind whose configuration names none."""
    table = table_in(root.report, root.at("defaults"), root.take("defaults") or {})
    if table is None:
        return [""] * len(KINDS)
    found = [table.text(kind, None) for kind in KINDS]
    for kind, label in zip(KINDS, found, strict=True):
        if label and label not in labels:
            root.report.wrong(table.at(kind), "one of [labels]", shown(label), nearest(label, labels))
    table.finish()
    return found


def _rule(table: Table, labels: list[str]) -> Rule:
    sources = _chosen(table, "source", labels)
    present = [class_name for class_name in CLASSES if class_name in table.rest()]
    if "security" in table.rest():
        for key in [key for key in ("target", *present) if table.take(key) is not None]:
            table.report.wrong(table.at(key), "security alone, which has no target", shown(key))
        rule = Rule(table.place, sources, [], security_vector(*_words(table, "security", SECURITY)))
    else:
        targets, bits = _chosen(table, "target", labels), 0
        for class_name in present:
            chosen = _words(table, class_name, CLASSES[class_name])
            bits |= vector(class_name, *chosen) if chosen else 0
        if not present:
            table.report.wrong(table.place, f"permissions of {', '.join(CLASSES)} or security", "none")
        rule = Rule(table.place, sources, targets, bits if targets else 0)  # one without targets is wrong, and told
    for class_name in CLASSES:
        table.take(class_name)  # a key that is known, whether it is there or not
    table.finish()
    return rule


def _words(table: Table, key: str, known: Sequence[str]) -> list[str]:
    return [known[number] for number in _chosen(table, key, known)]


def _chosen(table: Table, key: str, known: Sequence[str]) -> list[int]:
    """The numbers of the words that a key names: one, a list of them, or all as "*"."""
    value = table.take(key)
    if value == ALL:
        return list(range(len(known)))
    words = value if isinstance(value, list) else [value]
    expected = f'"*", or one or a list of {", ".join(known) or "[labels]"}'
    if value is None or not words:
        table.report.wrong(table.at(key), expected, "nothing" if value is None else shown(value))
        return []
    chosen = []
    for index, word in enumerate(words):
        if isinstance(word, str) and word in known:
            chosen.append(known.index(word))
        else:
            place = table.at(key, index) if isinstance(value, list) else table.at(key)
            table.report.wrong(place, expected, shown(word), nearest(word, known) if isinstance(word, str) else "")
    return chosen


def _check_promises(report: Report, labels: list[str], allows: list[Rule], nevers: list[Rule]) -> None:
    """Each rule that allows what another promises never to be, told once for each of those."""
    for allow in allows:
        for never in nevers:
            sources = [s for s in allow.sources if s in never.sources]
            targets = [t for t in allow.targets if t in never.targets]
            bits = allow.bits & never.bits
            if not bits or not sources or bool(allow.targets) != bool(never.targets):
                continue
            if allow.targets and not targets:
                continue
            whom = f" on {labels[targets[0]]}" if targets else ""
            what = f"{labels[sources[0]]} {_first(bits, about_policy=not allow.targets)}{whom}"
            report.wrong(allow.place, f"no rule that allows {what}", "one", f"{report.spell(never.place)} forbids it")


def _first(bits: int, *, about_policy: bool) -> str:
    if about_policy:
        return "security " + next(name for name in SECURITY if security_vector(name) & bits)
    class_name, permissions = spelled(bits)[0]
    return f"{class_name} {permissions[0]}"


def _compiled(count: int, allows: Iterable[Rule]) -> tuple[list[int], list[int]]:
    """The vectors and the security permissions that all rules together give."""
    vectors, security = [0] * (count * count), [0] * count
    for rule in allows:
        for source in rule.sources:
            if not rule.targets:
                security[source] |= rule.bits
            for target in rule.targets:
                vectors[source * count + target] |= rule.bits
    return vectors, security
