"""A domain's XenStore client: the operations over hypercalls, and its watches."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hvd.transport import messages as m
from hvd.transport.errors import HvdError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.multicall import Answered, ask_all
from hvd.transport.upcalls import TOOLSTACK

TRANSACTION_TRIES = 50
ABSENT = frozenset({errno.ENOENT, errno.EACCES})
"""A node under a home that has just been removed answers EACCES: what is above it decides."""


KeysHandler = Callable[[dict[str, str] | None], None]
Handler = Callable[[str, dict[str, str] | None], None]
"""Of any watch: the path of an event, and the keys that it brought."""


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
        self._watches: dict[str, tuple[str, Handler]] = {}
        self._next_token = 0
        self._afterwards: dict[Callable[[], None], None] = {}
        self._read_now: set[str] = set()
        """Watches, by token, of which one of the events that are being delivered was to be read about."""
        self._read_before: set[str] = set()
        """The same of those that were delivered before these, which may have been sent ahead of that."""

    def on_toolstack(self, handler: Callable[[str], None]) -> None:
        """Call `handler(path)` for what the toolstack changes below `device`, `control`, `memory`: from birth on."""
        self._watches[TOOLSTACK] = "", _without_keys(handler)

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
        return _texts(values)

    def read_directories(self, paths: Sequence[str]) -> list[list[str]]:
        """`directory` of each of these, in as few hypercalls as take them."""
        return [_names(answered) for answered in ask_all(self._call, [m.StoreDirectory(0, path) for path in paths])]

    def read_all_of(self, paths: Sequence[str]) -> list[dict[str, str]]:
        """`read_all` of each of these, in as few hypercalls as take them."""
        return [_keys(answered) for answered in ask_all(self._call, [m.StoreReadAll(path) for path in paths])]

    def follow(
        self, watched: Sequence[tuple[str, KeysHandler]], read: Sequence[str], others: Sequence[Any] = ()
    ) -> Followed:
        """`watch_keys` these, then `read_all` those, in as few hypercalls: what is read is no older than the watches.

        And whatever other hypercalls can be made with them, last.
        """
        tokens = [self._register(path, _with_keys(handler), path) for path, handler in watched]
        calls = [m.StoreWatch(path, token, True) for token, (path, _) in zip(tokens, watched, strict=True)]
        answers = ask_all(self._call, [*calls, *map(m.StoreReadAll, read), *others])
        last = len(answers) - len(others)
        taken = [self._watched(token, answered) for token, answered in zip(tokens, answers, strict=False)]
        return Followed(taken, [_keys(answered) for answered in answers[len(calls) : last]], answers[last:])

    def _watched(self, token: str, answered: Answered) -> str | HypercallError:
        if not answered.errno:
            return token
        del self._watches[token]
        return HypercallError(answered.errno, str(answered.value), "StoreWatch")

    def write_all(self, path: str, values: Mapping[str, str | int], tx: int = 0) -> None:
        """Write children of a directory, in order, in as few hypercalls as take them; the first HypercallError.

        What is written behind the last of them, a `state`, says that they are there: two dozen are written at once, but
        no more, nor where hundreds of watches hear of it.
        """
        for code, text, _ in ask_all(self._call, _writes(path, values, tx)):
            if code:
                raise HypercallError(code, str(text), "StoreWrite")

    def write_several(self, entries: Sequence[tuple[str, Mapping[str, str | int]]]) -> list[HypercallError | None]:
        """`write_all` of each of these, in order, in as few hypercalls as take them; what came of each."""
        answers = iter(ask_all(self._call, [call for path, values in entries for call in _writes(path, values)]))
        outcomes: list[HypercallError | None] = []
        for _, values in entries:
            failed = [answered for answered in (next(answers) for _ in values) if answered.errno]
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
        token = self._register(path, _without_keys(handler))
        self._call(m.StoreWatch(path, token))
        return token

    def watch_keys(self, path: str, handler: KeysHandler) -> str:
        """The same for a node: `handler(keys)`, with those of the directory that it is in when it was told.

        None: they were not brought, and whoever wants them reads them.
        """
        token = self._register(path, _with_keys(handler))
        self._call(m.StoreWatch(path, token, True))
        return token

    def _register(self, path: str, handler: Handler, token: str = "") -> str:
        """Under a token of its own, or this one if no other watch has it: what is asked ahead has the path for it."""
        if not token or token in self._watches:
            self._next_token += 1
            token = str(self._next_token)
        self._watches[token] = path, handler
        return token

    def unwatch(self, token: str) -> None:
        path, _ = self._watches.pop(token)
        self._call(m.StoreUnwatch(path, token))

    def deliver(self, path: str, token: str, keys: Mapping[str, bytes] | None = None) -> None:
        """Run the handler of an event; of every watch when events were lost. A watch taken back hears nothing.

        Where one event is read about, those that were sent before that are too: what they brought is older.
        """
        if (path, token) == ("", ""):
            self._read_now.update(self._watches)
            for watched, handler in list(self._watches.values()):
                handler(watched, None)
            return
        entry = self._watches.get(token)
        if entry is None:
            return
        if keys is None or token in self._read_now or token in self._read_before:
            self._read_now.add(token)
            keys = None
        entry[1](path, None if keys is None else _texts(keys))

    def afterwards(self, handler: Callable[[], None]) -> None:
        """Call `handler()` once, when the events that are there by now have been delivered."""
        self._afterwards[handler] = None

    def delivered(self) -> None:
        """There are no more events for now."""
        handlers, self._afterwards = self._afterwards, {}
        for handler in handlers:
            handler()
        self._read_now, self._read_before = set(), self._read_now


def _names(answered: Answered) -> list[str]:
    if answered.errno == errno.E2BIG:  # whoever took it for empty would take away what is there
        raise HypercallError(answered.errno, str(answered.value), "StoreDirectory")
    names: list[str] = [] if answered.errno else answered.value
    return names


def _keys(answered: Answered) -> dict[str, str]:
    return {} if answered.errno else _texts(answered.value)


def _texts(values: Mapping[str, bytes]) -> dict[str, str]:
    return {name: value.decode("utf-8", "replace") for name, value in values.items()}


def _without_keys(handler: Callable[[str], None]) -> Handler:
    return lambda path, _: handler(path)


def _with_keys(handler: KeysHandler) -> Handler:
    return lambda _, keys: handler(keys)


def _writes(path: str, values: Mapping[str, str | int], tx: int = 0) -> list[m.StoreWrite]:
    """What writes these children of a directory."""
    return [m.StoreWrite(tx, f"{path}/{name}", str(value).encode()) for name, value in values.items()]
