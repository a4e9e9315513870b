"""Writes what Codat says into our mirror: the only writer of mirrored columns.

A reading is written only if it was asked for later than what we hold, and only columns that changed are saved, so the
change history has a row if and only if something changed. Call inside a transaction that holds the company's row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit, mapping, statements, states
from feeds.codat import schemas
from feeds.models import Company, Connection, SourceAccount, StatusEvent
from feeds.services import link_need
from feeds.states import GONE, ConnectionStatus, OnboardingState, SeenBy
from feeds.wording import recorded

LINK_COLUMNS = ("link_url", "link_fetched_at", "link_expires_at")
BANK_FEED = "BankFeed"
"""Codat's `sourceType` of the connections that are ours."""
_UNAUDITED = {"read_at", "raw"}
_seen: ContextVar[tuple[SeenBy, str]] = ContextVar("seen_by", default=(SeenBy.ACTION, ""))


@contextmanager
def seen_by(how: SeenBy, reference: str = "") -> Iterator[None]:
    """Status changes written inside came to our knowledge like this; `reference` is a webhook id or a ledger row."""
    token = _seen.set((how, reference))
    try:
        yield
    finally:
        _seen.reset(token)


@dataclass(slots=True)
class _Batch:
    """Rows and events that wait to be saved together. A row waits as it was, as it is, and with what changed."""

    rows: list[tuple[Connection, Connection, dict[str, Any]]] = field(default_factory=list)
    events: list[StatusEvent] = field(default_factory=list)


_batch: ContextVar[_Batch | None] = ContextVar("mirror_batch", default=None)


@contextmanager
def together() -> Iterator[None]:
    """Connections written inside are saved at the end, with history and events in one statement each."""
    batch = _Batch()
    token = _batch.set(batch)
    try:
        yield
    finally:
        _batch.reset(token)
    now = timezone.now()
    audit.update_rows((before, row, {**changed, "updated_at": now}) for before, row, changed in batch.rows)
    statements.insert_rows(batch.events)


def apply_company(company: Company, reply: schemas.Company) -> None:
    """Write a company reply into `company`: Codat has it from now on."""
    _write(company, mapping.company_columns(reply) | {"gone_at": None})


def apply_connection(company: Company, reply: schemas.Connection) -> Connection:
    """Write a connection reply, adopting the connection if we did not have it.

    The link follows its own clock: every newer link replaces the older, because Codat may have killed that one.
    """
    return _apply_connection(company, Connection.objects.filter(codat_id=reply.id).first(), reply)


def _apply_connection(company: Company, connection: Connection | None, reply: schemas.Connection) -> Connection:
    lifetime = timedelta(seconds=settings.CODAT_LINK_LIFETIME_SECONDS)
    columns = mapping.connection_columns(
        reply, link_lifetime=lifetime, link_is_needed=_link_is_needed(connection, reply)
    )
    if connection is None:
        connection = Connection.objects.create(company=company, poll_due_at=timezone.now(), **columns)
        _note_status(connection, "", connection.status, reply.read_at, None)
        return connection
    # A connection that needs no link has none, and an older reading must not bring one back.
    if _is_older(reply.read_at, connection.link_fetched_at or connection.read_at):
        columns = {name: value for name, value in columns.items() if name not in LINK_COLUMNS}
    if connection.gone_at is not None and live_connection(company) is None:
        columns["gone_at"] = None
    _write(connection, columns)
    return connection


def _link_is_needed(connection: Connection | None, reply: schemas.Connection) -> bool:
    """Whether its customer needs a link, by the reply's status and the accounts that we hold."""
    if reply.status != ConnectionStatus.LINKED:
        return states.link_is_needed(reply.status, account_is_unconnected=False)
    no_link_at_stake = reply.link_url is None and (connection is None or not connection.link_url)
    if connection is None or no_link_at_stake:
        return False  # without a query: sweeps read a hundred thousand of these
    if connection.status != ConnectionStatus.LINKED:
        return False  # linked a moment ago: what we hold of its accounts is older than that, and is read next
    return states.link_is_needed(reply.status, account_is_unconnected=link_need.has_unconnected_account(connection))


