"""One domain from options, as a command line gives them: checked as a table of a cluster file is."""

from pathlib import Path

from hvd.toolstack.config.domains import read_domain
from hvd.toolstack.config.kernels import Kernels
from hvd.toolstack.config.networks import Backends
from hvd.toolstack.config.problems import Report
from hvd.toolstack.config.relations import Running, check_relations
from hvd.toolstack.config.table import Table
from hvd.toolstack.config.xl_file import XlDomain


def domain_from_options(
    options: dict[str, object], directory: Path, running: Running, networks: Backends
) -> XlDomain:
    """A domain that is to join `running`, its vifs `networks`; the keys are a `[[domain]]`'s.

    ConfigError names everything that is wrong. Relative paths are meant from `directory`.
    """
    report = Report("command line", "")
    draft = read_domain(Table(report, (), options), Kernels(directory), directory, networks)
    check_relations(report, [draft], running)
    report.raise_if_wrong()
    return XlDomain(draft.config, report.warnings())
