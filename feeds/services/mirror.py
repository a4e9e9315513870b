"""Writes what Codat says into our mirror: the only writer of mirrored columns.

A reading is written only if it was asked for later than what we hold, and only columns that changed are saved, so the
change history has a row if and only if something changed. Call inside a transaction that holds the company's row.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import mapping
from feeds.codat import schemas
from feeds.models import Company, Connection, SourceAccount
from feeds.states import ConnectionStatus, OnboardingState

LINK_COLUMNS = ("link_url", "link_fetched_at", "link_expires_at")
_UNAUDITED = {"read_at", "raw"}


def apply_company(company: Company, reply: schemas.Company) -> None:
    """Write a company reply into `company`: Codat has it from now on."""
    _write(company, mapping.company_columns(reply) | {"gone_at": None})


def apply_connection(company: Company, reply: schemas.Connection) -> Connection:
    """Write a connection reply, adopting the connection if we did not have it.

    The link follows its own clock: every newer link replaces the older, because Codat may have killed that one.
    """
    lifetime = timedelta(seconds=settings.CODAT_LINK_LIFETIME_SECONDS)
    columns = mapping.connection_columns(reply, link_lifetime=lifetime)
    connection = Connection.objects.filter(codat_id=reply.id).first()
    if connection is None:
        return Connection.objects.create(company=company, **columns)
    columns["gone_at"] = None
    # A linked connection has no link, and an older reading must not bring one back.
    if _is_older(reply.read_at, connection.link_fetched_at or connection.read_at):
        columns = {name: value for name, value in columns.items() if name not in LINK_COLUMNS}
    _write(connection, columns)
    return connection


def apply_account(account: SourceAccount, connection: Connection, reply: schemas.SourceAccount) -> None:
    """Write a source account reply; the account is in Codat from now on."""
    _write(
        account, mapping.source_account_columns(reply) | {"connection": connection, "last_error": "", "gone_at": None}
    )


def apply_listing(connection: Connection, replies: list[schemas.SourceAccount]) -> None:
    """Write a complete listing of one connection's accounts; what we thought was there and is not, is gone."""
    by_id = {reply.id: reply for reply in replies}
    for account in SourceAccount.objects.filter(company=connection.company_id):
        reply = by_id.get(account.account_id)
        if reply is not None:
            apply_account(account, connection, reply)
        elif account.connection_id == connection.pk and account.gone_at is None:
            mark_gone(account)


def mark_gone(account: SourceAccount) -> None:
    """Codat no longer has this account. The row stays: history points at it."""
    account.gone_at = timezone.now()
    account.save(update_fields=["gone_at", "updated_at"])


def mark_connection_gone(connection: Connection) -> None:
    """Codat no longer has this connection, nor anything on it: its accounts wait for a new one under the same ids."""
    connection.gone_at = timezone.now()
    connection.link_url, connection.link_expires_at = "", None
    connection.save(update_fields=["gone_at", "link_url", "link_expires_at", "updated_at"])
    for account in SourceAccount.objects.filter(connection=connection, gone_at__isnull=True):
        account.connection, account.status, account.feed_start_date = None, "", None
        account.save(update_fields=["connection", "status", "feed_start_date", "updated_at"])


def mark_company_gone(company: Company) -> None:
    """Codat no longer has this company, nor anything of it. Its onboarding begins anew when a person asks for it."""
    company.gone_at = timezone.now()
    company.save(update_fields=["gone_at", "updated_at"])
    connection = live_connection(company)
    if connection is not None:
        mark_connection_gone(connection)
    gone = _("Codat no longer has this company. Press Retry to make it again.")
    set_onboarding(company, OnboardingState.FAILED, gone)


def settle_onboarding(company: Company) -> None:
    """After a reading: `Linked` once the customer has connected, `Link ready` when that is no longer so."""
    if company.onboarding_state not in (OnboardingState.LINK_READY, OnboardingState.LINKED):
        return
    connection = live_connection(company)
    if connection is None:
        gone = _("Codat no longer has this company's connection. Press Retry to make a new one.")
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
    if _is_older(columns["read_at"], row.read_at):
        columns = {name: columns[name] for name in LINK_COLUMNS if name in columns}
    changed = {name: value for name, value in columns.items() if getattr(row, name) != value}
    for name, value in changed.items():
        setattr(row, name, value)
    if changed.keys() - _UNAUDITED:
        row.save(update_fields=[*changed, "updated_at"])
    elif changed:
        _update_unaudited(row, changed)


def _update_unaudited(row: models.Model, changed: dict[str, Any]) -> None:
    """The time of a reading that changed nothing: not worth a row of history."""
    type(row)._default_manager.filter(pk=row.pk).update(**changed)
