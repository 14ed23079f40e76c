"""Files that people boot with xl: what hvd makes of them, what it leaves out and says so, what it refuses."""

import re
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
    (here / "shell.cfg").write_text('name = "shell"\nkernel = "/bin/sh"\nroot = "-e"\nextra = "/srv/run fast"\n')
    config, warnings = load_xl_cfg(here / "shell.cfg", {}, {}, {})
    assert (config.kernel, config.args, warnings) == ("/bin/sh", ["root=-e", "/srv/run", "fast"], ())


def test_cmdline_stands_in_the_place_of_root_and_extra(here):
    (here / "a.cfg").write_text('name = "a"\nkernel = "ivi.py"\nextra = "b"\ncmdline = "c d"\nroot = "e"\n')
    config, warnings = load_xl_cfg(here / "a.cfg", {}, {}, {})
    assert config.args == ["c", "d"]
    assert [warning.partition("cfg:")[2] for warning in warnings] == [
        "3: extra is left out: cmdline stands in its place", "5: root is left out: cmdline stands in its place",
    ]  # fmt: skip


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


def in_place(directory, name):
    """The file with its images below the directory, where they are."""
    text = (FILES / name).read_text().replace("/srv/xen/", f"{directory}/")
    for image in re.findall(rf"{directory}/[\w/.-]+\.(?:img|iso)", text):
        Path(image).parent.mkdir(parents=True, exist_ok=True)
        Path(image).write_bytes(bytes(4096))
    (directory / name).write_text(text)
    return directory / name


LEFT_OUT = """
    bios hap acpi apic pae hpet nestedhvm timer_mode tsc_mode localtime firmware_override device_model_version
    device_model_args sdl vnc vnclisten vncunused stdvga videoram keymap serial usb usbdevice soundhw xen_platform_pci
    type boot
"""


@pytest.mark.parametrize(
    ("name", "is_", "devices", "left_out", "others"),
    [
        ("pv-linux.cfg", ("linux-pv", 128, 2, ["root=/dev/xvda1"]), (["xvda w disk"], [{}]), "", []),
        ("hvm-linux.cfg", ("linux-hvm", 128, 2, []), (["xvda w disk", "hdc r cdrom"],
         [{"type": "ioemu", "model": "e1000", "bridge": "xenbr0"}]), LEFT_OUT,
         ["disk[2] is left out: a CD-ROM drive without a medium, and none can be put in later"]),
        ("pvh-linux.cfg", ("linux-pvh", 512, 4, ["root=/dev/xvda1", "console=hvc0", "quiet"]), (["xvda w disk"], [{}]),
         "type maxvcpus cpus_soft cpu_weight cap vnuma", ["extra is left out: cmdline stands in its place"]),
        ("debian-pygrub.cfg", ("db1", 256, 1, ["root=/dev/xvda2", "ro"]), (["xvda2 w disk", "xvda1 w disk"],
         [{"ip": "10.0.0.21", "vifname": "db1.0"}]), "bootloader bootloader_args vfb", []),
        ("netbsd.cfg", ("netbsd", 64, 1, ["root=xbd0", "-v", "-s"]), (["0x1 w disk", "0x2 r cdrom"],
         [{"bridge": "bridge0", "script": "vif-bridge"}]), "",
         ["autoballoon is left out: neither xl nor hvd knows it"]),
        ("router.cfg", ("router", 96, 1, ["console=hvc0", "root=/dev/xvda1"]),
         (["xvda w disk", "xvdb w disk", "hdc r cdrom", "xvdc w disk", "51760 r disk"],
         [{"rate": "625000,50000"}, {"bridge": "dmz"}, {"gatewaydev": "eth1", "script": "vif-route"}]),
         "pci pci_permissive iomem irqs",
         ["vif[1] does without untrusted: it is advice to Xen's drivers",
          "disk[3] does without backendtype=qdisk: it is advice to Xen's drivers",
          "disk[3] does without direct-io-safe: it is advice to Xen's drivers"]),
        ("driver-net.cfg", ("netdriver", 64, 1, ["console=hvc0", "root=/dev/xvda", "ro"]), (["xvda r disk"], []),
         "type ramdisk pci passthrough", []),
    ],
)  # fmt: skip
def test_a_file_like_those_of_real_hosts_is_the_domain_that_it_says(here, *, name, is_, devices, left_out, others):
    disks, vifs = devices
    config, warnings = load_xl_cfg(in_place(here, name), {}, {}, {"kernel": "ivi.py"})
    assert (config.name, config.memory, config.vcpus, config.args) == is_
    kinds = {kind: [d.backend_keys for d in config.devices if d.kind == kind] for kind in ("vbd", "vif")}
    assert [f"{keys['dev']} {keys['mode']} {keys['device-type']}" for keys in kinds["vbd"]] == disks
    assert [{key: keys[key] for key in expected} for keys, expected in zip(kinds["vif"], vifs, strict=True)] == vifs
    told = [re.sub(r".*\.cfg:\d+: ", "", warning) for warning in warnings]
    of_xl = [warning.split()[0] for warning in told if "is left out: xl has it, hvd does not" in warning]
    assert sorted(of_xl) == sorted(left_out.split())
    assert sorted(warning for warning in told if "xl has it" not in warning) == sorted(others)


