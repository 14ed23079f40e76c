"""The network device: a guest's vif, and the switch of the driver domain that serves it."""

from hvd.domains.device import DeviceDriver
from hvd.domains.net.backend import NetBackend
from hvd.domains.net.frontend import NetFrontend
from hvd.transport.protocols import net

LOOPBACK_ASSISTANT = bytes.fromhex("cf0000000000")
"""Where a station of an Ethernet asks for its own frames (its configuration testing protocol, type 0x9000)."""
DEADLINE_S = 30.0


def exercise(vif: NetFrontend) -> None:
    """What is sent to the loopback assistant comes back: packets of one slot and of several."""
    for number, size in enumerate((60, 1514)):
        frame = (LOOPBACK_ASSISTANT + vif.mac + b"\x90\x00" + bytes([number]) * size)[:size]
        vif.send(frame)
        while (received := vif.receive(DEADLINE_S)) != frame:
            if received is None:
                raise AssertionError(f"a packet of {size} bytes did not come back")


DRIVER = DeviceDriver("vif", NetFrontend, NetBackend, net.__doc__ or "", exercise)
