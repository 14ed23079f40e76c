"""The threats that hvd has to survive: what became known of Xen and its drivers, and what was found for this design.

Each is tried by a hostile domain. What carries an advisory's number (XSA) is found by it in the attacks' names; the
others are named here. `scripts/generate_threats.py` makes docs/threats.md of it, and a test sees that none is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hvd.toolstack.attacks.attack import Attack
from hvd.transport.records import dataclass

ADVISORY = re.compile(r"XSA-(\d+)")


@dataclass(frozen=True, slots=True)
class Threat:
    """One case."""

    area: str
    what: str
    advisories: tuple[int, ...] = ()
    """Numbers of Xen's advisories, each of which an attack has in its name or ELSEWHERE has a test for."""
    attacks: tuple[str, ...] = ()
    """How the names of further attacks begin, which carry no number or another's."""
    tests: tuple[str, ...] = ()
    """What shows it beside them."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Why no hostile domain can try it, and the test that shows it all the same."""

    why: str
    test: str


def advisories(name: str) -> set[int]:
    """The numbers in an attack's name."""
    return {int(number) for number in ADVISORY.findall(name)}


def attacks_on(threat: Threat, attacks: Iterable[Attack]) -> list[Attack]:
    """Those that try it."""
    numbers, begins = {*threat.advisories}, threat.attacks
    return [attack for attack in attacks if advisories(attack.name) & numbers or attack.name.startswith(begins)]


RINGS, GRANTS, EVENTS, STORE, OWN = "Rings", "Grants", "Event channels", "XenStore", "Found for this design"
THREATS: dict[int, Threat] = {
    1: Threat(RINGS, "a request is changed between check and use", (155,)),
    2: Threat(RINGS, "a producer's index is further ahead than there are slots", (39,)),
    3: Threat(RINGS, "indices out of range, negative or backwards", (86, 38)),
    4: Threat(RINGS, "production without end, whose consumer never leaves its loop", (),
              ("XSA-39 production",)),
    5: Threat(RINGS, "a response's padding holds what was on its sender's stack", (216,)),
    6: Threat(RINGS, "malformed requests, of no bytes, of too many parts, or for one who takes none",
              (90, 423, 424, 432, 448)),
    7: Threat(RINGS, "answers that were not asked for, or twice; a frontend that is not back yet", (465,),
              ("invented answers", "repeated answers")),
    8: Threat(RINGS, "a consumer that takes nothing, for whom more and more is kept", (392,)),
    9: Threat(RINGS, "a frontend that connects and disconnects fast", (350,)),
    10: Threat(GRANTS, "a batch of which a part fails, or a map whose error is taken for a bug", (361, 365, 362)),
    11: Threat(GRANTS, "mappings that are counted wrong, or given back twice or at once", (224, 218, 228, 236)),
    12: Threat(GRANTS, "a page that is taken back and still mapped", (396,),
               ("a page given back", "a forged death", "a child that")),
    13: Threat(GRANTS, "a neighbour's data in a granted page", (403,)),
    14: Threat(GRANTS, "refs that are none; grants that change while they are mapped or copied", (382, 486, 501, 500)),
    15: Threat(GRANTS, "batches that are too long, copies of nothing, copies that wait for each other",
               (318, 380, 411), ("XSA-382 grant copies",)),
    16: Threat(GRANTS, "grants that are kept for good; memory given back twice; a death while something is mapped",
               (371, 26, 255), tests=("tests/property/test_grants.py",)),
    17: Threat(GRANTS, "tables that are filled", (), ("exhausting mappings", "exhausting extents")),
    18: Threat(EVENTS, "event storms of guests and of backends", (332, 391)),
    19: Threat(EVENTS, "ports that are reset, closed or none while they are used; a channel's words in disorder",
               (343, 505, 338, 221, 107, 358, 359, 340), tests=("tests/property/test_event_channels.py",)),
    20: Threat(EVENTS, "ports out of range, the end of all at once, virqs that cannot be bound", (342, 344, 496)),
    21: Threat(STORE, "memory that is filled: by watches, transactions, and by replies that are not read", (326, 416),
               ("replies that are never read",)),
    22: Threat(STORE, "events of what may not be read, the root node, rights of the dead", (115, 353, 322, 417)),
    23: Threat(STORE, "quotas that are dodged: by giving away, by dying, by permissions", (352, 419, 483, 440)),
    24: Threat(STORE, "what is too long or malformed: tokens, replies, paths", (324, 72, 323, 481)),
    25: Threat(STORE, "crashes: recursion, what fails half-way, resets in a transaction, orphans", (418, 414, 484, 415),
               ("a home that goes",)),
    26: Threat(STORE, "a watched node that is rewritten fast", (349,)),
    27: Threat(STORE, "a toolstack that trusts what a guest has written", (175, 178, 57), ("garbage in a disk's",)),
    28: Threat("Consoles", "output that fills the disk", (180,)),
    29: Threat(OWN, "connection floods, and messages that have no end", (),
               ("a connection flood", "a flood of connections", "messages that have no end")),
    30: Threat(OWN, "descriptors whose flags or whose fill another changes", (), ("a channel's pipe filled",)),
    31: Threat(OWN, "a death that is forged, or hidden", (), ("a forged death", "a domain whose first thread")),
    32: Threat(OWN, "a hypercall that every broker dies of", (), ("a hypercall that brokers die over",)),
    33: Threat(OWN, "descriptors that are never read, or all held", (),
               ("a domain that never reads", "exhausting descriptors"),
               ("tests/process/test_fairness.py::test_whoever_wants_every_descriptor_leaves_others_theirs",)),
    34: Threat(OWN, "keys and descriptors of others in a fork", (),
               ("another domain's descriptors", "another domain's key")),
    35: Threat(OWN, "what a dead incarnation still has under way", (), ("I/O of a dead incarnation",)),
}  # fmt: skip
"""By the number under which the project knows them."""
ELSEWHERE: dict[int, Elsewhere] = {
    340: Elsewhere(
        "barriers are missing in code, and no domain can take them out: both ends' words and fences are checked in all "
        "orders that the memory models allow, and with either fence left out the lost event is found",
        "tests/native/test_doorbell_model.py::test_with_a_fence_on_both_sides_no_wakeup_is_lost"),
}  # fmt: skip
INSTEAD: dict[int, str] = {
    26: "there is one version of grant tables; what is given back is extents",
    107: "there are no control blocks; what is shared is a channel's two lines of words",
    221: "nobody polls by hypercall; what the broker is asked of ports, and deaths raise, may be of none",
    255: "as XSA-26",
    358: "there are no links between events; what can be out of order is the words themselves",
    359: "as XSA-107",
    411: "no grant is transitive; what could wait for each other is copies both ways",
    424: "interrupts are not switched off; what could stall is the switch, at one who takes nothing",
    486: "there is one version of grant tables; what can change is whether, and how, a page is granted",
    500: "a grant's flags are in the broker's memory, and a ref is never used twice; as XSA-486",
    501: "as XSA-486",
}
"""Where hvd lacks the mechanism that an advisory is about: what corresponds to it."""
