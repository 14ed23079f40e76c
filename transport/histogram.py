"""Histograms of durations: the Python face of native/histogram.hpp, and the text that HdrHistogram's packages read.

The text is HdrHistogram's V2 compressed encoding in base64: what its logs hold, and what `hdrhistogram.decode` takes.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

from hvd.transport._native import Histogram, time_calls_at_rate
from hvd.transport.errors import LocalError

__all__ = ["Histogram", "from_text", "time_calls_at_rate", "to_text"]

_COOKIE = 0x1C849304 | 0x10
_HEADER = struct.Struct(">II")
_ENCODED_BYTES_MAX = 1 << 24


def to_text(histogram: Histogram) -> str:
    """The histogram as one line of text."""
    compressed = zlib.compress(histogram.encode())
    return base64.b64encode(_HEADER.pack(_COOKIE, len(compressed)) + compressed).decode("ascii")


def from_text(text: str) -> Histogram:
    """The reverse; LocalError when it is nothing of the kind."""
    try:
        data = base64.b64decode(text, validate=True)
        cookie, length = _HEADER.unpack_from(data)
        decompressor = zlib.decompressobj()
        encoded = decompressor.decompress(data[_HEADER.size :], _ENCODED_BYTES_MAX)
    except (binascii.Error, struct.error, zlib.error) as error:
        raise LocalError(f"{text[:40]!r}... is no compressed HdrHistogram: {error}") from error
    if cookie != _COOKIE or length != len(data) - _HEADER.size or not decompressor.eof:
        raise LocalError(f"{text[:40]!r}... is no compressed HdrHistogram in V2 encoding")
    return Histogram.decode(encoded)
