"""The echo device: the smallest pair of ends there is, and what `hvd bench` measures a ring with."""

from hvd.domains.device import DeviceDriver
from hvd.domains.echo.backend import EchoBackend
from hvd.domains.echo.frontend import EchoFrontend

DRIVER = DeviceDriver("echo", EchoFrontend, EchoBackend)
