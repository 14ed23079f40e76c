"""A guest that uses a device of your own and says what it got: here the echo device, which sends back what it is sent.

It is started with `acks=FILE`, the history that the scenario judges.
"""

from dataclasses import replace

from hvd.domains.finishing import Finish
from hvd.transport.history import INCARNATION_SHIFT, Event, HistoryWriter, Kind, Phase


def main(guest):
    options = dict(argument.split("=", 1) for argument in guest.args)
    history, finish, device = HistoryWriter(options["acks"]), Finish(guest), guest.device("echo")
    number = guest.incarnation << INCARNATION_SHIFT
    while not finish.told:
        number += 1
        call = Event(Phase.INVOKED, Kind.CALL, number)
        history.record(call)
        question = number.to_bytes(64, "little")
        answer = device.call(question)
        history.record(replace(call, phase=Phase.OK if answer == question else Phase.WRONG))
        guest.sleep(0.001)
