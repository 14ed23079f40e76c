"""A driver domain that is gone between its I/O and the answer: one time in so many, it ends after the transfer.

It exits without a word: a SIGKILL from inside is nothing to the first process of a PID namespace.
"""

import os
import random

from hvd.domains.block.image import Image
from hvd.domains.programs import driver_domain

AUTO_READY = False


def main(guest):
    odds = int(guest.args[0])
    source = random.Random(guest.incarnation)

    def deadly(transfer):
        def run(image, sector, memory):
            transfer(image, sector, memory)
            if source.randrange(odds) == 0:
                os._exit(1)

        return run

    Image.write, Image.read = deadly(Image.write), deadly(Image.read)  # type: ignore[method-assign]
    driver_domain.main(guest)
