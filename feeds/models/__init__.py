"""One module per noun. Fields, constraints, querysets, small predicates: no I/O, no HTTP."""

from feeds.models.audit_entry import AuditEntry
from feeds.models.batch import Batch, BatchItem
from feeds.models.company import Company
from feeds.models.connection import BANK_FEEDS_PLATFORM_KEY, Connection
from feeds.models.operation import Operation
from feeds.models.source_account import SourceAccount
from feeds.models.system import CodatQuota, Heartbeat

__all__ = [
    "BANK_FEEDS_PLATFORM_KEY",
    "AuditEntry",
    "Batch",
    "BatchItem",
    "CodatQuota",
    "Company",
    "Connection",
    "Heartbeat",
    "Operation",
    "SourceAccount",
]
