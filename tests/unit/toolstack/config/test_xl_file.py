"""Files that people boot with xl: what hvd makes of them, what it leaves out and says so, what it refuses."""

from pathlib import Path

import pytest

from hvd.toolstack.config.problems import ConfigError
from hvd.toolstack.config.xl_file import load_xl_cfg

FILES = Path(__file__).with_name("xl")
KERNEL = "def main(guest):\n    guest.run_forever()\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with a kernel and two images, where the toolstack runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("ivi.py", "other.py"):
        (tmp_path / name).write_text(KERNEL)
    for name in ("ivi.img", "maps.img"):
        (tmp_path / name).write_bytes(bytes(4096))
    return tmp_path


def load(name, **given):
    return load_xl_cfg(FILES / name, {}, {}, given)


def wrong(path, **given):
    with pytest.raises(ConfigError) as caught:
        load_xl_cfg(path, {}, {}, given)
    return caught.value.problems


def test_a_guest_of_ours_is_read_whole(here):
    config, warnings = load("cockpit-guest.cfg")
    assert (config.name, config.memory, config.kernel) == ("ivi", 128, str(here / "ivi.py"))
    assert config.args == ["volume=7", "language=de"]
    assert [(d.backend_keys["dev"], d.backend_keys["mode"]) for d in config.devices] == [("xvda", "w"), ("xvdb", "r")]
    assert (config.on_poweroff, config.on_reboot, config.on_crash) == ("destroy", "restart", "destroy")
    assert [warning.partition("cfg:")[2] for warning in warnings] == [
        "10: vfb is left out: xl has it, hvd does not (a list of 1)",
        "11: vkb is left out: xl has it, hvd does not (a list of 1)",
    ]


def test_what_a_kernel_gets_on_its_command_line_are_a_programs_arguments(here):
    (here / "shell.cfg").write_text('name = "shell"\nkernel = "/bin/sh"\ncmdline = "-e"\nextra = "/srv/run fast"\n')
    config, warnings = load_xl_cfg(here / "shell.cfg", {}, {}, {})
    assert (config.kernel, config.args, warnings) == ("/bin/sh", ["-e", "/srv/run", "fast"], ())


def test_a_kernel_that_cannot_be_booted_is_refused_by_name(here):
    problems = wrong(FILES / "driver-domain.cfg")
    assert [(p.key, p.line) for p in problems] == [("kernel", 4), ("disk[0].target", 13)]
    assert "/boot/vmlinuz-driver" in problems[0].found


def test_what_is_given_beside_a_file_stands_in_its_place(here):
    (here / "guest.cfg").write_text((FILES / "driver-domain.cfg").read_text().replace("/srv/xen/driver.img", "ivi.img"))
    config, warnings = load_xl_cfg(here / "guest.cfg", {}, {}, {"kernel": "other.py", "memory": 32})
    assert (config.name, config.kernel, config.memory) == ("storage", str(here / "other.py"), 32)
    assert config.driver_domain
    assert config.args == ["console=hvc0", "root=/dev/xvda1", "quiet"]
    assert config.on_crash == "restart"
    assert {w.split(": ")[1].split()[0] for w in warnings} == {"type", "ramdisk", "pci"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("debian-pv.cfg", {"kernel", "disk[0]", "disk[1]"}),
        ("hvm-windows.cfg", {"kernel", "disk[0]", "disk[1]"}),
    ],
)
def test_files_of_real_systems_are_read_and_every_mistake_has_its_line(here, name, expected):
    problems = wrong(FILES / name)
    assert {problem.key.partition(".")[0] for problem in problems} == expected
    lines = (FILES / name).read_text().splitlines()
    for problem in problems:
        assert problem.line is None or 1 <= problem.line <= len(lines)


def test_numbers_may_stand_in_quotes_and_disks_begin_with_xends_word_for_them(here):
    (here / "guest.cfg").write_text(
        "name = 'web'\nkernel = 'ivi.py'\nmemory = '512'\nvcpus = '2'\ndisk = ['file:ivi.img,xvda2,w']\n"
    )
    config, _ = load_xl_cfg(here / "guest.cfg", {}, {}, {})
    assert (config.memory, config.vcpus) == (512, 2)
    assert config.devices[0].backend_keys["params"] == str(here / "ivi.img")


