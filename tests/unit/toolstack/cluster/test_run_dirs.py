"""Where a cluster's directory is by default, and which directories are refused."""

import os
from pathlib import Path

import pytest

from hvd.toolstack.cluster import BadRunDir
from hvd.toolstack.cluster.run_dirs import check_run_dir, default_run_dir, make_private_dir


def test_hvd_run_dir_names_the_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HVD_RUN_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/elsewhere")
    assert default_run_dir() == tmp_path / "mine"


def test_a_relative_hvd_run_dir_is_meant_from_the_current_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HVD_RUN_DIR", "mine")
    assert default_run_dir() == tmp_path / "mine"


def test_the_users_runtime_directory_comes_next(monkeypatch, tmp_path):
    monkeypatch.delenv("HVD_RUN_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_run_dir() == tmp_path / "hvd"


@pytest.mark.parametrize(("user", "path"), [(0, "/run/hvd"), (1234, "/tmp/hvd-1234")])
def test_without_either_it_depends_on_the_user(monkeypatch, user, path):
    monkeypatch.delenv("HVD_RUN_DIR", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert default_run_dir() == Path(path)


def test_a_directory_that_is_missing_or_empty_or_a_clusters_is_fit(tmp_path):
    check_run_dir(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    check_run_dir(tmp_path / "empty")
    (tmp_path / "empty" / "log").mkdir()
    check_run_dir(tmp_path / "empty")


def test_a_directory_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BadRunDir, match=r"holds other things \(thesis\.txt\)"):
        check_run_dir(tmp_path)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadRunDir, match="not a directory"):
        check_run_dir(tmp_path / "file")


def test_a_link_that_somebody_put_in_the_way_is_not_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(BadRunDir, match="not a directory"):
        check_run_dir(tmp_path / "link")


def test_another_users_directory_is_refused(monkeypatch, tmp_path):
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(BadRunDir, match=f"belongs to user {owner}"):
        check_run_dir(tmp_path)


def test_private_directories_are_private_and_differ(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    first, second = make_private_dir(), make_private_dir()
    assert first != second
    assert first.parent == tmp_path
    assert first.stat().st_mode & 0o777 == 0o700
