"""How Codat and our mirror differ, once a night, and taking over a company that was created in the Codat Portal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit, mapping, queue
from feeds.audit import Actor
from feeds.codat import schemas
from feeds.models import Company, Connection, DriftFinding, DriftReport, ListingWalk, SourceAccount
from feeds.services import gateway, listing, mirror, readings
from feeds.services.errors import Refused
from feeds.services.listing import Outcome
from feeds.states import GONE, AccountType, Country, DriftKind, OnboardingState, RoutingType, SeenBy

NAME = "drift"
EVERY = timedelta(hours=23)
"""Asked each hour, so about once a day."""
CUSTOMER_NUMBER_TAGS = ("customerNumber", "customer_number")
"""Tags of Codat companies in which other systems commonly keep the bank's number."""
NUMBER_NOT_TOLD = "not told"
"""Stands for an account number that Codat did not answer with; the row would not be allowed without one."""
_OLD_ACCOUNT_TYPES = {"credit": AccountType.CREDIT_CARD, "debit": AccountType.CHECKING}
_TEXT = DriftFinding._meta.get_field("there").max_length


# --- Comparing -------------------------------------------------------------------------------------------------------
def run() -> str:
    """Begin or go on with a comparison, for some seconds; queues its own continuation. A short report for the log."""
    outcome = listing.run(Comparison())
    if outcome == Outcome.PAUSED:
        queue.enqueue(queue.COMPARE)
    return outcome.value


def tonight() -> str:
    """Go on with the comparison, or begin one unless one began within the last day; asked each hour.

    So one that had to wait for links in customers' hands is made as soon as it may, and not a day later.
    """
    lately = DriftReport.objects.filter(started_at__gt=timezone.now() - EVERY)
    # One that stood still for too long is begun anew: it had an end neither way.
    ended = lately.exclude(finished_at__isnull=True, error="")
    if ended.exists() and not listing.is_under_way(NAME):
        return "done lately"
    return run()


def latest() -> DriftReport | None:
    """The last comparison that ended, well or not."""
    return DriftReport.objects.filter(Q(finished_at__isnull=False) | ~Q(error="")).first()


@dataclass(slots=True)
class _Ours:
    """What we hold of one company: `connections` maps Codat's ids to (status, when it was read)."""

    pk: int
    legal_name: str
    connections: dict[str, tuple[str, datetime | None]] = field(default_factory=dict)


class Comparison:
    """Writes one report with a finding for each difference. It changes nothing else but links that it replaced."""

    name = NAME

    def __init__(self) -> None:
        self._findings: list[DriftFinding] = []
        self._read = 0

    def begin(self, started_at: datetime) -> None:
        """A new report; one that was never finished says so."""
        self.abandon(_("The comparison was interrupted for too long and begun anew."))
        DriftReport.objects.create(started_at=started_at)

    def visit(self, companies: Sequence[dict[str, Any]], read_at: datetime) -> None:
        """Compare a page with our rows."""
        ours = _ours([company["id"] for company in companies])
        arriving = _on_their_way(companies)
        self._read += len(companies)
        _follow_links(companies, read_at)
        for there in companies:
            held = ours.get(there["id"])
            if held is not None:
                self._findings.extend(_differences(held, there, read_at))
            elif _uid(there) not in arriving:
                self._findings.append(_finding(DriftKind.MISSING_HERE, None, there["id"], there=_name(there)))

    def commit(self, walk: ListingWalk) -> None:
        """Write the page's findings."""
        report = _open_reports().latest("pk")
        for finding in self._findings:
            finding.report = report
        DriftFinding.objects.bulk_create(self._findings, batch_size=500)
        DriftReport.objects.filter(pk=report.pk).update(companies_read=F("companies_read") + self._read)
        self._findings.clear()
        self._read = 0

    def finish(self, walk: ListingWalk, seen: set[int]) -> None:
        """Add what only a complete list tells, and what polling knows about accounts; close the report."""
        findings = [*_missing_there(walk, seen), *_account_counts()]
        with transaction.atomic():
            report = _open_reports().select_for_update().latest("pk")
            for finding in findings:
                finding.report = report
            DriftFinding.objects.bulk_create(findings, batch_size=500)
            report.finished_at = timezone.now()
            report.save(update_fields=["finished_at"])

    def abandon(self, message: str) -> None:
        """Say in the report why it has no end."""
        _open_reports().update(error=message)


