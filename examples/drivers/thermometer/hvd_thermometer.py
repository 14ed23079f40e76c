"""The thermometer: a sensor's temperature, now or the highest that this backend has seen.

A request is one byte, the command: 0 now, 1 highest. Its answer is 8 bytes, little endian: whether the sensor could be
read, three of padding, millidegrees Celsius.
Backend keys: `sensor`, a file that holds the number, as those below /sys/class/thermal do.
Frontend keys: `ring-ref`, `event-channel`.
"""

import errno
import struct
from pathlib import Path

from hvd.domains.device import DeviceDriver
from hvd.domains.ring_device import RingBackend, RingFrontend
from hvd.transport.errors import PeerFault

REQUEST, ANSWER = struct.Struct("<B"), struct.Struct("<?xxxi")
NOW, HIGHEST = 0, 1


class Thermometer(RingFrontend):
    """What a guest gets from `guest.device("thermometer")`: degrees Celsius, or OSError."""

    REQUEST_SIZE, RESPONSE_SIZE = REQUEST.size, ANSWER.size

    def now(self):
        return self._ask(NOW)

    def highest(self):
        return self._ask(HIGHEST)

    def _ask(self, command):
        measured, millidegrees = ANSWER.unpack(self.call(REQUEST.pack(command)))
        if not measured:
            raise OSError(errno.EIO, "the sensor cannot be read")
        return millidegrees / 1000


class Sensor(RingBackend):
    """What a driver domain runs for each thermometer of a guest."""

    REQUEST_SIZE, RESPONSE_SIZE = REQUEST.size, ANSWER.size

    def features(self):
        self._highest = self._measure()
        return {}

    def answer(self, untrusted_request):
        (command,) = REQUEST.unpack(untrusted_request)
        if command not in (NOW, HIGHEST):
            raise PeerFault(f"no command {command}")
        try:
            now = self._measure()
        except (OSError, ValueError):
            return ANSWER.pack(False, 0)
        self._highest = max(self._highest, now)
        return ANSWER.pack(True, self._highest if command == HIGHEST else now)

    def _measure(self):
        return int(Path(self.keys["sensor"]).read_text())


def exercise(thermometer):
    """A round of traffic for the conformance suite."""
    assert thermometer.now() <= thermometer.highest()


DRIVER = DeviceDriver("thermometer", Thermometer, Sensor, __doc__, exercise)
