"""Any text at all is either a cluster or a list of problems, and a cluster fits the wire."""

import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hvd.toolstack.config import ClusterConfig, ConfigError, load
from hvd.toolstack.config.disk_line import disk_line
from hvd.toolstack.config.positions import lines_of
from hvd.toolstack.config.problems import Report
from hvd.toolstack.config.vdev import device_number
from hvd.toolstack.config.vifs import Owner, read_vif
from hvd.transport.codec import pack_request, unpack_request
from hvd.transport.ids import DomId
from hvd.transport.messages import DomctlAttach, DomctlCreate

VALID = """\
policy = "silo"
flask = "permissive"
[cluster]
name = "cockpit"
[dom0]
memory = 128
[[domain]]
name = "storage"
kernel = "hvd:driver_domain"
driver_domain = true
[[domain]]
name = "ivi"
kernel = "guest.py"
seclabel = "safety_t"
args = ["--fast"]
cpus = "all"
after = ["storage"]
disk = ["format=raw,vdev=xvda,access=rw,backend=storage,target=a.img", {target="b.img", vdev="xvdb", access="r"}]
[[domain.device]]
type = "echo"
backend = "storage"
speed = "9600"
"""

KEY_TEXT = """
    cluster dom0 domain name kernel memory vcpus cpus args disk device driver_domain on_crash on_reboot after
    policy flask seclabel
    restart_limit restart_delay_ms type backend target vdev access format timeout_ms speed vif kernal state
"""
WORD_TEXT = """
    silo permissive u:r:domU_t
    ivi storage dom0 Domain-0 guest.py gone.py hvd:dom0 json:main a.img b.img xvda xvdb d0p1 raw rw r restart
    destroy echo vbd all 0-3,^1 a.img,,xvda,rw a.img,raw,xvda,r,backend=storage vdev=xvda,target=a.img
"""
KEYS, WORDS = KEY_TEXT.split(), WORD_TEXT.split()

scalars = (
    st.sampled_from(WORDS)
    | st.text(max_size=20)
    | st.integers()
    | st.integers(-1, 70)
    | st.booleans()
    | st.floats()
    | st.datetimes(min_value=datetime.datetime(1, 1, 1))
)
keys = st.sampled_from(KEYS) | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4))
domains = st.dictionaries(keys, values, max_size=8)
documents = st.dictionaries(keys, values, max_size=4) | st.fixed_dictionaries(
    {"domain": st.lists(domains, max_size=4)}, optional={"dom0": domains, "cluster": domains}
)


def quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{escaped}"'


