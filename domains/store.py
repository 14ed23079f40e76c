"""A domain's XenStore client: the operations over hypercalls, and its watches."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hvd.domains.multicall import Answered, ask_all
from hvd.transport import messages as m
from hvd.transport.errors import HvdError, LocalError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.multicall import MULTICALL_MAX
from hvd.transport.upcalls import TOOLSTACK

TRANSACTION_TRIES = 50
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
    others: list[Answered]


class StoreClient:
    """Paths are absolute, or relative to /local/domain/<own domid>."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self._watches: dict[str, tuple[str, Callable[[str], None]]] = {}
        self._next_token = 0
        self._afterwards: dict[Callable[[], None], None] = {}

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
        answers = ask_all(self._call, [m.StoreDirectory(0, path) for path in paths])
        return [[] if code else names for code, names, _ in answers]

    def read_all_of(self, paths: Sequence[str]) -> list[dict[str, str]]:
        """`read_all` of each of these, in as few hypercalls as there are 64 of them."""
        answers = ask_all(self._call, [m.StoreReadAll(path) for path in paths])
        return [self._keys(path, answered) for path, answered in zip(paths, answers, strict=True)]

    def follow(
        self, watched: Sequence[tuple[str, Callable[[str], None]]], read: Sequence[str], others: Sequence[Any] = ()
    ) -> Followed:
        """`watch` these, then `read_all` those, in as few hypercalls: what is read is no older than the watches.

        And whatever other hypercalls can be made with them, last.
        """
        tokens = [self._register(path, handler) for path, handler in watched]
        calls = [m.StoreWatch(path, token) for token, (path, _) in zip(tokens, watched, strict=True)]
        answers = ask_all(self._call, [*calls, *map(m.StoreReadAll, read), *others])
        last = len(answers) - len(others)
        taken = [self._watched(token, answered) for token, answered in zip(tokens, answers, strict=False)]
        keys = [self._keys(path, a) for path, a in zip(read, answers[len(calls) : last], strict=True)]
        return Followed(taken, keys, answers[last:])

    def _watched(self, token: str, answered: Answered) -> str | HypercallError:
        if not answered.errno:
            return token
        del self._watches[token]
        return HypercallError(answered.errno, str(answered.value), "StoreWatch")

    def _keys(self, path: str, answered: Answered) -> dict[str, str]:
        """What others wrote may be more than one multicall brings: then it is read by itself."""
        if answered.errno == errno.E2BIG:
            return self.read_all(path)
        values = {} if answered.errno else answered.value
        return {name: value.decode("utf-8", "replace") for name, value in values.items()}

    def write_all(self, path: str, values: Mapping[str, str | int], tx: int = 0) -> None:
        """Write children of a directory in order, in one hypercall; HypercallError of the first that fails."""
        for code, text, _ in ask_all(self._call, _writes(path, values, tx)):
            if code:
                raise HypercallError(code, str(text), "StoreWrite")

    def write_several(self, entries: Sequence[tuple[str, Mapping[str, str | int]]]) -> list[HypercallError | None]:
        """`write_all` of each of these, in order and as many in one hypercall as it takes; what came of each."""
        some: list[list[m.StoreWrite]] = []
        outcomes: list[HypercallError | None] = []
        for path, values in entries:
            writes = _writes(path, values)
            if sum(map(len, some)) + len(writes) > MULTICALL_MAX:
                outcomes += self._write(some)
                some = []
            some.append(writes)
        return outcomes + self._write(some)

    def _write(self, entries: list[list[m.StoreWrite]]) -> list[HypercallError | None]:
        answers = iter(ask_all(self._call, [call for entry in entries for call in entry]))
        outcomes = []
        for entry in entries:
            failed = [answered for answered in (next(answers) for _ in entry) if answered.errno]
            outcomes.append(HypercallError(failed[0].errno, str(failed[0].value), "StoreWrite") if failed else None)
        return outcomes

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

    def afterwards(self, handler: Callable[[], None]) -> None:
        """Call `handler()` once, when the events that are there by now have been delivered."""
        self._afterwards[handler] = None

    def delivered(self) -> None:
        """There are no more events for now."""
        handlers, self._afterwards = self._afterwards, {}
        for handler in handlers:
            handler()


def _writes(path: str, values: Mapping[str, str | int], tx: int = 0) -> list[m.StoreWrite]:
    """What writes these children of a directory; LocalError when one multicall does not take them."""
    calls = [m.StoreWrite(tx, f"{path}/{name}", str(value).encode()) for name, value in values.items()]
    if len(calls) > MULTICALL_MAX:
        raise LocalError(f"{len(calls)} nodes below {path} in one hypercall; {MULTICALL_MAX} is the most")
    return calls
