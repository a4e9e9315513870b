"""Every state the product shows: its values, its words, its colour and what a person should do next.

Pure: no models, no I/O. Values that Codat may add later are never a crash: `describe` answers them as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from django.db import models
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

Text = str | Promise


class Tone(StrEnum):
    """The colour family of a status pill. The word beside it always carries the meaning too."""

    NEUTRAL = "neutral"
    WAITING = "waiting"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a state is shown: label on the pill, colour, plain meaning, the next step, and how late it usually shows."""

    label: Text
    tone: Tone
    meaning: Text
    next_step: Text = ""
    usual_delay: Text = ""


class OnboardingState(models.TextChoices):
    """Where one company stands on the way to a customer link."""

    DRAFT = "draft", _("Draft")
    QUEUED = "queued", _("Queued")
    WORKING = "working", _("Working")
    RETRYING = "retrying", _("Retrying")
    FAILED = "failed", _("Needs attention")
    LINK_READY = "link_ready", _("Link ready")
    LINKED = "linked", _("Linked")
    OFFBOARDED = "offboarded", _("Off-boarded")


class ConnectionStatus(models.TextChoices):
    """Codat's `status` of a connection."""

    PENDING_AUTH = "PendingAuth", _("PendingAuth")
    LINKED = "Linked", _("Linked")
    UNLINKED = "Unlinked", _("Unlinked")
    DEAUTHORIZED = "Deauthorized", _("Deauthorized")


class AccountStatus(models.TextChoices):
    """Codat's `status` of a source account. The empty value means: not in Codat yet."""

    PENDING = "pending", _("pending")
    CONNECTING = "connecting", _("connecting")
    CONNECTED = "connected", _("connected")
    DISCONNECTED = "disconnected", _("disconnected")
    UNKNOWN = "unknown", _("unknown")


class AccountType(models.TextChoices):
    """Account types of Codat's current (v2) source account body."""

    CHECKING = "checking", _("Checking")
    SAVINGS = "savings", _("Savings")
    LOAN = "loan", _("Loan")
    CREDIT_CARD = "creditCard", _("Credit card")
    PREPAID_CARD = "prepaidCard", _("Prepaid card")


class RoutingType(models.TextChoices):
    """Values of `routingInfo.type` in Codat's source account body."""

    RTN = "rtn", "rtn"
    ABA = "aba", "aba"
    SWIFT = "swift", "swift"
    BSB = "bsb", "bsb"
    IBAN = "iban", "iban"
    NZ2 = "nz2", "nz2"
    TRNO = "trno", "trno"
    SORTCODE = "sortcode", "sortcode"
    BLZ = "blz", "blz"
    IFSC = "ifsc", "ifsc"
    BANKCODE = "bankcode", "bankcode"
    APCA = "apca", "apca"
    CLABE = "clabe", "clabe"


class Country(models.TextChoices):
    """Bank feeds are offered to customers in the United States and Canada only."""

    US = "US", _("United States")
    CA = "CA", _("Canada")


class Language(models.TextChoices):
    """Languages of the customer's pages, and of the staff's screens and mails."""

    EN = "en", _("English")
    FR = "fr", _("French")


class OperationKind(models.TextChoices):
    """What one row of the ledger asks of Codat."""

    CREATE_COMPANY = "create_company", _("Create company")
    CREATE_CONNECTION = "create_connection", _("Create connection")
    ADD_ACCOUNTS = "add_accounts", _("Add source accounts")
    REFRESH_LINK = "refresh_link", _("Refresh link")
    RENAME_ACCOUNT = "rename_account", _("Rename source account")
    DISCONNECT_ACCOUNT = "disconnect_account", _("Disconnect source account")
    DELETE_ACCOUNT = "delete_account", _("Delete source account")
    UNLINK_CONNECTION = "unlink_connection", _("Unlink connection")
    DELETE_CONNECTION = "delete_connection", _("Delete connection")
    DELETE_COMPANY = "delete_company", _("Delete company")
    GENERATE_CREDENTIALS = "generate_credentials", _("Generate QuickBooks credentials")
    REVOKE_CREDENTIALS = "revoke_credentials", _("Revoke QuickBooks credentials")


class OperationState(models.TextChoices):
    """The life of one ledger row."""

    QUEUED = "queued", _("Waiting")
    SENDING = "sending", _("Sending")
    SUCCEEDED = "succeeded", _("Done")
    FAILED = "failed", _("Failed")
    UNKNOWN = "unknown", _("Unknown")
    CANCELLED = "cancelled", _("Cancelled")


OPEN_OPERATION_STATES = (OperationState.QUEUED, OperationState.SENDING, OperationState.UNKNOWN)
"""States in which the ledger still owes Codat a call or a look."""

OPERATION_TRANSITIONS: dict[str, frozenset[str]] = {
    OperationState.QUEUED: frozenset({OperationState.SENDING, OperationState.CANCELLED, OperationState.FAILED}),
    OperationState.SENDING: frozenset(
        {OperationState.SUCCEEDED, OperationState.FAILED, OperationState.UNKNOWN, OperationState.QUEUED}
    ),
    OperationState.UNKNOWN: frozenset({OperationState.SENDING, OperationState.SUCCEEDED, OperationState.FAILED}),
    OperationState.SUCCEEDED: frozenset(),
    OperationState.FAILED: frozenset(),
    OperationState.CANCELLED: frozenset(),
}
"""Allowed moves. Finished rows never change: a retry is a new row."""

