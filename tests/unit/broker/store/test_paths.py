"""Which paths are valid, and how they come apart."""

import pytest

from hvd.broker.store import PRIVILEGED, Quotas, StoreError, paths
from hvd.transport.ids import DomId

GUEST = DomId(5)
QUOTAS = Quotas()


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/", "/"),
        ("/local/domain/0", "/local/domain/0"),
        ("/A-z_09@x", "/A-z_09@x"),
        ("device", "/local/domain/5/device"),
        ("device/vbd/51712", "/local/domain/5/device/vbd/51712"),
    ],
)
def test_a_valid_path_is_absolute_or_relative_to_the_home(path: str, canonical: str) -> None:
    assert paths.resolve(GUEST, path, QUOTAS) == canonical


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//",
        "/a//b",
        "/a/",
        "a/",
        "a//b",
        "/a b",
        "/a.b",
        "/a\0b",
        "/é",
        "/a\n",
        "@releaseDomain",
        "/a:b",
        "/\ud800",
    ],
)
def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(StoreError, match="EINVAL: "):
        paths.resolve(GUEST, path, QUOTAS)


def test_a_path_below_a_home_may_be_2048_bytes_longer_than_the_home() -> None:
    longest = "/local/domain/5/" + "x" * 2048
    assert paths.resolve(GUEST, longest, QUOTAS) == longest
    assert paths.resolve(GUEST, "x" * 2048, QUOTAS) == longest
    for too_long in (longest + "x", "x" * 2049, "/" + "x" * 2048, "/local/domain/123456/" + "x" * 2048):
        with pytest.raises(StoreError, match="EINVAL: "):
            paths.resolve(GUEST, too_long, QUOTAS)


def test_no_quota_allows_a_path_of_more_than_3072_bytes() -> None:
    generous = Quotas(path_bytes_max=10_000)
    assert len(paths.resolve(GUEST, "/" + "x" * 3071, generous)) == 3072
    with pytest.raises(StoreError, match="EINVAL: "):
        paths.resolve(GUEST, "/" + "x" * 3072, generous)


def test_a_guests_path_has_at_most_128_names_and_dom0s_1024() -> None:
    assert paths.resolve(GUEST, "/a" * 128, QUOTAS) == "/a" * 128
    with pytest.raises(StoreError, match="EINVAL: "):
        paths.resolve(GUEST, "/a" * 129, QUOTAS)
    assert paths.resolve(DomId(0), "/a" * 1024, PRIVILEGED) == "/a" * 1024


@pytest.mark.parametrize(
    ("path", "names", "parent"),
    [("/", [], "/"), ("/a", ["a"], "/"), ("/a/bc/d", ["a", "bc", "d"], "/a/bc")],
)
def test_a_path_comes_apart_and_together(path: str, names: list[str], parent: str) -> None:
    assert paths.split(path) == names
    assert paths.join(names) == path
    assert paths.parent(path) == parent
    if names:
        assert paths.child(parent, names[-1]) == path


def test_a_domain_sees_its_home_as_the_empty_path() -> None:
    assert paths.as_seen_from(GUEST, "/local/domain/5/device/vbd") == "device/vbd"
    assert paths.as_seen_from(GUEST, "/local/domain/5") == ""
