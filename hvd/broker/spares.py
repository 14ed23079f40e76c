"""Warm spares: the process of a domain's next incarnation, born and held back while the one before it lives.

A spare has what only itself uses: its sockets, its endpoint, the pages and channels that it is to be born with. Nothing
of the living incarnation's is its own: no port, no grant, no watch, no medium, and it makes no hypercall. When the
living one is dead, behind the fence, it is promoted: its number becomes the domain's, what it holds is bound to the
domain's first ports, and it runs. A spare's own death is nobody's but its own.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from hvd.broker import devices, sandboxes
from hvd.broker.birth_ports import bind_birth
from hvd.broker.domain import ACTING, Domain, Event, Shutdown, Spare
from hvd.transport.ids import DomId, ExtentId, Incarnation

if TYPE_CHECKING:
    from hvd.broker.lives import Lives

QUIET_NS = 30_000_000
"""How long after its domain is ready a spare is begun: whoever waited for the domain has the CPUs first."""
DELAY_NS = 100_000_000
"""Before a spare that died is replaced; doubled with each that dies in a row."""
DEATHS_MAX = 5
"""Spares in a row that may die before one was promoted; then there is none until the domain is started again."""


def schedule(lives: Lives, domain: Domain, now_ns: int) -> None:
    """The domain has become ready: a spare is due soon, unless there is one or none is wanted."""
    if domain.config.spare and domain.spare is None and domain.spare_deaths < DEATHS_MAX:
        _later(lives, domain, now_ns + QUIET_NS)


def _later(lives: Lives, domain: Domain, at_ns: int) -> None:
    domain.spare_at_ns = at_ns
    lives.deadlines.note(domain)


def due(lives: Lives, domain: Domain, now_ns: int) -> None:
    """There is time now for what could wait: the console of a spare that took over, then the next spare."""
    domain.spare_at_ns = None
    if domain.console_waits and domain.life in ACTING:
        domain.console_waits = False
        devices.write_console(lives.store, domain, lives.birth_ports(domain)[0])
        lives.collect_store_events()
    _begin(lives, domain, now_ns)


def _begin(lives: Lives, domain: Domain, now_ns: int) -> None:
    """Have the process of the next incarnation made, with all that it needs to stand by."""
    if not domain.config.spare or domain.spare_deaths >= DEATHS_MAX:
        return
    if domain.spare is not None or domain.life not in ACTING or not domain.ready or domain.destroying:
        return
    try:
        domain.spare = _reserve(lives, domain)
        lives.hardware.create_spare(domain.domid)
        lives.hardware.fork_spare(domain)
        lives.hardware.start_spare(domain)
    except OSError as error:
        dismiss(lives, domain)
        _failed(lives, domain, f"the host refused: {error.strerror}", now_ns)


def _reserve(lives: Lives, domain: Domain) -> Spare:
    """Console page, console channel and upcall channel that are no port's and no grant's yet."""
    dom, hardware = domain.domid, lives.hardware
    with ExitStack() as made:
        console = lives.grants.reserve(dom)
        made.callback(hardware.release_extent, console)
        console_channel = lives.channels.reserve(dom)
        made.callback(hardware.release_channel, console_channel)
        upcall_channel = lives.channels.reserve(dom)
        made.pop_all()
    domain.incarnations = Incarnation(domain.incarnations + 1)
    return Spare(domain.incarnations, domain.config, console, console_channel, upcall_channel)


def take_report(lives: Lives, domid: DomId, incarnation: Incarnation, lacking: dict[str, str], trouble: str) -> None:
    """A spare has said what its sandbox lacks, and stands by; or why it cannot take over, and goes."""
    domain = lives.domains.get(domid)
    spare = domain.spare if domain is not None else None
    if domain is None or spare is None or spare.incarnation != incarnation or spare.stands:
        return
    spare.trouble = trouble or sandboxes.missing(domain, lacking)
    if spare.trouble:
        lives.hardware.signal_spare(domain)
        return
    spare.lacking, spare.stands, domain.spare_trouble = lacking, True, ""
    lives.announce("spare stands by", domain, str(incarnation))


def started(domain: Domain, pid: int) -> None:
    """The process of its spare exists."""
    assert domain.spare is not None
    domain.spare.pid = pid


def died(lives: Lives, domain: Domain, how: str, now_ns: int) -> None:
    """The process of its spare is gone. The domain goes on; another spare is begun, later with each that dies."""
    assert domain.spare is not None
    why = domain.spare.trouble or how
    _release(lives, domain)
    _failed(lives, domain, why, now_ns)


def _failed(lives: Lives, domain: Domain, why: str, now_ns: int) -> None:
    domain.spare_deaths += 1
    domain.spare_trouble = why
    if domain.spare_deaths < DEATHS_MAX:
        delay = DELAY_NS << (domain.spare_deaths - 1)
        _later(lives, domain, now_ns + delay)
        lives.announce("spare died", domain, f"{why}; another in {delay // 1_000_000} ms")
        return
    text = f"{DEATHS_MAX} spares in a row died, the last: {why}; no other until the domain is started again"
    domain.spare_trouble = text
    lives.announce("spare given up", domain, text)
    lives.console.append(f"(XEN) domain {domain.domid} {domain.name}: {text}")


def is_of(domain: Domain, incarnation: Incarnation) -> bool:
    """Whether this number is its spare's."""
    return domain.spare is not None and domain.spare.incarnation == incarnation