ONBOARDING_MEANINGS: dict[str, Meaning] = {
    OnboardingState.DRAFT: Meaning(
        OnboardingState.DRAFT.label, Tone.NEUTRAL, _("Only here; nothing was sent to Codat."), _("Press Onboard.")
    ),
    OnboardingState.QUEUED: Meaning(
        OnboardingState.QUEUED.label, Tone.WAITING, _("Waiting for a worker."), _("Nothing: it starts by itself.")
    ),
    OnboardingState.WORKING: Meaning(
        OnboardingState.WORKING.label, Tone.WAITING, _("A worker is talking to Codat."), _("Nothing: wait a moment.")
    ),
    OnboardingState.RETRYING: Meaning(
        OnboardingState.RETRYING.label,
        Tone.WARNING,
        _("Codat did not answer as it should. The step is tried again by itself."),
        _("Nothing: it continues when Codat answers."),
    ),
    OnboardingState.FAILED: Meaning(
        OnboardingState.FAILED.label,
        Tone.BAD,
        _("A step was refused and waits for a person."),
        _("Read the failed step, correct what it names, then press Retry."),
    ),
    OnboardingState.LINK_READY: Meaning(
        OnboardingState.LINK_READY.label,
        Tone.GOOD,
        _("Company, connection and accounts are in Codat; the customer can connect."),
        _("Show the link and hand it to the customer within its hour."),
    ),
    OnboardingState.LINKED: Meaning(
        OnboardingState.LINKED.label, Tone.GOOD, _("The customer has connected QuickBooks."), _("Nothing.")
    ),
    OnboardingState.OFFBOARDED: Meaning(
        OnboardingState.OFFBOARDED.label,
        Tone.NEUTRAL,
        _("A colleague deleted the connection, or the whole company, in Codat: the customer has no feed any more."),
        _("Nothing. If the customer comes back, press Onboard."),
    ),
}

CONNECTION_MEANINGS: dict[str, Meaning] = {
    ConnectionStatus.PENDING_AUTH: Meaning(
        ConnectionStatus.PENDING_AUTH.label,
        Tone.WAITING,
        _("The customer has not finished in QuickBooks."),
        _("Hand the customer a fresh link."),
        _("It lasts until the customer acts; a link works for one hour."),
    ),
    ConnectionStatus.LINKED: Meaning(
        ConnectionStatus.LINKED.label,
        Tone.GOOD,
        _("QuickBooks reads at least one account."),
        _("Nothing."),
        _("It stays so until every account is disconnected: look at the accounts."),
    ),
    ConnectionStatus.UNLINKED: Meaning(
        ConnectionStatus.UNLINKED.label,
        Tone.BAD,
        _("No account is read by QuickBooks any more, or the connection was unlinked."),
        _("Hand the customer a fresh link and ask them to connect again in QuickBooks."),
        _("Codat shows it up to a day after the last account was disconnected."),
    ),
    ConnectionStatus.DEAUTHORIZED: Meaning(
        ConnectionStatus.DEAUTHORIZED.label,
        Tone.BAD,
        _("The customer withdrew the authorisation."),
        _("Ask the customer whether they want the feed; then hand over a fresh link."),
    ),
}

NOT_IN_CODAT = ""

ACCOUNT_MEANINGS: dict[str, Meaning] = {
    NOT_IN_CODAT: Meaning(_("not in Codat"), Tone.NEUTRAL, _("Only here; not yet sent to Codat."), _("Press Onboard.")),
    AccountStatus.PENDING: Meaning(
        AccountStatus.PENDING.label,
        Tone.WAITING,
        _("In Codat; the customer has not connected it."),
        _("Hand over a link."),
        _("It lasts until the customer acts; a link works for one hour."),
    ),
    AccountStatus.CONNECTING: Meaning(
        AccountStatus.CONNECTING.label, Tone.WAITING, _("QuickBooks is connecting it now."), _("Wait a few minutes.")
    ),
    AccountStatus.CONNECTED: Meaning(
        AccountStatus.CONNECTED.label, Tone.GOOD, _("QuickBooks reads this account."), _("Nothing.")
    ),
    AccountStatus.DISCONNECTED: Meaning(
        AccountStatus.DISCONNECTED.label,
        Tone.BAD,
        _("QuickBooks has not asked for this account for ten days; the feed may have stopped ten days before."),
        _("Hand the customer a fresh link and ask them to connect again in QuickBooks."),
        _("Codat shows it after ten days of silence."),
    ),
    AccountStatus.UNKNOWN: Meaning(
        AccountStatus.UNKNOWN.label,
        Tone.WARNING,
        _("Codat does not know the state."),
        _("Refresh; if it stays, ask Codat."),
    ),
}

OPERATION_MEANINGS: dict[str, Meaning] = {
    OperationState.QUEUED: Meaning(OperationState.QUEUED.label, Tone.WAITING, _("Not sent yet.")),
    OperationState.SENDING: Meaning(OperationState.SENDING.label, Tone.WAITING, _("On its way to Codat.")),
    OperationState.SUCCEEDED: Meaning(OperationState.SUCCEEDED.label, Tone.GOOD, _("Codat has done it.")),
    OperationState.FAILED: Meaning(OperationState.FAILED.label, Tone.BAD, _("Codat refused it, or we gave up.")),
    OperationState.UNKNOWN: Meaning(
        OperationState.UNKNOWN.label,
        Tone.WARNING,
        _("The answer was lost. We look at Codat before anything is sent again."),
    ),
    OperationState.CANCELLED: Meaning(OperationState.CANCELLED.label, Tone.NEUTRAL, _("Withdrawn before it was sent.")),
}

GONE = "gone"
"""What a timeline shows for an object that Codat no longer has. No status of Codat's."""

GONE_MEANING = Meaning(
    _("gone"),
    Tone.WARNING,
    _("Codat no longer has it."),
    _("If it is still wanted, press Onboard on the company."),
    _("It is seen at the next complete reading."),
)

SILENT_DAYS: dict[str, int] = {AccountStatus.DISCONNECTED: 10, ConnectionStatus.UNLINKED: 11}
"""Days without a request from QuickBooks before Codat shows the status: a feed may have stopped that much earlier."""


