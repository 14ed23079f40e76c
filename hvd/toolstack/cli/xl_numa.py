"""What `xl info -n` says of CPUs and nodes (xl(1)), said of this host. hvd knows no NUMA nodes: all of it is in one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

BEHIND_TOPOLOGY = "xen_major"
"""xl's tables stand before this fact."""
NODE = 0
NEAR = 10
"""How far a node is from itself, in the firmware's (SLIT's) measure."""
_CPUS = Path("/sys/devices/system/cpu")


class Topology(NamedTuple):
    """CPUs by number, with core and socket; and the node's memory, in MiB."""

    cpus: tuple[tuple[int, int, int], ...]
    memory: int
    free: int

    @classmethod
    def here(cls, memory: int, free: int, cpus: Path = _CPUS) -> Topology:
        """Of the CPUs that the kernel tells of."""
        numbers = sorted(int(path.parent.name[3:]) for path in cpus.glob("cpu[0-9]*/topology"))
        directories = [(n, cpus / f"cpu{n}" / "topology") for n in numbers]
        places = tuple((n, _number(d / "core_id"), _number(d / "physical_package_id")) for n, d in directories)
        return cls(places, memory, free)

    def lines(self) -> list[str]:
        """xl's three tables."""
        return [
            "cpu_topology           :",
            "cpu:    core    socket     node",
            *(f"{cpu:>3}:    {core:>4}     {socket:>4}     {NODE:>4}" for cpu, core, socket in self.cpus),
            "device topology        :",
            "device           node",
            "No device topology data available",
            "numa_info              :",
            "node:    memsize    memfree    distances",
            f"{NODE:>4}:    {self.memory:>6}     {self.free:>6}      {NEAR}",
        ]

    def as_dict(self) -> dict[str, object]:
        """The same for programs."""
        cpus = [{"cpu": cpu, "core": core, "socket": socket, "node": NODE} for cpu, core, socket in self.cpus]
        node = {"node": NODE, "memsize": self.memory, "memfree": self.free, "distances": [NEAR]}
        return {"cpu_topology": cpus, "device_topology": [], "numa_info": [node]}


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
