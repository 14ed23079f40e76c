"""In processes that a test starts with this folder on their path: the broker dies at a line that the test has chosen.

The plan is a file that the first broker whose turn comes takes away: in which function, for which hypercall, at which
line that is executed there, or only in what it calls by one name; and of which signal. Whoever comes to the function's
end first writes down how many lines it had. Where so many deaths are wanted, it stays until as many have died of it.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

PLAN = Path(os.environ.get("HVD_TEST_DEATH", "/nonexistent"))
LOOP = "hvd.broker.loop"
WATCHED = ("hvd.broker", "hvd.transport")


class Finder(importlib.abc.MetaPathFinder):
    """Changes the broker's loop as it is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != LOOP:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            make_deadly(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def make_deadly(loop: ModuleType) -> None:
    for owner, name in (
        (loop.Broker, "_answer"), (loop.Broker, "_boot"), (loop.Broker, "_recover"), (loop.Broker, "_read_link"),
        (loop.Recovery, "go_on"), (loop.Ledger, "take_snapshot"),
    ):  # fmt: skip
        setattr(owner, name, deadly(f"{owner.__name__}.{name}", getattr(owner, name)))


def deadly(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        plan = take_plan(name, arguments)
        return function(*arguments) if plan is None else run_to_line(plan, function, arguments)

    return run


def take_plan(name: str, arguments: tuple[Any, ...]) -> dict[str, Any] | None:
    try:
        plan: dict[str, Any] = json.loads(PLAN.read_text())
    except OSError:
        return None
    if plan["function"] != name or (plan["number"] is not None and plan["number"] != number_of(arguments[-1])):
        return None
    if not plan["deaths"]:
        PLAN.unlink()
    return plan


def die(plan: dict[str, Any]) -> None:
    if plan["deaths"] > 1:
        whole = PLAN.with_suffix(".next")
        whole.write_text(json.dumps({**plan, "deaths": plan["deaths"] - 1}))
        whole.rename(PLAN)
    elif plan["deaths"]:
        PLAN.unlink()
    os.kill(os.getpid(), plan["signal"])


def number_of(body: bytes) -> int:
    import msgpack

    return int(msgpack.unpackb(body)[4])


def run_to_line(plan: dict[str, Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Lines count that are executed in functions of the name `within`; empty: all."""
    lines, last, within = 0, plan["line"], plan["within"]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if not frame.f_globals.get("__name__", "").startswith(WATCHED):
            return None
        if event == "line" and within in ("", frame.f_code.co_name):
            lines += 1
            if lines == last:
                die(plan)
        return trace

    sys.settrace(trace)
    try:
        return function(*arguments)
    finally:
        sys.settrace(None)
        if not plan["deaths"]:
            PLAN.with_suffix(".lines").write_text(str(lines))


if "HVD_TEST_DEATH" in os.environ:
    sys.meta_path.insert(0, Finder())
