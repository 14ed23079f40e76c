"""What every incarnation is born with: its first ports, of upcalls and of the console, and its first grant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvd.broker.domain import Domain, Spare
from hvd.broker.event_channels import VIRQ_UPCALL
from hvd.broker.upcalls import UpcallQueue
from hvd.transport.ids import DOM0, GRANT_REF_CONSOLE, Port

if TYPE_CHECKING:
    from hvd.broker.lives import Lives


def bind_birth(lives: Lives, domain: Domain, spare: Spare | None) -> Port:
    """Bind and grant new ones, or those that its spare was born with; its console port."""
    dom = domain.domid
    lives.upcalls[dom] = UpcallQueue()
    if spare is None:
        lives.channels.bind_virq(dom, VIRQ_UPCALL)
        console_port = lives.channels.alloc_unbound(dom, DOM0)
        console = lives.grants.allocate(dom, DOM0, 1, readonly=False)
    else:
        lives.channels.bind_virq(dom, VIRQ_UPCALL, spare.upcall_channel)
        console_port = lives.channels.alloc_unbound(dom, DOM0, spare.console_channel)
        console = lives.grants.adopt(dom, DOM0, spare.console)
    domain.console_channel = lives.channels.ports[dom][console_port].channel
    lives.grants.share(dom, console.id, 0, 1, at=GRANT_REF_CONSOLE)
    return console_port