def _follow_links(companies: Sequence[Mapping[str, Any]], read_at: datetime) -> None:
    """This listing has made new links too; where one is live, the one we show must be the one that works."""
    ids = json.dumps([company["id"] for company in companies])
    live = Connection.objects.filter(link_expires_at__gt=timezone.now(), company__codat_id__one_of=ids)
    held = {connection.codat_id: connection for connection in live.exclude(link_url="")}
    for company in companies if held else ():
        for there in company.get("dataConnections") or ():
            if (connection := held.get(there.get("id"))) is not None:
                with transaction.atomic():
                    mirror.follow_link(connection, schemas.connection(there, read_at))


def _open_reports() -> Any:
    return DriftReport.objects.filter(finished_at__isnull=True, error="")


def _ours(codat_ids: Sequence[str]) -> dict[str, _Ours]:
    found: dict[str, _Ours] = {}
    # The exclusion matches nothing more; it lets the database use the index, which has it as its condition.
    indexed = Company.objects.filter(codat_id__one_of=json.dumps(codat_ids), gone_at__isnull=True).exclude(codat_id="")
    rows = indexed.order_by()
    columns = ("codat_id", "status", "read_at", "gone_at")
    for pk, codat_id, legal_name, connection_id, status, read_at, gone_at in rows.values_list(
        "pk", "codat_id", "legal_name", *(f"connections__{column}" for column in columns)
    ):
        ours = found.setdefault(codat_id, _Ours(pk, legal_name))
        if connection_id is not None and gone_at is None:
            ours.connections[connection_id] = (status, read_at)
    return found


def _on_their_way(companies: Sequence[Mapping[str, Any]]) -> set[str]:
    """Uid tags of companies that onboarding has created and not heard of yet: they are not strangers."""
    uids = [uid for company in companies if mapping.is_uid(uid := _uid(company))]
    waiting = Company.objects.filter(codat_id="", uid__in=uids)
    return {str(uid) for uid in waiting.values_list("uid", flat=True)}


def _uid(company: Mapping[str, Any]) -> str:
    tags = company.get("tags")
    return str(tags.get(mapping.UID_TAG, "")) if isinstance(tags, dict) else ""


def _name(company: Mapping[str, Any]) -> str:
    return str(company.get("name") or "")


def _differences(ours: _Ours, there: Mapping[str, Any], read_at: datetime) -> Iterator[DriftFinding]:
    name = _name(there)
    if name not in (ours.legal_name, mapping.codat_name(ours.legal_name)):
        yield _finding(DriftKind.RENAMED, ours.pk, there["id"], here=ours.legal_name, there=name)
    statuses = {str(item.get("id")): str(item.get("status")) for item in there.get("dataConnections") or []}
    for connection_id, (here, known_at) in ours.connections.items():
        status = statuses.get(connection_id, GONE)
        if status != here and (known_at is None or known_at < read_at):
            yield _finding(DriftKind.STATUS, ours.pk, there["id"], here=here, there=status)


def _missing_there(walk: ListingWalk, seen: set[int]) -> Iterator[DriftFinding]:
    older = Q(read_at__isnull=True) | Q(read_at__lt=walk.started_at)
    ours = Company.objects.filter(older, gone_at__isnull=True).exclude(codat_id="").order_by()
    for pk, codat_id, name in ours.values_list("pk", "codat_id", "legal_name").iterator():
        if listing.key(codat_id) not in seen:
            yield _finding(DriftKind.MISSING_THERE, pk, codat_id, here=name)


def _account_counts() -> Iterator[DriftFinding]:
    """Connections on which Codat's last answer had another number of accounts than we hold; no call is made."""
    living = Count("source_accounts", filter=Q(source_accounts__gone_at__isnull=True))
    counted = Connection.objects.filter(gone_at__isnull=True, accounts_in_codat__isnull=False).order_by()
    differing = counted.annotate(here=living).exclude(here=F("accounts_in_codat"))
    columns = ("company_id", "company__codat_id", "here", "accounts_in_codat")
    for company_id, codat_id, here, there in differing.values_list(*columns).iterator():
        yield _finding(DriftKind.ACCOUNTS, company_id, codat_id, here=str(here), there=str(there))


