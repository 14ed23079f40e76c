"""Faults of shared pages: the hypervisor, which holds every page, flips bits of rings' control words and of data."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

from hvd.toolstack.cluster import Domain
from hvd.toolstack.faults.fault import Effect, Fault, Order, Parameter, Seen
from hvd.toolstack.faults.held import HeldFault
from hvd.transport import messages as m
from hvd.transport.faults import ControlWord, FaultKind
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0, DomId

STOPPED_MS = 2000
WORDS = " or ".join(f"{word.value} {word.name.lower()}" for word in ControlWord)


class CorruptRing(HeldFault):
    """The other end must say that the ring was broken: what each end wrote to `error` is compared.

    Whose word it is is stopped meanwhile: it would write it anew, perhaps before the other end has looked.
    """

    def __init__(self, order: Order, victim: Domain) -> None:
        word = order.parameters["amount"] or random.Random(order.seed).choice(list(ControlWord))
        super().__init__(replace(order, parameters={"amount": int(word)}), victim, FaultKind.CORRUPT_RING, _broken)
        self._word = ControlWord(word)
        self._stops: list[tuple[DomId, int]] = []
        self.errors: dict[str, str] = {}

    def begin(self) -> None:
        self.errors = self.read_errors()
        for dom in self._owners():
            stop = m.FaultBegin(dom, FaultKind.HANG, STOPPED_MS, self.order.seed)
            self._stops.append((dom, self.order.cluster.call(stop)))
        try:
            super().begin()
        except BaseException:
            self._let_go()
            raise

    def look(self) -> Seen:
        seen = super().look()
        if seen.activated:
            self._let_go()
        return seen

    def undo(self) -> None:
        self._let_go()
        super().undo()

    def _let_go(self) -> None:
        while self._stops:
            dom, number = self._stops.pop()
            with suppress(HypercallError):  # it has died meanwhile
                self.order.cluster.call(m.FaultEnd(dom, number))

    def _owners(self) -> list[DomId]:
        """Who writes the word: the victim, or whoever hosts the backends of its devices."""
        infos = self.order.cluster.infos()
        if self._word is ControlWord.REQ_PROD:
            return [self.victim.domid]
        hosts = {device["backend"] for device in infos[self.victim.domid].devices}
        return [info.domid for info in infos.values() if info.name in hosts and info.domid != DOM0]

    def read_errors(self) -> dict[str, str]:
        """By path: both ends of each of its devices."""
        infos = self.order.cluster.infos()
        backends = {info.name: info.domid for info in infos.values()}
        found = {}
        for device in infos[self.victim.domid].devices if self.victim.domid in infos else ():
            kind, devid, backend = device["kind"], device["devid"], backends.get(device["backend"], 0)
            for path in (
                f"/local/domain/{self.victim.domid}/device/{kind}/{devid}/error",
                f"/local/domain/{backend}/backend/{kind}/{self.victim.domid}/{devid}/error",
            ):
                found[path] = self._read(path)
        return found

    def _read(self, path: str) -> str:
        try:
            return bytes(self.order.cluster.call(m.StoreRead(0, path))).decode(errors="replace")
        except HypercallError:
            return ""


def _broken(effect: HeldFault) -> Seen:
    assert isinstance(effect, CorruptRing)
    new = {path: text for path, text in effect.read_errors().items() if text and text != effect.errors.get(path)}
    evidence = "; ".join(f"{path}: {text}" for path, text in new.items())
    return Seen(True if new else None, evidence or "no end of its devices has found a broken ring")


def flipped(effect: HeldFault) -> Seen:
    """Read back by the broker; that it does harm, only whoever has checksums of the data can say."""
    bits = effect.counts().get("bits flipped", 0)
    return Seen(True if bits else None, f"{bits} bits read back flipped")


def _corrupt_pages(order: Order) -> list[Effect]:
    return [HeldFault(order, victim, FaultKind.CORRUPT_PAGE, flipped) for victim in order.victims]


CORRUPTION_FAULTS = (
    Fault(
        str(FaultKind.CORRUPT_RING),
        "a bit of a ring's control word is flipped: any, where its ends keep checks, else one beyond any index",
        "the ends of the device, in XenStore",
        "one finds a peer's fault and closes the device, nothing else, until the other has another incarnation",
        lambda order: [CorruptRing(order, victim) for victim in order.victims],
        parameters=(Parameter("amount", f"the word: {WORDS}; 0: the seed chooses", 0, 0, len(ControlWord)),),
    ),
    Fault(
        str(FaultKind.CORRUPT_PAGE), "bits of pages that it has granted are flipped: data, not rings",
        "the pages, read back", "nobody crashes; the workload's checksums tell where data was under way",
        _corrupt_pages, parameters=(Parameter("amount", "bits", 64, 1, 4096),),
    ),
)  # fmt: skip
