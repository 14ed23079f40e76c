"""xl's disk line, its TOML twin, and the vbd that either becomes."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hvd.toolstack.config import ClusterConfig, Problem
from hvd.toolstack.config.disk_line import disk_line
from hvd.toolstack.config.images import image_at
from hvd.toolstack.config.problems import Report
from hvd.transport.messages import DeviceConfig

GUEST = '[[domain]]\nname = "ivi"\nkernel = "guest.py"\n'
VOLUME = {"target": "/dev/vg/guest-volume", "format": "raw", "vdev": "hda"}
ISO = {"target": "/root/image.iso", "vdev": "hdc", "devtype": "cdrom"}
STORAGE = '[[domain]]\nname = "storage"\nkernel = "hvd:driver_domain"\ndriver_domain = true\n'


def keys_of(line: str) -> tuple[dict[str, object], list[str]]:
    """The keys of a disk line and what is wrong with it."""
    report = Report("cluster.toml", "")
    keys = disk_line(report, (), line)
    return keys, [f"expected {told.expected}, found {told.found}" for told in report.problems()]


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("a.img,raw,xvda,rw", {"target": "a.img", "format": "raw", "vdev": "xvda", "access": "rw"}),
        ("a.img,,xvda", {"target": "a.img", "vdev": "xvda"}),
        ("a.img,,xvda,", {"target": "a.img", "vdev": "xvda"}),
        ("  a.img,  raw, xvda", {"target": "a.img", "format": "raw", "vdev": "xvda"}),
        ("vdev=xvda,format=raw,target=a.img", {"vdev": "xvda", "format": "raw", "target": "a.img"}),
        ("a.img,vdev=xvda,raw,access=r", {"target": "a.img", "vdev": "xvda", "format": "raw", "access": "r"}),
        ("a.img,access=,vdev=xvda", {"target": "a.img", "vdev": "xvda"}),
        ("vdev=xvda,target=a,b=c,backend=x ", {"vdev": "xvda", "target": "a,b=c,backend=x "}),
        ("vdev=xvda, target= a", {"vdev": "xvda", "target": " a"}),
        (
            "a.img,,xvda,,backend=storage,timeout_ms=50",
            {"target": "a.img", "vdev": "xvda", "backend": "storage", "timeout_ms": 50},
        ),
        ("a=b.img", {"a": "b.img"}),
        ("vdev=xvda,format=raw,a.img,w", {"vdev": "xvda", "format": "raw", "target": "a.img", "access": "w"}),
        (",vdev=xvda,target=a,b", {"vdev": "xvda", "target": "a,b"}),
        ("a,,,w,vdev=xvda", {"target": "a", "access": "w", "vdev": "xvda"}),
        # xl-disk-configuration(5)'s own
        ("/dev/vg/guest-volume,,hda", {"target": "/dev/vg/guest-volume", "vdev": "hda"}),
        ("/dev/vg/guest-volume,raw,hda,rw", {**VOLUME, "access": "rw"}),
        ("format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume", {**VOLUME, "access": "rw"}),
        ("raw:/dev/vg/guest-volume,hda,w", {**VOLUME, "access": "w"}),
        ("/root/image.iso,,hdc,cdrom", ISO),
        ("/root/image.iso,,hdc,,cdrom", ISO),
        ("/root/image.iso,raw,hdc,devtype=cdrom", {**ISO, "format": "raw"}),
        ("format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso",
         {**ISO, "format": "raw", "access": "ro"}),
        ("raw:/root/image.iso,hdc:cdrom,ro", {**ISO, "format": "raw", "access": "ro"}),
        (",hdc:cdrom,r", {"format": "raw", "vdev": "hdc", "devtype": "cdrom", "access": "r"}),
        (",,hdc,cdrom", {"vdev": "hdc", "devtype": "cdrom"}),
        (",raw,hdc,devtype=cdrom", {"format": "raw", "vdev": "hdc", "devtype": "cdrom"}),
        ("tap:aio:/some/path,xvda,w", {"target": "/some/path", "vdev": "xvda", "access": "w"}),
        # as other files have them
        ("tap2:tapdisk:aio:a,xvda:disk,w", {"target": "a", "vdev": "xvda", "access": "w", "devtype": "disk"}),
        ("ioemu:raw:a,xvda", {"target": "a", "vdev": "xvda", "format": "raw"}),
        ("phy:phy:a,xvda", {"target": "a", "vdev": "xvda"}),
        ("vdev=xvda,phy:a", {"target": "a", "vdev": "xvda"}),
        ("tap:qcow2:a,xvda", {"target": "a", "vdev": "xvda", "format": "qcow2"}),
        ("foo:a:b,,xvda", {"target": "foo:a:b", "vdev": "xvda"}),
        ("/dev/disk/by-path/pci-0:1,,xvda", {"target": "/dev/disk/by-path/pci-0:1", "vdev": "xvda"}),
        ("a,,xvda,w,no-discard,discard", {"target": "a", "vdev": "xvda", "access": "w", "discard": True}),
        ("no-discard,a,,xvda,specification=xen", {"target": "a", "vdev": "xvda", "discard": False}),
        ("a,,hdc,devtype=disk,cdrom", {"target": "a", "vdev": "hdc", "devtype": "cdrom"}),
        ("", {}),
    ],
)  # fmt: skip
def test_a_line_is_split_as_xl_splits_it(line: str, keys: dict[str, object]) -> None:
    assert keys_of(line) == (keys, [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a.img,raw,xvda,rw,five", 'expected at most 4 values without a key, found "five"'),
        ("a.img,raw,xvda,vdev=xvdb", 'expected vdev once, found vdev again, "xvdb"'),
        ("vdev=xvda,vdev=xvdb", 'expected vdev once, found vdev again, "xvdb"'),
        ("a.img,=3", 'expected key=value, found "=3"'),
        ("a,,xvda,,,", 'expected at most 4 values without a key, found ""'),
        ("raw:qcow2:a,xvda", 'expected format once, found format again, "qcow2"'),
        ("iscsi:a,xvda", "expected a file or a block device, without a script that makes one, "
                         'found "iscsi:", which is xl\'s script=block-iscsi'),
        ("foo:/a,,xvda", "expected one of xend's words (tapdisk, tap2, tap, aio, ioemu, file, phy, raw) before the "
                         'colon, found "foo:"'),
    ],
)  # fmt: skip
def test_what_no_disk_of_ours_can_be_is_refused(line: str, problem: str) -> None:
    assert keys_of(line)[1] == [problem]


def test_a_disk_becomes_the_vbd_that_xl_would_write(cluster: Callable[[str], ClusterConfig], directory: Path) -> None:
    config = cluster(GUEST + 'disk = ["a.img,raw,xvdb,rw,backend=storage"]\n' + STORAGE)
    assert config.domain("ivi").devices == [
        DeviceConfig(
            kind="vbd",
            devid=51728,
            backend="storage",
            backend_keys={
                "params": str(directory / "a.img"),
                "type": "file",
                "mode": "w",
                "dev": "xvdb",
                "device-type": "disk",
                "bootable": "1",
                "removable": "0",
                "timeout-ms": "30000",
            },
            frontend_keys={"virtual-device": "51728", "device-type": "disk", "timeout-ms": "30000"},
        )
    ]


def test_a_line_and_a_table_say_the_same(cluster: Callable[[str], ClusterConfig]) -> None:
    line = 'disk = ["format=raw,vdev=xvda,access=r,backend=storage,timeout_ms=500,target=a.img"]\n'
    table = 'disk = [{target="a.img", format="raw", vdev="xvda", access="ro", backend="storage", timeout_ms=500}]\n'
    assert cluster(GUEST + line + STORAGE).domains == cluster(GUEST + table + STORAGE).domains


def test_a_disk_that_names_no_backend_is_served_by_dom0(cluster: Callable[[str], ClusterConfig]) -> None:
    disks = 'disk = ["a.img,,xvda,r", "b.img,,xvdb,r,backend=dom0", "b.img,,xvdc,r,backend=Domain-0"]\n'
    assert [device.backend for device in cluster(GUEST + disks).domain("ivi").devices] == ["Domain-0"] * 3


@pytest.mark.parametrize(("access", "mode"), [("r", "r"), ("ro", "r"), ("w", "w"), ("rw", "w")])
def test_access_is_written_as_one_letter(cluster: Callable[[str], ClusterConfig], access: str, mode: str) -> None:
    config = cluster(GUEST + f'disk = ["a.img,,xvda,{access}"]\n')
    assert config.domain("ivi").devices[0].backend_keys["mode"] == mode


@pytest.mark.parametrize(
    ("disk", "key", "expected", "found"),
    [
        ('"a.img,,xvda,x"', "access", "one of r, ro, w, rw", '"x"'),
        ('"a.img,qcow2,xvda"', "format", "one of raw", '"qcow2"'),
        ('"vhd:a.img,xvda"', "format", "one of raw", '"vhd"'),
        ('"a.img,,xvda:floppy"', "devtype", "one of disk, cdrom", '"floppy"'),
        ('"a.img,,xvda,specification=virtio"', "specification", "a key that hvd knows", 'the key "specification"'),
        ('"a.img,,vda"', "vdev", "xvda", '"vda"'),
        ('"a.img"', "vdev", "a text of 1 to 4096 bytes", "nothing"),
        ('"vdev=xvda"', "target", "a text of 1 to 4096 bytes", "nothing"),
        ('"a.img,,xvda,r,timeout_ms=soon"', "timeout_ms", "a whole number from 1 to 3600000", '"soon"'),
        ('"a.img,,xvda,r,timeout_ms=0"', "timeout_ms", "a whole number from 1 to 3600000", "0"),
        ('{target="a.img", vdev="xvda", timeout_ms="5"}', "timeout_ms", "a whole number", '"5"'),
        ('{target=5, vdev="xvda"}', "target", "a text", "5"),
        ('{target="a\\u0000b", vdev="xvda"}', "target", "without NUL", r"'a\x00b'"),
    ],
)
def test_a_wrong_value_of_a_disk_is_named(
    problem: Callable[[str], Problem], disk: str, key: str, expected: str, found: str
) -> None:
    told = problem(GUEST + f"disk = [\n{disk}]\n")
    assert (told.key, told.line) == (f'domain[0] "ivi".disk[0].{key}', 5)
    assert expected in told.expected
    assert found == told.found


@pytest.mark.parametrize("disk", ["7", "true", "[]", '""', '"a\\u0000"'])
def test_a_disk_is_a_line_or_a_table(problem: Callable[[str], Problem], disk: str) -> None:
    assert problem(GUEST + f"disk = [{disk}]\n").key == 'domain[0] "ivi".disk[0]'


def test_disks_stand_in_a_list(problem: Callable[[str], Problem]) -> None:
    told = problem(GUEST + 'disk = "a.img,,xvda"\n')
    assert (told.key, told.hint) == ('domain[0] "ivi".disk', "write disk = [...]")


def test_a_misspelt_key_of_a_disk_is_corrected(problem: Callable[[str], Problem]) -> None:
    assert problem(GUEST + 'disk = ["a.img,,xvda,r,bakend=dom0"]\n').hint == 'did you mean "backend"?'


@pytest.mark.parametrize("flag", ["script=block", "backendtype=standalone", "colo", "colo-port=9"])
def test_what_only_xl_knows_is_called_that(problem: Callable[[str], Problem], flag: str) -> None:
    told = problem(GUEST + f'disk = ["a.img,,xvda,r,{flag}"]\n')
    assert (told.found, told.hint) == (f'the key "{flag.partition("=")[0]}"', "xl has this key, hvd does not")


@pytest.mark.parametrize(
    "word", ["direct-io-safe", "trusted", "untrusted", "backendtype=phy", "backendtype=qdisk", "backendtype=tap"]
)
def test_advice_to_xens_drivers_is_left_out_and_warned_of(cluster: Callable[[str], ClusterConfig], word: str) -> None:
    config = cluster(GUEST + f'disk = [\n"a.img,,xvda,w,{word}"]\n')
    assert config.domains == cluster(GUEST + 'disk = ["a.img,,xvda,w"]\n').domains
    assert [warning.partition(".toml:")[2] for warning in config.warnings] == [
        f'5: domain[0] "ivi".disk[0] does without {word}: it is advice to Xen\'s drivers'
    ]


@pytest.mark.parametrize("line", ["a.img,,hdc,cdrom", "phy:a.img,hdc:cdrom,w", "a.img,,hdc,rw,devtype=cdrom"])
def test_a_cdrom_is_read_only_whatever_its_access(cluster: Callable[[str], ClusterConfig], line: str) -> None:
    [device] = cluster(GUEST + f'disk = ["{line}"]\n').domain("ivi").devices
    keys = device.backend_keys
    assert (keys["mode"], keys["device-type"], keys["removable"]) == ("r", "cdrom", "1")
    assert (device.devid, device.frontend_keys["device-type"]) == (5632, "cdrom")


def test_a_drive_without_a_medium_is_left_out_and_warned_of(cluster: Callable[[str], ClusterConfig]) -> None:
    config = cluster(GUEST + 'disk = [",hdc:cdrom,r", "a.img,,xvda", ",,hdd,cdrom"]\n')
    assert [device.devid for device in config.domain("ivi").devices] == [51712]
    why = "is left out: a CD-ROM drive without a medium, and none can be put in later"
    assert [warning.partition(": ")[2] for warning in config.warnings] == [
        f'domain[0] "ivi".disk[{index}] {why}' for index in (0, 2)
    ]


def test_a_disk_that_is_to_offer_no_discarding_says_so(cluster: Callable[[str], ClusterConfig]) -> None:
    lines = 'disk = ["a.img,,xvda,w,no-discard", "b.img,,xvdb,w,discard"]\n'
    assert [d.backend_keys.get("discard-enable") for d in cluster(GUEST + lines).domain("ivi").devices] == ["0", None]


def test_dom0_may_be_named_by_its_number(cluster: Callable[[str], ClusterConfig]) -> None:
    assert cluster(GUEST + 'disk = ["a.img,,xvda,w,backend=0"]\n').domain("ivi").devices[0].backend == "Domain-0"


def test_what_target_swallowed_is_told(problem: Callable[[str], Problem]) -> None:
    told = problem(GUEST + 'disk = ["vdev=xvda,target=a.img,backend=dom0"]\n')
    assert (told.key, told.hint) == (
        'domain[0] "ivi".disk[0].target',
        "target= takes the rest of the line: put it last",
    )


def test_a_missing_image_is_named_with_its_path(problem: Callable[[str], Problem], directory: Path) -> None:
    told = problem(GUEST + 'disk = ["no.img,,xvda"]\n')
    assert told.key == 'domain[0] "ivi".disk[0].target'
    assert told.found == f'"{directory / "no.img"}": No such file or directory'


@pytest.mark.parametrize("size", [0, 1, 511, 513, 1000])
def test_an_image_is_whole_sectors(problem: Callable[[str], Problem], directory: Path, size: int) -> None:
    (directory / "odd.img").write_bytes(bytes(size))
    told = problem(GUEST + 'disk = ["odd.img,,xvda"]\n')
    assert told.expected == "a size that is a multiple of 512 bytes, not 0"
    assert told.found.startswith(f"{size} bytes in ")


def test_an_image_is_a_file_and_opening_it_never_blocks(
    problems: Callable[[str], list[Problem]], directory: Path
) -> None:
    os.mkfifo(directory / "fifo")
    (directory / "dir").mkdir()
    disks = '"fifo,,xvda", "dir,,xvdb", "/dev/null,,xvdc", "a.img/x,,xvdd"'
    found = [told.found for told in problems(GUEST + f"disk = [{disks}]\n")]
    assert found[:3] == ["a FIFO", "a directory", "a character device"]
    assert found[3].endswith("Not a directory")


@contextmanager
def not_root() -> Iterator[None]:
    """Root is let through where others are not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_an_image_is_opened_in_the_mode_asked() -> None:
    report = Report("cluster.toml", "")
    # Not below TMPDIR: that may be a directory which only root can enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        image = Path(place) / "a.img"
        image.write_bytes(bytes(512))
        image.chmod(0o444)
        with not_root():
            assert image_at(report, ("disk",), image, writable=False) is not None
            assert image_at(report, ("disk",), image, writable=True) is None
    [told] = report.problems()
    assert told.expected == "an image open to reading and writing"
    assert told.found.endswith(": Permission denied")


def test_looking_at_an_image_leaves_it_and_no_descriptor_behind(
    cluster: Callable[[str], ClusterConfig], directory: Path
) -> None:
    before = (directory / "a.img").stat(), len(list(Path("/proc/self/fd").iterdir()))
    cluster(GUEST + 'disk = ["a.img,,xvda,rw"]\n')
    after = (directory / "a.img").stat(), len(list(Path("/proc/self/fd").iterdir()))
    assert (before[0].st_mtime_ns, before[0].st_size, before[1]) == (after[0].st_mtime_ns, after[0].st_size, after[1])