def describe(meanings: dict[str, Meaning], value: str) -> Meaning:
    """How to show `value`; a value Codat added after this release is shown as it is, marked unknown."""
    known = meanings.get(value)
    if known is not None:
        return known
    return Meaning(value, Tone.WARNING, _("A state that this product does not know yet."), _("Ask an administrator."))


class SeenBy(models.TextChoices):
    """How a change of status came to our knowledge."""

    POLL = "poll", _("poll")
    WEBHOOK = "webhook", _("webhook")
    ACTION = "action", _("action")


class WebhookState(models.TextChoices):
    """What became of one webhook. Received and applied are two different things."""

    RECEIVED = "received", _("Received")
    APPLIED = "applied", _("Applied")
    IGNORED = "ignored", _("Not ours")
    FAILED = "failed", _("Failed")


WEBHOOK_MEANINGS: dict[str, Meaning] = {
    WebhookState.RECEIVED: Meaning(
        WebhookState.RECEIVED.label,
        Tone.WAITING,
        _("Stored; what it is about is not read from Codat yet."),
        _("Nothing: it is applied by itself."),
    ),
    WebhookState.APPLIED: Meaning(
        WebhookState.APPLIED.label, Tone.GOOD, _("What it is about was read from Codat after it came."), _("Nothing.")
    ),
    WebhookState.IGNORED: Meaning(
        WebhookState.IGNORED.label,
        Tone.NEUTRAL,
        _("About a company or an event that this system does not deal with."),
        _("Nothing."),
    ),
    WebhookState.FAILED: Meaning(
        WebhookState.FAILED.label,
        Tone.BAD,
        _("It could not be applied; polling will show the same status later."),
        _("Read what went wrong, then press Apply again."),
    ),
}


class CaseState(models.TextChoices):
    """The life of a case about one broken feed."""

    OPEN = "open", _("Unassigned")
    TAKEN = "taken", _("Taken")
    SNOOZED = "snoozed", _("Snoozed")
    CLOSED = "closed", _("Closed")


OPEN_CASE_STATES = (CaseState.OPEN, CaseState.TAKEN, CaseState.SNOOZED)
"""States in which somebody still owes the customer something."""

CASE_TRANSITIONS: dict[str, frozenset[str]] = {
    CaseState.OPEN: frozenset({CaseState.TAKEN, CaseState.SNOOZED, CaseState.CLOSED}),
    CaseState.TAKEN: frozenset({CaseState.OPEN, CaseState.SNOOZED, CaseState.CLOSED, CaseState.TAKEN}),
    CaseState.SNOOZED: frozenset({CaseState.OPEN, CaseState.TAKEN, CaseState.CLOSED, CaseState.SNOOZED}),
    CaseState.CLOSED: frozenset({CaseState.OPEN, CaseState.TAKEN}),
}
"""Allowed moves. From closed only back to open (or to its owner): the feed broke again within the window."""

CASE_MEANINGS: dict[str, Meaning] = {
    CaseState.OPEN: Meaning(CaseState.OPEN.label, Tone.BAD, _("Nobody works on it."), _("Press Take.")),
    CaseState.TAKEN: Meaning(
        CaseState.TAKEN.label, Tone.WAITING, _("Its owner works on it."), _("Follow the actions below, first to last.")
    ),
    CaseState.SNOOZED: Meaning(
        CaseState.SNOOZED.label, Tone.NEUTRAL, _("It waits until the day that was chosen."), _("Nothing until then.")
    ),
    CaseState.CLOSED: Meaning(
        CaseState.CLOSED.label, Tone.GOOD, _("Settled."), _("Nothing: if the feed breaks again, it opens by itself.")
    ),
}

CASE_RIGHTS: dict[str, str] = {
    "take": "feeds.work_case",
    "hand_over": "feeds.work_case",
    "note": "feeds.work_case",
    "snooze": "feeds.work_case",
    "close": "feeds.work_case",
    "release_incident": "feeds.release_incident",
}
"""Which permission each move of a person asks for."""


class CaseCause(models.TextChoices):
    """Why the feed broke, as far as support found out. Each has its playbook."""

    UNKNOWN = "unknown", _("Not known yet")
    QUICKBOOKS_SILENT = "quickbooks_silent", _("QuickBooks stopped asking")
    CREDENTIALS_REVOKED = "credentials_revoked", _("Credentials were revoked")
    CUSTOMER_STOPPED = "customer_stopped", _("Customer switched it off")
    UNLINKED_BY_STAFF = "unlinked_by_staff", _("Unlinked or disconnected by staff")
    CODAT_INCIDENT = "codat_incident", _("Fault at Codat or QuickBooks")
    ACCOUNT_CLOSED = "account_closed", _("Bank account closed")


class CaseOutcome(models.TextChoices):
    """How a case ended."""

    RECONNECTED = "reconnected", _("Connected again")
    NOT_WANTED = "not_wanted", _("Customer no longer wants the feed")
    ACCOUNT_CLOSED = "account_closed", _("Bank account closed")
    NOT_BROKEN = "not_broken", _("Was not broken")
    UNREACHABLE = "unreachable", _("Customer cannot be reached")


class CaseEventKind(models.TextChoices):
    """What happened to a case."""

    OPENED = "opened", _("Opened")
    REOPENED = "reopened", _("Broke again")
    RECOVERED = "recovered", _("Works again")
    TAKEN = "taken", _("Taken")
    HANDED_OVER = "handed_over", _("Handed over")
    NOTE = "note", _("Note")
    CAUSE = "cause", _("Cause found")
    SNOOZED = "snoozed", _("Snoozed")
    WOKE = "woke", _("Snooze ended")
    CLOSED = "closed", _("Closed")
    NOTIFIED = "notified", _("Mail sent")
    HELD = "held", _("Mail held by incident")
    JOINED_INCIDENT = "joined_incident", _("Joined an incident")


