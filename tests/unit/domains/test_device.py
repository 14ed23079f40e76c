"""The contract of devices: numbers from a peer, handlers that close a device instead of a domain."""

from typing import Any

import pytest

from hvd.domains.device import Backend, number_in
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.ids import DomId


class Nothing(Backend):
    def features(self):
        return {}

    def attach(self, untrusted_keys):
        return {}

    def detach(self):
        pass


@pytest.fixture
def device():
    runtime: Any = None
    return Nothing(runtime, DomId(1), {})


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("007", 7), ("99", 99)])
def test_a_decimal_number_up_to_the_bound_is_taken(text, number):
    assert number_in({"port": text}, "port", 99) == number


@pytest.mark.parametrize(
    "text", ["", "100", "-1", "+1", " 1", "1\n", "1.0", "0x1", "1_0", "\N{SUPERSCRIPT TWO}", "\u0663", "9" * 5000]
)
def test_anything_else_is_the_peers_fault_and_names_the_key(text):
    with pytest.raises(PeerFault, match=r"key port is .*, not a number from 0 to 99") as caught:
        number_in({"port": text}, "port", 99)
    assert len(str(caught.value)) < 300


def test_a_missing_number_is_the_peers_fault():
    with pytest.raises(PeerFault, match="key port is ''"):
        number_in({}, "port", 99)


def test_a_peers_fault_in_a_guarded_handler_closes_the_device(device):
    faults: list[PeerFault] = []
    device.on_fault = faults.append

    def handler():
        raise PeerFault("index")

    device.guarded(handler)()
    assert [str(fault) for fault in faults] == ["index"]


def test_our_own_fault_in_a_guarded_handler_is_not_hidden(device):
    def handler():
        raise LocalError("ours")

    with pytest.raises(LocalError, match="ours"):
        device.guarded(handler)()
