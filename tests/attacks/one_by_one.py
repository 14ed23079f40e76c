"""Carries out attacks: names come on standard input, one a line, what came of each goes out as JSON."""

from __future__ import annotations

import json
import sys

from hvd.toolstack.attacks import suite


def main() -> None:
    with suite.Runner() as runner:
        for line in sys.stdin:
            attack = suite.ATTACKS.get(line.rstrip("\n"))
            told = None if attack is None else runner.run(attack).as_dict()
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