CASE_NEXT_STEPS: dict[str, Text] = {
    CaseCause.UNKNOWN: _("Verify now, then set the cause."),
    CaseCause.QUICKBOOKS_SILENT: _("Hand the customer a fresh link and ask them to connect again in QuickBooks."),
    CaseCause.CREDENTIALS_REVOKED: _("Generate credentials and have the customer enter them in QuickBooks."),
    CaseCause.CUSTOMER_STOPPED: _("Ask the customer whether they still want the feed."),
    CaseCause.UNLINKED_BY_STAFF: _("Ask the colleague whether it was meant; if not, hand the customer a fresh link."),
    CaseCause.CODAT_INCIDENT: _("Snooze until Codat or QuickBooks say it is over, then verify."),
    CaseCause.ACCOUNT_CLOSED: _("Confirm with the customer, then close the case."),
}
"""What the owner of a case does next, by its cause."""

_REPAIR = ("verify_now", "invite_to_reconnect", "refresh_link", "generate_credentials", "revoke_credentials")
_TALK = ("note", "snooze", "hand_over")

CASE_PLAYBOOKS: dict[str, tuple[str, ...]] = {
    CaseCause.UNKNOWN: (*_REPAIR, *_TALK, "close"),
    CaseCause.QUICKBOOKS_SILENT: ("invite_to_reconnect", "refresh_link", "verify_now", "generate_credentials", "snooze",
                                  "note", "hand_over", "revoke_credentials", "close"),
    CaseCause.CREDENTIALS_REVOKED: ("generate_credentials", "invite_to_reconnect", "refresh_link", "verify_now", *_TALK,
                                    "revoke_credentials", "close"),
    CaseCause.CUSTOMER_STOPPED: ("note", "snooze", "close", "hand_over", *_REPAIR),
    CaseCause.UNLINKED_BY_STAFF: ("note", "hand_over", "invite_to_reconnect", "refresh_link", "verify_now",
                                  "generate_credentials", "snooze", "revoke_credentials", "close"),
    CaseCause.CODAT_INCIDENT: ("snooze", "verify_now", "note", "hand_over", "invite_to_reconnect", "refresh_link",
                               "generate_credentials", "revoke_credentials", "close"),
    CaseCause.ACCOUNT_CLOSED: ("note", "close", "revoke_credentials", "verify_now", "snooze", "hand_over",
                               "invite_to_reconnect", "refresh_link", "generate_credentials"),
}  # fmt: skip
"""Cause -> the actions of the case page in the order they help. Every playbook offers every action."""


class MailKind(models.TextChoices):
    """What a mail tells, to staff or to a customer."""

    BROKE = "broke", _("Feed broke")
    RECOVERED = "recovered", _("Feed works again")
    INCIDENT_OPENED = "incident_opened", _("Incident opened")
    INCIDENT_RELEASED = "incident_released", _("Incident released")
    DIGEST = "digest", _("Daily digest")
    CALLOUT_REMINDER = "callout_reminder", _("Callout not published")
    APPROVAL_ASKED = "approval_asked", _("Approval asked for")
    APPROVAL_DECIDED = "approval_decided", _("Approval decided")
    EMERGENCY_ACCESS = "emergency_access", _("Emergency access")
    DOOR_CLOSED = "door_closed", _("Customers cannot connect")
    LINK_ASKED = "link_asked", _("Customer asks for a new link")
    INVITATION = "invitation", _("Invitation")
    REMINDER = "reminder", _("Reminder")
    RECONNECT = "reconnect", _("Invitation to reconnect")
    CONNECTED = "connected", _("Connected")


CUSTOMER_MAILS = (MailKind.INVITATION, MailKind.REMINDER, MailKind.RECONNECT, MailKind.CONNECTED)
"""What goes to customers; the others go to staff."""


class MailState(models.TextChoices):
    """What became of one mail."""

    QUEUED = "queued", _("Waiting")
    SENT = "sent", _("Sent")
    FAILED = "failed", _("Failed")
    HELD = "held", _("Held by incident")


MAIL_MEANINGS: dict[str, Meaning] = {
    MailState.QUEUED: Meaning(
        MailState.QUEUED.label,
        Tone.WAITING,
        _("Not delivered yet."),
        _("Nothing: it is sent by itself, and tried again when the mail server does not take it."),
    ),
    MailState.SENT: Meaning(MailState.SENT.label, Tone.GOOD, _("The mail server took it."), _("Nothing.")),
    MailState.FAILED: Meaning(
        MailState.FAILED.label,
        Tone.BAD,
        _("The mail server did not take it, however often it was tried."),
        _("Have EMAIL_URL and the addresses checked, then press Send again."),
    ),
    MailState.HELD: Meaning(
        MailState.HELD.label,
        Tone.NEUTRAL,
        _("Its case was part of an incident: the incident's summary was sent instead."),
        _("Nothing, unless somebody needs this one: then press Send again."),
    ),
}


class ApprovalState(models.TextChoices):
    """The life of one request for approval."""

    REQUESTED = "requested", _("Waiting for a colleague")
    APPROVED = "approved", _("Approved")
    DONE = "done", _("Carried out")
    FAILED = "failed", _("Not carried out")
    REFUSED = "refused", _("Refused")
    EXPIRED = "expired", _("Expired")
    WITHDRAWN = "withdrawn", _("Withdrawn")


OPEN_APPROVAL_STATES = (ApprovalState.REQUESTED, ApprovalState.APPROVED)
"""States in which the same thing cannot be asked for again."""