def takes_over(domain: Domain) -> bool:
    """Whether the spare is what a start that is due now makes of it.

    Not for a reboot, since what the spare has loaded may be older than the file that the domain is to boot. Nor when
    the domain is to be made of something else by now.
    """
    spare = domain.spare
    return spare is not None and spare.config == domain.config and domain.shutdown is not Shutdown.REBOOT


def is_succeeded(domain: Domain) -> bool:
    """Whether what it has of its clients is of use to a spare that may take over from it."""
    return domain.spare is not None and domain.config.driver_domain


def _renew_store(lives: Lives, domain: Domain) -> None:
    """It finds what it would find if it had been started, and offered what its predecessor did."""
    lives.store.tell_started_again()
    devices.offer_again(lives.store, domain, lives.client_devices(domain))
    devices.renew_domain(lives.store, domain)
    for device, backend in lives.own_devices(domain):
        lives.write_device(domain, device, backend)


def renew(lives: Lives, domain: Domain) -> None:
    """What the domain is made of has changed: its spare, born from what it was, is replaced."""
    if domain.spare is not None:
        dismiss(lives, domain)
        _later(lives, domain, 0)


def promote(lives: Lives, domain: Domain, now_ns: int) -> None:
    """Behind the fence, its predecessor's ports and grants gone: the spare is the domain, and is let run at once.

    But in a command of its own: that of the death is in the journal sooner for it, and so its guests hear sooner whose
    offers these are, and publish meanwhile. Its console is announced later: what domain 0 then does would be in the way
    of those that wait for the domain.
    """
    spare = domain.spare
    assert spare is not None
    lives.hardware.promote_spare(domain)  # OSError: it is a spare still, and goes with the domain, which fails
    domain.spare = None
    lives.deadlines.note(domain)
    bind_birth(lives, domain, spare)
    domain.sandbox_lacking = spare.lacking
    if spare.pid is not None:
        domain.pid = spare.pid
        domain.move(Event.STARTED)
    _renew_store(lives, domain)
    domain.console_waits, domain.runs_at_ns = True, now_ns
    _later(lives, domain, now_ns + QUIET_NS)


def let_run(lives: Lives, domain: Domain) -> None:
    """One that has taken over; with what it would ask first."""
    domain.runs_at_ns = None
    lives.ask_ahead(domain)
    lives.let_run(domain)
    lives.collect_store_events()


def dismiss(lives: Lives, domain: Domain) -> None:
    """No spare is wanted any more, of this incarnation's: end it without a word. Nothing if there is none."""
    domain.spare_at_ns = None
    lives.deadlines.note(domain)
    if domain.spare is not None:
        lives.hardware.disown_spare(domain)
        _release(lives, domain)


def _release(lives: Lives, domain: Domain) -> None:
    spare, domain.spare = domain.spare, None
    assert spare is not None
    for channel in (spare.upcall_channel, spare.console_channel):
        lives.hardware.release_channel(channel)
    lives.hardware.release_extent(spare.console)
    lives.hardware.release_spare(domain.domid)


def keys(domain: Domain) -> tuple[list[int], list[ExtentId]]:
    """The channels and extents that its spare is born with: no table but this one knows of them."""
    spare = domain.spare
    return ([], []) if spare is None else ([spare.upcall_channel, spare.console_channel], [spare.console])


def describe(domain: Domain) -> str:
    """For people: "" when none is wanted."""
    if domain.spare is not None:
        return "stands by" if domain.spare.stands else "starting"
    if not domain.config.spare:
        return ""
    return f"none: {domain.spare_trouble}" if domain.spare_trouble else "none"
