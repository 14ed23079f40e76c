"""Records behave as the dataclasses with slots that they stand for."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from hvd.transport import records


def declare(dataclass, field, *, frozen=True):
    @dataclass(frozen=frozen, slots=True)
    class Inner:
        """One of two."""

        number: int
        name: str = "none"

    @dataclass(frozen=frozen, slots=True)
    class Outer:
        """The other."""

        inner: Inner
        many: list[int] = field(default_factory=list)

    return Inner, Outer


Inner, Outer = declare(records.dataclass, records.field)
for made in (Inner, Outer):
    globals()[made.__name__] = made
    made.__qualname__ = made.__name__  # where pickle looks for it
MODELS = declare(dataclasses.dataclass, dataclasses.field)
PAIRS = list(zip((Inner, Outer), MODELS, strict=True))
LIGHT = list(zip(declare(records.light_dataclass, records.field), MODELS, strict=True))
CHANGING = list(zip(*(declare(m.dataclass, m.field, frozen=False) for m in (records, dataclasses)), strict=True))
INNERS = (PAIRS[0], LIGHT[0], CHANGING[0])


@pytest.mark.parametrize(("ours", "model"), [*PAIRS, *LIGHT, *CHANGING])
def test_they_describe_themselves_alike(ours, model):
    described = [[(f.name, f.default, f.default_factory) for f in dataclasses.fields(kind)] for kind in (ours, model)]
    assert described[0] == described[1]
    assert ours.__match_args__ == model.__match_args__


@pytest.mark.parametrize(("ours", "model"), [*PAIRS, *CHANGING])
def test_they_have_slots_and_nothing_else(ours, model):
    assert ours.__slots__ == model.__slots__
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


def test_they_are_known_by_their_own_fields_without_dataclasses():
    assert [each.name for each in records.fields(Outer)] == ["inner", "many"]
    assert [each.is_required for each in records.fields(Outer(Inner(1)))] == [True, False]
    assert records.is_record(Inner)
    assert records.is_record(Inner(1))
    assert not records.is_record("Inner")
    with pytest.raises(TypeError, match="'Inner' is no record"):
        records.fields("Inner")


def test_one_is_replaced_by_another_that_differs_where_it_is_told():
    record = Outer(Inner(1, "a"), [1, 2])
    assert records.replace(record, many=[3]) == Outer(Inner(1, "a"), [3]) != record
    assert records.replace(Counter(1, step=2), count=4).ends_at == 6
    with pytest.raises(TypeError):
        records.replace(record, name="b")


def test_a_default_that_may_change_is_no_default():
    for declared in (records, dataclasses):
        shared = type("Shared", (), {"__annotations__": {"many": list[int]}, "many": []})
        with pytest.raises(ValueError, match="use default_factory"):
            declared.dataclass(frozen=True, slots=True)(shared)


@pytest.mark.parametrize("own", ["__init__", "__repr__", "__eq__"])
@pytest.mark.parametrize(
    "kind",
    [
        records.dataclass(frozen=True, slots=True), records.dataclass(slots=True),
        records.light_dataclass(frozen=True, slots=True),
    ],
)  # fmt: skip
def test_a_method_that_would_be_replaced_is_refused_by_its_name(kind, own):
    with pytest.raises(TypeError, match=f"^Odd has its own {own}, which is made for records: make it a plain class$"):
        kind(type("Odd", (), {"__annotations__": {"number": "int"}, own: lambda *_: None}))


def test_methods_of_any_other_name_are_the_records_own():
    @records.dataclass(frozen=True, slots=True)
    class Own:
        number: int

        def __str__(self) -> str:
            return f"no {self.number}"

    assert (str(Own(2)), repr(Own(2)).endswith("Own(number=2)")) == ("no 2", True)


def test_they_match_patterns():
    match Inner(3, "a"):
        case Inner(3, name):
            assert name == "a"


@records.dataclass(slots=True)
class Counter:
    """What may change, and makes a part of itself."""

    count: int
    step: int = 1
    seen: list[int] = records.field(default_factory=list)
    ends_at: int = records.field(init=False)

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
    for name in ("number", "no_field"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(light, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del light.number
    assert vars(light) == {"number": 1, "name": "none"}


def test_a_default_that_is_made_is_no_default_of_the_class():
    outer: Any = LIGHT[1][0]
    assert not hasattr(outer, "many")
    assert outer(1).many == []


def test_records_alike_but_for_names_are_made_of_code_that_is_compiled_once(monkeypatch):
    compiled: list[str] = []

    def counted(text: str, space: dict[str, Any]) -> None:
        compiled.append(text)
        exec(text, space)

    monkeypatch.setattr(records, "exec", counted, raising=False)
    records._code_of_init.cache_clear()

    @records.dataclass(frozen=True, slots=True)
    class First:
        near: int
        far: int = 7

    @records.dataclass(frozen=True, slots=True)
    class Second:
        far: str
        f0: str

    first: Any = First
    assert len(compiled) == 1
    assert (first(1).near, first(1).far, Second("a", "b").far, Second(f0="a", far="b").f0) == (1, 7, "a", "a")
    with pytest.raises(TypeError, match=r"First.__init__\(\) missing 1 required positional argument: 'near'"):
        first()


def test_a_field_without_a_default_does_not_follow_one_with_a_default():
    for declared in (records, dataclasses):
        with pytest.raises(TypeError):

            @declared.dataclass(frozen=True, slots=True)
            class Backwards:
                near: int = 1
                far: int
