"""The files behind the devices that a driver domain hosts: the hypervisor opens them, some before they are wanted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId
from hvd.transport.messages import PhysdevOpenMedium
from hvd.transport.multicall import Answered

Asked = tuple[DomId, str, int]
"""The frontend's domain, the device's kind and devid."""


class Media:
    """One domain's."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self._ahead: dict[Asked, Answered] = {}

    def open(self, frontend: DomId, kind: str, devid: int) -> int:
        """`Runtime.open_medium`."""
        answered = self._ahead.pop((frontend, kind, devid), None)
        if answered is None:
            _, (descriptor,) = self._call(PhysdevOpenMedium(frontend, kind, devid))
            return int(descriptor)
        if answered.errno:
            raise HypercallError(answered.errno, str(answered.value), PhysdevOpenMedium.__name__)
        return answered.descriptors[0]

    def have(self, ahead: Mapping[Asked, Answered]) -> None:
        """What was asked for before anybody wanted it, for whoever opens it next."""
        self._ahead |= ahead

    def close_unwanted(self) -> None:
        """Nobody will open what is left of that."""
        while self._ahead:
            for descriptor in self._ahead.popitem()[1].descriptors:
                os.close(descriptor)
