"""Joining records: requests to responses over a channel, in any order and with ends missing."""

from __future__ import annotations

from hvd.toolstack.trace.exchanges import MESSAGES_MAX, Channels, Exchange, exchanges, hypercalls, notifications
from hvd.toolstack.trace.track import Event, Track
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.trace import Kind

FRONT, BACK = DomId(2), DomId(1)
FRONT_PORT, BACK_PORT, CHANNEL = 3, 7, 40


def bound(ticks: int, domid: int, port: int, channel: int, side: int) -> Event:
    return Event(ticks, Kind.PORT_BOUND, port, channel << 32 | domid, side)


def channels(*more: Event) -> Channels:
    return Channels([bound(0, FRONT, FRONT_PORT, CHANNEL, 0), bound(0, BACK, BACK_PORT, CHANNEL, 1), *more])


def track(domid: DomId, *events: Event) -> Track:
    made = Track(domid, Incarnation(1), f"d{domid}", 0)
    made.events.extend(events)
    return made


def times(exchange: Exchange) -> list[int | None]:
    places = (exchange.asked, exchange.taken, exchange.answered, exchange.received)
    return [place.ticks if place else None for place in places]


def front(ticks: int, kind: Kind, id_: int, count: int = 1) -> Event:
    return Event(ticks, kind, FRONT_PORT, id_, count)


def back(ticks: int, kind: Kind, id_: int, count: int = 1) -> Event:
    return Event(ticks, kind, BACK_PORT, id_, count)


def test_the_four_records_of_a_request_are_one_exchange():
    asking = track(FRONT, front(1, Kind.REQUEST_OUT, 5), front(4, Kind.RESPONSE_IN, 5))
    answering = track(BACK, back(2, Kind.REQUEST_IN, 5), back(3, Kind.RESPONSE_OUT, 5))
    (exchange,) = exchanges([asking, answering], channels())
    assert times(exchange) == [1, 2, 3, 4]
    assert exchange.joined
    assert [place.track for place in (exchange.asked, exchange.taken) if place] == [0, 1]


def test_a_run_of_indices_is_a_message_each_also_where_the_index_wraps():
    last = 0xFFFF_FFFF
    asking = track(FRONT, front(1, Kind.REQUEST_OUT, last, 3))
    answering = track(BACK, back(2, Kind.REQUEST_IN, last, 1), back(3, Kind.REQUEST_IN, 0, 2))
    found = exchanges([asking, answering], channels())
    assert [exchange.id for exchange in found] == [last, 0, 1]
    assert [times(exchange)[1] for exchange in found] == [2, 3, 3]


def test_messages_with_ids_may_be_answered_in_any_order():
    ids = (2**40, 2**40 + 1)
    asking = track(FRONT, *(front(n, Kind.REQUEST_OUT, id_, 0) for n, id_ in enumerate(ids)),
                   front(8, Kind.RESPONSE_IN, ids[1], 0), front(9, Kind.RESPONSE_IN, ids[0], 0))  # fmt: skip
    assert [(e.id, times(e)) for e in exchanges([asking], channels())] == [
        (ids[0], [0, None, None, 9]),
        (ids[1], [1, None, None, 8]),
    ]


def test_a_request_that_is_asked_again_is_another_exchange_and_the_first_knows_when():
    asking = track(FRONT, front(1, Kind.REQUEST_OUT, 5, 0), front(7, Kind.REQUEST_OUT, 5, 0),
                   front(9, Kind.RESPONSE_IN, 5, 0))  # fmt: skip
    dead, successor = track(BACK, back(2, Kind.REQUEST_IN, 5, 0)), track(BACK, back(8, Kind.REQUEST_IN, 5, 0))
    first, second = exchanges([asking, dead, successor], channels())
    assert (times(first), first.asked_again) == ([1, 2, None, None], 7)
    assert (times(second), second.asked_again) == ([7, 8, None, 9], None)


def test_a_domain_joins_only_what_passes_over_its_own_channels():
    """A hostile one claims the port and the ids of others: its ports are other channels, or none."""
    liar = track(DomId(9), back(2, Kind.REQUEST_IN, 5), Event(3, Kind.RESPONSE_OUT, 1, 5, 1))
    asking = track(FRONT, front(1, Kind.REQUEST_OUT, 5))
    found = exchanges([asking, liar], channels(bound(0, 9, 1, 99, 0)))
    assert [times(exchange) for exchange in found] == [[1, None, None, None], [None, None, 3, None]]


def test_a_record_that_claims_more_messages_than_there_can_be_costs_a_bounded_time():
    liar = track(BACK, *(back(n, Kind.REQUEST_IN, n * 70_000, 65_535) for n in range(1000)))
    assert len(exchanges([liar], channels())) == MESSAGES_MAX


def test_a_port_means_the_channel_that_it_was_at_that_time():
    over_time = channels(bound(10, FRONT, FRONT_PORT, 41, 0))
    assert [over_time.at(FRONT, FRONT_PORT, ticks) for ticks in (0, 9, 10, 99)] == [CHANNEL, CHANNEL, 41, 41]
    assert over_time.at(FRONT, 99, 5) is None
    assert over_time.peer(CHANNEL, FRONT) == BACK
    assert over_time.peer(41, FRONT) is None


def test_an_event_belongs_to_the_last_notification_before_it():
    ringing = track(FRONT, *(Event(ticks, Kind.NOTIFY, FRONT_PORT, 0, 0) for ticks in (1, 2, 8)))
    hearing = track(BACK, *(Event(ticks, Kind.EVENT, BACK_PORT, 0, 0) for ticks in (0, 3, 4)))
    pairs = notifications([ringing, hearing], channels())
    assert [(notified.ticks, taken.ticks) for notified, taken in pairs] == [(2, 3)]


def test_a_hypercall_that_no_end_follows_was_open_when_its_broker_died():
    def begun(ticks: int, sequence: int) -> Event:
        return Event(ticks, Kind.HYPERCALL, 4, sequence, 0x2000)

    events = [begun(1, 1), Event(2, Kind.HYPERCALL_DONE, 4, 1, 13), begun(3, 2), begun(5, 3)]
    calls = list(hypercalls(events))
    assert [(call.sequence, call.ended_ticks, call.errno) for call in calls] == [(1, 2, 13), (2, None, 0)]
