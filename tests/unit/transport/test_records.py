"""Records behave as the frozen dataclasses with slots that they stand for."""

import copy
import dataclasses
import pickle

import pytest

from hvd.transport import records


def declare(dataclass):
    @dataclass(frozen=True, slots=True)
    class Inner:
        """One of two."""

        number: int
        name: str = "none"

    @dataclass(frozen=True, slots=True)
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


@pytest.mark.parametrize(("ours", "model"), PAIRS)
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
def test_they_take_their_fields_alike(given, named):
    ours, model = PAIRS[0][0](*given, **named), PAIRS[0][1](*given, **named)
    assert dataclasses.astuple(ours) == dataclasses.astuple(model)
    assert repr(ours) == repr(model).replace("declare.<locals>.", "")


@pytest.mark.parametrize(
    ("given", "named"), [((), {}), ((1, "a", 2), {}), ((1,), {"number": 1}), ((1,), {"nmae": "a"}), ((), {"name": "a"})]
)
def test_they_refuse_what_does_not_fit_alike(given, named):
    for kind in PAIRS[0]:
        with pytest.raises(TypeError):
            kind(*given, **named)


def test_a_default_that_is_made_is_made_for_each():
    first, second = Outer(Inner(1)), Outer(Inner(1))
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


@pytest.mark.parametrize("options", [{"frozen": False, "slots": True}, {"frozen": True, "slots": False}])
def test_they_stand_for_nothing_else(options):
    with pytest.raises(TypeError):
        records.dataclass(**options)
