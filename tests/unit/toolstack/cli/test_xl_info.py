"""What `hvd info` says as `xl info` does: xl's names in xl's order (xl(1))."""

from __future__ import annotations

import os
from pathlib import Path

from hvd.toolstack.cli.xl_info import Fact, processor, xl_info

WORDS = """
    host release version machine nr_cpus max_cpu_id nr_nodes cores_per_socket threads_per_core cpu_mhz hw_caps virt_caps
    total_memory free_memory sharing_freed_memory sharing_used_memory outstanding_claims free_cpus xen_major xen_minor
    xen_extra xen_version xen_caps xen_scheduler xen_pagesize platform_params xen_changeset xen_commandline cc_compiler
    cc_compile_by cc_compile_domain cc_compile_date build_id xend_config_format
"""
IN_XL_1 = WORDS.split()


def test_every_name_of_xls_is_there_in_xls_order():
    assert list(xl_info({"cpus": 2, "memory_kib": 2048})) == IN_XL_1


def test_what_is_told_is_this_machines():
    told = xl_info({"cpus": 2, "memory_kib": 2048})
    assert (told["nr_cpus"], told["total_memory"], told["host"]) == (2, 2, os.uname().nodename)
    assert told["xen_version"] == "4.17-hvd"
    assert told["max_cpu_id"] in os.sched_getaffinity(0)


def host(tmp_path: Path, cpuinfo: str, files: dict[str, str]) -> dict[str, Fact]:
    for name, text in files.items():
        (tmp_path / "cpu0" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cpu0" / name).write_text(text)
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    return processor(tmp_path, tmp_path / "cpuinfo")


def test_a_processor_of_two_sockets_with_hyperthreads(tmp_path):
    cpuinfo = "processor\t: 0\ncpu MHz\t\t: 2596.122\nflags\t\t: fpu vme\n\nprocessor\t: 1\nflags\t\t: none\n"
    topology = {"topology/core_cpus_list": "0,8\n", "topology/package_cpus_list": "0-3,8-11\n"}
    expected = {"cores_per_socket": 4, "threads_per_core": 2, "cpu_mhz": "2596.122", "hw_caps": "fpu vme"}
    assert host(tmp_path, cpuinfo, topology) == expected
    assert host(tmp_path, cpuinfo, {"cpufreq/cpuinfo_max_freq": "3700000\n"})["cpu_mhz"] == "3700.000"


def test_a_host_whose_kernel_says_nothing_of_its_processor(tmp_path):
    assert set(host(tmp_path, "", {}).values()) == {"none"}
    assert host(tmp_path, "processor : 0\nFeatures : fp asimd\n", {})["hw_caps"] == "fp asimd"
