"""XenStore's CONTROL: the subcommands of xenstore-control that mean something here."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from hvd.broker.store import StoreError
from hvd.broker.store.c_numbers import atoi
from hvd.broker.store.quotas import ABSOLUTE_PATH_BYTES_MAX
from hvd.broker.store.transactions import NAMED_MAX
from hvd.transport.ids import DomId

if TYPE_CHECKING:
    from hvd.broker.hypervisor import Hypervisor

OK = b"OK\0"
INT_MAX = (1 << 31) - 1
QUOTAS = (
    ("nodes", "nodes_max", "Nodes per domain"),
    ("watches", "watches_max", "Watches per domain"),
    ("transactions", "transactions_max", "Transactions per domain"),
    ("transaction-nodes", "transaction_nodes_max", "Max. number of accessed nodes per transaction"),
    ("memory", "memory_bytes_max", "Total Xenstore memory per domain"),
    ("node-size", "node_bytes_max", "Max. size of a node"),
    ("path-max", "path_bytes_max", "Max. length of a node path"),
    ("permissions", "permissions_max", "Max. number of permissions per node"),
    ("depth", "depth_max", "Max. number of names in a path"),
    ("events", "events_max", "Max. number of watch events not taken yet"),
)
"""xenstored's name, ours in `Quotas`, and what it says of it. The last two xenstored does not have."""
AT_MOST = {"transaction-nodes": NAMED_MAX, "path-max": ABSOLUTE_PATH_BYTES_MAX}
"""What bounds everybody, whatever a quota says: to set a larger one would promise what is not there."""


class Command(NamedTuple):
    """One subcommand; `usage` is what help says behind its name."""

    run: Callable[[Hypervisor, list[str]], bytes]
    usage: str
    least: int = 0
    most: int = 0
    changes: bool = True


class NotYet(Exception):
    """The answer takes several turns: ask again in the next. Nothing has been changed."""


def changes(payload: bytes) -> bool:
    """Whether this request is a command for the journal."""
    command = COMMANDS.get(payload.partition(b"\0")[0].decode("latin-1"))
    return command is None or command.changes


def carry_out(hypervisor: Hypervisor, words: list[str]) -> bytes:
    """The reply's payload. EINVAL for a subcommand or a number of arguments that there is not."""
    command = COMMANDS.get(words[0])
    if command is None or not command.least <= len(words) - 1 <= command.most:
        raise StoreError(errno.EINVAL, f"not a subcommand of CONTROL: {words[:4]}")
    return command.run(hypervisor, words[1:])


def _check(hypervisor: Hypervisor, words: list[str]) -> bytes:
    """A node cannot be damaged by itself; what could be wrong are the accounts. NotYet: of many nodes some are left."""
    wrong = hypervisor.store.check_some()
    if wrong is None:
        raise NotYet
    return OK if not wrong else wrong.encode() + b"\0"


def _log(hypervisor: Hypervisor, words: list[str]) -> bytes:
    if words[0] not in ("on", "off"):
        raise StoreError(errno.EINVAL, f"on or off was expected, not {words[0]!r}")
    hypervisor.store_log = words[0] == "on"
    return OK


def _print(hypervisor: Hypervisor, words: list[str]) -> bytes:
    hypervisor.console.append(f"(XEN) xenstore: {words[0][:200]}")
    return OK


def _quota(hypervisor: Hypervisor, words: list[str]) -> bytes:
    if not words:
        limits = hypervisor.store.unprivileged_limits
        rows = [f"{name:<17}: {getattr(limits, ours):>8} {text}\n" for name, ours, text in QUOTAS]
        return f"Quota settings:\n{''.join(rows)}\0".encode()
    if words[0] == "set":
        return _set_quota(hypervisor, words[1:])
    if len(words) != 1:
        raise StoreError(errno.EINVAL, "quota takes nothing, a domid, or set with a name and a value")
    return _quota_of(hypervisor, words[0])


def _set_quota(hypervisor: Hypervisor, words: list[str]) -> bytes:
    ours = {name: ours for name, ours, _ in QUOTAS}
    if len(words) != 2 or words[0] not in ours or not 1 <= (value := atoi(words[1])) <= INT_MAX:
        raise StoreError(errno.EINVAL, f"not a quota and its value: {words}")
    name = words[0]
    if value > (most := AT_MOST.get(name, value)):
        text = f"quota {name} is at most {most}, not {value}"
        hypervisor.console.append(f"(XEN) xenstore: {text}")  # an ERROR says no more than EINVAL
        raise StoreError(errno.EINVAL, text)
    hypervisor.store.set_limit(ours[name], value)
    return OK


def _quota_of(hypervisor: Hypervisor, word: str) -> bytes:
    domid = DomId(atoi(word))
    if not hypervisor.store.is_introduced(domid):
        raise StoreError(errno.ENOENT, f"domain {domid} is not introduced")
    share = hypervisor.store.usage(domid)
    counts = {"nodes": share.nodes, "watches": share.watches, "transactions": share.transactions,
              "memory": share.bytes}  # fmt: skip
    rows = [f"{name:<16}: {count:>8}\n" for name, count in counts.items()]
    return f"Domain {domid}:\n{''.join(rows)}\0".encode()


def _help(hypervisor: Hypervisor, words: list[str]) -> bytes:
    return "".join(f"{name}\t{command.usage}\n" for name, command in COMMANDS.items()).encode() + b"\0"


COMMANDS = {
    "check": Command(_check, "", changes=False),
    "log": Command(_log, "on|off", 1, 1),
    "print": Command(_print, "<string>", 1, 1),
    "quota": Command(_quota, "[set <name> <val>|<domid>]", 0, 3),
    "help": Command(_help, ""),
}
