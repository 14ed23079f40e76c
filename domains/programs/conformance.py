"""The guest of the conformance suite: does to its device what is typed on its console, and prints what came of it.

Arguments: the device's kind. A line `NUMBER COMMAND` is answered by `#NUMBER: done`, or what was wrong:

    exercise      a round of the device's own traffic, as its driver supplies it
    undeclared    the keys that the two ends have written and the driver's prose does not name
    ring          publish empty rings of the suite's own instead of the frontend's
    jump          let those rings' producer indices claim more requests than there is room for
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from hvd.domains.device import Frontend, Keys
from hvd.domains.drivers import find_driver
from hvd.domains.grants import SharedPages
from hvd.domains.guest import Guest
from hvd.transport.channels import Endpoint
from hvd.transport.rings import RING_CHECKS, FrontRing
from hvd.transport.xenbus_state import XenbusState

AUTO_READY = False
CONSOLE_TIMEOUT_S = 30.0
DONE = "done"
WITHOUT_PROSE = frozenset(
    {"frontend", "frontend-id", "backend", "backend-id", "handle", "state", "online", "domain", "error"}
)
"""What every device has. Keys that begin with hvd- are the handshake's."""
SLOT = 64
"""An empty ring looks the same whatever the size of its slots."""
JUMPED = (1 << 31).to_bytes(4, "little")


class Subject:
    """The device under test, from inside its guest."""

    def __init__(self, guest: Guest, kind: str) -> None:
        self._store = guest.runtime.store
        self._runtime = guest.runtime
        self._driver = find_driver(kind)
        self._frontend: Frontend = guest.device(kind)
        (devid,) = self._store.directory(f"device/{kind}")
        self._path = f"device/{kind}/{devid}"
        self._backend_path = self._store.read_text(f"{self._path}/backend")
        self._given = set(self._frontend.keys)
        self._pages: list[SharedPages] = []
        self._endpoints: list[Endpoint] = []
        self.commands: dict[str, Callable[[], str]] = {
            "exercise": self._exercise, "undeclared": self._undeclared, "ring": self._ring, "jump": self._jump,
        }  # fmt: skip

    def _exercise(self) -> str:
        if self._driver.exercise is None:
            return f"driver {self._driver.kind} supplies no exercise"
        self._driver.exercise(self._frontend)
        return DONE

    def _undeclared(self) -> str:
        """Names end in a number where there are several: ring-ref0, declared as ring-ref%u."""
        words = set(re.findall(r"[a-zA-Z0-9%_-]+", self._driver.prose))
        written = {*self._store.directory(self._path), *self._store.directory(self._backend_path)}
        own = {key for key in written - WITHOUT_PROSE - self._given if not key.startswith("hvd-")}
        return " ".join(sorted(key for key in own if not {key, re.sub(r"\d+$", "%u", key)} & words)) or DONE

    def _ring(self) -> str:
        """Not the frontend's own ring, so that the frontend itself keeps its word."""
        keys = self._store.read_all(self._path)
        refs = [key for key in keys if key.endswith("ring-ref")]
        channels = [key for key in keys if key.startswith("event-channel")]
        if not refs or not channels:
            return "no ring-ref and event-channel"
        ours: Keys = {}
        for key in refs:
            self._pages.append(self._runtime.grants.share(self._frontend.backend, 1))
            FrontRing(self._pages[-1].view, SLOT, SLOT).init()
            ours[key] = str(self._pages[-1].ref)
        for key in channels:
            port, endpoint = self._runtime.alloc_unbound(self._frontend.backend, lambda: None)
            self._endpoints.append(endpoint)
            ours[key] = str(port)
        ours |= {
            RING_CHECKS: "0",
            "hvd-session": f"{self._runtime.incarnation}.ring",
            "state": str(int(XenbusState.INITIALISED)),
        }
        self._store.write_all(self._path, ours)
        return DONE

    def _jump(self) -> str:
        for pages in self._pages:
            pages.view[: len(JUMPED)] = JUMPED
        for endpoint in self._endpoints:
            endpoint.notify()
        return DONE


def main(guest: Guest) -> None:
    store = guest.runtime.store
    store.watch("console/tty", lambda _: None)
    guest.runtime.wait_until(lambda: bool(store.read_text("console/tty")), "a console", CONSOLE_TIMEOUT_S)
    subject = Subject(guest, guest.args[0])
    guest.ready()
    for line in sys.stdin:
        number, _, command = line.strip().partition(" ")
        try:
            answer = subject.commands[command]()
        except Exception as error:  # noqa: BLE001 - whatever a driver's exercise raises is the answer
            answer = f"{type(error).__name__}: {error}"
        print(f"#{number}: {answer}")
