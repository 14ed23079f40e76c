"""What each message of XenStore's wire protocol means: checked and answered as xenstored 4.17 does. No I/O.

The store decides what a caller may; here stands how its calls look as bytes. Where xenstored answers with whatever
errno an earlier request has left behind (a READ without its NUL), the answer is EINVAL.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from hvd.broker.store import Store, StoreError
from hvd.broker.store.c_numbers import atoi
from hvd.broker.store.paths import home
from hvd.broker.xenstored import control
from hvd.broker.xenstored.doors import LATER
from hvd.transport import xs_wire
from hvd.transport.ids import DOM0, DOMID_SELF, DomId
from hvd.transport.xs_wire import PAYLOAD_MAX, Message, Type

if TYPE_CHECKING:
    from hvd.broker.hypervisor import Hypervisor

OK = b"OK\0"
_new = tuple.__new__
"""Of a named tuple, without the call by names: two thirds of its time."""


class Asked(NamedTuple):
    """One request: whose, by which connection, and what came with it."""

    hypervisor: Hypervisor
    domid: DomId
    connection: int
    tx: int
    payload: bytes

    @property
    def store(self) -> Store:
        return self.hypervisor.store


Handler = Callable[[Asked], bytes]
"""The payload of the reply; StoreError is an ERROR."""


class Entry(NamedTuple):
    """One line of the table."""

    handler: Handler
    changes: bool = True
    """Outside a transaction too: it is a command for the journal."""
    privileged: bool = False
    """For dom0 alone; EACCES."""
    any_transaction: bool = False
    """Its transaction id means nothing, and may be any number."""


def answer(hypervisor: Hypervisor, domid: DomId, connection: int, message: Message) -> tuple[int, bytes]:
    """The type and payload of the reply to one request, or LATER. Refused, it has changed nothing."""
    entry = TABLE.get(message.type)
    if entry is None:
        return Type.ERROR, xs_wire.error_payload(errno.ENOSYS)
    if entry.privileged and domid != DOM0:
        return Type.ERROR, xs_wire.error_payload(errno.EACCES)
    tx = 0 if entry.any_transaction else message.tx_id
    if tx and not hypervisor.store.holds_transaction(domid, connection, tx):
        return Type.ERROR, xs_wire.error_payload(errno.ENOENT)
    try:
        payload = entry.handler(_new(Asked, (hypervisor, domid, connection, tx, message.payload)))
    except StoreError as error:
        return Type.ERROR, xs_wire.error_payload(error.errno)
    except control.NotYet:
        return LATER
    if len(payload) > PAYLOAD_MAX:
        return Type.ERROR, xs_wire.error_payload(errno.E2BIG)
    return message.type, payload


def is_command(message: Message) -> bool:
    """Whether it may change anything; what is read in a transaction does, as its commit depends on it."""
    entry = TABLE.get(message.type)
    if message.type == Type.CONTROL:
        return control.changes(message.payload)
    return entry is not None and (entry.changes or bool(message.tx_id))


# ---- how arguments are read ------------------------------------------------------------------------------------------


def _one(payload: bytes) -> bytes:
    """The only string; EINVAL for none, more, or one without its NUL."""
    if not payload or payload.find(b"\0") != len(payload) - 1:
        raise StoreError(errno.EINVAL, "one string with its NUL was expected")
    return payload[:-1]


def _several(payload: bytes, least: int, most: int | None = None) -> list[bytes]:
    """Strings; what stands behind the last NUL is none. EINVAL for too few or too many."""
    found = payload.split(b"\0")[:-1]
    if len(found) < least or (most is not None and len(found) > most):
        raise StoreError(errno.EINVAL, f"{len(found)} strings; expected {least}")
    return found


def _path(name: bytes) -> str:
    """What is no ASCII is no path either, and is found out there."""
    return name.decode("latin-1")


def _token(token: bytes) -> str:
    return token.decode("utf-8", "surrogateescape")


def _number(text: bytes) -> int:
    """As xenstored reads it: what is no number is 0, and -1 the largest."""
    return atoi(text.decode("latin-1"))


def _introduced(asked: Asked, text: bytes) -> DomId:
    """A guest by number: EINVAL for 0, ENOENT for one that is not introduced."""
    domid = DomId(_number(text))
    if domid == DOM0:
        raise StoreError(errno.EINVAL, "dom0 is not a guest")
    if not asked.store.is_introduced(domid):
        raise StoreError(errno.ENOENT, f"domain {domid} is not introduced")
    return domid


# ---- nodes -----------------------------------------------------------------------------------------------------------


def _read(asked: Asked) -> bytes:
    return asked.store.read(asked.domid, asked.tx, _path(_one(asked.payload)))


def _directory(asked: Asked) -> bytes:
    return asked.store.directory_list(asked.domid, asked.tx, _path(_one(asked.payload)), PAYLOAD_MAX)


def _directory_part(asked: Asked) -> bytes:
    path, offset = _several(asked.payload, 2, 2)
    return asked.store.directory_part(asked.domid, asked.tx, _path(path), _number(offset))


def _get_perms(asked: Asked) -> bytes:
    texts = asked.store.get_perms(asked.domid, asked.tx, _path(_one(asked.payload)))
    return "".join([text + "\0" for text in texts]).encode()


def _write(asked: Asked) -> bytes:
    path, nul, value = asked.payload.partition(b"\0")
    if not nul:
        raise StoreError(errno.EINVAL, "a path with its NUL was expected")
    asked.store.write(asked.domid, asked.tx, _path(path), value)
    return OK


def _mkdir(asked: Asked) -> bytes:
    asked.store.mkdir(asked.domid, asked.tx, _path(_one(asked.payload)))
    return OK


def _rm(asked: Asked) -> bytes:
    asked.store.rm(asked.domid, asked.tx, _path(_one(asked.payload)))
    return OK


def _set_perms(asked: Asked) -> bytes:
    path, *entries = _several(asked.payload, 2)
    asked.store.set_perms(asked.domid, asked.tx, _path(path), [_path(entry) for entry in entries])
    return OK


# ---- transactions and watches ----------------------------------------------------------------------------------------


def _transaction_start(asked: Asked) -> bytes:
    if asked.tx:
        raise StoreError(errno.EBUSY, "a transaction has no transactions of its own")
    return b"%d\0" % asked.store.transaction_start(asked.domid, asked.connection)


def _transaction_end(asked: Asked) -> bytes:
    verdict = _one(asked.payload)
    if verdict not in (b"T", b"F"):
        raise StoreError(errno.EINVAL, f"T or F was expected, not {verdict[:20]!r}")
    if not asked.tx:
        raise StoreError(errno.ENOENT, "there is no transaction 0 to end")
    asked.store.transaction_end(asked.domid, asked.tx, verdict == b"T")
    return OK


def _watch(asked: Asked) -> bytes:
    path, token = _several(asked.payload, 2, 2)
    asked.store.watch(asked.domid, _path(path), _token(token), asked.connection)
    return OK


def _unwatch(asked: Asked) -> bytes:
    path, token = _several(asked.payload, 2, 2)
    asked.store.unwatch(asked.domid, _path(path), _token(token), asked.connection)
    return OK


def _reset_watches(asked: Asked) -> bytes:
    asked.store.reset_connection(asked.domid, asked.connection)
    return OK


# ---- domains ---------------------------------------------------------------------------------------------------------


def _get_domain_path(asked: Asked) -> bytes:
    return home(DomId(_number(_one(asked.payload)))).encode() + b"\0"


def _is_domain_introduced(asked: Asked) -> bytes:
    domid = DomId(_number(_one(asked.payload)))
    return b"T\0" if domid == DOMID_SELF or asked.store.is_introduced(domid) else b"F\0"


def _introduce(asked: Asked) -> bytes:
    """The page is always grant 1, so its frame is not looked at; the domain's ring begins anew."""
    domid, _, port = (_number(text) for text in _several(asked.payload, 3)[:3])
    if not port:
        raise StoreError(errno.EINVAL, f"{port} is no event channel")
    asked.hypervisor.introduce(DomId(domid))
    return OK


