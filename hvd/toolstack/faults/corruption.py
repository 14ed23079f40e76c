"""Faults of shared pages: the hypervisor, which holds every page, flips bits of rings' control words and of data."""

from __future__ import annotations

import errno
import random
from contextlib import suppress
from dataclasses import replace

from hvd.toolstack.cluster import Domain
from hvd.toolstack.faults.fault import BadFault, Effect, Fault, Order, Parameter, Seen
from hvd.toolstack.faults.held import HeldFault
from hvd.toolstack.faults.ring_witnesses import RingWitness, witness_of
from hvd.transport import messages as m
from hvd.transport.faults import ControlWord, FaultKind, RingKind, words_of
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0, DomId

STOPPED_MS = 500
"""Shorter than a heartbeat: nobody is to be taken for dead. The other end has been rung, and looks long before."""
ANY = len(RingKind) + 1
"""The parameter `ring`: the seed chooses among those that the domain has."""
RING = "whose word it is: 1 device, 2 console, 3 store, 4 any of those that it has; 0: the word's, else a device's"
RINGS = ("", *(kind.name.lower() for kind in RingKind), "any")


def _words() -> str:
    kinds = {kind: ", ".join(f"{word.value} {word.title}" for word in words_of(kind)) for kind in RingKind}
    return "; ".join(f"of a {kind.name.lower()} ring {text}" for kind, text in kinds.items())


class CorruptRing(HeldFault):
    """One of the ring's ends must say that it was broken.

    A domain whose word it is may be stopped meanwhile: it would write it anew, perhaps before the other end has looked.
    """

    def __init__(self, order: Order, victim: Domain) -> None:
        super().__init__(order, victim, FaultKind.CORRUPT_RING, _broken)
        self.word: ControlWord | None = None
        self.ends: RingWitness | None = None
        self._candidates = _candidates(order)
        self._stops: list[tuple[DomId, int]] = []

    def begin(self) -> None:
        *others, last = self._candidates
        for word in others:
            try:
                self._begin(word)
            except HypercallError as error:
                if error.errno != errno.ENOENT:  # it has no such ring
                    raise
            else:
                return
        self._begin(last)

    def _begin(self, word: ControlWord) -> None:
        self.word = word
        self.order = replace(self.order, parameters={"amount": int(word)})
        self.ends = witness_of(word.ring, self.order.cluster, self.victim)
        try:
            for dom in self._owners(word):
                stop = m.FaultBegin(dom, FaultKind.HANG, STOPPED_MS, self.order.seed)
                self._stops.append((dom, self.order.cluster.call(stop)))
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

    def _owners(self, word: ControlWord) -> list[DomId]:
        """Who writes the word and does not look before it does: the victim, or whoever hosts its devices' backends.

        Both ends of a console look at theirs, and so does XenStore's end.
        """
        if word in (ControlWord.REQ_PROD, ControlWord.STORE_REQ_PROD, ControlWord.STORE_RSP_CONS):
            return [self.victim.domid]
        if word is not ControlWord.RSP_PROD:
            return []
        infos = self.order.cluster.infos()
        hosts = {device["backend"] for device in infos[self.victim.domid].devices}
        return [info.domid for info in infos.values() if info.name in hosts and info.domid != DOM0]


def _candidates(order: Order) -> list[ControlWord]:
    """The words that it may be, the first of a ring that the domain has is it. BadFault: no such word of that ring."""
    chosen = random.Random(order.seed)
    ring, amount = order.parameters["ring"], order.parameters["amount"]
    if amount:
        word = ControlWord(amount)
        if ring not in (0, ANY, word.ring):
            words = ", ".join(f"{each.value} {each.title}" for each in words_of(RingKind(ring)))
            raise BadFault(f"amount: expected a word of a {RINGS[ring]} ring ({words}), found {amount}")
        return [word]
    kinds = [RingKind(ring or RingKind.DEVICE)] if ring != ANY else chosen.sample(list(RingKind), len(RingKind))
    return [chosen.choice(words_of(kind)) for kind in kinds]


def _broken(effect: HeldFault) -> Seen:
    assert isinstance(effect, CorruptRing)
    if effect.word is None or effect.ends is None:
        return Seen(None, "not injected")
    what = f"{effect.word.title} of a {effect.word.ring.name.lower()} ring"
    found = effect.ends.found()
    return Seen(True if found else None, f"{what}: {'; '.join(found) or 'no end of it has found it broken'}")


def flipped(effect: HeldFault) -> Seen:
    """Read back by the broker; that it does harm, only whoever has checksums of the data can say."""
    bits = effect.counts().get("bits flipped", 0)
    return Seen(True if bits else None, f"{bits} bits read back flipped")


def _corrupt_pages(order: Order) -> list[Effect]:
    return [HeldFault(order, victim, FaultKind.CORRUPT_PAGE, flipped) for victim in order.victims]


CORRUPTION_FAULTS = (
    Fault(
        str(FaultKind.CORRUPT_RING),
        "a bit of a ring's control word is flipped: any, where an end can tell, else one beyond any index",
        "the ends of the ring: of a device in XenStore, of a console in dmesg or its log, of XenStore in broker.log",
        "one finds a peer's fault and closes the device or the console, nothing else, until the other has another "
        "incarnation; or XenStore's ring, until its client reconnects",
        lambda order: [CorruptRing(order, victim) for victim in order.victims],
        parameters=(
            Parameter("amount", f"the word: {_words()}; 0: the seed chooses", 0, 0, len(ControlWord)),
            Parameter("ring", RING, 0, 0, ANY, RINGS),
        ),
    ),
    Fault(
        str(FaultKind.CORRUPT_PAGE), "bits of pages that it has granted are flipped: data, not rings",
        "the pages, read back", "nobody crashes; the workload's checksums tell where data was under way",
        _corrupt_pages, parameters=(Parameter("amount", "bits", 64, 1, 4096),),
    ),
)  # fmt: skip
