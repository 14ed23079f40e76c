"""A policy file: what rules come to, and every mistake by file, line and key."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hvd.toolstack.config import ClusterConfig, ConfigError, Problem
from hvd.toolstack.config.policy_file import load_policy, read_policy, shipped
from hvd.transport.messages import Policy
from hvd.transport.xsm import CLASSES, EVERYTHING, LABELS, OPEN_POLICY, vector

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
FIRST_RULE_LINE = HEAD.count("\n") + 1


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[str], Policy]:
    """Reads a text as a policy file."""

    def read(text: str) -> Policy:
        (tmp_path / "mine.toml").write_text(text)
        return read_policy(tmp_path / "mine.toml")

    return read


@pytest.fixture
def problem(policy: Callable[[str], Policy]) -> Callable[[str], Problem]:
    """The one problem of a text that must have exactly one."""

    def problem_of(text: str) -> Problem:
        with pytest.raises(ConfigError) as caught:
            policy(text)
        assert len(caught.value.problems) == 1, str(caught.value)
        return caught.value.problems[0]

    return problem_of


def over(policy: Policy, source: str, target: str) -> int:
    count = len(policy.labels)
    return policy.vectors[policy.labels.index(source) * count + policy.labels.index(target)]


# ---- what rules come to ----------------------------------------------------------------------------------------------


def test_what_no_rule_names_is_denied(policy: Callable[[str], Policy]) -> None:
    assert policy(HEAD) == Policy("mine", ["dom0_t", "a_t", "b_t"], "dom0_t", "a_t", "b_t", [0] * 9, [0] * 3)


def test_rules_add_up(policy: Callable[[str], Policy]) -> None:
    read = policy(
        HEAD
        + """