def test_any_number_but_0_is_true_to_xl(here):
    assert load_xl_cfg(in_place(here, "driver-net.cfg"), {}, {}, {"kernel": "ivi.py"}).config.driver_domain
    given = ["driver_domain = 0"]
    assert not load_xl_cfg(here / "driver-net.cfg", {}, {}, {"kernel": "ivi.py"}, given).config.driver_domain


MANUAL = """
    vnc viridian acpi localtime nestedhvm keymap tsc_mode vnuma rdm pvshim passthrough serial dtdev sdl bios hap usb
    init_seclabel firmware spice e820_host cpuid mca_caps vuart tee ms_vm_genid stubdomain_memory vncviewer period
"""


@pytest.mark.parametrize("key", MANUAL.split())
def test_a_word_that_xl_knows_is_never_corrected(here, key):
    (here / "guest.cfg").write_text(f'name = "a"\nkernel = "ivi.py"\n{key} = 1\n')
    _, [warning] = load_xl_cfg(here / "guest.cfg", {}, {}, {})
    assert warning.endswith(f"guest.cfg:3: {key} is left out: xl has it, hvd does not (1)")


@pytest.mark.parametrize("content", [None, b"name = '\xff'\n"])
def test_a_file_that_cannot_be_read_is_called_an_xl_cfg(here, content):
    if content is not None:
        (here / "guest.cfg").write_bytes(content)
    assert wrong(here / "guest.cfg")[0].expected == "an xl.cfg of at most 1048576 bytes in UTF-8"


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


def test_what_is_a_text_may_stand_as_a_number_and_is_as_it_was_written(here):
    lines = ("name = 'a'", "kernel = 'ivi.py'", "extra = 0x05", "root = 007", "cpus = 0", "memory = '0x40'")
    (here / "guest.cfg").write_text("\n".join(lines))
    config, _ = load_xl_cfg(here / "guest.cfg", {}, {}, {})
    assert (config.args, config.cpus, config.memory) == (["root=007", "0x05"], [0], 64)


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
    ("line", "key", "column"),
    [
        ("memory = 'much'", "memory", 10),
        ("memory = [64]", "memory", 10),
        ("driver_domain = 'yes'", "driver_domain", 17),
        ("vcpus = 1; disk = 'x.img'", "disk", 19),
        ("disk = [ 'vdev=xvda,target=ivi.img', [7] ]", "disk[1]", 38),
        ("cmdline = [3]", "cmdline", 11),
        ("on_crash =\t'explode'", "on_crash", 12),
    ],
)
def test_a_wrong_type_is_told_with_its_line_and_column(here, line, key, column):
    (here / "guest.cfg").write_text(f'name = "a"\nkernel = "ivi.py"\n\n{line}\n')
    (problem,) = wrong(here / "guest.cfg")
    assert (problem.key, problem.line, problem.column) == (key, 4, column)
    assert str(problem).startswith(f"{here}/guest.cfg:4:{column}: {key}: expected ")


def test_a_text_that_is_no_xl_cfg_is_told_with_line_and_column(here):
    (here / "guest.cfg").write_text('name = "a"\nkernel == 1\n')
    assert str(wrong(here / "guest.cfg")[0]).endswith("guest.cfg:2:9: expected a string, a number or a list, found '='")


def test_lines_of_the_command_line_stand_in_the_place_of_the_files(here):
    lines = ["memory=64; on_crash='preserve'", 'name = "maps"']
    config, _ = load_xl_cfg(FILES / "cockpit-guest.cfg", {}, {}, {}, lines)
    assert (config.name, config.memory, config.on_crash) == ("maps", 64, "preserve")
    assert config.args == ["volume=7", "language=de"]


@pytest.mark.parametrize(
    "line", ["memory=", "memory='lots'", "memory=08", f"memory={10**20}", "vcpus=0b1", "cmdline=[7]"]
)
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


def test_how_much_of_the_disks_a_domain_may_have_is_a_key_of_hvds_own(here):
    (here / "slow.cfg").write_text('name = "slow"\nkernel = "/bin/sh"\nio_bps = "1000000"\n')
    config, warnings = load_xl_cfg(here / "slow.cfg", {}, {}, {})
    assert (config.io_bps, warnings) == (1_000_000, ())
