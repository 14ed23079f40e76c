"""Peers whose tables have no rules, for `naive`: each says whether it came to harm, and how."""

from __future__ import annotations

import threading
from collections.abc import Callable

LOCK_S = 0.5


def frees_twice(pages: int) -> tuple[bool, str]:
    """A list of free memory that takes whatever is given back."""
    free = list(range(pages))
    page = free.pop()
    free += [page, page]
    first, second = free.pop(), free.pop()
    return first == second, "one page is two domains'"


def locks_one_and_then_the_other(copiers: int) -> tuple[bool, str]:
    """Copies from table to table with both locked, the source's first."""
    tables, together = [threading.Lock() for _ in range(copiers)], threading.Barrier(copiers)
    copied = []

    def copy(source: int) -> None:
        with tables[source]:
            together.wait()
            if tables[(source + 1) % copiers].acquire(timeout=LOCK_S):
                copied.append(source)
                tables[(source + 1) % copiers].release()
            together.wait()

    threads = [threading.Thread(target=copy, args=(source,)) for source in range(copiers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return not copied, f"{copiers} copies wait for each other"


def walks_a_table_that_grows(ports: int) -> tuple[bool, str]:
    """Closes all ports, while somebody else makes one."""
    table = dict.fromkeys(range(ports), "open")
    for port in table:
        table[ports + port] = "open"
    return False, "it goes on"


def raises_ports_without_looking(*ports: int) -> tuple[bool, str]:
    """An event for a port that is none."""
    raised = dict.fromkeys(range(1, 4), 0)
    for port in ports:
        raised[port] += 1
    return False, "it goes on"


def follows_links(*links: int) -> tuple[bool, str]:
    """Events of a queue whose links its sender writes: each is the number of the next, and 0 the end."""
    delivered, at = 0, 1
    while at and delivered < 1000:
        at = links[at]
        delivered += 1
    return delivered == 1000, f"it has delivered {delivered:,} events of {len(links)} ports, and goes on"


def takes_a_refusal_for_a_bug(status: int) -> tuple[bool, str]:
    """Whoever cannot map what he is told to has a bug: BUG_ON(err)."""
    if status:
        raise AssertionError(f"BUG: map status {status}")
    return False, "it goes on"


def forgets_what_is_open(transactions: int) -> tuple[bool, str]:
    """A reset drops every transaction, the one as well that it is a part of."""
    begun = {number: {"touched": 0} for number in range(1, transactions + 1)}
    begun.clear()
    begun[transactions]["touched"] += 1
    return False, "it goes on"


PEERS: dict[str, Callable[..., tuple[bool, str]]] = {
    peer.__name__: peer for peer in (
        frees_twice, locks_one_and_then_the_other, walks_a_table_that_grows, raises_ports_without_looking,
        follows_links, takes_a_refusal_for_a_bug, forgets_what_is_open,
    )
}  # fmt: skip
