"""Attacks between a disk's two ends: frontends on the driver domain and on images, backends on guests."""

from __future__ import annotations

import secrets
import signal
import struct
from pathlib import Path

from hvd.toolstack.attacks.arena import DEADLINE_S, Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Attempt, Seen
from hvd.toolstack.attacks.broker import undefended
from hvd.toolstack.attacks.layers import attacks_on
from hvd.toolstack.attacks.pairs import NAIVE, STORM, on_ring
from hvd.toolstack.cluster import Domain, DomainState
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy
from hvd.transport.xenbus_state import XenbusState

IMAGE_BYTES = 1 << 20
FRONTEND, BACKEND = "hvd.domains.hostile.frontend:main", "hvd.domains.hostile.backend:main"
SECTORS = 8
STATE, CLOSED = "device/vbd/51712/state", str(int(XenbusState.CLOSED))
BEYOND = struct.pack("<BBHxxxxQQ", 1, 1, 0, 1, SECTORS).hex()
"""A blkif WRITE of one segment at the sector behind the last."""
FOREVER = RestartPolicy(limit=0)


def _disk(image: Path, backend: str, mode: str = "w", **keys: str) -> DeviceConfig:
    return DeviceConfig("vbd", 51712, backend, {"params": str(image), "mode": mode, "dev": "xvda"}, keys)


