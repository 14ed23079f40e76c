"""A domain's XenStore client: the operations over hypercalls, and its watches."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hvd.transport import messages as m
from hvd.transport.codec import pack_call
from hvd.transport.errors import HvdError, LocalError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.upcalls import TOOLSTACK

TRANSACTION_TRIES = 50
MULTICALL_MAX = 64
ABSENT = frozenset({errno.ENOENT, errno.EACCES})
"""A node under a home that has just been removed answers EACCES: what is above it decides."""


class TransactionConflict(HvdError):
    """A transaction met a conflict every time it was tried."""


class StoreClient:
    """Paths are absolute, or relative to /local/domain/<own domid>."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self._watches: dict[str, tuple[str, Callable[[str], None]]] = {}
        self._next_token = 0

    def on_toolstack(self, handler: Callable[[str], None]) -> None:
        """Call `handler(path)` for what the toolstack changes below `device` or `control`: a watch from birth."""
        self._watches[TOOLSTACK] = "", handler

    def read(self, path: str, tx: int = 0) -> bytes | None:
        """The value; None if there is no such node, or none that we may see."""
        value: bytes | None = self._read(m.StoreRead(tx, path), None)
        return value

    def read_text(self, path: str, default: str = "", tx: int = 0) -> str:
        value = self.read(path, tx)
        return default if value is None else value.decode("utf-8", "replace")

    def read_number(self, path: str, default: int = 0) -> int:
        """A decimal node; the default if it is missing or no number. What a peer wrote is not bounded by this."""
        try:
            return int(self.read_text(path, str(default)))
        except ValueError:
            return default

    def write(self, path: str, value: str | bytes | int, tx: int = 0) -> None:
        self._call(m.StoreWrite(tx, path, value if isinstance(value, bytes) else str(value).encode()))

    def remove(self, path: str) -> None:
        """Remove a node and all below; a missing one is fine."""
        try:
            self._call(m.StoreRm(0, path))
        except HypercallError as error:
            if error.errno != errno.ENOENT:
                raise

    def directory(self, path: str) -> list[str]:
        """Names of the children; none if there is no such node, or none that we may see."""
        children: list[str] = self._read(m.StoreDirectory(0, path), [])
        return children

    def read_all(self, path: str) -> dict[str, str]:
        """The values of all children of a directory, in one hypercall; none if there is no such node."""
        return _as_text(self._read(m.StoreReadAll(path), {}))

    def _read(self, call: Any, absent: Any) -> Any:
        try:
            return self._call(call)
        except HypercallError as error:
            if error.errno in ABSENT:
                return absent
            raise

    def write_all(self, path: str, values: Mapping[str, str | int], tx: int = 0) -> None:
        """Write children of a directory in order, in one hypercall; HypercallError of the first that fails."""
        self._write_all(path, values, tx)

    def write_all_and_watch(
        self, path: str, values: Mapping[str, str | int], watched: str, handler: Callable[[str], None]
    ) -> str:
        """`write_all`, then `watch` of another path, in one hypercall; if either fails there is no watch."""
        token = self._note_watch(watched, handler)
        try:
            self._write_all(path, values, 0, m.StoreWatch(watched, token))
        except HypercallError:
            with contextlib.suppress(HypercallError):  # when it was the watch that failed
                self.unwatch(token)
            raise
        return token

    def _write_all(self, path: str, values: Mapping[str, str | int], tx: int, *last: m.StoreWatch) -> None:
        calls: list[Any] = [m.StoreWrite(tx, f"{path}/{name}", str(value).encode()) for name, value in values.items()]
        calls += last
        if len(calls) > MULTICALL_MAX:
            raise LocalError(f"{len(calls)} nodes below {path} in one hypercall; {MULTICALL_MAX} is the most")
        for call, (code, text) in zip(calls, self._multicall(calls), strict=True):
            if code:
                raise HypercallError(code, str(text), type(call).__name__)

    def directories(self, paths: Sequence[str]) -> list[list[str]]:
        """`directory` of each, in as few hypercalls as there can be."""
        return self._read_each(paths, lambda path: m.StoreDirectory(0, path), [])

    def read_all_each(self, paths: Sequence[str]) -> list[dict[str, str]]:
        """`read_all` of each, in as few hypercalls as there can be."""
        return [_as_text(values) for values in self._read_each(paths, m.StoreReadAll, {})]

    def _read_each(self, paths: Sequence[str], message: Callable[[str], Any], absent: Any) -> list[Any]:
        """What a read of each path brings; one that is too much for what it shares a hypercall with has its own."""
        found: list[Any] = []
        for first in range(0, len(paths), MULTICALL_MAX):
            calls = [message(path) for path in paths[first : first + MULTICALL_MAX]]
            for call, (code, value) in zip(calls, self._multicall(calls), strict=True):
                if code == errno.E2BIG:
                    found.append(self._read(call, absent))
                elif code and code not in ABSENT:
                    raise HypercallError(code, str(value), type(call).__name__)
                else:
                    found.append(absent if code else value)
        return found

    def _multicall(self, calls: list[Any]) -> list[list[Any]]:
        replies: list[list[Any]] = self._call(m.Multicall([pack_call(call) for call in calls])) if calls else []
        return replies

    def transaction(self, body: Callable[[int], None]) -> None:
        """Run `body(tx)` and commit; again when another commit came between. TransactionConflict after 50 tries."""
        for _ in range(TRANSACTION_TRIES):
            tx = self._call(m.StoreTransactionStart())
            try:
                body(tx)
            except BaseException:
                self._call(m.StoreTransactionEnd(tx, False))
                raise
            try:
                self._call(m.StoreTransactionEnd(tx, True))
            except HypercallError as error:
                if error.errno != errno.EAGAIN:
                    raise
            else:
                return
        raise TransactionConflict(f"a XenStore transaction met a conflict {TRANSACTION_TRIES} times in a row")

    def watch(self, path: str, handler: Callable[[str], None]) -> str:
        """Call `handler(path)` from the next `wait` on, once at once, then for every change at or below the path."""
        token = self._note_watch(path, handler)
        self._call(m.StoreWatch(path, token))
        return token

    def _note_watch(self, path: str, handler: Callable[[str], None]) -> str:
        self._next_token += 1
        token = str(self._next_token)
        self._watches[token] = path, handler
        return token

    def unwatch(self, token: str) -> None:
        path, _ = self._watches.pop(token)
        self._call(m.StoreUnwatch(path, token))

    def deliver(self, path: str, token: str) -> None:
        """Run the handler of an event; of every watch when events were lost. A watch taken back hears nothing."""
        if (path, token) == ("", ""):
            for watched, handler in list(self._watches.values()):
                handler(watched)
            return
        entry = self._watches.get(token)
        if entry is not None:
            entry[1](path)


def _as_text(values: Mapping[str, bytes]) -> dict[str, str]:
    return {name: value.decode("utf-8", "replace") for name, value in values.items()}
