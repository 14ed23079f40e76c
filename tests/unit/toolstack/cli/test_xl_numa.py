"""What `hvd info -n` says as `xl info -n` does: xl's tables, of this host's CPUs."""

from __future__ import annotations

from hvd.toolstack.cli.xl_numa import Topology

LINES = """\
cpu_topology           :
cpu:    core    socket     node
  0:       0        0        0
  1:       1        0        0
 10:       0        1        0
device topology        :
device           node
No device topology data available
numa_info              :
node:    memsize    memfree    distances
   0:     16384       1024      10
"""


def test_two_sockets(tmp_path):
    for cpu, core, socket in ((0, 0, 0), (1, 1, 0), (10, 0, 1)):
        directory = tmp_path / f"cpu{cpu}/topology"
        directory.mkdir(parents=True)
        (directory / "core_id").write_text(f"{core}\n")
        (directory / "physical_package_id").write_text(f"{socket}\n")
    (tmp_path / "cpufreq").mkdir()
    (tmp_path / "cpu11").mkdir()  # which is not online
    topology = Topology.here(16384, 1024, tmp_path)
    assert topology.lines() == LINES.splitlines()
    told = topology.as_dict()
    assert {"cpu": 10, "core": 0, "socket": 1, "node": 0} in told.pop("cpu_topology")  # type: ignore[operator]
    node = {"node": 0, "memsize": 16384, "memfree": 1024, "distances": [10]}
    assert told == {"device_topology": [], "numa_info": [node]}


def test_a_kernel_that_says_nothing_of_a_cpus_place(tmp_path):
    (tmp_path / "cpu0/topology").mkdir(parents=True)
    (tmp_path / "cpu0/topology/physical_package_id").write_text("-1\n")
    assert Topology.here(1, 1, tmp_path).cpus == ((0, 0, -1),)
    assert Topology.here(1, 1, tmp_path / "none").cpus == ()