def _frontend(body: str, mode: str = "w") -> Attempt:
    """The driver domain must be the one it was and serve another guest, whose image nobody else has written."""

    def attempt(arena: Arena) -> Seen:
        driver = arena.add(DomainConfig("driver", "hvd:driver_domain", driver_domain=True, restart=FOREVER))
        image, other = arena.home / "hostile.img", arena.home / "other.img"
        image.write_bytes(bytes(IMAGE_BYTES))
        other.write_bytes(secrets.token_bytes(512) * (IMAGE_BYTES // 512))
        before = other.read_bytes()
        attacker = arena.add(DomainConfig(
            "frontend", FRONTEND, args=[body], devices=[_disk(image, "driver", mode)], on_crash="preserve",
            on_poweroff="preserve"), wait=False)  # fmt: skip
        attacker.wait_state(DomainState.PRESERVED, deadline_s=2 * DEADLINE_S)
        arena.add(DomainConfig("other", "hvd:idle", devices=[_disk(other, "driver")])).wait_ready(DEADLINE_S)
        wrong = _wrong(driver, before != other.read_bytes())
        if mode == "r" and image.read_bytes() != bytes(IMAGE_BYTES):
            wrong = "its read-only image was written"
        told = attacker.last_death
        return harm(f"{wrong}; {told}") if wrong or told != "poweroff" else harmless(
            "the driver domain is the same and serves another guest"
        )

    return attempt


def _wrong(driver: Domain, written: bool) -> str:
    if driver.incarnation != 1:
        return f"the driver domain died: {driver.last_death}"
    return "another guest's image was written" if written else ""


def _backend(lie: str) -> Attempt:
    """Each request of the guest's must end once, with an error, and its disk must work when the backend is another."""

    def attempt(arena: Arena) -> Seen:
        driver = arena.add(DomainConfig("liar", BACKEND, args=[lie], driver_domain=True, restart=FOREVER), wait=False)
        image = arena.home / "lied.img"
        image.write_bytes(bytes(IMAGE_BYTES))
        guest = arena.domain("victims.use_disk", wait=False,
                             devices=[_disk(image, "liar", **{"timeout-ms": "300"})])  # fmt: skip
        try:
            told = arena.node(guest, "data/lied-to")
            if lie == "dying":
                arena.until(lambda: arena.read(guest, STATE) == CLOSED, "the device to be taken away")
            driver.kill(signal.SIGKILL)
            return harmless(f"{told}, then {arena.outcome(guest)}")
        except TimeoutError as error:
            return harm(str(error))

    return attempt


def _late(arena: Arena, off: tuple[str, ...]) -> Seen:
    """A guest's block, acknowledged by the successor, must stay what it is whatever the dead backend left running."""
    driver = arena.add(DomainConfig(
        "late", BACKEND, args=["late"], driver_domain=True, sandbox="program", seccomp="eperm", sandbox_off=list(off),
        on_crash="restart", restart=FOREVER), wait=False)  # fmt: skip
    image = arena.home / "late.img"
    image.write_bytes(bytes(IMAGE_BYTES))
    guest = arena.domain("victims.keep_block", wait=False, devices=[_disk(image, "late")])
    told = arena.outcome(guest)
    arena.note_sandbox(driver)
    return harmless(f"the guest {told}") if told == "did found G" else harm(f"the guest {told}: written since")


def _writable(arena: Arena) -> Seen:
    """What the attacker's writes do where they are allowed; it says itself that they are no errors."""
    arena.add(DomainConfig("driver", "hvd:driver_domain", driver_domain=True))
    image = arena.home / "writable.img"
    image.write_bytes(b"y" * IMAGE_BYTES)
    attacker = arena.add(DomainConfig("frontend", FRONTEND, args=["raw_write_to_readonly"],
                                      devices=[_disk(image, "driver")], on_crash="preserve"), wait=False)  # fmt: skip
    attacker.wait_state(DomainState.PRESERVED, deadline_s=2 * DEADLINE_S)
    written = image.read_bytes() != b"y" * IMAGE_BYTES
    return Seen(written, "the image was written" if written else "it was not written")


ATTACKS: list[Attack] = [
    Attack("XSA-155 a double fetch of a disk's segments", "blkback: a request is copied once",
           _frontend("double_fetch"), on_ring(NAIVE, "rings.double_fetch"),
           "the same in a ring's slots, against a backend that looks twice", tries=8),
    Attack("XSA-39 a disk's producer index too far ahead", "blkback: indices are bounded", _frontend("index_jump"),
           on_ring(NAIVE, "rings.jump", 1000), "the same index, against a backend that believes it"),
    Attack("XSA-90 XSA-423 requests out of range and malformed", "blkback: requests are checked",
           _frontend("bad_requests"), undefended("writes_any_sector", BEYOND, SECTORS),
           "against a backend that writes where it is told"),
    Attack("XSA-362 rings and segments that cannot be mapped", "blkback: a refusal is the frontend's fault",
           _frontend("unmappable"), undefended("takes_a_refusal_for_a_bug", -3), "against one that has no answer"),
    Attack("writing a read-only disk", "blkback: the image is open read-only", _frontend("raw_write_to_readonly", "r"),
           _writable, "on a disk that is writable"),
    Attack("XSA-350 a frontend that comes and goes", "blkback: a connection is an object", _frontend("reconnects"),
           undefended("lets_go_of_what_is_in_use", 200), "against a backend that frees a ring in use"),
    Attack("garbage in a disk's XenStore keys", "blkback: keys are parsed", _frontend("garbage_keys"),
           undefended("believes_a_key", "seven"), "against a backend that believes them"),
    *(Attack(f"{what} of a backend", "blkfront: ids are its own", _backend(lie),
             undefended("believes_responses", *ids), "against a frontend that believes them")
      for what, lie, ids in (("invented answers", "invented", (1001,)), ("repeated answers", "repeated", (1, 1)))),
    Attack("XSA-465 a device that is taken away before it is back", "blkfront: it has no ring until it is attached",
           _backend("dying"), undefended("forgets_that_it_resumed", 2), "against one that stops what it has not"),
    Attack("XSA-391 an event storm of a backend", "event channels: events are merged", _backend("storming"),
           undefended("reads_every_byte", STORM), "against a pipe with a byte for each event"),
    *attacks_on("I/O of a dead incarnation", ("pid",), _late, also_off=("cgroups",)),
    Attack("XSA-39 an answer index of a backend too far ahead", "blkfront: indices are bounded", _backend("jumping"),
           on_ring(NAIVE, "rings.jump", 5000), "the same index, against an end that believes it"),
]  # fmt: skip