APPROVAL_TRANSITIONS: dict[str, frozenset[str]] = {
    ApprovalState.REQUESTED: frozenset(
        {
            ApprovalState.APPROVED,
            ApprovalState.REFUSED,
            ApprovalState.EXPIRED,
            ApprovalState.WITHDRAWN,
            ApprovalState.FAILED,
        }
    ),
    ApprovalState.APPROVED: frozenset({ApprovalState.DONE, ApprovalState.FAILED}),
    ApprovalState.DONE: frozenset(),
    ApprovalState.FAILED: frozenset(),
    ApprovalState.REFUSED: frozenset(),
    ApprovalState.EXPIRED: frozenset(),
    ApprovalState.WITHDRAWN: frozenset(),
}
"""Allowed moves. A decision is final: whoever wants it otherwise asks anew."""

APPROVAL_MEANINGS: dict[str, Meaning] = {
    ApprovalState.REQUESTED: Meaning(
        ApprovalState.REQUESTED.label,
        Tone.WAITING,
        _("Nothing has happened yet."),
        _("Somebody else with the right to do it approves or refuses."),
    ),
    ApprovalState.APPROVED: Meaning(
        ApprovalState.APPROVED.label,
        Tone.WAITING,
        _("Approved; the rows are being worked through."),
        _("Nothing: it goes on by itself."),
    ),
    ApprovalState.DONE: Meaning(
        ApprovalState.DONE.label,
        Tone.GOOD,
        _("What was asked for was done exactly as approved; what Codat has to do stands in the operation."),
        _("Nothing."),
    ),
    ApprovalState.FAILED: Meaning(
        ApprovalState.FAILED.label,
        Tone.BAD,
        _("It could not be done; nothing was changed."),
        _("Read why. If it is still wanted, ask anew."),
    ),
    ApprovalState.REFUSED: Meaning(
        ApprovalState.REFUSED.label, Tone.NEUTRAL, _("A colleague said no; nothing was changed."), _("Read why.")
    ),
    ApprovalState.EXPIRED: Meaning(
        ApprovalState.EXPIRED.label,
        Tone.NEUTRAL,
        _("Nobody decided in time; nothing was changed."),
        _("If it is still wanted, ask anew."),
    ),
    ApprovalState.WITHDRAWN: Meaning(
        ApprovalState.WITHDRAWN.label,
        Tone.NEUTRAL,
        _("Whoever asked took it back; nothing was changed."),
        _("Nothing."),
    ),
}


class ExportKind(models.TextChoices):
    """What somebody took out of the change history."""

    HISTORY = "history", _("History export")
    EVIDENCE = "evidence", _("Evidence pack")


class ExportFormat(models.TextChoices):
    """In which form the rows are written."""

    CSV = "csv", _("CSV, for spreadsheets")
    JSON_LINES = "jsonl", _("JSON Lines, for programs")


class ExportState(models.TextChoices):
    """What became of one export."""

    RUNNING = "running", _("Under way")
    DONE = "done", _("Complete")
    BROKEN = "broken", _("Broken off")


EXPORT_MEANINGS: dict[str, Meaning] = {
    ExportState.RUNNING: Meaning(
        ExportState.RUNNING.label,
        Tone.WAITING,
        _("It began and has not ended. If that was hours ago, the server stopped meanwhile: part of it may be out."),
    ),
    ExportState.DONE: Meaning(ExportState.DONE.label, Tone.GOOD, _("The last byte was handed over.")),
    ExportState.BROKEN: Meaning(
        ExportState.BROKEN.label,
        Tone.WARNING,
        _("It ended before the last row. What was sent until then may have been kept."),
    ),
}


class CheckState(models.TextChoices):
    """What became of one verification of the seals."""

    QUEUED = "queued", _("Under way")
    INTACT = "intact", _("Intact")
    ALTERED = "altered", _("Altered")
    FAILED = "failed", _("Not finished")


CHECK_MEANINGS: dict[str, Meaning] = {
    CheckState.QUEUED: Meaning(
        CheckState.QUEUED.label,
        Tone.WAITING,
        _("A worker reads every sealed entry again."),
        _("Nothing: wait for the result."),
    ),
    CheckState.INTACT: Meaning(
        CheckState.INTACT.label, Tone.GOOD, _("Every sealed entry is as it was when it was sealed."), _("Nothing.")
    ),
    CheckState.ALTERED: Meaning(
        CheckState.ALTERED.label,
        Tone.BAD,
        _("Sealed entries were changed, removed or added, or a seal was."),
        _("Keep the database as it is, compare with the seals that were sent away, and tell whoever answers for it."),
    ),
    CheckState.FAILED: Meaning(
        CheckState.FAILED.label,
        Tone.WARNING,
        _("The verification stopped before its end: nothing is known."),
        _("Verify again; if it stops again, ask an administrator."),
    ),
}


class DriftKind(models.TextChoices):
    """How Codat and our mirror differ."""

    MISSING_HERE = "missing_here", _("Only in Codat")
    MISSING_THERE = "missing_there", _("Only here")
    RENAMED = "renamed", _("Name differs")
    STATUS = "status", _("Status differs")
    ACCOUNTS = "accounts", _("Number of accounts differs")


BROKEN_CONNECTION_STATUSES = (ConnectionStatus.UNLINKED, ConnectionStatus.DEAUTHORIZED)
"""A connection in one of these was connected once and is not any more."""


UNCONNECTED = (AccountStatus.PENDING, AccountStatus.DISCONNECTED)
"""An account in one of these is read by QuickBooks once its customer has followed a link: never was, or is no more."""