[[allow]]
source = "a_t"
target = ["a_t", "b_t"]
event = ["bind", "send"]
store = "*"
[[allow]]
source = ["a_t", "b_t"]
target = "b_t"
grant = "map_read"
[[allow]]
source = "*"
target = "*"
grant = "unmap"
[[allow]]
source = "dom0_t"
security = "setenforce"
[[allow]]
source = "dom0_t"
security = ["load_policy"]
"""
    )
    unmap = vector("grant", "unmap")
    talk = vector("event", "bind", "send") | vector("store")
    assert over(read, "a_t", "a_t") == talk | unmap
    assert over(read, "a_t", "b_t") == talk | unmap | vector("grant", "map_read")
    assert over(read, "b_t", "b_t") == vector("grant", "map_read") | unmap
    assert over(read, "b_t", "a_t") == over(read, "dom0_t", "a_t") == unmap
    assert read.security == [3, 0, 0]


def test_a_promise_that_is_kept_changes_nothing(policy: Callable[[str], Policy]) -> None:
    allow = '[[allow]]\nsource = "a_t"\ntarget = "b_t"\nevent = "bind"\n'
    promises = [
        '[[neverallow]]\nsource = "a_t"\ntarget = "b_t"\nevent = "send"\n',
        '[[neverallow]]\nsource = "a_t"\ntarget = "a_t"\nevent = "*"\n',
        '[[neverallow]]\nsource = "b_t"\ntarget = "*"\nevent = "*"\n',
        '[[neverallow]]\nsource = "*"\nsecurity = "*"\n',
    ]
    assert policy(HEAD + allow + "".join(promises)) == policy(HEAD + allow)


# ---- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES = {
    "an unknown label": ('source = "c_t"\ntarget = "a_t"\nevent = "*"', 1, "allow[0].source",
                         'expected "*", or one or a list of dom0_t, a_t, b_t, found "c_t"'),
    "a label in a list": ('source = ["a_t",\n"dom_t"]\ntarget = "a_t"\nevent = "*"', 2, "allow[0].source[1]",
                          'found "dom_t"; did you mean "dom0_t"?'),
    "no source": ('target = "a_t"\nevent = "*"', 0, "allow[0].source", "found nothing"),
    "no target": ('source = "a_t"\nevent = "*"', 0, "allow[0].target", "found nothing"),
    "an empty list": ('source = []\ntarget = "a_t"\nevent = "*"', 1, "allow[0].source", "found an empty list"),
    "a number": ('source = 1\ntarget = "a_t"\nevent = "*"', 1, "allow[0].source", "found 1"),
    "no permission": ('source = "a_t"\ntarget = "a_t"', 0, "allow[0]",
                      "expected permissions of event, grant, store, domain or security, found none"),
    "an unknown permission": ('source = "a_t"\ntarget = "a_t"\ngrant = "map"', 3, "allow[0].grant",
                              "expected \"*\", or one or a list of setup, map_read, map_write, unmap, copy"),
    "an unknown class": ('source = "a_t"\ntarget = "a_t"\nevent = "*"\nstores = "*"', 4, "allow[0].stores",
                         'found the unknown key "stores"; did you mean "store"?'),
    "a target of the policy": ('source = "a_t"\ntarget = "a_t"\nsecurity = "*"', 2, "allow[0].target",
                               'expected security alone, which has no target, found "target"'),
    "a class beside security": ('source = "a_t"\nsecurity = "*"\nevent = "*"', 3, "allow[0].event",
                                "expected security alone"),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "line", "key", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_rule_is_told_by_line_and_key(
    problem: Callable[[str], Problem], rule: str, line: int, key: str, message: str
) -> None:
    found = problem(f"{HEAD}[[allow]]\n{rule}\n")
    assert (found.line, found.key) == (FIRST_RULE_LINE + line, key)
    assert message in str(found)


HEADS = {
    "no labels": ("", "labels", "expected 1 to 32 labels, found 0"),
    "too many labels": (HEAD.replace("b_t = ", "".join(f'l{n}_t = ""\n' for n in range(40)) + "b_t = "), "labels",
                        "expected 1 to 32 labels, found 43"),
    "a label that is none": (HEAD.replace("a_t =", '"a t" =').replace('"a_t"', '"b_t"'), 'labels."a t"',
                             "expected a label: 1 to 64 letters, digits and _, the first a letter"),
    "a reserved label": (HEAD + '[labels.unlabeled_t]\n', "labels.unlabeled_t", 'found "unlabeled_t"'),
    "a label without words": (HEAD.replace('"one"', "1"), "labels.a_t", "expected a text of 1 to 4096 bytes"),
    "a default that is no label": (HEAD.replace('guest = "b_t"', 'guest = "c_t"'), "defaults.guest",
                                   'expected one of [labels], found "c_t"'),
    "a default that is missing": (HEAD.replace('guest = "b_t"', ""), "defaults.guest", "found nothing"),
    "an unknown default": (HEAD + 'pilot = "a_t"\n', "defaults.pilot", 'found the unknown key "pilot"'),
    "an unknown key": ("x = 1\n" + HEAD, "x", 'found the unknown key "x"'),
    "labels that are a list": ('labels = ["a_t"]\n' + HEAD[HEAD.index("[defaults]"):], "labels", "expected a table"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "key", "message"), HEADS.values(), ids=HEADS)
def test_a_mistake_in_labels_and_defaults_is_told_by_key(
    policy: Callable[[str], Policy], text: str, key: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(text)
    assert any(found.key == key and message in str(found) for found in caught.value.problems), str(caught.value)


@pytest.mark.parametrize("promise", [
    'source = "a_t"\ntarget = "b_t"\nevent = "*"', 'source = "*"\ntarget = ["b_t"]\nevent = ["status", "bind"]',
])  # fmt: skip
def test_a_rule_that_breaks_a_promise_is_told_by_its_own_line(problem: Callable[[str], Problem], promise: str) -> None:
    good = '[[allow]]\nsource = "b_t"\ntarget = "a_t"\nevent = "*"\n'
    bad = '[[allow]]\nsource = ["b_t", "a_t"]\ntarget = ["a_t", "b_t"]\nevent = "bind"\n'
    if promise.startswith('source = "*"'):
        bad = bad.replace('"b_t", "a_t"', '"a_t"')
    found = problem(f"{HEAD}{good}{bad}[[neverallow]]\n{promise}\n")
    assert (found.line, found.key) == (FIRST_RULE_LINE + 4, "allow[1]")
    assert "expected no rule that allows a_t event bind on b_t, found one; neverallow[0] forbids it" in str(found)


def test_a_promise_about_the_policy_itself_is_kept_too(problem: Callable[[str], Problem]) -> None:
    allow = '[[allow]]\nsource = "a_t"\nsecurity = "*"\n'
    found = problem(f'{HEAD}{allow}[[neverallow]]\nsource = ["a_t", "b_t"]\nsecurity = "setenforce"\n')
    assert "expected no rule that allows a_t security setenforce, found one" in str(found)


@pytest.mark.parametrize(("about_policy", "without_target"), [("allow", "neverallow"), ("neverallow", "allow")])
def test_a_rule_without_its_target_is_no_rule_about_the_policy_itself(
    problem: Callable[[str], Problem], about_policy: str, without_target: str
) -> None:
    text = f'[[{about_policy}]]\nsource = "*"\nsecurity = "*"\n[[{without_target}]]\nsource = "*"\nevent = "*"\n'
    found = problem(HEAD + text)
    assert (found.key, found.found) == (f"{without_target}[0].target", "nothing")


def test_every_mistake_is_told_at_once(policy: Callable[[str], Policy]) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(HEAD + '[[allow]]\nsource = "x"\ntarget = "y"\nevent = "z"\n')
    assert len(caught.value.problems) == 3


def test_what_is_no_toml_is_told_by_line_and_column(problem: Callable[[str], Problem]) -> None:
    found = problem("[labels]\nx = = 1\n")
    assert (found.line, found.column, found.expected) == (2, 5, "TOML")


# ---- files and names -------------------------------------------------------------------------------------------------


def test_the_default_that_ships_is_what_there_is_without_a_policy() -> None:
    assert load_policy("default") == OPEN_POLICY


@pytest.mark.parametrize("name", shipped())
def test_every_policy_that_ships_has_the_same_labels(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    assert tuple(policy.labels) == LABELS
    assert (policy.dom0, policy.driver_domain, policy.guest) == ("dom0_t", "driver_t", "domU_t")
    assert policy.security == [3, 0, 0, 0, 0]
    assert all(over(policy, "dom0_t", label) == EVERYTHING for label in LABELS)
    assert all(over(policy, label, other) & vector("domain") == 0 for label in LABELS[1:] for other in LABELS)


def test_the_policy_that_the_manual_shows_says_what_it_claims(policy: Callable[[str], Policy]) -> None:
    text = (Path(__file__).parents[4] / "docs" / "security-policy.md").read_text()
    shown = next(block for block in re.findall(r"^```toml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
                 if block.startswith("[labels]"))  # fmt: skip
    read = policy(shown)
    assert over(read, "logger_t", "domU_t") == vector("event", "create", "bind") | vector("grant", "map_read", "unmap")
    assert over(read, "domU_t", "domU_t") == 0


@pytest.mark.parametrize("kind", ["labels", "classes"])
def test_the_manual_names_every_word_of_a_policy(kind: str) -> None:
    text = (Path(__file__).parents[4] / "docs" / "security-policy.md").read_text()
    words = LABELS if kind == "labels" else [word for names in CLASSES.values() for word in names]
    assert [word for word in words if f"`{word}`" not in text] == []


TALK = vector("event") | vector("grant") | vector("store")
SERVING = {"dom0_t", "driver_t", "safety_driver_t"}
UNTRUSTED = {"driver_t", "domU_t"}


@pytest.mark.parametrize("source", LABELS[1:])
@pytest.mark.parametrize("target", LABELS)
def test_who_meets_whom_in_the_policies_that_ship(source: str, target: str) -> None:
    silo = bool({source, target} & SERVING)
    cockpit = (
        target == "dom0_t"
        or {source, target} <= UNTRUSTED
        or {source, target} == {"safety_t", "safety_driver_t"}
    )  # fmt: skip
    for name, meet in (("silo", silo), ("cockpit", cockpit)):
        allowed = over(load_policy(name), source, target)
        assert allowed & TALK == (TALK if meet else vector("grant", "unmap")), name


def test_a_policy_is_found_by_name_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my policy.toml").write_text(HEAD)
    monkeypatch.chdir(tmp_path)
    assert load_policy("my policy.toml").name == "my-policy"
    assert load_policy(tmp_path / "my policy.toml") == load_policy("./my policy.toml")
    with pytest.raises(ConfigError, match=r'--policy: expected a policy file .* found "slio"; did you mean "silo"\?'):
        load_policy("slio", "--policy")
    with pytest.raises(ConfigError, match=r"gone\.toml: expected a security policy of at most .* found No such file"):
        load_policy("gone.toml")


def test_a_cluster_file_names_its_policy(cluster: Callable[[str], ClusterConfig], directory: Path) -> None:
    assert cluster("").policy is OPEN_POLICY
    assert cluster('policy = "silo"\n').policy == load_policy("silo")
    (directory / "mine.toml").write_text(HEAD)
    config = cluster('policy = "mine.toml"\nflask = "permissive"\n[dom0]\nseclabel = "a_t"\n')
    assert config.policy.labels == ["dom0_t", "a_t", "b_t"]
    assert not config.enforcing
    assert config.dom0.seclabel == "a_t"


@pytest.mark.parametrize(("text", "line", "message"), [
    ('policy = "slio"\n', 1, 'policy: expected a policy file (….toml) or one of cockpit, default, silo, found "slio"'),
    ("policy = 1\n", 1, "policy: expected a text of 1 to 4096 bytes without NUL, found 1"),
    ('flask = "late"\n', 1, 'flask: expected one of enforcing, permissive, found "late"'),
    ('policy = "silo"\n[dom0]\nseclabel = "dom1_t"\n', 3, 'dom0.seclabel: expected a label of the policy silo: dom0_t'),
    ('[[domain]]\nname = "ivi"\nkernel = "hvd:idle"\nseclabel = "domu_t"\n', 4,
     'domain[0] "ivi".seclabel: expected a label of the policy default: dom0_t, driver_t, domU_t'),
    ('[[domain]]\nname = "ivi"\nkernel = "hvd:idle"\nseclabel = "a b"\n', 4,
     'domain[0] "ivi".seclabel: expected a label: 1 to 64 letters, digits and _, the first a letter, found "a b"'),
])  # fmt: skip
def test_a_mistake_about_the_policy_in_a_cluster_file_is_told_by_line(
    cluster: Callable[[str], ClusterConfig], text: str, line: int, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        cluster(text)
    (found,) = caught.value.problems
    assert found.line == line
    assert message in str(found)


def test_a_mistake_in_the_policys_own_file_is_told_by_that_files_line(
    cluster: Callable[[str], ClusterConfig], directory: Path
) -> None:
    (directory / "mine.toml").write_text("[label]\n")
    with pytest.raises(ConfigError, match=r"mine\.toml:1: label: expected a key that hvd knows") as caught:
        cluster('policy = "mine.toml"\n')
    assert all(found.file.endswith("mine.toml") for found in caught.value.problems)


def test_a_seclabel_may_be_written_as_in_xl(cluster: Callable[[str], ClusterConfig]) -> None:
    text = '[[domain]]\nname = "a"\nkernel = "hvd:idle"\nseclabel = "system_u:system_r:safety_t"\n'
    assert cluster(text).domain("a").seclabel == "safety_t"
