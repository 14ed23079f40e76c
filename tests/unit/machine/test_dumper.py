"""Which cores are kept, and where one that cannot be written leaves the directory."""

import os
import stat

from hvd.machine.dumper import CORES_KEPT_MAX, Target, dump, dump_dying, prune

NO_PROCESS = 4_194_304, 1
"""One more than the largest pid that there can be, and a domid."""


def names(directory):
    return sorted(entry.name for entry in directory.iterdir())


def test_the_oldest_cores_of_a_name_go_and_others_stay(tmp_path):
    for age, name in enumerate(["car.9", "car.10", "car.1", "car.2", "car.2.1", "carpet.1", "car"]):
        (tmp_path / f"{name}.core").touch()
        os.utime(tmp_path / f"{name}.core", (age, age))
    assert CORES_KEPT_MAX == 3
    prune(tmp_path, "car.2")
    assert names(tmp_path) == ["car.1.core", "car.10.core", "car.2.1.core", "car.2.core", "car.core", "carpet.1.core"]


def test_a_process_that_is_gone_has_no_core_and_leaves_nothing(tmp_path):
    cores = tmp_path / "cores"
    assert dump_dying(NO_PROCESS, cores, "car.1", None) == "no core: it ended before its core was written"
    assert names(cores) == []
    assert stat.S_IMODE(cores.stat().st_mode) == 0o700


def test_what_an_earlier_dumper_left_is_no_obstacle(tmp_path):
    (tmp_path / "car.1.core.part").write_bytes(b"half")
    (tmp_path / "car.1.core").write_bytes(b"old")
    dump_dying(NO_PROCESS, tmp_path, "car.1", None)
    assert names(tmp_path) == ["car.1.core"]
    assert (tmp_path / "car.1.core").read_bytes() == b"old"


def test_a_directory_that_is_none_is_said(tmp_path):
    (tmp_path / "cores").touch()
    assert dump_dying(NO_PROCESS, tmp_path / "cores", "car.1", None) == "no core: File exists"



def test_what_is_no_file_is_not_replaced_by_a_core(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    target = Target(tmp_path / "pipe", tmp_path / "pipe.part", bytes_max=1)
    assert dump((os.getppid(), 1), target) == f"no core: {tmp_path / 'pipe'} is no regular file"
    assert names(tmp_path) == ["pipe"]
