"""Carries out attacks in one arena: names come on standard input, one a line, what came of each goes out as JSON."""

from __future__ import annotations

import json
import sys

from hvd.toolstack.attacks import suite
from hvd.toolstack.attacks.arena import Arena
from hvd.toolstack.cluster.sandbox_trial import lacking_here


def main() -> None:
    lacking = lacking_here()
    with Arena() as arena:
        for line in sys.stdin:
            attack = suite.ATTACKS.get(line.rstrip("\n"))
            told = None if attack is None else suite.run(arena, attack, lacking).as_dict()
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
