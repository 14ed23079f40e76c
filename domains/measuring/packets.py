"""Packets of a domain's vif, sent, received and answered while it is timed."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from hvd.domains.guest import Guest
from hvd.transport.histogram import Histogram, to_text
from hvd.transport.protocols.net import parse_mac

IPV4_UDP = bytes.fromhex("4500003200000000401100000a0000010a000002123456780000")
"""As much of a packet as rules look at; its checksums are nobody's business here."""
BURST = 64
NUMBER_BYTES = 8
"""Of a packet asked with, at its end: an answer to an older one is none."""
RESEND_S = 0.001
FIRST_ANSWER_S = 0.1
ANSWER_S = 30.0
WARM_UP_NS = 200_000_000
"""Of a rate: what it lets through at once is gone by then."""


class Packets:
    """Either end."""

    ORDERS: ClassVar[tuple[str, ...]] = (
        "send_packets", "count_packets", "ping", "ping_over_deaths", "answer_packets",
    )  # fmt: skip

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def send_packets(self, to: str, size: int, for_ns: int) -> dict[str, Any]:
        """As many as go."""
        vif = self._guest.device("vif")
        run = self._packet(vif, to, size) * BURST
        until_ns, sent = time.monotonic_ns() + for_ns, 0
        while time.monotonic_ns() < until_ns:
            vif.send_run(run, size)
            sent += BURST
        return {"sent": sent}

    def count_packets(self, size: int, for_ns: int) -> dict[str, Any]:
        """How many of this size arrive, from the first one on, less what comes in the warm-up."""
        vif = self._guest.device("vif")
        while not vif.discard():
            self._guest.wait(ANSWER_S)
        self._count(vif, WARM_UP_NS)
        begin_ns = time.monotonic_ns()
        count = self._count(vif, for_ns)
        took_ns = time.monotonic_ns() - begin_ns
        return {"received": count, "bytes": count * size, "took_ns": took_ns}

    def _count(self, vif: Any, for_ns: int) -> int:
        until_ns, count = time.monotonic_ns() + for_ns, 0
        while (left := until_ns - time.monotonic_ns()) > 0:
            self._guest.wait(left / 1e9)
            count += vif.discard()
        return count

    def ping(self, to: str, for_ns: int, think_ns: int = 0) -> dict[str, Any]:
        """Round trips, one after the other, from the first answer on.

        The first question is asked again: who still answers what a flood has left on its way drops what it has no room
        for.
        """
        vif = self._guest.device("vif")
        packet, times, number = bytearray(self._packet(vif, to, 64)), Histogram(), 0
        vif.discard()

        def asked(answer_s: float) -> bool:
            nonlocal number
            number += 1
            packet[-NUMBER_BYTES:] = number.to_bytes(NUMBER_BYTES, "big")
            vif.send(packet)
            while (answer := vif.receive(answer_s)) is not None:
                if answer[-NUMBER_BYTES:] == packet[-NUMBER_BYTES:]:
                    return True
            return False

        def call() -> None:
            if not asked(ANSWER_S):
                raise TimeoutError(f"{to} has not answered")

        until_ns = time.monotonic_ns() + int(ANSWER_S * 1e9)
        while not asked(FIRST_ANSWER_S):
            if time.monotonic_ns() > until_ns:
                raise TimeoutError(f"{to} does not answer")
        times.time_calls(call, for_ns, think_ns)
        return {"times": to_text(times)}

    def ping_over_deaths(self, to: str, for_ns: int) -> dict[str, Any]:
        """Round trips, asked again when nothing comes: the times between which nothing came for longest."""
        vif = self._guest.device("vif")
        packet, last_ns = self._packet(vif, to, 64), time.monotonic_ns()
        until_ns, longest = last_ns + for_ns, (last_ns, last_ns)
        while last_ns < until_ns:
            vif.send(packet)
            if vif.receive(RESEND_S) is not None:
                now_ns = time.monotonic_ns()
                longest = max(longest, (last_ns, now_ns), key=lambda gap: gap[1] - gap[0])
                last_ns = now_ns
            elif time.monotonic_ns() > until_ns + int(ANSWER_S * 1e9):
                raise TimeoutError(f"{to} does not answer any more")
        return {"from_ns": longest[0], "to_ns": longest[1]}

    def answer_packets(self) -> dict[str, Any]:
        """From now on whatever comes goes back to whoever sent it."""
        vif = self._guest.device("vif")

        def answer() -> None:
            for packet in vif.receive_many():
                vif.try_send(packet[6:12] + vif.mac + packet[12:])

        vif.discard()
        vif.on_receive = answer
        return {}

    @staticmethod
    def _packet(vif: Any, to: str, size: int) -> bytes:
        return (parse_mac(to) + bytes(vif.mac) + b"\x08\x00" + IPV4_UDP).ljust(size, b"\0")
