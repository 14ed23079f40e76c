"""The security module: labels, decisions, modes, and that no policy can be loaded which would break it."""

from __future__ import annotations

import errno
import pickle
from dataclasses import replace

import pytest

from hvd.broker.errors import Refused
from hvd.broker.xsm import Xsm
from hvd.transport.codec import BadMessage, pack_request, unpack_request
from hvd.transport.ids import DOM0, DomId
from hvd.transport.limits import LABELS_MAX
from hvd.transport.messages import DomainConfig, Policy, XsmLoad
from hvd.transport.xsm import EVERYTHING, OPEN_POLICY, security_vector, vector

ONE, OTHER, FRIEND, NONE = DomId(1), DomId(2), DomId(3), DomId(9)
BIND, READ = vector("event", "bind"), vector("store", "read")
LOAD = security_vector("load_policy")
SMALL = Policy("small", ["dom0_t", "one_t", "other_t"], "dom0_t", "one_t", "one_t",
               [EVERYTHING] * 3 + [EVERYTHING, BIND, 0] + [0, BIND | READ, 0], [3, 0, 0])  # fmt: skip
"""one_t may bind one_t; other_t may bind and read one_t; neither has anything over all."""


@pytest.fixture
def xsm(hardware):
    made = Xsm(SMALL)
    made.hardware = hardware
    made.admit(DOM0, DomainConfig("Domain-0", "k"))
    made.admit(ONE, DomainConfig("one", "k"))
    made.admit(OTHER, DomainConfig("other", "k", seclabel="other_t"))
    made.admit(FRIEND, DomainConfig("friend", "k"))
    return made


def refusal(call, *args):
    with pytest.raises(Refused) as refused:
        call(*args)
    return refused.value


def audited(hardware):
    return [line for _, _, line in hardware.named("audit")]


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("domid", "config", "label"), [
    (DOM0, DomainConfig("x", "k", driver_domain=True), "dom0_t"),
    (ONE, DomainConfig("x", "k", driver_domain=True), "driver_t"),
    (ONE, DomainConfig("x", "k"), "domU_t"),
    (ONE, DomainConfig("x", "k", driver_domain=True, seclabel="safety_t"), "safety_t"),
    (DOM0, DomainConfig("x", "k", seclabel="safety_t"), "safety_t"),
])  # fmt: skip
def test_a_domain_has_the_label_it_names_or_that_of_its_kind(domid, config, label):
    xsm = Xsm()
    xsm.admit(domid, config)
    assert xsm.label(domid) == label


def test_a_label_that_the_policy_lacks_is_refused_with_those_there_are(xsm):
    refused = refusal(xsm.admit, NONE, DomainConfig("x", "k", seclabel="lost_t"))
    assert refused.errno == errno.EINVAL
    assert "has no label 'lost_t'; it has dom0_t, one_t, other_t" in refused.text
    assert xsm.label(NONE) == "unlabeled_t"


# ---- decisions -------------------------------------------------------------------------------------------------------


def test_a_label_decides_and_not_a_domid(xsm):
    assert xsm.allows(ONE, FRIEND, BIND)
    assert xsm.allows(OTHER, ONE, BIND | READ)
    assert not xsm.allows(ONE, OTHER, BIND)
    assert not xsm.allows(ONE, FRIEND, BIND | READ)


def test_what_a_domain_does_with_itself_is_always_allowed(xsm):
    assert xsm.allows(OTHER, OTHER, EVERYTHING)


def test_who_does_not_exist_stands_for_every_label(xsm):
    assert xsm.allows(DOM0, NONE, EVERYTHING)
    assert not xsm.allows(OTHER, NONE, BIND)
    everybody = Xsm()
    everybody.admit(ONE, DomainConfig("one", "k"))
    assert everybody.allows(ONE, NONE, BIND)


def test_what_the_policy_says_can_be_asked_in_any_mode_without_a_line(xsm, hardware):
    xsm.set_enforcing(DOM0, enforcing=False)
    hardware.calls.clear()
    assert xsm.permits(ONE, FRIEND, BIND)
    assert not xsm.permits(ONE, OTHER, BIND)
    assert not xsm.permits(NONE, ONE, BIND)
    assert xsm.permits(ONE, ONE, EVERYTHING)
    assert hardware.calls == []


def test_all_who_may_is_answered_label_by_label(xsm, hardware):
    """dom0_t and other_t may read one_t, dom0_t alone may read other_t."""
    assert xsm.allows_all_who_may(DOM0, BIND, ONE, READ)
    assert not xsm.allows_all_who_may(OTHER, READ, ONE, READ)
    assert audited(hardware)[0].startswith("avc:  denied  { read } for domid=2 scontext=other_t tcontext=dom0_t")
    assert xsm.allows_all_who_may(ONE, vector("grant", "copy"), ONE, 0) is False
    xsm.load(DOM0, replace(SMALL, vectors=[BIND] * 9))
    assert xsm.allows_all_who_may(ONE, READ, OTHER, READ)  # nobody may
    assert not xsm.allows_all_who_may(ONE, READ, NONE, READ)
    xsm.set_enforcing(DOM0, enforcing=False)
    assert xsm.allows_all_who_may(ONE, READ, NONE, READ)


def test_a_denial_is_eacces_and_a_line_of_flasks(xsm, hardware):
    refused = refusal(xsm.check, OTHER, ONE, vector("grant", "map_read", "map_write"))
    assert refused.errno == errno.EACCES
    assert refused.text == "the security policy denies domain 2 grant map_read/map_write on domain 1"
    assert audited(hardware) == [
        "avc:  denied  { map_read map_write } for domid=2 target=1"
        " scontext=other_t tcontext=one_t tclass=grant permissive=0"
    ]


