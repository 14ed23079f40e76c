"""Numbers out of texts, as C has them."""

import ctypes

import pytest

from hvd.broker.store.c_numbers import atoi, strtol

_libc = ctypes.CDLL(None)
_libc.strtol.restype = ctypes.c_long
BOUNDS = "4294967297 2147483648 9223372036854775807 9223372036854775808 -9223372036854775809"
LONG = ["0" * 40 + "5", "9" * 5000, "-" + "9" * 5000, "0" + "7" * 40, "0x" + "f" * 40]
ODD = ["", " 1", "1 ", "\n\t\v\f\r 12", "\u0665", "\u00a01"]
PLAIN = "0 7 -1 +1 --1 x 1x 08 010 0x1F 0X 0x 0xg -0x10"
TEXTS = [*PLAIN.split(), *BOUNDS.split(), *LONG, *ODD]


@pytest.mark.parametrize("text", TEXTS)
def test_numbers_are_those_of_the_c_library(text: str) -> None:
    data, end = ctypes.create_string_buffer(text.encode()), ctypes.c_char_p()
    assert atoi(text) == _libc.strtol(data, None, 10) & 0xFFFFFFFF
    value = ctypes.c_int(_libc.strtol(data, ctypes.byref(end), 0)).value
    whole = end.value == b"" and any(letter.isdigit() for letter in text)
    assert strtol(text) == (value if whole else None)
