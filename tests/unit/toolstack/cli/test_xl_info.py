"""What `hvd info` says as `xl info` does: xl's names in xl's order (xl(1))."""

from __future__ import annotations

import os

from hvd.toolstack.cli.xl_info import xl_info

WORDS = """
    host release version machine nr_cpus max_cpu_id nr_nodes cores_per_socket threads_per_core cpu_mhz hw_caps virt_caps
    total_memory free_memory sharing_freed_memory sharing_used_memory outstanding_claims free_cpus xen_major xen_minor
    xen_extra xen_version xen_caps xen_scheduler xen_pagesize platform_params xen_changeset xen_commandline cc_compiler
    cc_compile_by cc_compile_domain cc_compile_date build_id xend_config_format
"""
IN_XL_1 = WORDS.split()


def test_every_name_is_xls_in_xls_order():
    told = list(xl_info({"cpus": 2, "memory_kib": 2048}))
    assert told == [name for name in IN_XL_1 if name in told]


def test_what_is_told_is_this_machines():
    told = xl_info({"cpus": 2, "memory_kib": 2048})
    assert (told["nr_cpus"], told["total_memory"], told["host"]) == ("2", "2", os.uname().nodename)
    assert told["xen_version"] == "4.17-hvd"
