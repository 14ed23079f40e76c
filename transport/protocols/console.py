"""The console: Xen's console ring (public/io/console.h), what both ends need of it.

One page, made before its domain is and granted to domain 0 under ref 0; one event channel. `ConsoleInterface` is

    0     in[1024]     what is typed to the domain, written by the back
    1024  out[2048]    what the domain prints, written by the front
    3072  in_cons, in_prod, out_cons, out_prod    free-running u32 indices; a byte's place is index % size

and the page's last word, at 4092, is hvd's own: 0x7764726e when a front that ends has waited long enough for its back,
and writes down by itself what is in the ring. A back that comes later shows that and does not write it down again.

Both streams are bytes without structure. Each index has one writer, who finds it changed if anybody else writes it:
that, as well as an index that cannot be, closes the console until the domain's next incarnation. Whoever has moved an
index notifies the other end. There is no handshake and no state node: a back attaches whenever it finds the ring, and
goes on at the page's indices. It consumes what it has written down, not before, so that its death loses nothing.

Keys in /local/domain/<domid>/console, which only domain 0 writes:

    ring-ref, port, type, limit    by the hypervisor, before the domain runs
    incarnation                    likewise, the last of them: to which incarnation the ring belongs
    tty                            by domain 0: the path of the pty that the console ends in
"""

from __future__ import annotations

from typing import Final

from hvd.transport._native import ConsoleBack, ConsoleFront, ConsoleRing

__all__ = ["INTERFACE_SIZE", "IN_SIZE", "OUT_SIZE", "ConsoleBack", "ConsoleFront", "ConsoleRing"]

IN_SIZE: Final = 1024
OUT_SIZE: Final = 2048
INTERFACE_SIZE: Final = 3088