def apply_listed_connection(
    company: Company, held: Connection | None, reply: schemas.Connection, *, keep_new_link: bool
) -> None:
    """Write one connection of a listing into `held`. One we do not hold is ours if it is a bank feed and the only one.

    Every listing makes new links. One that nobody asked for is stored only in place of a live one, which it may have
    killed: held without need it would be a secret too many, and would pass for a link that was sent.
    """
    if held is None and (reply.source_type != BANK_FEED or live_connection(company) is not None):
        return
    if not keep_new_link and (held is None or not held.has_live_link(timezone.now())):
        reply = replace(reply, link_url=None)
    in_hands = held.link_url if held is not None and held.is_handed_out(timezone.now()) else ""
    connection = _apply_connection(company, held, reply)
    if in_hands and connection.link_url not in ("", in_hands):
        _note_replaced_link(connection)


def follow_link(connection: Connection, reply: schemas.Connection) -> None:
    """Write only the link of a reply, in place of a live one that it may have killed. For who only compares."""
    now = timezone.now()
    if reply.link_url is None or not connection.has_live_link(now):
        return
    lifetime = timedelta(seconds=settings.CODAT_LINK_LIFETIME_SECONDS)
    older = Connection.objects.filter(pk=connection.pk, link_fetched_at__lt=reply.read_at).exclude(link_url="")
    written = audit.update(
        older, link_url=reply.link_url, link_fetched_at=reply.read_at, link_expires_at=reply.read_at + lifetime
    )
    if written and connection.is_handed_out(now):
        _note_replaced_link(connection)


def _note_replaced_link(connection: Connection) -> None:
    """Nobody asked for the new one, and a customer may find the older one closed: the timeline says what happened."""
    audit.record("link_replaced", connection)


def apply_account(account: SourceAccount, connection: Connection, reply: schemas.SourceAccount) -> None:
    """Write a source account reply; the account is in Codat from now on."""
    _write(
        account, mapping.source_account_columns(reply) | {"connection": connection, "last_error": "", "gone_at": None}
    )


def apply_listing(connection: Connection, replies: list[schemas.SourceAccount]) -> None:
    """Write a complete listing of one connection's accounts; what we thought was there and is not, is gone."""
    by_id = {reply.id: reply for reply in replies}
    if connection.accounts_in_codat != len(by_id):
        connection.accounts_in_codat = len(by_id)
        _update_unaudited(connection, {"accounts_in_codat": len(by_id)})
    for account in SourceAccount.objects.filter(company=connection.company_id):
        reply = by_id.get(account.account_id)
        if reply is not None:
            apply_account(account, connection, reply)
        elif account.connection_id == connection.pk and account.gone_at is None:
            mark_gone(account)


def mark_gone(row: Company | Connection | SourceAccount) -> None:
    """Codat no longer has this object. The row stays: history points at it.

    Nothing on a connection outlives it: its accounts wait for a new one, under the same ids.
    """
    row.gone_at = timezone.now()
    if isinstance(row, Connection):
        row.link_url, row.link_expires_at = "", None
        row.save(update_fields=["gone_at", "link_url", "link_expires_at", "updated_at"])
    else:
        row.save(update_fields=["gone_at", "updated_at"])
    # An account that went with its connection has been told of with it.
    if isinstance(row, Connection) or (isinstance(row, SourceAccount) and row.connection_id is not None):
        _note_status(row, row.status, GONE, row.gone_at, row.read_at)
    if isinstance(row, Connection):
        for account in SourceAccount.objects.filter(connection=row, gone_at__isnull=True):
            _free(account)


