"""Records behave as the dataclasses with slots that they stand for."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from hvd.transport import records


def declare(dataclass, *, frozen=True):
    @dataclass(frozen=frozen, slots=True)
    class Inner:
        """One of two."""

        number: int
        name: str = "none"

    @dataclass(frozen=frozen, slots=True)
    class Outer:
        """The other."""

        inner: Inner
        many: list[int] = dataclasses.field(default_factory=list)

    return Inner, Outer


Inner, Outer = declare(records.dataclass)
for made in (Inner, Outer):
    globals()[made.__name__] = made
    made.__qualname__ = made.__name__  # where pickle looks for it
PAIRS = list(zip((Inner, Outer), declare(dataclasses.dataclass), strict=True))
LIGHT = list(zip(*(declare(each) for each in (records.light_dataclass, dataclasses.dataclass)), strict=True))
CHANGING = list(zip(*(declare(each.dataclass, frozen=False) for each in (records, dataclasses)), strict=True))
INNERS = (PAIRS[0], LIGHT[0], CHANGING[0])


@pytest.mark.parametrize(("ours", "model"), [*PAIRS, *LIGHT, *CHANGING])
def test_they_describe_themselves_alike(ours, model):
    described = [[(f.name, f.default, f.default_factory) for f in dataclasses.fields(kind)] for kind in (ours, model)]
    assert described[0] == described[1]
    assert ours.__slots__ == model.__slots__
    assert ours.__match_args__ == model.__match_args__
    assert not hasattr(ours(1), "__dict__")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((1,), {}),
        ((1, "a"), {}),
        ((1,), {"name": "a"}),
        ((), {"number": 1, "name": "a"}),
        ((), {"name": "a", "number": 2}),
    ],
)
@pytest.mark.parametrize(("ours", "model"), INNERS)
def test_they_take_their_fields_alike(ours, model, given, named):
    ours, model = ours(*given, **named), model(*given, **named)
    assert dataclasses.astuple(ours) == dataclasses.astuple(model)
    assert repr(ours).replace("declare.<locals>.", "") == repr(model).replace("declare.<locals>.", "")


@pytest.mark.parametrize(
    ("given", "named"), [((), {}), ((1, "a", 2), {}), ((1,), {"number": 1}), ((1,), {"nmae": "a"}), ((), {"name": "a"})]
)
@pytest.mark.parametrize("pair", INNERS)
def test_they_refuse_what_does_not_fit_alike(pair, given, named):
    for kind in pair:
        with pytest.raises(TypeError):
            kind(*given, **named)


@pytest.mark.parametrize("kind", [Outer, LIGHT[1][0], CHANGING[1][0]])
def test_a_default_that_is_made_is_made_for_each(kind):
    first, second = kind(Inner(1)), kind(Inner(1))
    first.many.append(1)
    assert second.many == []


def test_they_are_equal_by_value_and_kind():
    assert Inner(1) == Inner(1, "none")
    assert Inner(1) != Inner(2)
    assert Inner(1) != PAIRS[0][1](1)
    assert hash(Inner(1, "a")) == hash(Inner(1, "a"))
    assert len({Inner(1), Inner(1), Inner(2)}) == 2


def test_they_do_not_change():
    record = Inner(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.number = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del record.number
    with pytest.raises(AttributeError):
        record.other = 2
    assert record == Inner(1)


def test_they_can_be_replaced_copied_and_pickled():
    record = Outer(Inner(1, "a"), [1, 2])
    assert dataclasses.replace(record, many=[3]) == Outer(Inner(1, "a"), [3])
    assert dataclasses.asdict(record) == {"inner": {"number": 1, "name": "a"}, "many": [1, 2]}
    assert copy.deepcopy(record) == record
    assert pickle.loads(pickle.dumps(record)) == record


def test_they_match_patterns():
    match Inner(3, "a"):
        case Inner(3, name):
            assert name == "a"


@records.dataclass(slots=True)
class Counter:
    """What may change, and makes a part of itself."""

    count: int
    step: int = 1
    seen: list[int] = dataclasses.field(default_factory=list)
    ends_at: int = dataclasses.field(init=False)

    def __post_init__(self):
        self.ends_at = self.count + self.step


def test_what_may_change_changes_and_is_equal_by_value():
    counter: Any = Counter(1, step=2)
    assert counter.ends_at == 3
    assert counter == Counter(1, step=2) != Counter(2)
    assert counter == dataclasses.replace(counter)
    counter.count += 1
    assert counter != Counter(2, step=2)  # which ends later
    with pytest.raises(AttributeError):
        counter.other = 2
    with pytest.raises(TypeError):
        hash(counter)


def test_what_may_change_is_copied_and_pickled_as_it_is():
    counter = Counter(1, seen=[1])
    counter.ends_at = 9
    assert copy.deepcopy(counter) == pickle.loads(pickle.dumps(counter)) == counter
    assert copy.copy(counter).seen is counter.seen


def test_what_may_change_says_what_it_is_made_of():
    made: Any = Counter
    with pytest.raises(TypeError, match=r"Counter.__init__\(\) missing 1 required positional argument: 'count'"):
        made()
    with pytest.raises(TypeError):
        made(1, ends_at=3)
    assert repr(Counter(1)) == "Counter(count=1, step=1, seen=[], ends_at=2)"


def test_without_slots_there_are_none():
    with pytest.raises(TypeError):
        records.dataclass(frozen=True, slots=False)
    with pytest.raises(TypeError):
        records.light_dataclass(frozen=True, slots=False)


def test_light_ones_do_not_change():
    with pytest.raises(TypeError):
        records.light_dataclass(frozen=False, slots=True)
    light: Any = LIGHT[0][0](1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        light.number = 2
