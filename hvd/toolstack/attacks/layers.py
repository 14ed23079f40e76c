"""How an attack on the kernel's layers is tried: each layer alone must stop it, and with none of them it must work."""

from __future__ import annotations

import os
from collections.abc import Callable

from hvd.toolstack.attacks.arena import Arena
from hvd.toolstack.attacks.attack import Attack, Seen

Act = Callable[[Arena, tuple[str, ...]], Seen]
"""An attempt in a domain without these layers."""
IS_ROOT = os.geteuid() == 0
STAND_ON = {
    "pid": ("user",), "mount": ("user",), "network": ("user",), "ipc": ("user",), "uts": ("user",),
    "root": ("user", "mount"),
}  # fmt: skip
"""What a layer cannot be had without. Root needs no user namespace for the others."""
STAND_ON_AS_ROOT = {"root": ("mount",), "uid": ("root", "mount")}
"""Without a root of its own a domain of root's keeps root's uid where its files are not open to others."""


def attacks_on(
    name: str, layers: tuple[str, ...], act: Act, *, also_off: tuple[str, ...] = (), as_root: bool | None = None,
) -> list[Attack]:  # fmt: skip
    """One attack for each layer that stops it. `also_off`: what is in its way besides, and not what it is about."""
    every = tuple(name for name in dict.fromkeys((*layers, *also_off)) if not (IS_ROOT and name == "user"))
    return [_on_one(name, layer, every, act, as_root) for layer in layers if layer not in also_off]


def _on_one(name: str, layer: str, every: tuple[str, ...], act: Act, as_root: bool | None) -> Attack:
    kept = (layer, *(STAND_ON_AS_ROOT if IS_ROOT else STAND_ON).get(layer, ()))
    off = tuple(other for other in every if other not in kept)
    return Attack(
        f"{name} ({layer})", layer,
        attempt=lambda arena: act(arena, off),
        control=lambda arena: arena.once(name, lambda: act(arena, every)),
        without=f"without {', '.join(every)}",
        needs=(layer,),
        as_root=as_root if layer != "uid" else True,
    )  # fmt: skip
