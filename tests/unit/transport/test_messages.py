"""The declaration of the hypercalls itself."""

import pytest

from hvd.transport.codec import BadMessage, decode
from hvd.transport.messages import HYPERCALLS, hypercall

XEN = {
    "SchedShutdown": 29 << 8 | 2, "SchedWatchdog": 29 << 8 | 6, "SetTimer": 15 << 8, "ConsoleIo": 18 << 8,
    "XenVersion": 17 << 8, "Multicall": 13 << 8, "EvtchnAllocUnbound": 32 << 8 | 6, "EvtchnBindInterdomain": 32 << 8,
    "EvtchnBindVirq": 32 << 8 | 1, "EvtchnClose": 32 << 8 | 3, "EvtchnSend": 32 << 8 | 4, "EvtchnStatus": 32 << 8 | 5,
    "EvtchnReset": 32 << 8 | 10, "GnttabMap": 20 << 8, "GnttabUnmap": 20 << 8 | 1, "GnttabCopy": 20 << 8 | 5,
    "DomctlCreate": 36 << 8 | 1, "DomctlDestroy": 36 << 8 | 2, "DomctlPause": 36 << 8 | 3, "DomctlUnpause": 36 << 8 | 4,
}
"""Those that Xen has, by its numbers (reference: public/xen.h and the operations' own headers)."""


@pytest.mark.parametrize("name", XEN)
def test_what_xen_has_carries_xens_number(name):
    assert [number for number, kind in HYPERCALLS.items() if kind.__name__ == name] == [XEN[name]]


def test_every_message_knows_its_number_and_says_what_it_does():
    for number, kind in HYPERCALLS.items():
        assert vars(kind)["NUMBER"] == number
        assert kind.__doc__


def test_every_field_of_every_message_can_be_checked():
    for kind in HYPERCALLS.values():
        with pytest.raises(BadMessage, match=f"{kind.__name__} takes"):
            decode(kind, None, kind.__name__)


def test_two_messages_cannot_share_a_number():
    with pytest.raises(ValueError, match=r"Other and XenVersion share number 0x1100"):
        hypercall(0x1100)(type("Other", (), {}))
