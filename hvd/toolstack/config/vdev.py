"""The numbers behind xl's device names: xvda is 51712 (xen-vbd-interface(7))."""

import re

SYNTAX = "xvda … xvdzz, sda … sdp, hda … hdd, each with an optional partition number, d0p0, or a number"
_NAMED = re.compile(r"(xvd|sd|hd)([a-z]{1,4})([1-9][0-9]{0,2})?")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,11}", re.ASCII)
_NUMBER_MAX = (1 << 31) - 1
_NUMBERED = re.compile(r"d(0|[1-9][0-9]{0,6})(?:p(0|[1-9][0-9]{0,2}))?")

_XVD_MAJOR, _SD_MAJOR, _HD_MAJORS = 202, 8, (3, 22)
_EXTENDED = 1 << 28
_DISKS_MAX, _PARTITIONS_MAX = 1 << 20, 256


def device_number(vdev: str) -> int | None:
    """The number a frontend's directory is named by; None if there is no such device."""
    if match := _NUMBERED.fullmatch(vdev):
        return _xvd(int(match[1]), int(match[2] or 0))
    if match := _NAMED.fullmatch(vdev):
        disk, partition = _index(match[2]), int(match[3] or 0)
        return {"xvd": _xvd, "sd": _sd, "hd": _hd}[match[1]](disk, partition)
    return _plain(vdev) if _NUMBER.fullmatch(vdev) else None


def _plain(text: str) -> int | None:
    """A number as C's strtoul reads it, in whichever base it is written."""
    octal = len(text) > 1 and text.isdecimal() and text[0] == "0"
    try:
        number = int(text, 8 if octal else 0)
    except ValueError:
        return None
    return number if number <= _NUMBER_MAX else None


def _index(letters: str) -> int:
    """a is 0, z is 25, aa is 26."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def _xvd(disk: int, partition: int) -> int | None:
    if disk < 16 and partition < 16:
        return _XVD_MAJOR << 8 | disk << 4 | partition
    if disk < _DISKS_MAX and partition < _PARTITIONS_MAX:
        return _EXTENDED | disk << 8 | partition
    return None


def _sd(disk: int, partition: int) -> int | None:
    return _SD_MAJOR << 8 | disk << 4 | partition if disk < 16 and partition < 16 else None


def _hd(disk: int, partition: int) -> int | None:
    return _HD_MAJORS[disk // 2] << 8 | disk % 2 << 6 | partition if disk < 4 and partition < 64 else None
