"""Children against a dictionary: any order of coming and going, from none to thousands."""

import random

import pytest

from hvd.broker.store.children import (
    CHUNK_MAX,
    NO_CHILDREN,
    Children,
    WideChildren,
    children_from,
    chunks_of,
    names_at,
    names_size,
    with_child,
    without_child,
)
from hvd.broker.store.permissions import DOM0_ONLY
from hvd.broker.store.tree import Node, leaf


def node(number: int) -> Node:
    return leaf(b"%d" % number, DOM0_ONLY, number)


def many(count: int) -> Children:
    children = NO_CHILDREN
    for number in range(count):
        children = with_child(children, f"{number}", node(number))
    return children


def check(children: Children, model: dict[str, Node]) -> None:
    assert list(children) == list(model) and len(children) == len(model)
    assert all(children.get(name) is found for name, found in model.items())
    assert children.get("nobody") is None and "nobody" not in children
    names = "".join(f"{name}\0" for name in model).encode()
    for offset in {0, 1, len(names) // 2, max(0, len(names) - 3), len(names), len(names) + 7}:
        assert names_at(children, offset, 100) == names[offset : offset + 100]
    assert names_at(children, 0, len(names) + 1) == names


@pytest.mark.parametrize("seed", range(3))
def test_they_are_what_a_dictionary_would_be_and_older_versions_stay(seed: int) -> None:
    dice = random.Random(seed)
    children, model = NO_CHILDREN, dict[str, Node]()
    versions = []
    for number in range(4000):
        name = f"name-{dice.randrange(1500)}"
        grows = number % 1500 < 1000
        if name in model and dice.random() < (0.3 if grows else 0.95):
            children = without_child(children, name)
            del model[name]
        elif grows or name in model:
            model[name] = node(number)
            children = with_child(children, name, model[name])
        if number % 400 == 0:
            versions.append((children, dict(model)))
    for each in versions:
        check(*each)


def test_few_that_are_left_of_many_take_few_chunks() -> None:
    children = many(40 * CHUNK_MAX)
    for number in range(40 * CHUNK_MAX):
        if number % 50:
            children = without_child(children, f"{number}")
    assert isinstance(children, WideChildren)
    assert len(children._chunks) <= 2 + 4 * len(children) // CHUNK_MAX
    check(children, dict(children.items()))


def test_who_is_not_there_cannot_be_taken_away() -> None:
    for count in (0, 3, 3 * CHUNK_MAX):
        with pytest.raises(KeyError):
            without_child(many(count), "nobody")


@pytest.mark.parametrize("count", [0, 1, CHUNK_MAX, CHUNK_MAX + 1, 3 * CHUNK_MAX])
def test_from_their_chunks_they_are_made_again(count: int) -> None:
    children = many(count)
    chunks = chunks_of(children)
    assert all(0 < len(chunk) <= CHUNK_MAX for chunk in chunks)
    check(children_from(chunks, [names_size(chunk) for chunk in chunks]), dict(children))
