"""What was refused is tried again later each time, and no later than at a bound."""

import errno

import pytest
import zmq

from hvd.broker import retries
from hvd.broker.retries import Retry, make_room_for


def test_each_refusal_doubles_the_wait_up_to_a_bound_until_one_is_granted():
    retry = Retry(10, 35)
    assert retry.is_due(0)
    waits, now = [], 100
    for _ in range(4):
        waits.append(retry.refused(now))
        assert not retry.is_due(now + waits[-1] - 1)
        now += waits[-1]
        assert retry.is_due(now)
    assert waits == [10, 20, 35, 35]
    retry.granted()
    assert (retry.is_due(0), retry.refused(0)) == (True, 10)


@pytest.mark.parametrize("refusal", [OSError(errno.ENOSPC, "no room"), zmq.ZMQError(errno.ENOSPC)])
def test_what_there_is_no_room_for_is_tried_again_for_a_while(monkeypatch, refusal):
    answers = [refusal, refusal, "made"]

    def make():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert make_room_for(make) == "made"
    monkeypatch.setattr(retries, "PATIENCE_S", 0.0)
    answers += [refusal] * 1000
    with pytest.raises(type(refusal)):
        make_room_for(make)


def test_what_is_refused_for_anything_else_is_not_tried_again():
    tries = []

    def make():
        tries.append(1)
        raise OSError(errno.EACCES, "no")

    with pytest.raises(OSError, match="no"):
        make_room_for(make)
    assert tries == [1]
