"""What the lists of what is between domains say, with rates."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.toolstack.cli import between


def extent(number: int, maps: int, **more: Any) -> dict[str, Any]:
    usual = {"domid": 2, "peer": 1, "extent": number, "pages": 4, "readonly": False, "refs": [[8, 3], [12, 1]],
             "mapped": [[1, 8, 3], [1, 12, 1]], "maps": maps}  # fmt: skip
    return usual | more


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """What is found at one look after the other; nobody waits between them."""
    found: list[list[dict[str, Any]]] = []
    infos = {1: SimpleNamespace(domid=1, name="driver"), 2: SimpleNamespace(domid=2, name="guest")}
    cluster = SimpleNamespace(grants=lambda: found.pop(0), infos=lambda: infos)

    @contextmanager
    def attach():
        yield cluster

    monkeypatch.setattr(between, "Cluster", SimpleNamespace(attach=attach))
    monkeypatch.setattr("hvd.toolstack.cli.between.time.sleep", lambda seconds: None)
    return found


def test_grants_are_told_with_how_often_they_are_mapped(looks, capsys) -> None:
    looks[:] = [[extent(5, 10)], [extent(5, 14), extent(6, 1, mapped=[], readonly=True, refs=[])]]
    between.grants([], seconds=2.0, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "Domain  Granted to  Pages  Mode       Refs      Mapped by  Maps/s",
        "guest   driver          4  writable   8-10, 12  driver        2.0",
        "guest   driver          4  read-only  none      nobody        0.5",
    ]


def test_without_waiting_no_rate_is_known(looks, capsys) -> None:
    looks[:] = [[extent(5, 10)]]
    between.grants([], seconds=0.0, as_json=True)
    assert [row["maps_per_s"] for row in json.loads(capsys.readouterr().out)] == [None]
