"""The screen of `hvd top`: tables of domains, devices and channels, drawn again after every look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Header
from textual.worker import get_current_worker

from hvd.toolstack.cli import top
from hvd.toolstack.cluster import NotRunning
from hvd.toolstack.monitor.watcher import Watcher

if TYPE_CHECKING:
    from hvd.toolstack.cluster import Cluster
    from hvd.toolstack.monitor.rates import Rates

TABLES = {"domains": top.DOMAIN_HEADS, "devices": top.DEVICE_HEADS, "channels": top.CHANNEL_HEADS}
SORTS = ("CPU%", "Name", "ID", "Used(k)")
"""Columns of the domains that S sorts by, in turn."""


class TopScreen(App[None]):
    """Looks in a thread of its own: the keys answer while it waits."""

    TITLE = "hvd top"
    CSS = "DataTable { height: auto; margin-bottom: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("Q,escape,ctrl+c", "quit", show=False),  # as xentop's
        Binding("s", "sort", "Sort by the next column"),
        Binding("S", "sort", show=False),
        Binding("c", "channels", "All channels"),
    ]

    def __init__(self, cluster: Cluster, delay_s: float, iterations: int | None = None) -> None:
        """`iterations`: it ends by itself after so many looks."""
        super().__init__()
        self._left = iterations
        self._cluster = cluster
        self._delay_s = delay_s
        self._sorted_by = 0
        self._all_channels = False
        self.seen: Rates | None = None

    def compose(self) -> ComposeResult:
        yield Header()
        for name in TABLES:
            yield DataTable(id=name, cursor_type="none", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        for name, heads in TABLES.items():
            self._table(name).add_columns(*heads)
        self.run_worker(self._watch, thread=True, exclusive=True)

    def action_sort(self) -> None:
        """By the next column."""
        self._sorted_by = (self._sorted_by + 1) % len(SORTS)
        self._draw()

    def action_channels(self) -> None:
        """All channels, or those on which something is rung."""
        self._all_channels = not self._all_channels
        self._draw()

    def _watch(self) -> None:
        worker = get_current_worker()
        try:
            watcher = Watcher(self._cluster)
            while not worker.is_cancelled:
                seen = watcher.look(self._delay_s)
                if not worker.is_cancelled:
                    self.call_from_thread(self._show, seen)
        except NotRunning as error:
            self.call_from_thread(self.exit, message=f"hvd: {error}")

    def _show(self, seen: Rates) -> None:
        self.seen = seen
        self._draw()
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.exit()

    def _draw(self) -> None:
        if self.seen is None:
            return
        self.sub_title = f"{self._cluster.run_dir} · sorted by {SORTS[self._sorted_by]}"
        self._fill("domains", self._sorted(top.domain_rows(self.seen)))
        self._fill("devices", top.device_rows(self.seen))
        self._fill("channels", top.channel_rows(self.seen, quiet_too=self._all_channels))

    def _sorted(self, rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        head = SORTS[self._sorted_by]
        column = top.DOMAIN_HEADS.index(head)
        if head == "Name":
            return sorted(rows, key=lambda row: row[column])
        return sorted(rows, key=lambda row: float(row[column]), reverse=head != "ID")

    def _fill(self, name: str, rows: Sequence[tuple[str, ...]]) -> None:
        table = self._table(name)
        table.clear()
        table.add_rows(rows)

    def _table(self, name: str) -> DataTable[str]:
        return self.query_one(f"#{name}", DataTable)
