"""The fuzz targets: for each the file that plays one input, and how long an input may be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
ROOT = FUZZ.parents[1]
BUILD = ROOT / "build" / "fuzz"


@dataclass(frozen=True, slots=True)
class Target:
    """One target; its seeds are checked in, what a run learns stays in build/."""

    name: str
    bytes_max: int
    native: bool = False

    @property
    def source(self) -> Path:
        return FUZZ / "native" / f"{self.name}.cpp" if self.native else FUZZ / "python" / f"{self.name}.py"

    @property
    def seeds(self) -> Path:
        return FUZZ / "corpus" / self.name

    @property
    def dictionary(self) -> Path:
        """Words that the engine puts into inputs, if the target has some."""
        return FUZZ / "dictionaries" / f"{self.name}.dict"

    @property
    def learnt(self) -> Path:
        return BUILD / "corpus" / self.name

    @property
    def findings(self) -> Path:
        """Inputs that something was found with."""
        return BUILD / "findings" / self.name


TARGETS = {
    target.name: target
    for target in (
        Target("ring", 600, native=True),
        Target("console_ring", 600, native=True),
        Target("channel", 400, native=True),
        Target("mapping", 400, native=True),
        Target("blkif", 900, native=True),
        Target("blkback", 600, native=True),
        Target("blkfront", 600, native=True),
        Target("net_switch", 700, native=True),
        Target("netfront", 600, native=True),
        Target("histogram", 200, native=True),
        Target("hypercall_bytes", 400),
        Target("hypercalls", 400),
        Target("store", 600),
        Target("xs_wire", 500),
        Target("upcalls", 300),
        Target("machine_link", 300),
        Target("fault_notice", 32),
        Target("posts", 300),
        Target("sandboxes", 300),
        Target("xenbus", 400),
        Target("xl_cfg", 1000),
        Target("cluster_file", 1000),
        Target("policy_file", 1000),
        Target("plan_file", 1000),
        Target("trace_records", 300),
        Target("journal", 300),
        Target("write_log", 300),
        Target("memory_map", 1000),
        Target("line_discipline", 300),
        Target("console_frontend", 300),
    )
}
