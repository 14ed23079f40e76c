"""Any bytes as a cluster file: a cluster that fits the wire and has an order to start in, or problems that name
their lines."""

from __future__ import annotations

from hvd.toolstack.config.cluster_file import load
from hvd.toolstack.config.positions import lines_of
from hvd.toolstack.config.problems import ConfigError
from hvd.transport.codec import pack_request, unpack_request
from hvd.transport.messages import DomctlCreate
from tests.fuzz.python.file_in_memory import FileInMemory
from tests.fuzz.python.problems_named import judge_problems

FILE = FileInMemory("cluster.toml")


def play(data: bytes) -> None:
    try:
        cluster = load(FILE.hold(data))
    except ConfigError as error:
        judge_problems(error, data)
        return
    lines = lines_of(data.decode("utf-8-sig"))
    assert all(1 <= line <= data.count(b"\n") + 1 for line in lines.values())
    order = {name: place for place, name in enumerate(cluster.start_order)} | {"Domain-0": -1}
    for domain in (cluster.dom0, *cluster.domains):
        message = DomctlCreate(domain)
        assert unpack_request(pack_request(message, 1, 0, 0))[3] == message
    for domain in cluster.domains:
        for other in (*domain.after, *(device.backend for device in domain.devices)):
            assert order[other] < order[domain.name]
