"""A domain's XenStore client: the operations over hypercalls, and its watches."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


class Followed(NamedTuple):
    """What `follow` brings."""

    tokens: list[str | HypercallError]
    """Of the watches, in order; or why there is none."""
    keys: list[dict[str, str]]
    """Of each directory: its plain nodes, none if it is not there."""


class StoreClient:
    """Paths are absolute, or relative to /local/domain/<own domid>."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self._watches: dict[str, tuple[str, Callable[[str], None]]] = {}
        self._next_token = 0

    def on_toolstack(self, handler: Callable[[str], None]) -> None:
        """Call `handler(path)` for what the toolstack changes below `device`, `control`, `memory`: from birth on."""
        self._watches[TOOLSTACK] = "", handler

    def read(self, path: str, tx: int = 0) -> bytes | None:
        """The value; None if there is no such node, or none that we may see."""
        try:
            value: bytes = self._call(m.StoreRead(tx, path))
        except HypercallError as error:
            if error.errno in ABSENT:
                return None
            raise
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

    def remove(self, path: str, tx: int = 0) -> None:
        """Remove a node and all below; a missing one is fine."""
        try:
            self._call(m.StoreRm(tx, path))
        except HypercallError as error:
            if error.errno != errno.ENOENT:
                raise

    def directory(self, path: str) -> list[str]:
        """Names of the children; none if there is no such node, or none that we may see."""
        try:
            children: list[str] = self._call(m.StoreDirectory(0, path))
        except HypercallError as error:
            if error.errno in ABSENT:
                return []
            raise
        return children

    def read_all(self, path: str) -> dict[str, str]:
        """The values of all children of a directory, in one hypercall; none if there is no such node."""
        try:
            values: dict[str, bytes] = self._call(m.StoreReadAll(path))
        except HypercallError as error:
            if error.errno in ABSENT:
                return {}
            raise
        return {name: value.decode("utf-8", "replace") for name, value in values.items()}

    def read_directories(self, paths: Sequence[str]) -> list[list[str]]:
        """`directory` of each of these, in as few hypercalls as there are 64 of them."""
        answers = self._ask([m.StoreDirectory(0, path) for path in paths])
        return [[] if code else names for code, names in answers]

    def follow(self, watched: Sequence[tuple[str, Callable[[str], None]]], read: Sequence[str]) -> Followed:
        """`watch` these, then `read_all` those, in as few hypercalls: what is read is no older than the watches."""
        tokens = [self._register(path, handler) for path, handler in watched]
        calls = [m.StoreWatch(path, token) for token, (path, _) in zip(tokens, watched, strict=True)]
        answers = self._ask([*calls, *map(m.StoreReadAll, read)])
        taken = [self._watched(token, *answer) for token, answer in zip(tokens, answers, strict=False)]
        return Followed(taken, [self._keys(path, *a) for path, a in zip(read, answers[len(calls) :], strict=True)])

    def _watched(self, token: str, code: int, text: Any) -> str | HypercallError:
        if not code:
            return token
        del self._watches[token]
        return HypercallError(code, str(text), "StoreWatch")

    def _keys(self, path: str, code: int, values: Any) -> dict[str, str]:
        """What others wrote may be more than one multicall brings: then it is read by itself."""
        if code == errno.E2BIG:
            return self.read_all(path)
        return {} if code else {name: value.decode("utf-8", "replace") for name, value in values.items()}

    def _ask(self, calls: list[Any]) -> list[list[Any]]:
        """[errno, value or text] of each."""
        starts = range(0, len(calls), MULTICALL_MAX)
        return [answer for start in starts for answer in self._multicall(calls[start : start + MULTICALL_MAX])]

    def write_all(self, path: str, values: Mapping[str, str | int], tx: int = 0) -> None:
        """Write children of a directory in order, in one hypercall; HypercallError of the first that fails."""
        calls = [m.StoreWrite(tx, f"{path}/{name}", str(value).encode()) for name, value in values.items()]
        if len(calls) > MULTICALL_MAX:
            raise LocalError(f"{len(calls)} nodes below {path} in one hypercall; {MULTICALL_MAX} is the most")
        for code, text in self._multicall(calls):
            if code:
                raise HypercallError(code, str(text), "StoreWrite")

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
        token = self._register(path, handler)
        self._call(m.StoreWatch(path, token))
        return token

    def _register(self, path: str, handler: Callable[[str], None]) -> str:
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