def test_only_what_is_missing_is_in_the_line(xsm, hardware):
    xsm.allows(ONE, FRIEND, vector("event", "bind", "send"))
    assert audited(hardware)[0].startswith("avc:  denied  { send } for domid=1 target=3")


def test_the_refusal_tells_no_label(xsm):
    assert "_t" not in refusal(xsm.check, OTHER, DOM0, BIND).text


def test_a_domain_that_is_to_be_created_is_judged_by_the_label_it_will_have(xsm):
    create = vector("domain", "create")
    xsm.check_creation(DOM0, DomainConfig("x", "k", seclabel="other_t"), create)
    assert refusal(xsm.check_creation, ONE, DomainConfig("x", "k", seclabel="other_t"), create).errno == errno.EACCES
    assert refusal(xsm.check_creation, DOM0, DomainConfig("x", "k", seclabel="lost_t"), create).errno == errno.EINVAL


# ---- the mode --------------------------------------------------------------------------------------------------------


def test_the_permissive_mode_lets_pass_and_logs(xsm, hardware):
    xsm.set_enforcing(DOM0, enforcing=False)
    xsm.check(OTHER, ONE, vector("grant", "copy"))
    assert audited(hardware) == [
        "Flask: permissive by domain 0",
        "avc:  denied  { copy } for domid=2 target=1 scontext=other_t tcontext=one_t tclass=grant permissive=1",
    ]
    xsm.set_enforcing(DOM0, enforcing=True)
    assert refusal(xsm.check, OTHER, ONE, vector("grant", "copy")).errno == errno.EACCES


def test_the_permissive_mode_gives_nobody_but_dom0_the_policy(xsm, hardware):
    xsm.load(DOM0, replace(SMALL, security=[0, 0, 0]))
    assert refusal(xsm.check_security, DOM0, LOAD).errno == errno.EACCES
    xsm.set_enforcing(DOM0, enforcing=False)
    xsm.check_security(DOM0, LOAD)
    assert refusal(xsm.check_security, ONE, LOAD).errno == errno.EACCES
    assert audited(hardware)[-2:] == [
        "avc:  denied  { load_policy } for domid=0 scontext=dom0_t tcontext=security_t tclass=security permissive=1",
        "avc:  denied  { load_policy } for domid=1 scontext=one_t tcontext=security_t tclass=security permissive=0",
    ]


def test_a_label_that_is_allowed_to_may_load_a_policy(xsm):
    xsm.load(DOM0, replace(SMALL, security=[0, LOAD, 0]))
    xsm.check_security(ONE, LOAD)
    assert refusal(xsm.check_security, ONE, security_vector("setenforce")).errno == errno.EACCES


# ---- another policy --------------------------------------------------------------------------------------------------


def test_another_policy_decides_from_its_loading_on(xsm):
    xsm.load(DOM0, replace(SMALL, name="none", vectors=[0] * 9))
    assert xsm.policy.name == "none"
    assert not xsm.allows(ONE, FRIEND, BIND)
    assert xsm.label(OTHER) == "other_t"
    xsm.load(DOM0, replace(SMALL, labels=["dom0_t", "other_t", "one_t"], vectors=[0, 0, 0, BIND, 0, 0, 0, 0, 0]))
    assert xsm.allows(OTHER, DOM0, BIND)
    assert not xsm.allows(ONE, DOM0, BIND)


def test_a_policy_without_a_label_that_a_domain_has_is_refused_and_nothing_changes(xsm):
    refused = refusal(xsm.load, DOM0, OPEN_POLICY)
    assert (refused.errno, refused.text) == (
        errno.EINVAL, "policy 'default' lacks labels that domains have: one_t, other_t",
    )  # fmt: skip
    assert xsm.policy == SMALL
    for domid in (ONE, OTHER, FRIEND):
        xsm.forget(domid)
    xsm.load(DOM0, OPEN_POLICY)
    xsm.forget(NONE)


@pytest.mark.parametrize("nonsense", [
    {"name": "no name"}, {"name": "\n"}, {"labels": []}, {"labels": ["dom0_t", "one_t", "one_t"]},
    {"labels": ["dom0_t", "one_t", "a b"]}, {"labels": ["dom0_t", "one_t", "x\n"]}, {"guest": "lost_t"},
    {"dom0": ""}, {"vectors": [0] * 8}, {"vectors": [EVERYTHING + 1] + [0] * 8}, {"security": [0, 0]},
    {"security": [4, 0, 0]},
], ids=str)  # fmt: skip
def test_a_table_that_is_none_is_refused_whoever_sends_it(xsm, nonsense):
    assert refusal(xsm.load, DOM0, replace(SMALL, **nonsense)).errno == errno.EINVAL
    assert xsm.policy == SMALL


def test_a_policy_of_labels_max_labels_fits_a_hypercall_and_not_one_more():
    def policy(count):
        labels = [f"label{n:058}" for n in range(count)]
        return Policy("x", labels, labels[0], labels[0], labels[0], [EVERYTHING] * count**2, [3] * count)

    xsm = Xsm()
    _, _, _, message = unpack_request(pack_request(XsmLoad(policy(LABELS_MAX)), 1, 0, 0))
    xsm.load(DOM0, message.policy)
    assert xsm.policy == policy(LABELS_MAX)
    with pytest.raises(BadMessage, match=r"policy\.labels is a list of at most 32"):
        unpack_request(pack_request(XsmLoad(policy(LABELS_MAX + 1)), 1, 0, 0))


def test_a_snapshot_holds_policy_mode_and_labels(xsm):
    xsm.set_enforcing(DOM0, enforcing=False)
    xsm.hardware = None
    again = pickle.loads(pickle.dumps(xsm))
    assert vars(again) == vars(xsm)
