"""The thermometer: a sensor's temperature, now or the highest that this backend has seen.

A request is one byte, the command: 0 now, 1 highest. Its answer is 4 bytes: millidegrees Celsius, little endian.
Backend keys: `sensor`, a file that holds the number, as those below /sys/class/thermal do.
Frontend keys: `ring-ref`, `event-channel`.
"""

from __future__ import annotations

import struct
from pathlib import Path

from hvd.domains.device import DeviceDriver, Keys
from hvd.domains.ring_device import RingBackend, RingFrontend
from hvd.transport.errors import PeerFault

REQUEST, ANSWER = struct.Struct("<B"), struct.Struct("<i")
NOW, HIGHEST = 0, 1


class Thermometer(RingFrontend):
    """What a guest gets from `guest.device("thermometer")`."""

    REQUEST_SIZE, RESPONSE_SIZE = REQUEST.size, ANSWER.size

    def now(self) -> float:
        """Degrees Celsius."""
        return self._ask(NOW)

    def highest(self) -> float:
        """Degrees Celsius; a restarted backend begins again."""
        return self._ask(HIGHEST)

    def _ask(self, command: int) -> float:
        millidegrees: int = ANSWER.unpack(self.call(REQUEST.pack(command)))[0]
        return millidegrees / 1000


class Sensor(RingBackend):
    """What a driver domain runs for each thermometer of a guest."""

    REQUEST_SIZE, RESPONSE_SIZE = REQUEST.size, ANSWER.size

    def features(self) -> Keys:
        self._highest = self._measure()
        return {}

    def answer(self, untrusted_request: bytes) -> bytes:
        (command,) = REQUEST.unpack(untrusted_request)
        if command not in (NOW, HIGHEST):
            raise PeerFault(f"no command {command}")
        now = self._measure()
        self._highest = max(self._highest, now)
        return ANSWER.pack(self._highest if command == HIGHEST else now)

    def _measure(self) -> int:
        return int(Path(self.keys["sensor"]).read_text())


def exercise(thermometer: Thermometer) -> None:
    """A round of traffic for the conformance suite."""
    now, highest = thermometer.now(), thermometer.highest()
    if not now <= highest:
        raise AssertionError(f"{now} now, but {highest} at most")


DRIVER = DeviceDriver("thermometer", Thermometer, Sensor, __doc__ or "", exercise)
