"""The commands about the security policy, as xl has them: getenforce, setenforce, loadpolicy."""

from __future__ import annotations

from hvd.toolstack.cli.output import print_json, print_line
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.config.policy_file import load_policy
from hvd.toolstack.config.problems import ConfigError, Problem, nearest, shown
from hvd.transport import messages as m

MODES = {"1": True, "enforcing": True, "0": False, "permissive": False}


def getenforce(*, as_json: bool) -> None:
    """The mode in xl's words; for programs, the policy's name too."""
    with Cluster.attach() as cluster:
        found = cluster.call(m.XsmGetenforce())
    if as_json:
        print_json(found)
    else:
        print_line("Enforcing" if found["enforcing"] else "Permissive")


def setenforce(mode: str, *, as_json: bool) -> None:
    """Change the mode."""
    enforcing = MODES.get(mode.lower())
    if enforcing is None:
        expected = "1, enforcing, 0 or permissive"
        raise ConfigError([Problem("command line", "MODE", expected, shown(mode), nearest(mode.lower(), MODES))])
    with Cluster.attach() as cluster:
        cluster.setenforce(enforcing)
    if as_json:
        print_json({"enforcing": enforcing})


def loadpolicy(policy: str, *, as_json: bool) -> None:
    """Check a policy, then load it."""
    loaded = load_policy(policy, "NAME|FILE")
    with Cluster.attach() as cluster:
        cluster.call(m.XsmLoad(loaded))
    if as_json:
        print_json({"policy": loaded.name})
    else:
        print_line(f"loaded the policy {loaded.name}: {len(loaded.labels)} labels")
