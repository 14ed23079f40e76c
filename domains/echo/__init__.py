"""The echo device: the smallest pair of ends there is, and what `hvd bench` measures a ring with."""

from hvd.domains.device import DeviceDriver
from hvd.domains.echo.backend import EchoBackend
from hvd.domains.echo.frontend import EchoFrontend
from hvd.transport.protocols import echo


def exercise(frontend: EchoFrontend) -> None:
    """A message comes back as it went."""
    message = bytes(range(echo.MESSAGE_SIZE))
    answer = frontend.call(message)
    if answer != message:
        raise AssertionError(f"{message!r} came back as {answer!r}")


DRIVER = DeviceDriver("echo", EchoFrontend, EchoBackend, echo.__doc__, exercise)
