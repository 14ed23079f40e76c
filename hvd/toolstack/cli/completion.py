"""What the shell offers after Tab where a domain's name belongs."""

from __future__ import annotations


def domain_names(incomplete: str) -> list[str]:
    """The domains that are alive in this directory's cluster."""
    from hvd.toolstack.cluster import Cluster, ClusterError
    from hvd.transport.errors import HvdError

    try:
        with Cluster.attach() as cluster:
            names = [info.name for info in cluster.infos().values()]
    except (ClusterError, HvdError, OSError):
        return []  # no place to complain in
    return [name for name in names if name.startswith(incomplete)]


def network_names(incomplete: str) -> list[str]:
    """The networks of this directory's cluster."""
    from hvd.toolstack.cluster import Cluster, ClusterError
    from hvd.transport.errors import HvdError

    try:
        with Cluster.attach() as cluster:
            names = list(cluster.networks())
    except (ClusterError, HvdError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def log_names(incomplete: str) -> list[str]:
    """The domains that have written anything, alive or not."""
    from hvd.toolstack.cluster.run_dirs import default_run_dir
    from hvd.transport.run_dir import LOG

    names = [path.stem for path in (default_run_dir() / LOG).glob("*.log")]
    return sorted(name for name in names if name.startswith(incomplete))


def fault_names(incomplete: str) -> list[str]:
    """The faults there are, and `list`."""
    from hvd.toolstack.faults.registry import FAULTS

    return [name for name in ("list", *FAULTS) if name.startswith(incomplete)]
