"""Sessions: the last answer of each caller, and the hypercalls that brokers died over."""

from hvd.broker.sessions import Reply, Sessions, Suspect, domain_session, toolstack_session
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.limits import TOOLSTACK_CLIENTS_MAX

ONE = domain_session(DomId(1), Incarnation(1))


def test_a_domains_session_is_one_incarnations():
    assert ONE != domain_session(DomId(1), Incarnation(2)) != domain_session(DomId(11), Incarnation(2))


def test_a_toolstack_session_cannot_be_taken_for_a_domains_and_fits_the_journals_header():
    names = {toolstack_session(name) for name in (b"d:1.1", b"", b"\0", b"\0\0", b"x" * 255)}
    assert len(names) == 5
    assert all(name.startswith("t:") and len(name.encode()) <= 64 for name in names)


def test_the_last_reply_of_a_session_is_the_one_that_is_remembered():
    sessions = Sessions()
    assert sessions.reply(ONE) is None
    for sequence in (1, 2):
        sessions.remember(ONE, Reply(sequence, 0, "value"))
    assert sessions.reply(ONE) == Reply(2, 0, "value")
    sessions.forget(ONE)
    sessions.forget(ONE)
    assert sessions.reply(ONE) is None


def test_of_too_many_toolstack_programs_the_one_unused_longest_is_forgotten():
    sessions = Sessions()
    sessions.remember(ONE, Reply(1, 0, None))
    names = [toolstack_session(b"%d" % n) for n in range(TOOLSTACK_CLIENTS_MAX)]
    for name in names:
        sessions.remember(name, Reply(1, 0, None))
    sessions.remember(names[0], Reply(2, 0, None))
    sessions.remember(toolstack_session(b"one more"), Reply(1, 0, None))
    assert sessions.reply(names[1]) is None
    assert all(sessions.reply(name) for name in (ONE, names[0], names[2]))
    assert len(sessions.last) == TOOLSTACK_CLIENTS_MAX + 1


def test_domains_are_not_forgotten_for_programs():
    sessions = Sessions()
    domains = [domain_session(DomId(n), Incarnation(1)) for n in range(2 * TOOLSTACK_CLIENTS_MAX)]
    for name in domains:
        sessions.remember(name, Reply(1, 0, None))
    assert all(sessions.reply(name) for name in domains)


def test_a_suspect_is_counted_until_it_is_answered_or_followed_by_another():
    sessions = Sessions()
    assert sessions.suspect(ONE, 5, crashed=True) == Suspect(5, 1, 1)
    assert sessions.suspect("d:2.1", 5, crashed=True) == Suspect(5, 1, 1)
    assert sessions.suspect(ONE, 5, crashed=False) == Suspect(5, 2, 1)
    assert sessions.suspect(ONE, 6, crashed=True) == Suspect(6, 1, 1)
    sessions.remember(ONE, Reply(6, 0, None))
    assert sessions.suspect(ONE, 6, crashed=True) == Suspect(6, 1, 1)


def test_suspects_are_bounded():
    sessions = Sessions()
    for n in range(TOOLSTACK_CLIENTS_MAX + 5):
        sessions.suspect(toolstack_session(b"%d" % n), 1, crashed=False)
    assert len(sessions.suspects) == TOOLSTACK_CLIENTS_MAX
