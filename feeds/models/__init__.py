"""One module per noun. Fields, constraints, querysets, small predicates: no I/O, no HTTP."""

from feeds.models import lookups  # noqa: F401  # registers itself
from feeds.models.access_grant import AccessGrant
from feeds.models.api_key import ApiKey
from feeds.models.approval import Approval
from feeds.models.audit_entry import AuditEntry, AuditPurge, AuditSeal, AuditSealDelivery
from feeds.models.batch import Batch, BatchItem
from feeds.models.callout import CalloutEvent, CalloutVersion
from feeds.models.case import Case, CaseEvent, Incident
from feeds.models.company import Company
from feeds.models.connection import BANK_FEEDS_PLATFORM_KEY, Connection
from feeds.models.drift import DriftFinding, DriftReport
from feeds.models.history import HistoryCheck, HistoryExport
from feeds.models.invitation import Invitation, InvitationKey, Knock
from feeds.models.listing_walk import ListingWalk
from feeds.models.mail import Mail
from feeds.models.operation import Operation
from feeds.models.preference import Preference
from feeds.models.sign_in_lock import SignInLock
from feeds.models.source_account import SourceAccount
from feeds.models.status_event import StatusEvent
from feeds.models.system import CodatQuota, DailyFigure, Heartbeat
from feeds.models.webhook import WebhookEvent

__all__ = [
    "BANK_FEEDS_PLATFORM_KEY",
    "ApiKey",
    "Approval",
    "AccessGrant",
    "AuditEntry",
    "AuditPurge",
    "AuditSeal",
    "AuditSealDelivery",
    "Batch",
    "BatchItem",
    "CalloutEvent",
    "CalloutVersion",
    "Case",
    "CaseEvent",
    "CodatQuota",
    "Company",
    "Connection",
    "DailyFigure",
    "DriftFinding",
    "DriftReport",
    "Heartbeat",
    "HistoryCheck",
    "HistoryExport",
    "Incident",
    "Invitation",
    "InvitationKey",
    "Knock",
    "ListingWalk",
    "Mail",
    "Operation",
    "SignInLock",
    "Preference",
    "SourceAccount",
    "StatusEvent",
    "WebhookEvent",
]
