"""A driver domain's switch as its backends see it: one for all of its vifs, with names in place of the native numbers.

It also keeps time for rates, since a vif that has to wait for its own is looked at by nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from hvd.domains.net.policy import Policy, compile_policy
from hvd.domains.net.uplink import Uplink
from hvd.domains.runtime import Runtime
from hvd.domains.timer import Timer
from hvd.transport._native import NetRules, NetSwitch
from hvd.transport.errors import LocalError

NAMES_MAX = 4096
"""Networks, and domains that rules name, that one switch ever hears of."""


class VifSwitch:
    """The switch of one domain."""

    def __init__(self, runtime: Runtime) -> None:
        self.native = NetSwitch()
        self._networks: dict[str, int] = {}
        self._parties: dict[str, int] = {}
        self._tables: dict[Policy, NetRules] = {}
        self._owners: dict[int, Callable[[], None]] = {}
        self._uplinks: dict[str, Uplink] = {}
        self._timer = Timer(runtime)
        self._runtime = runtime

    def network(self, name: str) -> int:
        """The number of a network."""
        return _number(self._networks, name)

    def party(self, name: str) -> int:
        """The number of a domain's vifs in rules; 0 is nobody's."""
        return _number(self._parties, name) + 1

    def table(self, policy: Policy | None) -> NetRules | None:
        """The compiled rules: one table for all whose rules are the same."""
        if policy is None:
            return None
        if policy not in self._tables:
            self._tables[policy] = compile_policy(policy, self.party)
        return self._tables[policy]

    def open_uplink(self, network: str, policy: Policy | None) -> None:
        """Have a network's uplink as a port, until the domain ends. HypercallError: there is none.

        Nothing if it has one: the rules of a network are the same for all.
        """
        if network not in self._uplinks:
            self._uplinks[network] = Uplink(self._runtime, self, network, policy)

    def own(self, number: int, look_after: Callable[[], None]) -> None:
        """Whom to call when the port of this number needs somebody."""
        self._owners[number] = look_after

    def disown(self, number: int) -> None:
        self._owners.pop(number, None)

    def settle(self) -> None:
        """Look after every port that needs it: behind each turn of any."""
        while (number := self.native.take_attention()) is not None:
            if number in self._owners:
                self._owners[number]()

    def after(self, nanoseconds: int, act: Callable[[], None]) -> None:
        """Call `act` from `wait` in so long."""
        self._timer.after(nanoseconds, act)


def _number(names: dict[str, int], name: str) -> int:
    if name not in names and len(names) >= NAMES_MAX:
        raise LocalError(f"{name!r} is one name too many for this domain's switch: it knows {NAMES_MAX}")
    return names.setdefault(name, len(names))


_SWITCHES: WeakKeyDictionary[Runtime, VifSwitch] = WeakKeyDictionary()


def switch_of(runtime: Runtime) -> VifSwitch:
    """The domain's one switch."""
    if runtime not in _SWITCHES:
        _SWITCHES[runtime] = VifSwitch(runtime)
    return _SWITCHES[runtime]
