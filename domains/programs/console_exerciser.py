"""A guest that prints numbered lines without pause, and notes which of them its console has taken.

Arguments `acks=FILE` (its history is appended there), `seed=N`, `lines=N` printed at once, `pace_ms=N` between two
such. Whoever writes `data/finish` into its XenStore home ends it.
"""

from __future__ import annotations

from hvd.domains.finishing import Finish
from hvd.domains.guest import Guest
from hvd.transport.history import INCARNATION_SHIFT, Event, HistoryWriter, Kind, Phase
from hvd.transport.records import replace
from hvd.transport.stamped_lines import stamped_line

DRAIN_S = 0.2
"""Of waiting for the console alone; then the domain hears what else there is."""


def main(guest: Guest) -> None:
    options = dict(argument.split("=", 1) for argument in guest.args)
    seed, lines, pace_s = (int(options.get(name, default)) for name, default in
                           (("seed", "1"), ("lines", "8"), ("pace_ms", "5")))  # fmt: skip
    history, finish = HistoryWriter(options["acks"]), Finish(guest)
    number = guest.incarnation << INCARNATION_SHIFT
    while not finish.told:
        printed = []
        for _ in range(lines):
            number += 1
            line = stamped_line(seed, number)
            printed.append(Event(Phase.INVOKED, Kind.LINE, number, count=len(line)))
            history.record(printed[-1])
            guest.write_console(line)
        while not guest.console.drain(DRAIN_S):
            guest.wait(0)
        for event in printed:
            history.record(replace(event, phase=Phase.OK))
        guest.sleep(pace_s / 1000)
