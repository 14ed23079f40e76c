"""A network's uplink: a TAP device of the host as one more port of the switch.

It is there from the first vif of the network that attaches to the driver domain's end. The hypervisor has opened the
device, and holds it while driver domains come and go; packets go through transport/native/uplink.hpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvd.domains.net.policy import Policy
from hvd.domains.runtime import Runtime
from hvd.transport._native import NetUplink
from hvd.transport.protocols.net import UPLINK

if TYPE_CHECKING:
    from hvd.domains.net.switch import VifSwitch


class Uplink:
    """The port, under the rules that all vifs of its network have."""

    def __init__(self, runtime: Runtime, switch: VifSwitch, network: str, policy: Policy | None) -> None:
        """HypercallError when the hypervisor has no device for it."""
        descriptor, mtu = runtime.open_uplink(network)
        self._switch = switch
        self.port = NetUplink(
            switch=switch.native, fd=descriptor, network=switch.network(network), party=switch.party(UPLINK), mtu=mtu,
            rules=switch.table(policy),
        )  # fmt: skip
        runtime.watch_fd(descriptor, self._serve)

    def _serve(self) -> None:
        self.port.serve()
        self._switch.settle()
