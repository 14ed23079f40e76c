"""What a spare goes through while it stands by is served as a disk would be, and leaves nothing of itself."""

import json
import subprocess
import sys

import pytest

SPARE = """
import gc, json, os, resource, sys
from pathlib import Path
from hvd.domains.rehearsal import Props, rehearse
from hvd.domains.runtime import Runtime
from hvd.transport.channels import create_channel
from hvd.transport.descriptors import socket_pair
from hvd.transport.pages import create_extent
from hvd.transport.trace import create_trace_buffer, read_head
from hvd.transport.upcalls import UpcallReceiver

certificate = {
    "domid": 1, "incarnation": 7, "name": "storage", "args": [], "service": "", "run_dir": "/", "devices": [],
    "console_port": 2, "upcall_port": 1, "server_key": bytes(32),
}
hypervisor, ours = socket_pair()
trace, console, upcall = create_trace_buffer(), create_channel(), create_channel()
descriptors = [
    create_extent(1, "info"), os.dup(trace), create_extent(1, "console"), os.dup(console.page_fd),
    os.dup(console.ends[1].rx), os.dup(console.ends[1].tx), os.dup(upcall.page_fd), os.dup(upcall.ends[1].rx),
]
runtime = Runtime(certificate, descriptors, UpcallReceiver(ours), "")
runtime.stands_by = True

def left():
    gc.collect()
    mapped = Path("/proc/self/maps").read_text()
    return [
        sorted(os.listdir("/proc/self/fd")), mapped.count("memfd"), sorted(runtime._handlers), runtime.stands_by,
        len(runtime.store._watches), len(runtime.grants._mapped), runtime.hypercalls.requests.sequence,
        read_head(trace), runtime._raised == set(), len(runtime.store._afterwards),
    ]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = left()
for line in sys.argv[1:]:
    exec(line)
props = Props()
answered = rehearse(runtime, props)
try:
    said = hypervisor.recv(1)
except BlockingIOError:
    said = b""
json.dump([answered, before, left(), said.decode()], sys.stdout)
"""


def rehearsed(*lines: str) -> list[object]:
    """Whether the request was answered, what there was before and is afterwards, what the real hypervisor has heard."""
    command = [sys.executable, "-c", SPARE, *lines]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    told: list[object] = json.loads(result.stdout)
    return told


def test_a_spare_has_served_a_request_and_nothing_of_it_is_left():
    answered, before, after, heard = rehearsed()
    assert answered is True
    assert after == before
    assert heard == ""


def test_on_a_machine_so_busy_that_its_time_is_over_it_is_the_same():
    answered, before, after, heard = rehearsed("from hvd.domains import driver_domain", "driver_domain.LINGER_S = 0.0")
    assert answered is True
    assert after == before
    assert heard == ""


@pytest.mark.parametrize("room", range(0, 24, 3))
def test_a_host_that_refuses_a_descriptor_has_it_do_without_and_keep_nothing(room):
    limit = (
        "real = Runtime.on_stage",
        "def on_stage(self, *rest):\n"
        f"    lowest = os.dup(0); os.close(lowest); most = lowest + {room}\n"
        "    stage = real(self, *rest)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "    return stage",
        "Runtime.on_stage = on_stage",
    )
    _, before, after, heard = rehearsed(*limit)
    assert after == before
    assert heard == ""