def _free(account: SourceAccount) -> None:
    """Ready for a new connection, under the same id."""
    _note_status(account, account.status, GONE, timezone.now(), account.read_at)
    account.connection, account.status, account.feed_start_date = None, "", None
    account.save(update_fields=["connection", "status", "feed_start_date", "updated_at"])


def settle_onboarding(company: Company, connections: Iterable[Connection] | None = None) -> None:
    """After a reading: `Linked` once the customer has connected, `Link ready` when that is no longer so.

    `connections`: all of the company's, where the caller has them at hand.
    """
    if company.onboarding_state not in (OnboardingState.LINK_READY, OnboardingState.LINKED):
        return
    if connections is None:
        connection = live_connection(company)
    else:
        connection = next((held for held in connections if held.gone_at is None), None)
    if connection is None:
        with recorded():
            gone = _("Codat no longer has this company's connection. Press Retry to make a new one.")
            if company.gone_at is not None:
                gone = _("Codat no longer has this company. Press Retry to make it again.")
        set_onboarding(company, OnboardingState.FAILED, gone)
        return
    linked = connection.status == ConnectionStatus.LINKED
    set_onboarding(company, OnboardingState.LINKED if linked else OnboardingState.LINK_READY)


def set_onboarding(company: Company, state: OnboardingState, error: str = "") -> None:
    """Move the company's onboarding and say why; nothing is written when nothing changes."""
    if (company.onboarding_state, company.onboarding_error) == (state, error):
        return
    company.onboarding_state = state
    company.onboarding_error = error
    company.onboarding_changed_at = timezone.now()
    company.save(update_fields=["onboarding_state", "onboarding_error", "onboarding_changed_at", "updated_at"])


def live_connection(company: Company) -> Connection | None:
    """The company's bank feeds connection that still exists in Codat, as far as we know."""
    return Connection.objects.filter(company=company, gone_at__isnull=True).first()


def _is_older(read_at: Any, held: Any) -> bool:
    return held is not None and read_at < held


def _write(row: Company | Connection | SourceAccount, columns: dict[str, Any]) -> None:
    if _is_older(columns["read_at"], row.read_at) or _is_older(columns["read_at"], row.gone_at):
        columns = {name: columns[name] for name in LINK_COLUMNS if name in columns}
    changed = {name: value for name, value in columns.items() if getattr(row, name) != value}
    old_status, old_read_at = getattr(row, "status", ""), row.read_at
    before = copy(row)
    for name, value in changed.items():
        setattr(row, name, value)
    if changed.keys() - _UNAUDITED:
        batch = _batch.get()
        if batch is not None and isinstance(row, Connection) and isinstance(before, Connection):
            batch.rows.append((before, row, changed))
        else:
            row.save(update_fields=[*changed, "updated_at"])
        if "status" in changed and not isinstance(row, Company):
            _note_status(row, old_status, changed["status"], columns["read_at"], old_read_at)
    elif changed:
        _update_unaudited(row, changed)


def _note_status(
    row: Connection | SourceAccount, old: str, new: str, seen_at: datetime, old_read_at: datetime | None
) -> None:
    """Write the change into the timeline, with how we came to know it."""
    account = row if isinstance(row, SourceAccount) else None
    connection_id = row.pk if isinstance(row, Connection) else row.connection_id
    if connection_id is None:
        raise ValueError(f"account {row.pk} has a status and no connection")
    seen_by, reference = _seen.get()
    event = StatusEvent(
        company_id=row.company_id,
        connection_id=connection_id,
        account=account,
        old=old,
        new=new,
        seen_at=seen_at,
        old_read_at=old_read_at,
        seen_by=seen_by,
        reference=reference,
    )
    batch = _batch.get()
    if batch is None:
        event.save()
    else:
        batch.events.append(event)


def _update_unaudited(row: models.Model, changed: dict[str, Any]) -> None:
    """The time of a reading that changed nothing: not worth a row of history."""
    type(row)._default_manager.filter(pk=row.pk).update(**changed)
