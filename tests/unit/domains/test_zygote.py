"""Who is asked for before he stands by, or just as he says so, is a domain like any other."""

import os
import select
import signal
from pathlib import Path

import pytest

from hvd.domains.zygote import Zygote
from hvd.toolstack.cluster.sandbox_trial import lacking_here
from hvd.transport.descriptors import receive_message, socket_pair
from hvd.transport.machine_link import SPAWN, SPAWNED
from hvd.transport.pulse import Pulse
from tests.forks import words_of
from tests.waiting import wait_for

has_root = pytest.mark.skipif("root" in lacking_here(), reason="domains have no root of their own here")


def in_a_process_of_its_own(body):
    """What the body returns, from a process whose siblings are our children: those that a zygote forks."""
    return words_of(lambda tell: tell(repr(body())))


def is_readable(source):
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(0))


def comm(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


def taken(*, stands_by):
    """Of one whom the zygote has not heard: whether it is who it was told to be, and lets go of the host's mounts."""
    machine, link = socket_pair()
    zygote = Zygote(link, [], Pulse(), os.sched_getaffinity(0))
    zygote._complete = True
    zygote._prepare()
    (standby,) = zygote._standbys
    if stands_by:
        wait_for(lambda: is_readable(standby))
    _, upcalls = socket_pair()
    _, stdio = os.pipe()
    zygote._spawn([SPAWN, 1, 1, "guest", [], []], [upcalls.fileno(), stdio])
    assert receive_message(machine) == ([SPAWNED, 1, 1, standby.pid], [])
    wait_for(lambda: comm(standby.pid) == "hvd:guest")
    for given in list(zygote._given):
        wait_for(lambda: is_readable(standby))
        zygote._hear(given)
    told = zygote._given, standby.fileno(), zygote._mounts.waiting
    os.kill(standby.pid, signal.SIGKILL)
    return told


@has_root
@pytest.mark.parametrize("stands_by", [True, False])
def test_who_has_not_been_heard_when_it_is_asked_for_is_told_who_it_is(stands_by):
    assert in_a_process_of_its_own(lambda: taken(stands_by=stands_by)) == repr(([], -1, True))
