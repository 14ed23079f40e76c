"""The cluster file: TOML in, the wire's `DomainConfig`s out, or every mistake in it at once."""

from hvd.toolstack.config.cluster_file import ClusterConfig, load
from hvd.toolstack.config.problems import ConfigError, Problem

__all__ = ["ClusterConfig", "ConfigError", "Problem", "load"]