def feed_is_broken(
    connection_status: str, account_statuses: Iterable[str], *, was_connected: bool, lost: bool = False
) -> bool:
    """Whether a feed that the customer once had does not work, or not for every account.

    Broken are: a connection that Codat calls Unlinked or Deauthorized; a `disconnected` account on a connection that is
    Linked or once was; a connection that was connected and is `lost` (gone from Codat, with no other in its place).
    Not broken is whatever the customer never connected. `was_connected`: some earlier reading showed it Linked, or one
    of its accounts connected. Source: the guide, "What the states mean".
    """
    if not (was_connected or connection_status in (ConnectionStatus.LINKED, *BROKEN_CONNECTION_STATUSES)):
        return False
    whole = lost or connection_status in BROKEN_CONNECTION_STATUSES
    return whole or AccountStatus.DISCONNECTED in account_statuses


def link_is_needed(connection_status: str, *, account_is_unconnected: bool) -> bool:
    """Whether the customer needs a link: to connect, to connect accounts added later, or to reconnect.

    `account_is_unconnected`: QuickBooks does not read at least one account that Codat has (`UNCONNECTED`). Codat calls
    a connection Linked from the first account to the last, so Linked alone does not mean that all is well.
    """
    return connection_status != ConnectionStatus.LINKED or account_is_unconnected


def account_is_broken(connection_status: str, account_status: str, *, lost: bool = False) -> bool:
    """Whether this account is part of what is broken in a broken feed.

    Without its connection no account works, whatever its own status still says; one never connected is not missed.
    """
    if lost or connection_status in BROKEN_CONNECTION_STATUSES:
        return account_status not in (NOT_IN_CODAT, AccountStatus.PENDING)
    return account_status == AccountStatus.DISCONNECTED


class CalloutState(models.TextChoices):
    """The life of one version of the callout. There is no "live": we know what a person attested, and when."""

    DRAFT = "draft", _("Draft")
    SUBMITTED = "submitted", _("Submitted")
    APPROVED = "approved", _("Approved")
    PUBLISHED = "published", _("Published")
    SUPERSEDED = "superseded", _("Superseded")
    WITHDRAWN = "withdrawn", _("Withdrawn")


CALLOUT_TRANSITIONS: dict[str, frozenset[str]] = {
    CalloutState.DRAFT: frozenset({CalloutState.SUBMITTED, CalloutState.WITHDRAWN}),
    CalloutState.SUBMITTED: frozenset({CalloutState.APPROVED, CalloutState.DRAFT, CalloutState.WITHDRAWN}),
    CalloutState.APPROVED: frozenset({CalloutState.PUBLISHED, CalloutState.WITHDRAWN}),
    CalloutState.PUBLISHED: frozenset({CalloutState.SUPERSEDED}),
    CalloutState.SUPERSEDED: frozenset(),
    CalloutState.WITHDRAWN: frozenset(),
}
"""Allowed moves. Only a draft's text can be changed: what was approved once is copied, never edited."""

CALLOUT_MEANINGS: dict[str, Meaning] = {
    CalloutState.DRAFT: Meaning(
        CalloutState.DRAFT.label,
        Tone.NEUTRAL,
        _("Being written; nobody is asked for anything."),
        _("When the texts are ready, press Submit."),
    ),
    CalloutState.SUBMITTED: Meaning(
        CalloutState.SUBMITTED.label,
        Tone.WAITING,
        _("Its texts hold still and wait for a second person."),
        _("A colleague who did not write it presses Approve or Send back."),
    ),
    CalloutState.APPROVED: Meaning(
        CalloutState.APPROVED.label,
        Tone.WARNING,
        _("Approved here. Customers do not see it until somebody has copied it into the Codat Portal."),
        _("Follow the publishing checklist, then press Attest."),
    ),
    CalloutState.PUBLISHED: Meaning(
        CalloutState.PUBLISHED.label,
        Tone.GOOD,
        _("A person attested that these texts stand in the Codat Portal. This product cannot look there."),
        _("Nothing. When you have looked again, press Attest again."),
    ),
    CalloutState.SUPERSEDED: Meaning(
        CalloutState.SUPERSEDED.label,
        Tone.NEUTRAL,
        _("It was published until a later version took its place."),
        _("Nothing. To use its texts again, copy it as a new draft."),
    ),
    CalloutState.WITHDRAWN: Meaning(
        CalloutState.WITHDRAWN.label,
        Tone.NEUTRAL,
        _("Given up before it was published. It is kept."),
        _("Nothing. To use its texts again, copy it as a new draft."),
    ),
}

CALLOUT_RIGHTS: dict[str, str] = {
    "create": "feeds.add_calloutversion",
    "edit": "feeds.change_calloutversion",
    "submit": "feeds.submit_callout",
    "approve": "feeds.approve_callout",
    "publish": "feeds.publish_callout",
}
"""Which permission each move of a person asks for. Who submits may withdraw; who approves may send back."""


class CalloutEventKind(models.TextChoices):
    """What happened to a version of the callout."""

    CREATED = "created", _("Created")
    EDITED = "edited", _("Edited")
    SUBMITTED = "submitted", _("Submitted")
    SENT_BACK = "sent_back", _("Sent back")
    APPROVED = "approved", _("Approved")
    ATTESTED = "attested", _("Attested")
    SUPERSEDED = "superseded", _("Superseded")
    WITHDRAWN = "withdrawn", _("Withdrawn")


CALLOUT_AUTHORSHIP = (CalloutEventKind.CREATED, CalloutEventKind.EDITED, CalloutEventKind.SUBMITTED)
"""Whoever did one of these has a hand in the text, and does not approve it."""


class FrenchRule(models.TextChoices):
    """Values of the setting CALLOUT_FRENCH: what a version must have in French before it can be submitted."""

    BOTH = "both", _("Both or neither, field by field")
    REQUIRED = "required", _("French wherever there is English")
    OPTIONAL = "optional", _("French where somebody wrote it")


