"""Echo devices that break one promise each; the suite must notice every one of them."""

import contextlib
import os
import signal

from hvd.domains.device import DeviceDriver
from hvd.domains.echo import exercise
from hvd.domains.ring_device import RingBackend, RingFrontend
from hvd.transport.errors import HvdError, PeerFault

PROSE = "`ring-ref` `event-channel`"
SIZE = 64


class Front(RingFrontend):
    REQUEST_SIZE = RESPONSE_SIZE = SIZE


class Back(RingBackend):
    REQUEST_SIZE = RESPONSE_SIZE = SIZE

    def answer(self, untrusted_request):
        return untrusted_request


class Corrupting(Back):
    def answer(self, untrusted_request):
        return bytes(SIZE)


class Secretive(Front):
    def publish(self, backend_keys):
        return super().publish(backend_keys) | {"feature-secret": "1"}


class Leaking(Back):
    """Lets go of the port and keeps the pages."""

    def detach(self):
        if self._attached is not None:
            self._attached.pages.clear()
        super().detach()


class Fragile(Back):
    """Takes the first thing that is wrong for the end of the world."""

    def attach(self, untrusted_keys):
        try:
            return super().attach(untrusted_keys)
        except (HvdError, ValueError):
            os.kill(os.getpid(), signal.SIGKILL)


class Trusting(Back):
    """Takes garbage for a sign that it should wait."""

    def attach(self, untrusted_keys):
        try:
            return super().attach(untrusted_keys)
        except (HvdError, ValueError):
            return {}


class Unguarded(Back):
    """A ring that jumps ends its domain."""

    def guarded(self, handler):
        return handler

    def _serve(self):
        ring, endpoint = self._ring, self._endpoint
        while ring and endpoint and (message := ring.pop()) is not None:
            ring.push(message)
            endpoint.notify()


class Blind(Unguarded):
    """Lets a ring that jumps be."""

    def _serve(self):
        with contextlib.suppress(PeerFault):
            super()._serve()


corrupting = DeviceDriver("corrupting", Front, Corrupting, PROSE, exercise)
silent = DeviceDriver("silent", Front, Back, PROSE)
secretive = DeviceDriver("secretive", Secretive, Back, PROSE, exercise)
leaking = DeviceDriver("leaking", Front, Leaking, PROSE, exercise)
fragile = DeviceDriver("fragile", Front, Fragile, PROSE, exercise)
trusting = DeviceDriver("trusting", Front, Trusting, PROSE, exercise)
unguarded = DeviceDriver("unguarded", Front, Unguarded, PROSE, exercise)
blind = DeviceDriver("blind", Front, Blind, PROSE, exercise)
