"""Serves a cluster's metrics by HTTP, on the loopback address and nowhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

from hvd.toolstack.cluster import Cluster
from hvd.toolstack.cluster.errors import BadInput, MissingPackage
from hvd.toolstack.metrics.recoveries import Recoveries

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

HOST = "127.0.0.1"


class Exporter:
    """A server in threads of its own; the caller's follows the events. Also a context manager."""

    def __init__(self, cluster: Cluster, port: int) -> None:
        """Serves when this returns. MissingPackage without prometheus_client; BadInput: the port is taken."""
        registry = _registry(cluster)
        from prometheus_client import start_http_server

        self._cluster = cluster
        self._recoveries = Recoveries(registry)
        try:
            self._server, self._thread = start_http_server(port, HOST, registry)
        except OSError as error:
            raise BadInput(f"no port {port} on {HOST}: {error.strerror}; choose another with --port") from None
        self.url = f"http://{HOST}:{self._server.server_port}/metrics"

    def follow(self) -> None:
        """Take in events, those that are kept first, until the machine ends."""
        with self._cluster.events(after=0) as events:
            for event in events:
                self._recoveries.take(event)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _registry(cluster: Cluster) -> CollectorRegistry:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        raise MissingPackage(
            "metrics need the package prometheus-client, which is not installed. This installs it:\n"
            f"    {sys.executable} -m pip install 'prometheus-client>=0.20'"
        ) from None
    from hvd.toolstack.metrics.collector import ClusterCollector

    registry = CollectorRegistry()
    registry.register(ClusterCollector(cluster))
    return registry
