"""The command that serves metrics."""

from __future__ import annotations

from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cli.output import print_json, print_line
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.metrics.exporter import Exporter


def metrics(port: int, *, as_json: bool) -> None:
    """Serve until the machine ends or a signal asks to."""
    with Cluster.attach() as cluster, Exporter(cluster, port) as exporter, ended_by_signals():
        try:
            if as_json:
                print_json({"url": exporter.url})
            else:
                print_line(f"metrics of {cluster.run_dir} are at {exporter.url}; Ctrl-C ends it")
            exporter.follow()
        except Ended:
            return
