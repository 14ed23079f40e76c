#!/usr/bin/env python3
"""Makes the cockpit's disk images, empty, where they are not there yet. Needs nothing but Python.

Examples:
  python3 examples/cockpit/prepare.py
  python3 examples/cockpit/prepare.py --directory /tmp/cockpit --again
"""

from __future__ import annotations

import argparse
from pathlib import Path

IMAGES = {"ivi.img": 16 << 20, "telematics.img": 1 << 20}
"""Bytes, whole sectors of 512. They are sparse: what is not written takes no room."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(__file__).resolve().parent, metavar="DIR")
    parser.add_argument("--again", action="store_true", help="empty images that are there")
    options = parser.parse_args()
    for name, size in IMAGES.items():
        path = options.directory / name
        if path.exists() and not options.again:
            print(f"{path}: there already, {path.stat().st_size} bytes")
            continue
        with open(path, "wb") as image:
            image.truncate(size)
        print(f"{path}: made, {size} bytes")


if __name__ == "__main__":
    main()
