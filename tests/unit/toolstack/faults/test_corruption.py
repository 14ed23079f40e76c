"""Which word of which ring a fault means: what was said, and for the rest the seed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hvd.toolstack.cluster import Cluster
from hvd.toolstack.faults.corruption import ANY, _candidates
from hvd.toolstack.faults.fault import BadFault, Order
from hvd.transport.faults import ControlWord, RingKind, words_of


def candidates(seed: int = 1, ring: int = 0, amount: int = 0) -> list[ControlWord]:
    cluster: Any = SimpleNamespace()
    return _candidates(Order(cast(Cluster, cluster), (), 0.0, seed, {"ring": ring, "amount": amount}))


@pytest.mark.parametrize("word", ControlWord)
def test_a_word_that_was_said_is_it_whatever_the_seed(word: ControlWord) -> None:
    for ring in (0, ANY, word.ring):
        assert candidates(3, ring, word) == [word]


def test_without_a_word_the_seed_chooses_one_of_the_ring_and_without_a_ring_of_a_device() -> None:
    for ring, kind in ((0, RingKind.DEVICE), *((int(kind), kind) for kind in RingKind)):
        chosen = [candidates(seed, ring) for seed in range(50)]
        assert {word for words in chosen for word in words} == set(words_of(kind))
        assert all(len(words) == 1 for words in chosen)


def test_of_any_ring_there_is_a_word_of_each_kind_in_an_order_that_the_seed_chooses() -> None:
    chosen = [candidates(seed, ANY) for seed in range(50)]
    assert all({word.ring for word in words} == set(RingKind) for words in chosen)
    assert {words[0].ring for words in chosen} == set(RingKind)
    assert candidates(9, ANY) == candidates(9, ANY)


def test_a_word_of_another_ring_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(BadFault, match=r"expected a word of a store ring \(7 req_cons, .*10 rsp_prod\), found 3"):
        candidates(ring=RingKind.STORE, amount=ControlWord.CONSOLE_IN_CONS)
