"""Domain 0's end of one domain's console: output goes to its log and its pty, what is typed into the pty goes to it."""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress

from hvd.domains.attaching import Attached
from hvd.domains.console.pty import Pty
from hvd.domains.device import Backend, Keys
from hvd.domains.runtime import Runtime
from hvd.transport import log_file
from hvd.transport.channels import Endpoint
from hvd.transport.errors import HvdError, PeerFault
from hvd.transport.ids import DomId, GrantRef, Port
from hvd.transport.protocols.console import ConsoleBack


class ConsoleBackend(Backend):
    """Stays as long as domain 0 and the domain do; rings come and go with the domain's incarnations, the pty does not.

    Each event moves at most one ring's worth, so that a domain that floods its console gets no more than its turn.
    """

    _ring: ConsoleBack | None = None
    _attached: Attached | None = None
    _endpoint: Endpoint | None = None

    def __init__(
        self, runtime: Runtime, frontend: DomId, keys: Keys, pty: Pty, on_fault: Callable[[PeerFault], None]
    ) -> None:
        """`keys`: the domain's `name`. Whoever owns `pty`'s events calls `pump` with them."""
        super().__init__(runtime, frontend, keys)
        self._log = f"{runtime.run_dir}/log/{keys['name']}.log"
        self._held_return = b""
        self._on_fault = on_fault
        self.pty = pty

    def features(self) -> Keys:
        return {"tty": self.pty.path}

    def attach(self, untrusted_keys: Keys) -> Keys:
        ref, port = GrantRef(int(untrusted_keys["ring-ref"])), Port(int(untrusted_keys["port"]))
        self._attached = self.runtime.attach(self.frontend, [ref], [(port, self.serve)])
        self._ring = ConsoleBack(self._attached.pages[0].view)
        ours, self._endpoint = self._attached.ports[0]
        self.runtime.waiter.attach_console(ours, self._ring)
        self._endpoint.notify()  # a predecessor may have died between taking bytes and saying so
        return {}

    def detach(self) -> None:
        """What a dead domain left in its ring is still taken."""
        with suppress(HvdError):
            self._take_output()
        self.pty.listen(on=False)
        if self._attached is not None:
            for port, _ in self._attached.ports:
                self.runtime.waiter.detach_console(port)
            if self._ring is not None:
                self._ring.close()
            self.runtime.detach(self._attached)
        self._ring = self._attached = self._endpoint = None

    def close(self) -> None:
        self.pty.close()

    # ---- moving bytes ------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """The domain has printed, or has read what was typed."""
        try:
            if self._ring is not None:
                self._ring.check()
            self._take_output()
            if not self.pty.listening:
                self._give_input()
        except PeerFault as fault:
            self._on_fault(fault)

    def pump(self, ready: int) -> None:
        """The pty has room, or something was typed into it."""
        if ready & select.EPOLLOUT:
            self.pty.flush()
        if ready & select.EPOLLIN:
            try:
                self._give_input()
            except PeerFault as fault:
                self._on_fault(fault)

    def _take_output(self) -> None:
        if self._ring is None or self._endpoint is None:
            return
        untrusted_output = self._ring.peek()
        if untrusted_output:
            if self._ring.written_down:
                self._held_return = b""
            else:
                self._write_log(untrusted_output)
            self.pty.write(untrusted_output)
            self._ring.consume(len(untrusted_output))
            self._endpoint.notify()

    def _give_input(self) -> None:
        """As much as the ring takes; while it is full typing is no event, and the pty keeps it."""
        if self._ring is None or self._endpoint is None:
            return
        if self._endpoint.peer_closed:  # what is typed now is for its next incarnation
            self.pty.listen(on=False)
            return
        room = self._ring.free
        typed = self.pty.read(room) if room else b""
        if typed:
            self._ring.write(typed)
            self._endpoint.notify()
        self.pty.listen(on=len(typed) < room)

    def _write_log(self, data: bytes) -> None:
        """Lines end as in any text file; a return at the very end waits for what follows it."""
        text = self._held_return + data
        self._held_return = b"\r" if text.endswith(b"\r") else b""
        log_file.append(self._log, text.removesuffix(b"\r").replace(b"\r\n", b"\n"))
