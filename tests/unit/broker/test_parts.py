"""How descriptors are shared out: half to whoever asks, of the other half each domain but domain 0 has its part."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker.held import channel_key, extent_key
from hvd.broker.held_hardware import PART_LEAST
from hvd.broker.world import World
from hvd.transport.ids import DOM0, DomId, ExtentId

MOST = 1000
GREEDY, MODEST = DomId(1), DomId(2)


class Held:
    """What is held, by key, and how many descriptors that is."""

    def __init__(self, keys=(), used=0):
        self.keys, self.used, self.most = set(keys), used, MOST

    def cost(self, keys):
        return 10 * len(self.keys.intersection(keys))


@pytest.fixture
def world():
    """world(used, domains, channels, extents): the greedy one has so many of each; a port it bound counts for none."""

    def make(used, *, domains=4, channels=0, extents=0):
        made: Any = World.__new__(World)
        ports = {n: SimpleNamespace(channel=n, side=0) for n in range(channels)}
        ports[channels] = SimpleNamespace(channel=channels, side=1)
        keys = [channel_key(n) for n in range(channels + 1)] + [extent_key(ExtentId(n)) for n in range(extents)]
        made.held = Held(keys, used)
        made._hypervisor = SimpleNamespace(
            domains=dict.fromkeys(range(domains)), channels=SimpleNamespace(ports={GREEDY: ports}),
            grants=SimpleNamespace(tables={GREEDY: SimpleNamespace(extents=range(extents))}),
        )  # fmt: skip
        return made

    return make


def test_while_half_is_free_nobody_is_counted(world):
    world(MOST // 2, channels=1000)._keep_to_part(GREEDY)


def test_beyond_it_whoever_has_his_part_gets_no_more_and_is_told_how_much_that_is(world):
    part = MOST // 2 // 4
    world(MOST // 2 + 1, channels=6, extents=part // 10 - 6)._keep_to_part(GREEDY)
    with pytest.raises(OSError, match=f"domain 1 holds 130 of {MOST} descriptors.* its part is {part}") as refused:
        world(MOST // 2 + 1, channels=6, extents=part // 10 - 5)._keep_to_part(GREEDY)
    assert refused.value.errno == errno.EMFILE


def test_who_has_nothing_yet_gets_his(world):
    world(MOST - 1, channels=100)._keep_to_part(MODEST)


def test_domain_0_serves_all_and_is_not_counted(world):
    full = world(MOST)
    full.hypervisor.channels.ports[DOM0] = {n: SimpleNamespace(channel=n, side=0) for n in range(100)}
    full._keep_to_part(DOM0)


def test_however_many_domains_there_are_each_may_have_what_it_is_born_with(world):
    world(MOST - 1, domains=500, channels=PART_LEAST // 10)._keep_to_part(GREEDY)
    with pytest.raises(OSError, match=f"its part is {PART_LEAST}"):
        world(MOST - 1, domains=500, channels=PART_LEAST // 10 + 1)._keep_to_part(GREEDY)