def toml(value: Any) -> str:
    """A value as TOML writes it inline."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)


def toml_document(document: dict[str, Any]) -> str:
    """A document, one key of the root a line."""
    return "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in document.items())


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Where guest.py is a kernel, a.img and b.img are images."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "guest.py").write_text("def main(guest): ...\n")
        for image in ("a.img", "b.img"):
            (Path(name) / image).write_bytes(bytes(512))
        yield Path(name)


def loaded(directory: Path, content: bytes) -> ClusterConfig | ConfigError:
    """What the content comes to; every answer is checked for what all answers promise."""
    file = directory / "cluster.toml"
    file.write_bytes(content)
    try:
        config = load(file)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.expected
            assert problem.found
            assert str(problem).startswith(str(file))
            assert "\n" not in str(problem)
            assert problem.line is None or 1 <= problem.line <= content.count(b"\n") + 1
        return error
    for domain in (config.dom0, *config.domains):
        assert unpack_request(pack_request(DomctlCreate(domain), 1, 0, 0))[3] == DomctlCreate(domain)
    position = {name: index for index, name in enumerate(config.start_order)} | {"Domain-0": -1}
    for domain in config.domains:
        for other in [*domain.after, *(device.backend for device in domain.devices)]:
            assert position[other] < position[domain.name]
    return config


def test_the_document_that_is_mutated_is_a_cluster(directory: Path) -> None:
    assert isinstance(loaded(directory, VALID.encode()), ClusterConfig)


@given(documents)
def test_any_document_is_a_cluster_or_problems(directory: Path, document: dict[str, Any]) -> None:
    loaded(directory, toml_document(document).encode())


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | st.text("[]{}=.\"'#\n, a1", max_size=60).map(str.encode)
)
@example(b"a = nan")
@example(b"a = 0x" + b"f" * 5000)
def test_any_bytes_are_a_cluster_or_problems(directory: Path, content: bytes) -> None:
    loaded(directory, content)


@given(st.data())
def test_any_mutation_of_a_cluster_is_a_cluster_or_problems(directory: Path, data: st.DataObject) -> None:
    text = VALID
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.sampled_from(WORDS + KEYS) | st.text(max_size=3) | st.just("")) + text[end:]
    loaded(directory, text.encode())


@given(st.lists(st.sampled_from(range(VALID.count("\n"))), max_size=6), st.data())
def test_any_lines_out_of_order_are_a_cluster_or_problems(
    directory: Path, dropped: list[int], data: st.DataObject
) -> None:
    lines = [line for number, line in enumerate(VALID.splitlines()) if number not in dropped]
    loaded(directory, "\n".join(data.draw(st.permutations(lines))).encode())


@given(st.dictionaries(keys, values, max_size=6), st.integers(0, 3), st.booleans())
def test_every_key_of_any_document_has_its_line(document: dict[str, Any], gap: int, windows: bool) -> None:
    text = ("\n" * gap).join(["", *toml_document(document).splitlines(keepends=True)])
    lines = lines_of(text.replace("\n", "\r\n") if windows else text)
    assert [lines[(key,)] for key in document] == [1 + gap + index * (1 + gap) for index in range(len(document))]
    for key, value in document.items():
        for index in range(len(value) if isinstance(value, list) else 0):
            assert lines[(key, index)] == lines[(key,)]


@given(st.text(max_size=40) | st.lists(st.sampled_from(WORDS + KEYS), max_size=6).map(",".join))
def test_any_disk_line_is_keys_or_problems(line: str) -> None:
    report = Report("cluster.toml", "")
    keys = disk_line(report, (), line)
    assert keys or report.problems() or not line.replace(",", "").strip() or "=" in line


VIF_KEY_TEXT = "mac bridge backend rate ip gateway vifname devid mtu antispoof vlan model type script"
VIF_VALUE_TEXT = """
    00:16:3e:01:02:03 ff:ff:ff:ff:ff:ff 00:16:3e cabin cabin.7:8 10Mb/s@20ms 1GB/s 10.0.0.2/16 fd00::1/200 10.0.0.300
    9000 99999999 1 0 yes -1 1.5 e1000 vif-bridge
"""
VIF_KEYS, VIF_VALUES = VIF_KEY_TEXT.split(), VIF_VALUE_TEXT.split()
VIF_PARTS = st.builds("{}={}".format, st.sampled_from(VIF_KEYS), st.sampled_from(VIF_VALUES) | st.text(max_size=6))


@given(line=st.text(max_size=40) | st.lists(VIF_PARTS, max_size=5).map(",".join), program=st.booleans())
def test_any_vif_line_is_a_vif_or_problems_that_name_it(line: str, program: bool) -> None:
    report = Report("cluster.toml", "")
    vif = read_vif(report, ("vif", 0), line, Owner("ivi", 0, program), {})
    problems = report.problems()
    assert all(problem.key.startswith("vif[0]") and problem.expected and problem.found for problem in problems)
    if not problems:
        assert vif is not None
        call = DomctlAttach(DomId(1), vif.config)
        assert unpack_request(pack_request(call, 1, 0, 0))[3] == call


@given(st.text(max_size=8) | st.from_regex(r"(xvd|sd|hd|d)[a-z0-9]{1,4}(p[0-9]{1,3})?", fullmatch=True))
def test_any_device_number_is_of_a_block_device_that_xen_has(vdev: str) -> None:
    number = device_number(vdev)
    assert number is None or vdev[0].isdecimal() or number >> 28 == 1 or number >> 8 in {202, 8, 3, 22}
