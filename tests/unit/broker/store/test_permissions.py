"""Permission lists: what they allow, what they inherit, how they are written."""

import pytest

from hvd.broker.store import StoreError
from hvd.broker.store.permissions import (
    DOM0_ONLY,
    DOM0_PRINCIPAL,
    OWNER,
    READ,
    WRITE,
    Permissions,
    Principal,
    access_of,
    given_to_dom0,
    inherited,
    may,
    parse,
    to_texts,
)
from hvd.transport.ids import DOM0, DomId

FIVE = Principal(DomId(5), 1)
SEVEN = Principal(DomId(7), 2)
NINE = Principal(DomId(9), 3)
LIVING = {DOM0: DOM0_PRINCIPAL, DomId(5): FIVE, DomId(7): SEVEN, DomId(9): NINE}


def permissions(*texts: str) -> Permissions:
    return parse(list(texts), LIVING)


@pytest.mark.parametrize(
    ("texts", "who", "access"),
    [
        (["n5"], FIVE, OWNER),
        (["n5"], DOM0_PRINCIPAL, OWNER),
        (["n5"], SEVEN, 0),
        (["r5"], SEVEN, READ),
        (["b5"], SEVEN, READ | WRITE),
        (["b5", "n7"], SEVEN, 0),
        (["b5", "n7"], NINE, READ | WRITE),
        (["n5", "w7"], SEVEN, WRITE),
        (["n5", "r7", "b7"], SEVEN, READ),
        (["n5", "n5"], FIVE, OWNER),
    ],
)
def test_the_first_entry_that_names_a_domain_counts_and_the_owners_is_for_all_others(
    texts: list[str], who: Principal, access: int
) -> None:
    assert access_of(permissions(*texts), who) == access


def test_what_names_its_target_is_as_if_it_named_the_domain_itself() -> None:
    assert access_of(permissions("n7"), SEVEN, NINE) == access_of(permissions("n9"), SEVEN, NINE) == OWNER
    assert access_of(permissions("n5", "r9", "b7"), SEVEN, NINE) == READ
    assert access_of(permissions("n5", "w7", "b9"), SEVEN, NINE) == WRITE
    assert access_of(permissions("n5", "r9"), SEVEN, FIVE) == OWNER and access_of(permissions("n5"), SEVEN, NINE) == 0


def test_all_of_what_is_wanted_must_be_allowed() -> None:
    assert may(permissions("n5", "b7"), SEVEN, READ | WRITE)
    assert not may(permissions("n5", "r7"), SEVEN, READ | WRITE)
    assert not may(permissions("n5", "b7"), SEVEN, OWNER)


def test_xsa_322_a_later_domain_with_the_same_number_inherits_nothing() -> None:
    successor = Principal(DomId(7), 4)
    given = permissions("n5", "b7")
    assert access_of(given, successor) == 0
    assert access_of(permissions("n7"), successor) == 0
    assert to_texts(given, {**LIVING, DomId(7): successor}) == ["n5"]


def test_a_guest_owns_what_it_creates_and_dom0_leaves_it_to_the_parents_owner() -> None:
    parent = permissions("r5", "b7")
    assert to_texts(inherited(parent, SEVEN), LIVING) == ["r7", "b7"]
    assert inherited(parent, DOM0_PRINCIPAL) is parent
    assert inherited(parent, FIVE) is parent


def test_what_is_given_to_dom0_keeps_what_others_may() -> None:
    assert to_texts(given_to_dom0(permissions("r5", "b7")), LIVING) == ["r0", "b7"]


@pytest.mark.parametrize("texts", [["n0"], ["r5", "w7", "b0", "n9"]])
def test_a_list_is_written_as_it_was_read(texts: list[str]) -> None:
    assert to_texts(permissions(*texts), LIVING) == texts


@pytest.mark.parametrize("text", ["", "n", "5", "x5", "n--1", "n5 ", "nn5", "n5\0", "N5", "n08", "n٥"])
def test_what_is_not_a_permission_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="EINVAL: "):
        permissions("n0", text)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(StoreError, match="EINVAL: "):
        permissions()


@pytest.mark.parametrize("texts", [["n99"], ["b99", "r0"]])
def test_a_domain_that_does_not_exist_cannot_be_an_owner(texts: list[str]) -> None:
    with pytest.raises(StoreError, match="ENOENT: "):
        permissions(*texts)


def test_a_new_store_is_readable_to_nobody_but_dom0() -> None:
    assert access_of(DOM0_ONLY, FIVE) == 0
    assert access_of(DOM0_ONLY, DOM0_PRINCIPAL) == OWNER
