"""Another process that stands still while it is looked at: its threads, registers, mappings and memory.

It may be hostile: what it says is bounded and copied, never followed. Whoever looks may hang in it (a thread that waits
for its vfork cannot be stopped), and has to be killed then. It goes on when the looking thread ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hvd.machine import memory_map
from hvd.machine.elf_core import NT_PRSTATUS, PAGE, Thread
from hvd.machine.memory_map import Mapping
from hvd.transport import _native
from hvd.transport.fault_notice import FaultNotice

_PAGEMAP_TOUCHED = 0x40
"""The last byte of a page's eight says whether it is present or swapped out in its two highest bits."""
GONE = "it ended before its core was written"
_REFUSED = (
    "the host does not let it be traced (is it being debugged, or is kernel.yama.ptrace_scope above 1? Where the "
    "machine is not root's only a domain with a coredump action in its configuration lets itself be)"
)

Status = dict[bytes, bytes]
"""The lines of /proc/PID/task/TID/status."""


class NoCore(Exception):
    """The process cannot be looked at, or not any more; the text says why."""


class TracedProcess:
    """Stopped by its construction, for as long as the thread that made it lives. NoCore when that cannot be."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.proc = Path(f"/proc/{pid}")
        try:
            self._memory = os.open(self.proc / "mem", os.O_RDONLY | os.O_CLOEXEC)
            self._pagemap = os.open(self.proc / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
            self._tids = self._stop_threads()
        except (FileNotFoundError, ProcessLookupError):
            raise NoCore(GONE) from None
        except PermissionError:
            raise NoCore(_REFUSED) from None

    # ---- threads -----------------------------------------------------------------------------------------------------

    def threads(self, fault: FaultNotice | None) -> Iterator[tuple[int, Thread, bool]]:
        """(tid, thread, whether it met the fault). That one is first: debuggers take the first for the one to blame."""
        statuses = {tid: self.status(tid) for tid in self._tids}
        blamed = fault.untrusted_thread if fault is not None else -1
        faulting = next((tid for tid, status in statuses.items() if _innermost(status, b"NSpid") == blamed), None)
        for tid in sorted(self._tids, key=lambda tid: (tid != faulting, tid != self.pid, tid)):
            registers = _native.ptrace_registers(tid, NT_PRSTATUS)
            if fault is not None and tid == faulting:
                context = self.read(fault.untrusted_context, _native.FAULT_CONTEXT_BYTES)
                if len(context) == _native.FAULT_CONTEXT_BYTES:
                    registers = _native.restore_fault(registers, context)
            number = fault.signal if fault is not None else 0
            yield tid, _thread(statuses[tid], number, registers), tid == faulting

    def status(self, tid: int) -> Status:
        """Empty when it has gone."""
        try:
            lines = (self.proc / "task" / str(tid) / "status").read_bytes().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return {}
        return {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}

    def _stop_threads(self) -> list[int]:
        """More threads may be made until all stand still."""
        standing: list[int] = []
        while fresh := [tid for tid in self._thread_ids() if tid not in standing]:
            asked = {tid for tid in fresh if self._is_asked_to_stop(tid)}
            if not asked:
                break  # those that are left are dead
            while asked:
                tid, stands = _native.ptrace_wait()
                asked.discard(tid)
                standing = [*standing, tid] if stands else [other for other in standing if other != tid]
        if not standing:
            raise NoCore(GONE)
        return standing

    def _thread_ids(self) -> list[int]:
        return [int(entry.name) for entry in (self.proc / "task").iterdir()]

    def _is_asked_to_stop(self, tid: int) -> bool:
        try:
            _native.ptrace_stop(tid)
        except ProcessLookupError:
            return False
        except PermissionError:
            if self.status(tid).get(b"State", b"Z")[:1] in b"ZX":
                return False
            raise
        return True

    # ---- memory ------------------------------------------------------------------------------------------------------

    def mappings(self) -> list[Mapping]:
        """By address."""
        try:
            text = (self.proc / "smaps").read_bytes()
        except FileNotFoundError:  # a kernel without it: everything is taken for touched
            text = (self.proc / "maps").read_bytes()
        mappings = memory_map.parse(text.splitlines())
        if not mappings:
            raise NoCore(GONE)
        return mappings

    def read(self, address: int, size: int) -> bytes:
        """Its memory from here; fewer bytes, whole pages of them, where it cannot be read on. NoCore if it is gone."""
        try:
            data = os.pread(self._memory, size, address)
        except (OSError, OverflowError):  # not mapped, behind a file's end, or no address at all
            return b""
        if not data:
            raise NoCore(GONE)
        if len(data) < size:
            data += self.read(address + len(data), size - len(data))
        return data if len(data) == size else data[: len(data) // PAGE * PAGE]

    def is_touched(self, start: int, size: int) -> bool:
        """Whether any of these private pages was ever touched; to read the others would only make them be."""
        entries = os.pread(self._pagemap, size // PAGE * 8, start // PAGE * 8)
        return max(entries[7::8], default=0) >= _PAGEMAP_TOUCHED


def _thread(status: Status, signal: int, registers: bytes) -> Thread:
    """Its numbers are those of its own PID namespace, which stand in its memory and which the kernel's cores have."""
    in_namespace = len(status.get(b"NSpid", b"").split()) > 1
    return Thread(
        tid=_innermost(status, b"NSpid"),
        parent=0 if in_namespace else int(status.get(b"PPid", b"0")),
        group=_innermost(status, b"NSpgid"),
        session=_innermost(status, b"NSsid"),
        signal=signal,
        pending=int(status.get(b"SigPnd", b"0"), 16),
        blocked=int(status.get(b"SigBlk", b"0"), 16),
        registers=registers,
    )


def _innermost(status: Status, name: bytes) -> int:
    return int((status.get(name) or b"0").split()[-1])
