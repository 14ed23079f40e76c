"""Dataclasses with slots, as dataclasses makes them, in a seventh of its time.

A machine loads all hypercalls and tables, every command the hypercalls. dataclasses loads inspect and with that a
compiler's tables, 4 ms, and writes and compiles three to seven methods for each class, 0.3 ms and more: a fourth of a
boot. Here `__init__` alone is compiled, once for all classes that differ in names alone; the others are written once
and look at the class's fields. Of what is declared by the hundred, so is `__init__`. Whoever asks dataclasses about a
record is answered as if it had made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from types import CodeType, FunctionType
from typing import Any, TypeVar, cast, dataclass_transform

C = TypeVar("C", bound=type)
R = TypeVar("R")


class _Missing:
    """Of a default: there is none."""


MISSING: Any = _Missing()


class Field:
    """One field of a record: its name, and what it holds when nothing is given."""

    __slots__ = ("default", "default_factory", "init", "name")

    def __init__(self, name: str, default: Any, default_factory: Any, *, init: bool) -> None:
        self.name = name
        self.default = default
        self.default_factory = default_factory
        self.init = init

    @property
    def is_required(self) -> bool:
        """Whether it has no default of either kind."""
        return self.default is MISSING and self.default_factory is MISSING


def field(*, default: Any = MISSING, default_factory: Any = MISSING, init: bool = True) -> Any:
    """As dataclasses.field, for records."""
    return Field("", default, default_factory, init=init)


def fields(record: Any) -> Iterable[Field]:
    """Of a record, or of its class, in their order; TypeError if it is none."""
    try:
        return cast("dict[str, Field]", record._record_fields).values()
    except AttributeError:
        raise TypeError(f"{record!r} is no record") from None


def is_record(value: Any) -> bool:
    """Whether this is a record, or the class of one."""
    return hasattr(value, "_record_fields")


def replace(record: R, **changes: Any) -> R:
    """Another one that differs in these fields."""
    kept = {each.name: getattr(record, each.name) for each in fields(record) if each.init}
    return type(record)(**kept | changes)


@dataclass_transform(field_specifiers=(field,))
def dataclass(*, frozen: bool = False, slots: bool) -> Callable[[C], C]:
    """In place of dataclasses.dataclass, for classes with slots and nothing unusual in them: no bases, no flags.

    TypeError for one that writes a method itself which is made for it, as dataclasses would have left that alone.
    """
    if not slots:
        raise TypeError("records have slots")
    return _frozen if frozen else _changing


@dataclass_transform(field_specifiers=(field,))
def light_dataclass(*, frozen: bool, slots: bool) -> Callable[[C], C]:
    """The same, made in a sixtieth of the time; to make one of its objects takes a microsecond longer.

    What slots promise holds: nothing can be set that is no field, as nothing can be set. For slots a class would have
    to be made twice.
    """
    if not (frozen and slots):
        raise TypeError("light records are frozen and promise what slots do")
    return _light


def _light(cls: C) -> C:
    _refuse_own(cls, _UNCHANGING)
    made: Any = cls
    for name, value in {"__init__": _init, **_UNCHANGING, **_description(_fields_of(cls), frozen=True)}.items():
        setattr(made, name, value)
    for name in made._record_fields:
        if isinstance(made.__dict__.get(name), Field):
            delattr(made, name)
    return cls


def _frozen(cls: C) -> C:
    made: Any = _record(cls, _UNCHANGING, frozen=True)
    made.__init__ = _own_init(made, frozen=True)
    return cast(C, made)


def _changing(cls: C) -> C:
    made: Any = _record(cls, {"__repr__": _repr, "__eq__": _eq, "__hash__": None}, frozen=False)
    made.__init__ = _own_init(made, frozen=False)
    return cast(C, made)


def _record(cls: C, methods: dict[str, Any], *, frozen: bool) -> C:
    """The class made anew, with slots: those of one that exists cannot be changed."""
    space: dict[str, Any] = {**cls.__dict__}
    _refuse_own(cls, methods)
    space.pop("__dict__", None)
    space.pop("__weakref__", None)
    made_of = _fields_of(cls)
    for name in made_of:
        space.pop(name, None)
    space |= _description(made_of, frozen=frozen) | methods
    made: Any = type(cls)(cls.__name__, cls.__bases__, {**space, "__slots__": tuple(made_of)})
    made.__qualname__ = cls.__qualname__
    return cast(C, made)


def _refuse_own(cls: type, methods: Iterable[str]) -> None:
    """TypeError for a class that writes one of these itself, or `__init__`."""
    if own := [name for name in ("__init__", *methods) if name in cls.__dict__]:
        raise TypeError(f"{cls.__name__} has its own {own[0]}, which is made for records: make it a plain class")


def _fields_of(cls: type) -> dict[str, Field]:
    """What its body says, by name."""
    made_of: dict[str, Field] = {}
    for name in cls.__annotations__:
        given = cls.__dict__.get(name, MISSING)
        if not isinstance(given, Field):
            given = Field(name, given, MISSING, init=True)
        if type(given.default).__hash__ is None:
            raise ValueError(f"{cls.__name__}.{name}: all would share one default that may change: use default_factory")
        given.name = name
        made_of[name] = given
    return made_of


def _description(made_of: dict[str, Field], *, frozen: bool) -> dict[str, Any]:
    """By which a record is known."""
    return {
        "__match_args__": tuple([name for name, each in made_of.items() if each.init]),
        "_record_fields": made_of, "__dataclass_fields__": _AsDataclass(frozen=frozen),
    }  # fmt: skip


class _AsDataclass:
    """What dataclasses looks for in a class that it has made: its description of the fields, made when it asks."""

    def __init__(self, *, frozen: bool) -> None:
        self._frozen = frozen
        self._fields: dict[str, Any] | None = None

    def __get__(self, record: Any, kind: Any) -> dict[str, Any]:
        if self._fields is None:
            self._fields = self._describe(kind)
        return self._fields

    def _describe(self, kind: Any) -> dict[str, Any]:
        import dataclasses  # not above: what is loaded with it is what records do without

        described = [
            (each.name, kind.__annotations__[each.name], dataclasses.field(
                init=each.init,
                **{} if each.default is MISSING else {"default": each.default},
                **{} if each.default_factory is MISSING else {"default_factory": each.default_factory},
            ))
            for each in fields(kind)
        ]  # fmt: skip
        model: Any = dataclasses.make_dataclass(kind.__name__, described, frozen=self._frozen)
        return cast("dict[str, Any]", model.__dataclass_fields__)


def _own_init(cls: Any, *, frozen: bool) -> Any:
    """As dataclasses writes it; that of a frozen class stores through its slots."""
    taken = [each for each in cls._record_fields.values() if each.init]
    defaults = [each.default for each in taken if not each.is_required]  # MISSING where one is to be made
    if any(each.is_required for each in taken[len(taken) - len(defaults) :]):
        raise TypeError(f"{cls.__name__}: a field without a default follows one with a default")
    made = tuple([each.default_factory is not MISSING for each in taken])
    code = _code_of_init(made, frozen=frozen, then=hasattr(cls, "__post_init__"))
    names = {f"f{n}": each.name for n, each in enumerate(taken)}
    code = code.replace(
        co_varnames=("self", *names.values()),
        co_names=tuple([names.get(name, name) for name in code.co_names]),
        co_qualname=f"{cls.__qualname__}.__init__",
    )
    space: dict[str, Any] = {"MISSING": MISSING}
    for n, each in enumerate(taken):
        space[f"make{n}"], space[f"store{n}"] = each.default_factory, getattr(cls, each.name).__set__
    return FunctionType(code, space, "__init__", tuple(defaults))


@cache
def _code_of_init(made: tuple[bool, ...], *, frozen: bool, then: bool) -> CodeType:
    """For fields f0, f1 and so on, of which these have defaults that are made: names are put in place of those.

    Half of the records are alike but for their names, and compiling takes longer than all else that makes one.
    """
    lines = []
    for n, is_made in enumerate(made):
        value = f"make{n}() if f{n} is MISSING else f{n}" if is_made else f"f{n}"
        lines.append(f" store{n}(self, {value})" if frozen else f" self.f{n} = {value}")
    lines.append(" self.__post_init__()" if then else " return")
    space: dict[str, Any] = {}
    exec("\n".join([f"def __init__(self, {', '.join(f'f{n}' for n in range(len(made)))}):", *lines]), space)
    return cast(CodeType, space["__init__"].__code__)


def _values(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, name) for name in self._record_fields])


def _init(self: Any, *given: Any, **named: Any) -> None:
    made_of = self._record_fields
    if len(given) > len(made_of):
        raise TypeError(f"{type(self).__name__} takes {len(made_of)} fields, {len(given)} were given")
    store = object.__setattr__
    for name, value in zip(made_of, given, strict=False):
        store(self, name, value)
    for name in list(made_of)[len(given) :]:
        if name in named:
            store(self, name, named.pop(name))
        elif (each := made_of[name]).default is not MISSING:
            store(self, name, each.default)
        elif each.default_factory is not MISSING:
            store(self, name, each.default_factory())
        else:
            raise TypeError(f"{type(self).__name__} needs {name!r}")
    if named:
        raise TypeError(f"{type(self).__name__} has no field {next(iter(named))!r}, or it was given twice")


def _repr(self: Any) -> str:
    listed = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._record_fields)
    return f"{type(self).__qualname__}({listed})"


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _reduce(self: Any) -> tuple[type, tuple[Any, ...]]:
    return type(self), _values(self)


def _setattr(self: Any, name: str, value: object) -> None:
    raise _frozen_error(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    raise _frozen_error(f"cannot delete field {name!r}")


def _frozen_error(text: str) -> AttributeError:
    from dataclasses import FrozenInstanceError  # a mistake in a program is all that loads it

    return FrozenInstanceError(text)


_UNCHANGING = {
    "__repr__": _repr, "__eq__": _eq, "__hash__": _hash, "__reduce__": _reduce,
    "__setattr__": _setattr, "__delattr__": _delattr,
}  # fmt: skip