def _finding(
    kind: DriftKind, company_id: int | None, codat_company_id: str, *, here: str = "", there: str = ""
) -> DriftFinding:
    return DriftFinding(
        kind=kind, company_id=company_id, codat_company_id=codat_company_id, here=here[:_TEXT], there=there[:_TEXT]
    )


# --- Adopting --------------------------------------------------------------------------------------------------------
def adopt(finding: DriftFinding, *, actor: Actor, manager: User | None, customer_number: str = "") -> Company:
    """Take over a company that exists in Codat only, with its connection and accounts as Codat has them now.

    Without `customer_number` the one in Codat's tags is used, else a placeholder that begins with "CODAT-": the bank's
    own number and the contact are for staff to fill in. Nothing is changed in Codat.

    Raises CodatError, and Refused when there is nothing to adopt or the customer number is taken.
    """
    if finding.kind != DriftKind.MISSING_HERE or finding.adopted_at is not None:
        raise Refused(_("There is nothing to adopt: this company is known here."))
    if customer_number and Company.objects.filter(customer_number=customer_number).exists():
        raise Refused(_("Another company has the customer number %s.") % customer_number)
    client = gateway.client()
    reply = client.get_company(finding.codat_company_id)
    accounts = {
        connection.id: client.list_source_accounts(reply.id, connection.id)
        for connection in reply.connections
        if connection.source_type == mirror.BANK_FEED
    }
    with audit.acting(actor), mirror.seen_by(SeenBy.ACTION), transaction.atomic(durable=True):
        locked = DriftFinding.objects.select_for_update().get(pk=finding.pk)
        if locked.adopted_at is not None or Company.objects.filter(codat_id=reply.id).exists():
            raise Refused(_("This company was adopted already."))
        company = _create_company(reply, manager, customer_number or _customer_number(reply), accounts)
        for connection in reply.connections:
            mirror.apply_listed_connection(company, None, connection, keep_new_link=False)
        for held in Connection.objects.filter(company=company):
            _create_accounts(company, held, accounts[held.codat_id])
        readings.after_reading(company)
        audit.record("company_adopted", company, codat_id=reply.id)
        finding.company, finding.adopted_at = company, timezone.now()
        finding.save(update_fields=["company", "adopted_at"])
    return company


def _create_company(
    reply: schemas.Company,
    manager: User | None,
    customer_number: str,
    accounts: Mapping[str, Sequence[schemas.SourceAccount]],
) -> Company:
    is_canadian = any(account.currency == "CAD" for found in accounts.values() for account in found)
    company = Company.objects.create(
        customer_number=customer_number,
        legal_name=reply.name or reply.id,
        country=Country.CA if is_canadian else Country.US,
        manager=manager,
        onboarding_state=OnboardingState.LINK_READY if accounts else OnboardingState.DRAFT,
        onboarding_changed_at=timezone.now(),
    )
    mirror.apply_company(company, reply)
    return company


def _customer_number(reply: schemas.Company) -> str:
    tagged = [reply.tags[tag] for tag in CUSTOMER_NUMBER_TAGS if reply.tags.get(tag)]
    taken = set(Company.objects.filter(customer_number__in=tagged).values_list("customer_number", flat=True))
    return next((number for number in tagged if number not in taken and len(number) <= 64), f"CODAT-{reply.id}")


def _create_accounts(company: Company, connection: Connection, replies: Sequence[schemas.SourceAccount]) -> None:
    for reply in replies:
        account = SourceAccount.objects.create(
            company=company,
            connection=connection,
            account_id=reply.id,
            name=reply.name or reply.id,
            account_type=_account_type(reply.account_type),
            account_number=reply.account_number or NUMBER_NOT_TOLD,
            currency=reply.currency or "USD",
            balance=reply.balance or Decimal(0),
            sort_code=reply.sort_code,
            bank_code=reply.bank_code,
            routing_type=reply.routing_type if reply.routing_type in RoutingType.values else "",
            account_open_date=reply.account_open_date,
        )
        mirror.apply_account(account, connection, reply)
    mirror.apply_listing(connection, list(replies))


def _account_type(told: str) -> str:
    """Ours for Codat's: v1 has free text there."""
    if told in AccountType.values:
        return told
    return _OLD_ACCOUNT_TYPES.get(told.lower(), AccountType.CHECKING)
