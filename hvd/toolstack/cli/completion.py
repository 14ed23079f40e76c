"""What the shell offers after Tab: names of domains and what they have, and whatever a command takes one of."""

from __future__ import annotations

from typer import Context


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


def command_names(incomplete: str) -> list[str]:
    """The commands of hvd."""
    from hvd.toolstack.cli.app import app

    return sorted(each.name for each in app.registered_commands if each.name and each.name.startswith(incomplete))


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


def buttons(incomplete: str) -> list[str]:
    """What `hvd trigger` presses."""
    from hvd.toolstack.cli.reconfigure import BUTTONS

    return [name for name in BUTTONS if name.startswith(incomplete)]


def policy_names(incomplete: str) -> list[str]:
    """The security policies that ship; a shell offers files where none of them begins so."""
    from hvd.toolstack.config.policy_file import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


def modes(incomplete: str) -> list[str]:
    """What `hvd setenforce` takes."""
    from hvd.toolstack.cli.security import MODES

    return [name for name in MODES if name.startswith(incomplete)]


def attack_names(incomplete: str) -> list[str]:
    """What chooses attacks, in one word for the shell: their names' first words, and the advisories in them."""
    from hvd.toolstack.attacks.suite import ATTACKS
    from hvd.toolstack.attacks.threats import ADVISORY

    words = [name.split() for name in ATTACKS]
    offered = {each[0] for each in words} | {word for each in words for word in each if ADVISORY.fullmatch(word)}
    return sorted(word for word in offered if word.startswith(incomplete))


def actions(incomplete: str) -> list[str]:
    """What becomes of a domain that has crashed."""
    from hvd.toolstack.config.domains import ACTIONS

    return [name for name in ACTIONS if name.startswith(incomplete)]


def link_states(incomplete: str) -> list[str]:
    """What `hvd network-link` makes of a cable."""
    return [name for name in ("up", "down") if name.startswith(incomplete)]


def bench_names(incomplete: str) -> list[str]:
    """What `hvd bench` measures."""
    from hvd.toolstack.bench.suite import BENCHES

    return [name for name in (*BENCHES, "all") if name.startswith(incomplete)]


def disk_names(ctx: Context, incomplete: str) -> list[str]:
    """The disks of the domain that the command line names before."""
    return _devices(ctx, incomplete, "vbd", "dev")


def vif_numbers(ctx: Context, incomplete: str) -> list[str]:
    """The vifs of the domain that the command line names before."""
    return _devices(ctx, incomplete, "vif", "handle")


def _devices(ctx: Context, incomplete: str, kind: str, key: str) -> list[str]:
    from hvd.toolstack.cluster import Cluster, ClusterError
    from hvd.transport.errors import HvdError

    try:
        with Cluster.attach() as cluster:
            devices = cluster.domain(ctx.params.get("name") or "").config().devices
    except (ClusterError, HvdError, OSError):
        return []
    names = [device.backend_keys.get(key, str(device.devid)) for device in devices if device.kind == kind]
    return [name for name in names if name.startswith(incomplete)]
