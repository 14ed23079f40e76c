"""Dataclasses with slots, as dataclasses makes them, in a fifth of its time.

A machine loads all hypercalls and tables, every command the hypercalls; dataclasses writes and compiles three to seven
methods for each class, 0.3 ms and more, which was a fifth of a boot. Here `__init__` alone is compiled; the others are
written once and look at the class's fields. Of what is declared by the hundred, so is `__init__`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, cast, dataclass_transform

C = TypeVar("C", bound=type)
_MISSING = dataclasses.MISSING


@dataclass_transform(field_specifiers=(dataclasses.field,))
def dataclass(*, frozen: bool = False, slots: bool) -> Callable[[C], C]:
    """In place of dataclasses.dataclass, for classes with slots and nothing unusual in them: no bases, no flags."""
    if not slots:
        raise TypeError("records have slots")
    return _frozen if frozen else _changing


@dataclass_transform(field_specifiers=(dataclasses.field,))
def light_dataclass(*, frozen: bool, slots: bool) -> Callable[[C], C]:
    """The same, made in a twentieth of the time; to make one of its objects takes a microsecond longer."""
    if not (frozen and slots):
        raise TypeError("light records are frozen and have slots")
    return _light


def _light(cls: C) -> C:
    return _record(cls, (_init, _repr, _eq, _hash, _reduce, _setattr, _delattr))


def _frozen(cls: C) -> C:
    made: Any = _record(cls, (_repr, _eq, _hash, _reduce, _setattr, _delattr))
    made.__init__ = _own_init(made, frozen=True)
    return cast(C, made)


def _changing(cls: C) -> C:
    made: Any = _record(cls, (_repr, _eq))
    made.__init__ = _own_init(made, frozen=False)
    made.__hash__ = None
    return cast(C, made)


def _record(cls: C, methods: tuple[Callable[..., Any], ...]) -> C:
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    for method in methods:
        setattr(made, f"__{method.__name__[1:]}__", method)
    return cast(C, made)


def _own_init(cls: Any, *, frozen: bool) -> Any:
    """As dataclasses writes it; that of a frozen class stores through its slots."""
    space: dict[str, Any] = {"MISSING": _MISSING}
    parameters, lines = ["self"], []
    for name, field in cls.__dataclass_fields__.items():
        if not field.init:
            continue
        parameter, value = name, name
        if field.default is not _MISSING:
            parameter, space[f"default_{name}"] = f"{name}=default_{name}", field.default
        elif field.default_factory is not _MISSING:
            parameter, space[f"make_{name}"] = f"{name}=MISSING", field.default_factory
            value = f"make_{name}() if {name} is MISSING else {name}"
        parameters.append(parameter)
        space[f"store_{name}"] = getattr(cls, name).__set__
        lines.append(f" store_{name}(self, {value})" if frozen else f" self.{name} = {value}")
    lines.append(" self.__post_init__()" if hasattr(cls, "__post_init__") else " return")
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *lines]), space)
    space["__init__"].__qualname__ = f"{cls.__qualname__}.__init__"
    return space["__init__"]


def _values(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, name) for name in self.__dataclass_fields__])


def _init(self: Any, *given: Any, **named: Any) -> None:
    fields = self.__dataclass_fields__
    if len(given) > len(fields):
        raise TypeError(f"{type(self).__name__} takes {len(fields)} fields, {len(given)} were given")
    store = object.__setattr__
    for name, value in zip(fields, given, strict=False):
        store(self, name, value)
    for name in list(fields)[len(given) :]:
        if name in named:
            store(self, name, named.pop(name))
        elif (field := fields[name]).default is not _MISSING:
            store(self, name, field.default)
        elif field.default_factory is not _MISSING:
            store(self, name, field.default_factory())
        else:
            raise TypeError(f"{type(self).__name__} needs {name!r}")
    if named:
        raise TypeError(f"{type(self).__name__} has no field {next(iter(named))!r}, or it was given twice")


def _repr(self: Any) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
    return f"{type(self).__qualname__}({fields})"


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _reduce(self: Any) -> tuple[type, tuple[Any, ...]]:
    return type(self), _values(self)


def _setattr(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
