"""What each kind of ledger row asks of Codat: how to look whether it is done already, how to send it, what to record.

`look` and `send` talk to Codat and never run inside a transaction; they answer with a recorder, which does.
`look` runs before anything is sent again after a lost answer, and answers None when there is nothing to adopt.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import mapping
from feeds.audit import Actor
from feeds.banking import USUAL_ROUTING_TYPE
from feeds.codat import schemas
from feeds.codat.client import CodatClient
from feeds.codat.errors import CodatError, NotFound, ServerError
from feeds.models import Case, Connection, Operation, SourceAccount
from feeds.services import cases, leases, ledger, mirror
from feeds.states import CaseOutcome, ConnectionStatus, OnboardingState, OperationKind

Recorder = Callable[[], str]
"""Writes an answer into the mirror, inside the caller's transaction; returns the result text of the ledger row."""

PUT = "put"


class PartlyRefused(CodatError):
    """Some accounts of one request were refused; the others are in Codat and recorded."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.text = message

    @property
    def staff_message(self) -> str:
        """Which accounts, and why."""
        return self.text


class Step(Protocol):
    """One kind of operation."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Find out whether Codat has done it already. Raises CodatError."""

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Ask Codat to do it. Raises CodatError."""


def _key(operation: Operation) -> str:
    return str(operation.idempotency_key)


def _connection(operation: Operation) -> Connection:
    if operation.connection is None:
        raise ValueError(f"operation {operation.pk} names no connection")
    return operation.connection


def _account(operation: Operation) -> SourceAccount:
    if operation.account is None:
        raise ValueError(f"operation {operation.pk} names no account")
    return operation.account


class CreateCompany:
    """POST /companies. The tag `uid` is the identity: names need not be unique in Codat."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Find the company by its tag; the oldest, should there ever be two."""
        found = client.find_companies_by_tag(mapping.UID_TAG, str(operation.company.uid))
        if not found:
            return None
        oldest = min(found, key=lambda reply: (reply.created is None, reply.created, reply.id))
        return self._recorder(operation, oldest, _("Found in Codat as “%(name)s”."))

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Create it with the frozen payload, so a retry under the same key is the same request."""
        payload = operation.payload
        reply = client.create_company(name=payload["name"], tags=payload["tags"], idempotency_key=_key(operation))
        return self._recorder(operation, reply, _("Created as “%(name)s”."))

    @staticmethod
    def _recorder(operation: Operation, reply: schemas.Company, text: str) -> Recorder:
        def record() -> str:
            mirror.apply_company(operation.company, reply)
            # A company found in Codat may have got as far as its connection; a new one has none.
            connection = next(filter(mapping.is_bank_feed, reply.connections), None)
            if connection is not None and mirror.live_connection(operation.company) is None:
                mirror.apply_connection(operation.company, connection)
            return text % {"name": reply.name}

        return record


class CreateConnection:
    """POST /companies/{companyId}/connections with the bank feeds platform key."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Find a bank feeds connection. A fresh link comes with it."""
        for reply in client.list_connections(operation.company.codat_id):
            if mapping.is_bank_feed(reply):
                return self._recorder(operation, reply, _("Found in Codat."))
        return None

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Create it."""
        reply = client.create_connection(
            operation.company.codat_id, platform_key=operation.payload["platformKey"], idempotency_key=_key(operation)
        )
        return self._recorder(operation, reply, _("Created."))

    @staticmethod
    def _recorder(operation: Operation, reply: schemas.Connection, text: str) -> Recorder:
        def record() -> str:
            operation.connection = mirror.apply_connection(operation.company, reply)
            operation.save(update_fields=["connection"])
            return text

        return record


class AddAccounts:
    """POST .../bankFeedAccounts/batch, or the guide's PUT when the setting says so and the connection is not new."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Adopt those that exist; done when none is left. The rest is sent as a new request."""
        connection = _connection(operation)
        self._adopt(operation, client.list_source_accounts(operation.company.codat_id, connection.codat_id))
        return None if self.missing(operation) else lambda: _("Found in Codat.")

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Send what is missing, in one request."""
        company, connection = operation.company, _connection(operation)
        missing = self.missing(operation)
        if not missing:
            return lambda: _("Nothing was left to add.")
        bodies = [
            mapping.source_account_body(facts(account), schema=settings.CODAT_ACCOUNT_SCHEMA) for account in missing
        ]
        if operation.payload.get("method") == PUT:
            self._adopt(operation, client.put_source_accounts(company.codat_id, connection.codat_id, bodies))
            self._settle(client, operation, {})
        else:
            self._freeze(operation, bodies)
            batch = client.create_source_accounts(
                company.codat_id, connection.codat_id, bodies, idempotency_key=_key(operation)
            )
            self._adopt(operation, [item.account for item in batch.items if item.created and item.account])
            self._settle(client, operation, {item.source_account_id: item for item in batch.items})
        return lambda: _("%d accounts in Codat.") % len(operation.payload["accountIds"])

    @staticmethod
    def _freeze(operation: Operation, bodies: Sequence[object]) -> None:
        """Another body needs another idempotency key: Codat answers 422 to the same key with different content."""
        current = ledger.fingerprint(bodies)
        if operation.fingerprint == current:
            return
        if operation.fingerprint:
            operation.idempotency_key = uuid.uuid4()
        operation.fingerprint = current
        operation.save(update_fields=["fingerprint", "idempotency_key"])

    def missing(self, operation: Operation) -> list[SourceAccount]:
        """The accounts of this request that are not in Codat yet, in the order they were asked for."""
        wanted = operation.payload["accountIds"]
        accounts = SourceAccount.objects.filter(
            company=operation.company_id, account_id__in=wanted, connection__isnull=True, gone_at__isnull=True
        )
        return sorted(accounts.select_related("company"), key=lambda account: wanted.index(account.account_id))

    def _settle(self, client: CodatClient, operation: Operation, items: dict[str, schemas.BatchItem]) -> None:
        """Decide about accounts the request did not create: adopt those that exist, raise for the rest."""
        if not self.missing(operation):
            return
        connection = _connection(operation)
        self._adopt(operation, client.list_source_accounts(operation.company.codat_id, connection.codat_id))
        left = self.missing(operation)
        if not left:
            return
        refused = [(account, items[account.account_id]) for account in left if account.account_id in items]
        # Those that Codat did not even answer about are tried again like those it had no time for.
        if len(refused) < len(left) or any(_is_passing(item) for _account, item in refused):
            raise ServerError("the batch was carried out in part", outcome_unknown=True, new_key_needed=True)
        lines = []
        with transaction.atomic():
            for account, item in refused:
                account.last_error = item.error or _("Codat gave no reason (status %d).") % item.status_code
                account.save(update_fields=["last_error", "updated_at"])
                lines.append(f"{account.name}: {account.last_error}")
        raise PartlyRefused(
            _("Codat refused %(refused)d of %(all)d accounts. Correct them, then press Retry. %(reasons)s")
            % {"refused": len(refused), "all": len(operation.payload["accountIds"]), "reasons": " ".join(lines)}
        )

    def _adopt(self, operation: Operation, replies: Sequence[schemas.SourceAccount]) -> None:
        by_id = {reply.id: reply for reply in replies}
        connection = _connection(operation)
        with transaction.atomic():
            leases.lock(operation.company_id, operation.company.lease_token)
            for account in SourceAccount.objects.filter(company=operation.company_id, account_id__in=by_id):
                mirror.apply_account(account, connection, by_id[account.account_id])


def _is_passing(item: schemas.BatchItem) -> bool:
    """Whether one account of a batch may fare better next time; a "created" that is not in the list may too."""
    return item.created or item.status_code == 429 or item.status_code >= 500


def facts(account: SourceAccount) -> mapping.AccountFacts:
    """What Codat is told about an account."""
    return mapping.AccountFacts(
        account_id=account.account_id,
        name=account.name,
        account_type=account.account_type,
        account_number=account.account_number,
        currency=account.currency,
        balance=account.balance,
        sort_code=account.sort_code,
        bank_code=account.bank_code,
        # Codat refuses a routing number without its type.
        routing_type=account.routing_type or USUAL_ROUTING_TYPE.get(account.company.country, ""),
        open_date=account.account_open_date,
        nickname="",
    )


class RefreshLink:
    """GET /companies/{companyId}/connections: every reply carries a fresh link (the guide's way)."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """A read has no effect to find: it is simply made again."""
        return None

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Read the company's connections and keep the link."""
        connection = _connection(operation)
        replies = client.list_connections(operation.company.codat_id)
        reply = next((reply for reply in replies if reply.id == connection.codat_id), None)
        if reply is None:
            raise NotFound("the connection is not in Codat's list")

        def record() -> str:
            fresh = mirror.apply_connection(operation.company, reply)
            if not fresh.has_live_link(timezone.now()):
                return _("Already linked: no link is needed.")
            return _("Fresh link fetched.")

        return record


class ChangeAccount:
    """PATCH .../bankFeedAccounts/{accountId}: rename, or set disconnected. Both may safely be sent twice."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Nothing to find: sending the same change again changes nothing."""
        return None

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Send the frozen change."""
        account, connection = _account(operation), _connection(operation)
        reply = client.update_source_account(
            operation.company.codat_id,
            connection.codat_id,
            account.account_id,
            name=operation.payload.get("accountName"),
            status=operation.payload.get("status"),
            idempotency_key=_key(operation),
        )

        def record() -> str:
            mirror.apply_account(account, connection, reply)
            if "accountName" not in operation.payload:
                return _("Set to disconnected.")
            account.name = reply.name or operation.payload["accountName"]
            account.save(update_fields=["name", "updated_at"])
            return _("Renamed to %s.") % account.name

        return record


class DeleteAccount:
    """DELETE .../bankFeedAccounts/{accountId}. Gone already counts as done."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Nothing to find: deleting what is gone answers 404, which is done too."""
        return None

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Delete it."""
        account, connection = _account(operation), _connection(operation)
        try:
            client.delete_source_account(operation.company.codat_id, connection.codat_id, account.account_id)
            text = _("Deleted.")
        except NotFound:
            text = _("Was already gone in Codat.")

        def record() -> str:
            account.refresh_from_db()
            if account.gone_at is None:  # else a reading has seen it already
                mirror.mark_gone(account)
            return text

        return record


class UnlinkConnection:
    """PATCH .../connections/{connectionId}: only a `Linked` connection can be unlinked."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Done when Codat no longer shows it as linked."""
        connection = _connection(operation)
        reply = client.get_connection(operation.company.codat_id, connection.codat_id)
        return None if reply.status == ConnectionStatus.LINKED else self._recorder(operation, reply)

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Unlink it."""
        connection = _connection(operation)
        reply = client.unlink_connection(
            operation.company.codat_id, connection.codat_id, idempotency_key=_key(operation)
        )
        return self._recorder(operation, reply)

    @staticmethod
    def _recorder(operation: Operation, reply: schemas.Connection) -> Recorder:
        def record() -> str:
            mirror.apply_connection(operation.company, reply)
            return _("Now %s.") % reply.status

        return record


class DeleteConnection:
    """DELETE .../connections/{connectionId}: off-boards the customer. Gone already counts as done."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Nothing to find: deleting what is gone answers 404, which is done too."""
        return None

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Delete it."""
        connection = _connection(operation)
        try:
            client.delete_connection(operation.company.codat_id, connection.codat_id)
            text = _("Deleted.")
        except NotFound:
            text = _("Was already gone in Codat.")

        def record() -> str:
            _off_board(operation, [connection])
            return text

        return record


class DeleteCompany:
    """DELETE /companies/{companyId}: with everything on it. Gone already counts as done."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Nothing to find: deleting what is gone answers 404, which is done too."""
        return None

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Delete it."""
        company = operation.company
        try:
            client.delete_company(company.codat_id)
            text = _("Deleted.")
        except NotFound:
            text = _("Was already gone in Codat.")

        def record() -> str:
            # The company as it was locked for this transaction.
            if operation.company.gone_at is None:
                mirror.mark_gone(operation.company)
            _off_board(operation, list(operation.company.connections.all()))
            return text

        return record


def _off_board(operation: Operation, connections: Sequence[Connection]) -> None:
    """The feed ended because it was meant to: its cases are settled, and it counts neither as stuck nor as broken."""
    asker = Actor(operation.requested_by_name, operation.source, user=operation.requested_by, reason=operation.reason)
    for connection in connections:
        for case in Case.objects.open().filter(connection=connection):
            cases.close(case, CaseOutcome.NOT_WANTED, asker, operation.reason or str(operation))
        if connection.gone_at is None:
            mirror.mark_gone(connection)
    mirror.set_onboarding(operation.company, OnboardingState.OFFBOARDED)


class RevokeCredentials:
    """DELETE .../credentials: revokes every set of the connection. May safely be sent twice."""

    def look(self, client: CodatClient, operation: Operation) -> Recorder | None:
        """Nothing to find: Codat lists no credentials."""
        return None

    def send(self, client: CodatClient, operation: Operation) -> Recorder:
        """Revoke them all."""
        client.revoke_credentials(operation.company.codat_id, _connection(operation).codat_id)
        return lambda: _("All credentials of this connection are revoked.")


STEPS: dict[str, Step] = {
    OperationKind.CREATE_COMPANY: CreateCompany(),
    OperationKind.CREATE_CONNECTION: CreateConnection(),
    OperationKind.ADD_ACCOUNTS: AddAccounts(),
    OperationKind.REFRESH_LINK: RefreshLink(),
    OperationKind.RENAME_ACCOUNT: ChangeAccount(),
    OperationKind.DISCONNECT_ACCOUNT: ChangeAccount(),
    OperationKind.DELETE_ACCOUNT: DeleteAccount(),
    OperationKind.UNLINK_CONNECTION: UnlinkConnection(),
    OperationKind.DELETE_CONNECTION: DeleteConnection(),
    OperationKind.DELETE_COMPANY: DeleteCompany(),
    OperationKind.REVOKE_CREDENTIALS: RevokeCredentials(),
}
"""Every kind the queue carries out. Generating credentials is not here: its answer may only ever be on one screen."""
