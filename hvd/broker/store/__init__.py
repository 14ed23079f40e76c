"""XenStore without input or output: a tree with permissions, watches, transactions and quotas."""

from hvd.broker.store.errors import StoreError
from hvd.broker.store.events import WatchEvent
from hvd.broker.store.quotas import PRIVILEGED, Quotas
from hvd.broker.store.statistics import DomainStatistics, StoreStatistics
from hvd.broker.store.store import Store

__all__ = ["PRIVILEGED", "DomainStatistics", "Quotas", "Store", "StoreError", "StoreStatistics", "WatchEvent"]