SIGN_IN_LOCKED = Meaning(
    _("Locked"),
    Tone.BAD,
    _("Too many failed tries: this name cannot sign in from this address for now."),
    _("It opens by itself; unlock it once you know that it was the person who tried."),
)
SIGN_IN_COUNTING = Meaning(
    _("Counting"), Tone.WAITING, _("Some tries failed, fewer than lock the sign-in."), _("Nothing to do.")
)


class AccessState(StrEnum):
    """How an emergency access stands. It follows from its times, so it is stored nowhere."""

    IN_FORCE = "in_force"
    EXPIRED = "expired"
    ENDED = "ended"


ACCESS_MEANINGS: dict[AccessState, Meaning] = {
    AccessState.IN_FORCE: Meaning(_("in force"), Tone.WARNING, _("The person sees and works this customer.")),
    AccessState.EXPIRED: Meaning(_("expired"), Tone.NEUTRAL, _("Its time is over; it opens nothing.")),
    AccessState.ENDED: Meaning(_("ended early"), Tone.NEUTRAL, _("Somebody ended it before its time.")),
}


class InvitationPurpose(models.TextChoices):
    """What a customer is invited to do."""

    CONNECT = "connect", _("Connect")
    ADD_ACCOUNTS = "add_accounts", _("Add accounts")
    RECONNECT = "reconnect", _("Reconnect")


class InvitationState(models.TextChoices):
    """Where an invitation stands. Not a column: it follows from the times an invitation carries."""

    MADE = "made", pgettext_lazy("invitation", "Made")
    SENT = "sent", pgettext_lazy("invitation", "Sent")
    OPENED = "opened", pgettext_lazy("invitation", "Opened")
    STARTED = "started", pgettext_lazy("invitation", "Started")
    LINKED = "linked", pgettext_lazy("invitation", "Linked")
    CONNECTED = "connected", pgettext_lazy("invitation", "Connected")
    EXPIRED = "expired", _("Expired")
    REVOKED = "revoked", _("Revoked")
    REPLACED = "replaced", _("Replaced")


class InvitationEnd(models.TextChoices):
    """Why an invitation opens nothing any more."""

    CONNECTED = "connected", _("Connected")
    EXPIRED = "expired", _("Expired")
    REVOKED = "revoked", _("Revoked")
    REPLACED = "replaced", _("Replaced")


INVITATION_MEANINGS: dict[str, Meaning] = {
    InvitationState.MADE: Meaning(
        InvitationState.MADE.label,
        Tone.NEUTRAL,
        _("The link was made; this system has not mailed it."),
        _("Send it, or hand over the link that you copied."),
    ),
    InvitationState.SENT: Meaning(
        InvitationState.SENT.label,
        Tone.WAITING,
        _("Mailed to the customer."),
        _("Nothing: a reminder follows by itself."),
    ),
    InvitationState.OPENED: Meaning(
        InvitationState.OPENED.label,
        Tone.WAITING,
        _("Somebody looked at the page and has not pressed the button."),
        _("If it stays so, call the customer."),
    ),
    InvitationState.STARTED: Meaning(
        InvitationState.STARTED.label,
        Tone.WAITING,
        _("The customer pressed the button and was sent to Codat."),
        _("If it stays so, ask the customer what QuickBooks shows."),
    ),
    InvitationState.LINKED: Meaning(
        InvitationState.LINKED.label,
        Tone.GOOD,
        _("QuickBooks is linked; not every account is connected yet."),
        _("Ask the customer whether the other accounts are wanted."),
    ),
    InvitationState.CONNECTED: Meaning(
        InvitationState.CONNECTED.label, Tone.GOOD, _("Every account is connected."), _("Nothing.")
    ),
    InvitationState.EXPIRED: Meaning(
        InvitationState.EXPIRED.label, Tone.WARNING, _("Its days are over; the link opens nothing."), _("Renew it.")
    ),
    InvitationState.REVOKED: Meaning(
        InvitationState.REVOKED.label,
        Tone.NEUTRAL,
        _("Withdrawn by a colleague; the link opens nothing."),
        _("Nothing."),
    ),
    InvitationState.REPLACED: Meaning(
        InvitationState.REPLACED.label,
        Tone.NEUTRAL,
        _("A newer invitation took its place."),
        _("Look at the newer one."),
    ),
}

STUCK_STEPS = (
    InvitationState.MADE,
    InvitationState.SENT,
    InvitationState.OPENED,
    InvitationState.STARTED,
    InvitationState.LINKED,
)
"""Steps on which an invitation can stand too long, in the order of INVITATION_STUCK_DAYS."""

STUCK_ADVICE: dict[InvitationState, Text] = {
    InvitationState.MADE: _("Send it by mail, or show its link and hand it over."),
    InvitationState.SENT: _("Call: did the mail arrive? Then send it again."),
    InvitationState.OPENED: _("Call: the customer looked, and did not press the button."),
    InvitationState.STARTED: _("Call: ask what QuickBooks shows. The same link works again."),
    InvitationState.LINKED: _("Ask whether the other accounts are wanted; they are chosen in QuickBooks."),
}
"""What to do next about an invitation that stands on a step too long."""


# --- Keys of the API -------------------------------------------------------------------------------------------------
class ApiScope(models.TextChoices):
    """What a key of the API may do."""

    WRITE = "connect_sessions:write", _("make customers and their links")
    READ = "connect_sessions:read", _("read how far customers are")


class ApiKeyState(models.TextChoices):
    """Whether a key of the API opens anything. Follows from times; no column."""

    WORKS = "works", _("Works")
    REPLACED = "replaced", _("Being replaced")
    EXPIRED = "expired", _("Expired")
    REVOKED = "revoked", _("Revoked")


