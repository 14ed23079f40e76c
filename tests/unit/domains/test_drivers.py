"""Finding drivers: the shipped ones, registered ones, and what is said of those that cannot be had."""

import pytest

from hvd.domains.device import DeviceDriver
from hvd.domains.drivers import SHIPPED, find_driver
from hvd.transport.errors import LocalError


@pytest.fixture(autouse=True)
def forget():
    """What was found stays known for a process's life."""
    find_driver.cache_clear()
    yield
    find_driver.cache_clear()


@pytest.fixture
def register(tmp_path, monkeypatch):
    """register(kind, target, module_text): a package on the path with one entry point."""

    def write(kind, target, text=""):
        (tmp_path / f"{target.partition(':')[0]}.py").write_text(text)
        information = tmp_path / f"{kind}_package-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {kind}-package\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[hvd.drivers]\n{kind} = {target}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return write


DRIVER = "from hvd.domains.device import DeviceDriver\nD = DeviceDriver('{}', None, None)\n"


@pytest.mark.parametrize("kind", SHIPPED)
def test_every_shipped_driver_loads_and_says_what_the_conformance_suite_asks(kind):
    driver = find_driver(kind)
    assert driver.kind == kind
    assert driver.prose and driver.exercise is not None


def test_a_registered_driver_is_found(register):
    register("lamp", "lamp_module:D", DRIVER.format("lamp"))
    assert isinstance(find_driver("lamp"), DeviceDriver)


def test_a_shipped_kind_cannot_be_taken_over(register):
    register("echo", "impostor:D", DRIVER.format("echo"))
    assert find_driver("echo").prose


def test_an_unknown_kind_is_told_those_there_are(register):
    register("lamp", "lamp_two:D", DRIVER.format("lamp"))
    with pytest.raises(LocalError, match=r"no driver for device kind 'lump'; there are vbd, echo, .*lamp"):
        find_driver("lump")


@pytest.mark.parametrize(
    ("kind", "target", "text", "words"),
    [
        ("raising", "raising_module:D", "1 / 0", "does not load: ZeroDivisionError: division by zero"),
        ("absent", "absent_module:E", "", "is no DeviceDriver of that kind"),
        ("other", "other_module:D", DRIVER.format("lamp"), "is no DeviceDriver of that kind"),
        ("plain", "plain_module:D", "D = 'driver'", "is no DeviceDriver of that kind"),
    ],
)
def test_a_driver_that_does_not_load_is_named_with_its_kind(register, kind, target, text, words):
    register(kind, target, text)
    with pytest.raises(LocalError, match=f"{target} of kind '{kind}' {words}"):
        find_driver(kind)


def test_a_module_that_is_not_there_is_named(register, tmp_path):
    register("gone", "gone_module:D")
    (tmp_path / "gone_module.py").unlink()
    with pytest.raises(LocalError, match="gone_module:D of kind 'gone' does not load: ModuleNotFoundError"):
        find_driver("gone")
