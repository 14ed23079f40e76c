"""Makes hypercall messages out of a fuzzer's choices: every field of a type that it may have, often one that names
something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hvd.transport import messages as m
from hvd.transport.codec import pack_call
from hvd.transport.ids import DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.multicall import BRINGS
from tests.fuzz.python.choices import Choices

PATHS = (
    "data", "data/a", "data/a/b", "/", "/tool", "/local/domain/1/data", "/local/domain/2/data/x", "control/shutdown",
    "device/vbd/51712/state", "/local/domain/1/backend/vbd/2/51712/state", "@releaseDomain", "@introduceDomain",
    "no//path", "", "a" * 3000,
)  # fmt: skip
PERMISSIONS = ("n0", "n1", "n2", "r1", "b2", "w0", "r99", "x")
NAMES = ("drv", "ivi", "new", "Domain-0", "", "a/b")
ACTIONS = ("destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart", "what")
DOMIDS = (0, 1, 2, 3, 0x7FF0, 99)
KINDS = sorted(m.HYPERCALLS.values(), key=lambda kind: kind.NUMBER)  # type: ignore[attr-defined]
PARTS = [kind for kind in KINDS if kind.__name__.startswith("Store") or kind in BRINGS]
"""What a multicall may hold, and one kind that it may not."""


def any_message(choices: Choices) -> Any:
    """One of any kind."""
    return _record(choices, choices.pick(KINDS))


def _record(choices: Choices, kind: Any) -> Any:
    if kind is m.Multicall:
        entries = [pack_call(_record(choices, choices.pick(PARTS))) for _ in range(choices.below(5))]
        return m.Multicall([*entries, choices.take(9)] if choices.below(8) == 7 else entries)
    values = [
        _value(choices, hint) if name != "perms" else _several(choices, PERMISSIONS) for name, hint in _hints(kind)
    ]
    if kind is m.DomainConfig:
        return _config(choices, values)
    return kind(*values)


def _config(choices: Choices, values: list[Any]) -> m.DomainConfig:
    """Most of it as random as the rest, but with a name and actions that there are."""
    named = dict(zip((field.name for field in fields(m.DomainConfig)), values, strict=True))
    named |= {key: choices.pick(ACTIONS) for key in ("on_poweroff", "on_reboot", "on_crash", "on_watchdog")}
    return m.DomainConfig(**named | {"name": choices.pick(NAMES), "after": _several(choices, NAMES)})


def _several(choices: Choices, among: tuple[str, ...]) -> list[str]:
    return [choices.pick(among) for _ in range(choices.below(4))]


@cache
def _hints(kind: Any) -> list[tuple[str, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return [(field.name, hints[field.name]) for field in fields(kind)]


def _text(choices: Choices) -> str:
    return choices.pick(PATHS) if choices.flag() else choices.text(40).replace("\0", "")


def _small(choices: Choices) -> int:
    """Numbers of what there is, counts and flags, and now and then one of any size."""
    return choices.number(4) if choices.below(8) == 7 else choices.below(12)


SIMPLE: dict[Any, Callable[[Choices], Any]] = {
    DomId: lambda choices: choices.pick(DOMIDS),
    Port: lambda choices: 1 + choices.below(9),
    GrantRef: lambda choices: choices.below(20),
    ExtentId: lambda choices: 1 + choices.below(12),
    Handle: lambda choices: 1 + choices.below(8),
    bool: Choices.flag,
    int: _small,
    str: _text,
    bytes: lambda choices: choices.take(choices.below(12)) * (200 if choices.below(16) == 15 else 1),
}


def _value(choices: Choices, hint: Any) -> Any:
    most = None
    if get_origin(hint) is Annotated:
        hint, bound = get_args(hint)
        most = bound.most
    if get_origin(hint) is list:
        return [_value(choices, get_args(hint)[0]) for _ in range(choices.below(4))]
    if get_origin(hint) is dict:
        return {_text(choices)[:64]: _text(choices)[:64] for _ in range(choices.below(3))}
    if is_dataclass(hint):
        return _record(choices, hint)
    value = SIMPLE[hint](choices)
    if most is not None:
        value = min(value, most) if isinstance(value, int) else value[:most]
    return value
