"""Policies: any text is one or a list of problems, rules mean what they say, and in the silo a guest hears nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hvd.broker.errors import Refused
from hvd.broker.store import Store, StoreError
from hvd.broker.xsm import Xsm
from hvd.toolstack.config import ConfigError
from hvd.toolstack.config.policy_file import load_policy, read_policy
from hvd.transport.codec import pack_request, unpack_request
from hvd.transport.ids import DOM0, DomId
from hvd.transport.messages import DomainConfig, Policy, XsmLoad
from hvd.transport.xsm import CLASSES, SECURITY, spelled

LABELS = ("dom0_t", "a_t", "b_t")
HEAD = """\
[labels]
dom0_t = "dom0"
a_t = "one"
b_t = "other"
[defaults]
dom0 = "dom0_t"
driver_domain = "a_t"
guest = "b_t"
"""


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "policy.toml"


# ---- any text --------------------------------------------------------------------------------------------------------

FRAGMENTS = [
    "[labels]\n", "[defaults]\n", "[[allow]]\n", "[[neverallow]]\n", "[allow]\n", 'source = "*"\n',
    'source = ["a_t"]\n', 'target = "b_t"\n', "target = []\n", 'event = "*"\n', 'grant = ["copy", "map"]\n',
    "store = {}\n", "security = 1\n", 'security = "*"\n', 'a_t = "x"\n', 'guest = "a_t"\n', "x = [[[]]]\n", "= \n",
    "labels = 1\n", "\x00", "[labels.x]\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join) | st.text(max_size=60), st.booleans())
@example("", True)
@example('[labels]\n"" = ""\n', False)
def test_any_text_is_a_policy_or_problems(file: Path, text: str, headed: bool) -> None:
    file.write_text((HEAD if headed else "") + text, encoding="utf-8", errors="surrogatepass")
    try:
        policy = read_policy(file)
    except ConfigError as error:
        assert error.problems
        assert all(str(problem).startswith(str(file)) for problem in error.problems)
    else:
        Xsm().load(DOM0, unpack_request(pack_request(XsmLoad(policy), 1, 0, 0))[3].policy)


# ---- rules against sets of words -------------------------------------------------------------------------------------


class Rule(NamedTuple):
    sources: list[str]
    targets: list[str]
    permissions: dict[str, list[str]]

    def text(self, kind: str) -> str:
        lines = [f"{name} = {words}" for name, words in self.permissions.items()]
        return "\n".join([f"[[{kind}]]", f"source = {self.sources}", f"target = {self.targets}", *lines, ""])

    def facts(self) -> set[tuple[str, str, str, str]]:
        return {
            (source, target, class_name, permission)
            for source in self.sources for target in self.targets
            for class_name, names in self.permissions.items() for permission in names
        }  # fmt: skip


some_labels = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3, unique=True)
some_permissions = st.fixed_dictionaries(
    {}, optional={name: st.lists(st.sampled_from(words), min_size=1, unique=True) for name, words in CLASSES.items()}
).filter(bool)
rules = st.builds(Rule, some_labels, some_labels, some_permissions)


@given(st.lists(rules, max_size=5), st.lists(rules, max_size=2))
def test_rules_allow_what_they_name_and_nothing_else_and_promises_are_kept(
    file: Path, allows: list[Rule], nevers: list[Rule]
) -> None:
    file.write_text(HEAD + "".join(r.text("allow") for r in allows) + "".join(r.text("neverallow") for r in nevers))
    expected = {fact for rule in allows for fact in rule.facts()}
    broken = any(allow.facts() & never.facts() for allow in allows for never in nevers)
    if broken:
        with pytest.raises(ConfigError, match="forbids it"):
            read_policy(file)
        return
    policy = read_policy(file)
    assert facts_of(policy) == expected
    assert allowed_by(policy) == expected


def facts_of(policy: Policy) -> set[tuple[str, str, str, str]]:
    count = len(policy.labels)
    return {
        (policy.labels[at // count], policy.labels[at % count], class_name, permission)
        for at, bits in enumerate(policy.vectors)
        for class_name, names in spelled(bits) for permission in names
    }  # fmt: skip


def allowed_by(policy: Policy) -> set[tuple[str, str, str, str]]:
    """What the security module lets two domains of each pair of labels do."""
    xsm = Xsm(policy)
    domids: dict[str, list[DomId]] = {}
    for number, label in enumerate(policy.labels * 2):
        xsm.admit(DomId(number), DomainConfig(f"d{number}", "k", seclabel=label))
        domids.setdefault(label, []).append(DomId(number))
    every = [(c, p, bit) for bit in (1 << n for n in range(32)) for c, (p,) in spelled(bit)]
    return {
        (source, target, class_name, permission)
        for source in policy.labels for target in policy.labels for class_name, permission, bit in every
        if xsm.allows(domids[source][0], domids[target][1], bit)
    }  # fmt: skip


numbers = st.integers(0, 2**32 - 1)
words = st.sampled_from(["dom0_t", "a_t", "", "a b", "x" * 64])


@given(st.builds(Policy, words, st.lists(words, max_size=4), words, words, words, st.lists(numbers, max_size=10),
                 st.lists(st.integers(0, 4), max_size=4)))  # fmt: skip
def test_any_table_is_refused_or_decides_for_its_labels(policy: Policy) -> None:
    xsm = Xsm()
    try:
        xsm.load(DOM0, policy)
    except Refused:
        assert xsm.policy.name == "default"
    else:
        allowed_by(policy)
        assert max(policy.security) < 1 << len(SECURITY)


# ---- the silo --------------------------------------------------------------------------------------------------------

DRIVER, ONE, OTHER = DomId(1), DomId(2), DomId(3)
HOMES = {domid: f"/local/domain/{domid}" for domid in (DRIVER, ONE, OTHER)}
SHARED = [f"{HOMES[ONE]}/data/x", f"{HOMES[ONE]}/data", f"{HOMES[OTHER]}/data/x", "/board", "/board/x", "/board/x/y",
          f"{HOMES[DRIVER]}/data/x", HOMES[ONE]]  # fmt: skip
PATHS = st.sampled_from([*SHARED, "data/x", "data/y"])
PERMS = st.lists(st.sampled_from("nrwb").flatmap(lambda c: st.sampled_from([f"{c}{d}" for d in range(4)])),
                 min_size=1, max_size=4)  # fmt: skip
CALL = st.one_of(
    st.tuples(st.sampled_from(["read", "directory", "get_perms", "mkdir", "rm"]), st.booleans(), PATHS),
    st.tuples(st.just("write"), st.booleans(), PATHS, st.sampled_from([b"0", b"1"])),
    st.tuples(st.just("set_perms"), st.booleans(), PATHS, PERMS),
    st.tuples(st.just("watch"), PATHS, st.sampled_from(["s", "t"])),
    st.tuples(st.just("unwatch"), PATHS, st.sampled_from(["s", "t"])),
    st.tuples(st.just("begin")),
    st.tuples(st.just("commit")),
)
SETTING = st.tuples(st.sampled_from(["/board", f"{HOMES[DRIVER]}/data/x"]), PERMS)


def silo_store() -> Store:
    xsm = Xsm(load_policy("silo"))
    store = Store(policy=xsm)
    for domid, name in ((DOM0, "Domain-0"), (DRIVER, "driver"), (ONE, "one"), (OTHER, "other")):
        xsm.admit(domid, DomainConfig(name, "k", driver_domain=domid == DRIVER))
        if domid != DOM0:
            store.introduce(domid)
            store.mkdir(DOM0, 0, HOMES[domid])
            store.set_perms(DOM0, 0, HOMES[domid], ["n0", f"r{domid}"])
            store.mkdir(DOM0, 0, f"{HOMES[domid]}/data")
            store.set_perms(DOM0, 0, f"{HOMES[domid]}/data", [f"n{domid}"])
    return store


class Guest:
    """One who calls, with at most one transaction open."""

    def __init__(self, store: Store, domid: DomId) -> None:
        self.store, self.domid, self.tx = store, domid, 0

    def call(self, name: str, *given: Any) -> Any:
        try:
            match name:
                case "begin":
                    self.tx = self.tx or self.store.transaction_start(self.domid)
                    return None
                case "commit":
                    tx, self.tx = self.tx, 0
                    return self.store.transaction_end(self.domid, tx, True) if tx else None
                case "watch" | "unwatch":
                    return getattr(self.store, name)(self.domid, *given)
            in_transaction, *rest = given
            return getattr(self.store, name)(self.domid, self.tx if in_transaction else 0, *rest)
        except StoreError as error:
            return error.errno, error.text


def heard_by_other(settings: list[Any], calls: list[tuple[DomId, Any]]) -> list[Any]:
    """All that the one guest is ever told: every answer and every event."""
    store = silo_store()
    for path, perms in settings:
        store.write(DOM0, 0, path, b"")
        store.set_perms(DOM0, 0, path, perms)
    guests = {domid: Guest(store, domid) for domid in (ONE, OTHER)}
    heard: list[Any] = []
    for domid, call in calls:
        answer = guests[domid].call(*call)
        if domid == OTHER:
            heard.append(answer)
        heard += [event for event in store.take_events() if event.domid == OTHER]
    return heard


@given(st.lists(SETTING, max_size=3), st.lists(st.tuples(st.sampled_from([ONE, OTHER]), CALL), max_size=25))
@example([("/board", ["b0"])], [(ONE, ("write", False, "/board/x", b"1")), (OTHER, ("mkdir", False, "/board/x"))])
@example(
    [("/board", ["n0", "b2", "r3"])],
    [(OTHER, ("watch", "/board", "t")), (ONE, ("write", False, "/board/x", b"1")), (OTHER, ("read", False, "/board"))],
)
def test_in_the_silo_no_call_of_one_guest_changes_what_another_is_told(
    settings: list[Any], calls: list[tuple[DomId, Any]]
) -> None:
    without = [(domid, call) for domid, call in calls if domid != ONE]
    assert heard_by_other(settings, calls) == heard_by_other(settings, without)