def _release(asked: Asked) -> bytes:
    asked.hypervisor.release(_introduced(asked, _one(asked.payload)))
    return OK


def _resume(asked: Asked) -> bytes:
    """Nothing more: a domain here is not suspended."""
    _introduced(asked, _one(asked.payload))
    return OK


def _set_target(asked: Asked) -> bytes:
    domid, target = (DomId(_number(text)) for text in _several(asked.payload, 2)[:2])
    asked.store.set_target(domid, target)
    return OK


def _control(asked: Asked) -> bytes:
    return control.carry_out(asked.hypervisor, [_token(text) for text in _several(asked.payload, 1)])


TABLE: dict[int, Entry] = {
    Type.CONTROL: Entry(_control, privileged=True),
    Type.DIRECTORY: Entry(_directory, changes=False),
    Type.READ: Entry(_read, changes=False),
    Type.GET_PERMS: Entry(_get_perms, changes=False),
    Type.WATCH: Entry(_watch, any_transaction=True),
    Type.UNWATCH: Entry(_unwatch, any_transaction=True),
    Type.TRANSACTION_START: Entry(_transaction_start),
    Type.TRANSACTION_END: Entry(_transaction_end),
    Type.INTRODUCE: Entry(_introduce, privileged=True),
    Type.RELEASE: Entry(_release, privileged=True),
    Type.GET_DOMAIN_PATH: Entry(_get_domain_path, changes=False),
    Type.WRITE: Entry(_write),
    Type.MKDIR: Entry(_mkdir),
    Type.RM: Entry(_rm),
    Type.SET_PERMS: Entry(_set_perms),
    Type.IS_DOMAIN_INTRODUCED: Entry(_is_domain_introduced, changes=False, privileged=True),
    Type.RESUME: Entry(_resume, changes=False, privileged=True),
    Type.SET_TARGET: Entry(_set_target, privileged=True),
    Type.RESET_WATCHES: Entry(_reset_watches),
    Type.DIRECTORY_PART: Entry(_directory_part, changes=False),
}
