"""What each domain has in use, and at most: the tables' own numbers."""

from hvd.broker import usage
from hvd.transport.ids import DOM0
from hvd.transport.limits import PORTS_MAX


def test_usage_follows_what_a_domain_does(board):
    dom = board.boot("guest")
    domain = board.h.domains[dom]
    before = usage.of(board.h, domain)
    board.h.channels.alloc_unbound(dom, DOM0)
    extent = board.h.grants.allocate(dom, DOM0, 3, readonly=False)
    board.h.grants.share(dom, extent.id, 0, 3)
    board.h.store.write(dom, 0, "data/mine", b"x" * 100)
    board.h.store.watch(dom, "data", "token")
    board.h.store.transaction_start(dom)
    after = usage.of(board.h, domain)
    grown = {name: after[name][0] - before[name][0] for name in after}
    assert grown.pop("store bytes") > 100
    grown.pop("events to take")
    assert grown == {
        "event channels": 1, "granted pages": 3, "extents": 1, "mappings": 0, "watchdogs": 0,
        "store nodes": 1, "watches": 1, "transactions": 1,
    }  # fmt: skip
    assert all(used <= most for used, most in after.values())
    assert after["event channels"][1] == PORTS_MAX


def test_a_domain_that_waits_has_nothing(board):
    board.create("before")
    dom = board.create("later", after=["before"])
    assert {used for used, _ in usage.of(board.h, board.h.domains[dom]).values()} == {0}


def test_every_domain_is_told_of(board):
    board.boot("guest")
    rows = usage.describe(board.h)
    assert [row["name"] for row in rows] == ["Domain-0", "guest"]
    assert set(rows[0]) == {"domid", "name", "quotas"}
