"""Device numbers against the table of xen-vbd-interface(7), worked out by hand."""

import pytest

from hvd.toolstack.config.vdev import device_number


@pytest.mark.parametrize(
    ("vdev", "number"),
    [
        ("xvda", 51712),
        ("xvda1", 51713),
        ("xvdb", 51728),
        ("xvdp15", 51967),
        ("xvdq", 268439552),
        ("xvda16", 268435472),
        ("xvdaa", (1 << 28) + (26 << 8)),
        ("xvdaa3", (1 << 28) + (26 << 8) + 3),
        ("xvdzz", (1 << 28) + (701 << 8)),
        ("d0", 51712),
        ("d0p0", 51712),
        ("d1p2", 51730),
        ("d536p37", (1 << 28) + (536 << 8) + 37),
        ("d1048575p255", (1 << 28) + (1048575 << 8) + 255),
        ("sda", 2048),
        ("sdb1", 2065),
        ("sdp15", 2303),
        ("hda", 768),
        ("hda63", 831),
        ("hdb", 832),
        ("hdc", 5632),
        ("hdd1", 5697),
        ("51712", 51712),
        ("0xca00", 51712),
        ("0145000", 51712),
        ("0", 0),
        ("2147483647", 2**31 - 1),
    ],
)
def test_a_device_has_the_number_that_xen_gives_it(vdev: str, number: int) -> None:
    assert device_number(vdev) == number


NO_DEVICES = """xvd xvd1 vda XVDA xvda01 xvda0 xvda256 xvda-1 xvda1000 sdq sda16 hde hda64 xvdaaaaa
    d d01 d1048576 d0p256 d0p p0 2147483648 0x80000000 0x 08 51712p1 -1"""


@pytest.mark.parametrize("vdev", [*NO_DEVICES.split(), "", " xvda", "xvda\n", "xvd\u00e9", "d\u0661"])
def test_any_other_text_is_no_device(vdev: str) -> None:
    assert device_number(vdev) is None


def test_no_two_names_of_one_kind_share_a_number() -> None:
    names = [f"xvd{a}{b}{part}" for a in ("", *"abz") for b in "abcz" for part in ("", 1, 15, 16, 255)]
    assert len({device_number(name) for name in names}) == len(names)
