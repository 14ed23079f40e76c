"""Frozen records, as `@dataclass(frozen=True, slots=True)` makes them, in a twentieth of its time.

Every process of a machine and every command loads all hypercalls; dataclasses writes and compiles six methods for each
of them, 0.4 ms apiece, which was a seventh of a boot. Here the methods are written once and look at the class's fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, cast

C = TypeVar("C", bound=type)
_MISSING = dataclasses.MISSING


def dataclass(*, frozen: bool, slots: bool) -> Callable[[C], C]:
    """In place of dataclasses.dataclass, for frozen classes with slots and nothing unusual in them."""
    if not (frozen and slots):
        raise TypeError("records are frozen and have slots")
    return _record


def _record(cls: C) -> C:
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    for method in (_init, _repr, _eq, _hash, _reduce, _setattr, _delattr):
        setattr(made, f"__{method.__name__[1:]}__", method)
    return cast(C, made)


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
