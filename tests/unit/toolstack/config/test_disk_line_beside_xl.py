"""Any disk line means to us what it means to libxlutil 4.17, Xen's own reader of them, or is refused by both."""

import ctypes
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hvd.toolstack.config.disk_line import disk_line
from hvd.toolstack.config.problems import Report
from hvd.toolstack.config.table import Table

RAW, EMPTY = 4, 5
"""LIBXL_DISK_FORMAT_*: what a disk of ours can be, and a drive."""


class Disk(ctypes.Structure):
    """The first fields of libxl_device_disk, and room for the others."""

    _fields_ = (
        ("backend_domid", ctypes.c_uint32), ("backend_domname", ctypes.c_char_p), ("pdev_path", ctypes.c_char_p),
        ("vdev", ctypes.c_char_p), ("backend", ctypes.c_int), ("format", ctypes.c_int), ("script", ctypes.c_char_p),
        ("removable", ctypes.c_int), ("readwrite", ctypes.c_int), ("is_cdrom", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )  # fmt: skip


class Xl(NamedTuple):
    """libxlutil and what it stands on, with a reader whose messages go nowhere."""

    util: ctypes.CDLL
    light: ctypes.CDLL
    config: int


@pytest.fixture(scope="module")
def xlu():
    try:
        library, light = ctypes.CDLL("libxlutil.so.4.17"), ctypes.CDLL("libxenlight.so.4.17")
    except OSError as missing:
        pytest.skip(f"libxlutil 4.17 (Debian's libxen-dev) is not on this machine: {missing}")
    libc = ctypes.CDLL(None)
    libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    library.xlu_cfg_init.restype, library.xlu_cfg_init.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
    library.xlu_cfg_destroy.argtypes = [ctypes.c_void_p]
    library.xlu_disk_parse.argtypes = [
        ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(Disk)
    ]  # fmt: skip
    nowhere = libc.fopen(b"/dev/null", b"w")
    config = library.xlu_cfg_init(nowhere, b"test")
    yield Xl(library, light, config)
    library.xlu_cfg_destroy(config)
    libc.fclose(nowhere)


def read_by_xl(xlu, line):
    """(target, vdev, writable, cdrom, backend) of a raw image or an empty drive; None of what is refused or another."""
    disk = Disk()
    xlu.light.libxl_device_disk_init(ctypes.byref(disk))
    try:
        if xlu.util.xlu_disk_parse(xlu.config, 1, (ctypes.c_char_p * 1)(line.encode()), ctypes.byref(disk)):
            return None
        if disk.script or disk.format not in (RAW, EMPTY) or not disk.vdev or not (disk.pdev_path or disk.is_cdrom):
            return None  # libxl refuses later what has no name, or nothing to serve
        target, vdev, backend = ((text or b"").decode() for text in (disk.pdev_path, disk.vdev, disk.backend_domname))
        return target, vdev, bool(disk.readwrite), bool(disk.is_cdrom), backend
    finally:
        xlu.light.libxl_device_disk_dispose(ctypes.byref(disk))


def read_by_us(line):
    """The same, of the disk's table."""
    report = Report("test", "")
    table = Table(report, (), disk_line(report, (), line))
    cdrom = table.choice("devtype", "disk", ("disk", "cdrom")) == "cdrom"
    target, vdev = table.text("target", "" if cdrom else None), table.text("vdev", None)
    table.choice("format", "raw", ("raw",))
    access, backend = table.choice("access", "rw", ("r", "ro", "rw", "w")), table.text("backend", "")
    table.flag("discard", default=True)
    table.finish()
    return None if report.problems() else (target, vdev, "w" in access and not cdrom, cdrom, backend)


WORDS = """
    tap: tap2: tapdisk: aio: ioemu: file: phy: raw: iscsi: drbd:
    a /srv/a.img b=c raw w ro rw r xvda hdc xvda:disk hdc:cdrom 51712 format=raw vdev=xvdb vdev=
    cdrom devtype=cdrom devtype=disk discard no-discard direct-io-safe backendtype=phy backend=0 backend=storage
    script=block-nbd removable=1 target=a,b target=phy:/a target=
"""
TWICE = (("raw",), ("r", "ro", "rw", "w"))
"""What xl takes twice by accident, although its manual says that nothing may be said twice."""


def once(words):
    """Whether nothing of those is said twice."""
    said = [word.rstrip(":") for word in words]
    return all(sum(word.removeprefix("format=") in each for word in said) <= 1 for each in TWICE)


@given(st.lists(st.tuples(st.sampled_from([*WORDS.split(), ""]), st.sampled_from(["", " "])), max_size=7))
def test_any_line_of_words_that_xl_knows_means_what_it_means_to_xl(xlu, drawn):
    assume(once([word for word, _ in drawn]))
    line = "".join(space + word + ("" if word.endswith(":") else ",") for word, space in drawn)
    for each in (line, line.removesuffix(",")):
        assert read_by_us(each) == read_by_xl(xlu, each), each
