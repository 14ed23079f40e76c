"""Any bytes as a security policy: one that the wire carries and the broker accepts, or problems that name their
lines."""

from __future__ import annotations

from hvd.broker.errors import Refused
from hvd.broker.xsm import Xsm
from hvd.toolstack.config.policy_file import read_policy
from hvd.toolstack.config.problems import ConfigError
from hvd.transport.codec import decode, encode
from hvd.transport.limits import LABELS_MAX
from hvd.transport.messages import Policy
from tests.fuzz.python.file_in_memory import FileInMemory
from tests.fuzz.python.problems_named import judge_problems

FILE = FileInMemory("policy.toml")


def play(data: bytes) -> None:
    try:
        policy = read_policy(FILE.hold(data))
    except ConfigError as error:
        judge_problems(error, data)
        return
    assert decode(Policy, encode(policy), "Policy") == policy
    assert 1 <= len(policy.labels) <= LABELS_MAX
    try:
        Xsm(policy)
    except Refused as refusal:
        raise AssertionError(f"the broker refuses what the toolstack has read: {refusal}") from None