API_KEY_MEANINGS: dict[str, Meaning] = {
    ApiKeyState.WORKS: Meaning(
        ApiKeyState.WORKS.label, Tone.GOOD, _("The API answers to it."), _("Replace it before it expires.")
    ),
    ApiKeyState.REPLACED: Meaning(
        ApiKeyState.REPLACED.label,
        Tone.WAITING,
        _("Its successor is made; this one still works until it expires."),
        _("See that the program uses the new key by then."),
    ),
    ApiKeyState.EXPIRED: Meaning(
        ApiKeyState.EXPIRED.label, Tone.NEUTRAL, _("Its days are over; it opens nothing."), _("Make a new key.")
    ),
    ApiKeyState.REVOKED: Meaning(
        ApiKeyState.REVOKED.label, Tone.NEUTRAL, _("Revoked by a colleague; it opens nothing."), _("Nothing.")
    ),
}


# --- Events of the change history ------------------------------------------------------------------------------------
EVENT_LABELS: dict[str, Text] = {
    "account_number_revealed": _("account number revealed"),
    "api_key_made": _("API key made"),
    "api_key_replaced": _("API key replaced"),
    "api_key_revoked": _("API key revoked"),
    "authenticator_app_used": _("authenticator app used"),
    "callout_approved": _("callout approved"),
    "callout_attested": _("callout attested"),
    "callout_created": _("callout created"),
    "callout_edited": _("callout edited"),
    "callout_sent_back": _("callout sent back"),
    "callout_submitted": _("callout submitted"),
    "callout_superseded": _("callout superseded"),
    "callout_withdrawn": _("callout withdrawn"),
    "case_noted": _("note on a case"),
    "company_adopted": _("company adopted"),
    "credentials_generated": _("credentials generated"),
    "emergency_access": _("emergency access"),
    "emergency_access_refused": _("emergency access refused"),
    "evidence_pack_made": _("evidence pack made"),
    "history_exported": _("history exported"),
    "history_purged": _("history purged"),
    "history_verification_asked": _("history verification asked"),
    "history_verified": _("history verified"),
    "identity_provider_bound": _("identity provider bound"),
    "identity_provider_used": _("identity provider used"),
    "invitation_link_asked_for": _("new link asked for by the customer"),
    "invitation_link_made": _("invitation link made"),
    "invitation_mailed": _("invitation mailed"),
    "invitation_revoked": _("invitation revoked"),
    "link_handed_over": _("link handed over"),
    "link_replaced": _("link replaced"),
    "link_revealed": _("link revealed"),
    "mail_bounced": _("mail bounced"),
    "mail_given_up": _("mail given up"),
    "mail_resent": _("mail sent again"),
    "mail_sent": _("mail sent"),
    "passkey_renamed": _("passkey renamed"),
    "passkey_used": _("passkey used"),
    "passwords_guessed": _("too many passwords tried"),
    "recovery_code_used": _("recovery code used"),
    "recovery_codes_made": _("recovery codes made"),
    "second_factor_added": _("second factor added"),
    "second_factor_failed": _("second factor failed"),
    "second_factor_removed": _("second factor removed"),
    "second_factors_reset": _("second factors reset"),
    "sign_in_failed": _("sign-in failed"),
    "sign_in_locked": _("sign-in locked"),
    "sign_in_unlocked": _("sign-in unlocked"),
    "signed_in": _("signed in"),
    "signed_out": _("signed out"),
    "webhook_reapplied": _("webhook applied again"),
}
"""What the screens call an event that changes no row; a test finds the events that the code records."""

EVENT_DETAIL_LABELS: dict[str, Text] = {
    "address": _("address"),
    "asked_at": _("asked at"),
    "asked_for": _("asked for"),
    "before": _("before"),
    "codat_id": _("Codat company id"),
    "customer_number": _("customer number"),
    "entries": _("entries"),
    "factors": _("second factors"),
    "failures": _("failed tries"),
    "first_bad_seal": _("first bad seal"),
    "format": _("format"),
    "grant": _("number of the access"),
    "hours": _("hours"),
    "kind": _("kind"),
    "last_seal": _("last seal"),
    "made_for": _("made for"),
    "name": _("name"),
    "newer": _("number of a newer invitation"),
    "purpose": _("purpose"),
    "result": _("result"),
    "rows": _("rows"),
    "seals": _("seals"),
    "sessions": _("sessions ended"),
    "sha256": _("SHA-256"),
    "stage": _("stage"),
    "to": _("to"),
    "type": _("type"),
    "unbound": _("identity providers unbound"),
}
"""What the screens call the details of an event."""

EVENT_DETAIL_VALUES: dict[str, dict[str, Text]] = {
    "format": dict(ExportFormat.choices),
    "kind": {
        **dict(MailKind.choices),
        "totp": _("authenticator app"),
        "webauthn": _("passkey"),
        "recovery_codes": _("recovery codes"),
    },
    "made_for": {"screen": _("a screen"), "mail": _("a mail"), "api": _("the bank's own application")},
    "purpose": {
        "confirmation": _("confirmation"),
        "sign-in": _("sign-in"),
        "sign-in without password": _("sign-in without password"),
    },
    "result": dict(CheckState.choices),
    "stage": {"started": _("started"), "completed": _("completed"), "broken_off": _("broken off")},
}
"""What the screens call the codes among the details of an event; every other value is shown as it is."""


def event_label(event: str) -> str:
    """An event of the change history in words; one that an older release recorded, by its name."""
    return str(EVENT_LABELS.get(event, event.replace("_", " ")))


def event_detail_label(name: str) -> str:
    """A detail of an event in words; one that an older release recorded, by its name."""
    return str(EVENT_DETAIL_LABELS.get(name, name.replace("_", " ")))


def event_detail_value(name: str, value: object) -> str:
    """The value of an event's detail in words, where it is a code that this release knows."""
    return str(EVENT_DETAIL_VALUES.get(name, {}).get(str(value), value))