def test_a_seclabel_is_the_type_of_a_flask_context(here):
    (here / "guest.cfg").write_text('name = "a"\nkernel = "ivi.py"\nseclabel = "system_u:system_r:domU_t"\n')
    config, warnings = load_xl_cfg(here / "guest.cfg", {}, {}, {})
    assert (config.seclabel, warnings) == ("domU_t", ())


def test_a_key_that_nobody_knows_is_a_warning_with_a_guess(here):
    (here / "guest.cfg").write_text('name = "a"\nkernel = "ivi.py"\nmemroy = 64\nwings = 2\n')
    _, warnings = load_xl_cfg(here / "guest.cfg", {}, {}, {})
    assert [w.partition("cfg:")[2] for w in warnings] == [
        '3: memroy is left out: did you mean "memory"?',
        "4: wings is left out: neither xl nor hvd knows it",
    ]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("memory = 'much'", "memory"),
        ("memory = [64]", "memory"),
        ("driver_domain = 2", "driver_domain"),
        ("disk = 'x.img'", "disk"),
        ("cmdline = 3", "cmdline"),
        ("on_crash = 'explode'", "on_crash"),
    ],
)
def test_a_wrong_type_is_told_with_its_line(here, line, key):
    (here / "guest.cfg").write_text(f'name = "a"\nkernel = "ivi.py"\n\n{line}\n')
    (problem,) = wrong(here / "guest.cfg")
    assert (problem.key, problem.line) == (key, 4)


def test_a_text_that_is_no_xl_cfg_is_told_with_line_and_column(here):
    (here / "guest.cfg").write_text('name = "a"\nkernel == 1\n')
    assert str(wrong(here / "guest.cfg")[0]).endswith("guest.cfg:2:9: expected a string, a number or a list, found '='")


def test_lines_of_the_command_line_stand_in_the_place_of_the_files(here):
    lines = ["memory=64; on_crash='preserve'", 'name = "maps"']
    config, _ = load_xl_cfg(FILES / "cockpit-guest.cfg", {}, {}, {}, lines)
    assert (config.name, config.memory, config.on_crash) == ("maps", 64, "preserve")
    assert config.args == ["volume=7", "language=de"]


@pytest.mark.parametrize("line", ["memory=", "memory='lots'", "cmdline=7"])
def test_a_line_of_the_command_line_that_is_wrong_is_told(here, line):
    with pytest.raises(ConfigError) as caught:
        load_xl_cfg(FILES / "cockpit-guest.cfg", {}, {}, {}, [line])
    (problem,) = caught.value.problems
    assert problem.file == "command line"


def test_a_uuid_is_written_as_libxl_writes_it(here):
    given = ["uuid='59E1CF6C6AB9-4879-90e7adc8d1c63bf5'"]
    config, _ = load_xl_cfg(FILES / "cockpit-guest.cfg", {}, {}, {}, given)
    assert config.uuid == "59e1cf6c-6ab9-4879-90e7-adc8d1c63bf5"
    with pytest.raises(ConfigError, match="32 hexadecimal digits"):
        load_xl_cfg(FILES / "cockpit-guest.cfg", {}, {}, {}, ["uuid='59e1'"])


def test_what_is_wrong_on_the_command_line_is_told_of_the_command_line(here):
    (here / "guest.cfg").write_text('name = "ivi"\nkernel = "other.py"\nvcpus = "many"\n')
    with pytest.raises(ConfigError) as raised:
        load_xl_cfg(here / "guest.cfg", {}, {}, {}, ['memory = "half"', 'disk = ["nonsense"]'])
    told = {problem.key: (problem.file, problem.line) for problem in raised.value.problems}
    assert told.pop("vcpus") == (str(here / "guest.cfg"), 3)
    assert len(told) == 2 and set(told.values()) == {("command line", None)}
