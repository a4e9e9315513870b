"""The database itself refuses what may not be, and every state has its words."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, models, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from feeds import audit, states
from feeds.models import (
    AuditSeal,
    AuditSealDelivery,
    BatchItem,
    CalloutVersion,
    CodatQuota,
    Company,
    Connection,
    DailyFigure,
    Knock,
    Mail,
    Operation,
    Preference,
    SourceAccount,
)
from feeds.services import seals
from feeds.states import CalloutState, CaseState, MailKind, Meaning, OperationKind, OperationState
from tests.factories import (
    AccessGrantFactory,
    ApiKeyFactory,
    ApprovalFactory,
    BatchFactory,
    CalloutVersionFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    DriftFindingFactory,
    HistoryCheckFactory,
    HistoryExportFactory,
    IncidentFactory,
    InvitationFactory,
    OperationFactory,
    SourceAccountFactory,
    StatusEventFactory,
    UserFactory,
    WebhookEventFactory,
)

pytestmark = pytest.mark.django_db


LONG_AGO = datetime(2026, 1, 5, tzinfo=UTC)


def mail(**values: Any) -> Mail:
    """A mail that waits."""
    return Mail.objects.create(**{"kind": MailKind.BROKE, "next_attempt_at": LONG_AGO} | values)


def preference(**values: Any) -> Preference:
    """Somebody's choice of language."""
    return Preference.objects.create(**{"user": UserFactory(), "language": "en"} | values)


# --- Constraints -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bad:
    """Values that the constraint named here refuses, on a row that is otherwise good."""

    constraint: str
    make: Callable[..., Any]
    values: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.constraint} {self.values}"


CHECKED = [
    Bad("company_country_us_or_ca", CompanyFactory, {"country": "FR"}),
    Bad("company_country_us_or_ca", CompanyFactory, {"country": ""}),
    Bad("company_language_en_or_fr", CompanyFactory, {"language": "de"}),
    Bad("company_has_customer_number", CompanyFactory, {"customer_number": ""}),
    Bad("company_has_legal_name", CompanyFactory, {"legal_name": ""}),
    Bad("company_onboarding_state_known", CompanyFactory, {"onboarding_state": "half done"}),
    Bad("connection_has_codat_id", ConnectionFactory, {"codat_id": ""}),
    Bad("connection_link_has_expiry", ConnectionFactory, {"link_url": "https://link.example/1"}),
    Bad("account_has_account_id", SourceAccountFactory, {"account_id": ""}),
    Bad("account_has_number", SourceAccountFactory, {"account_number": ""}),
    Bad("account_has_name", SourceAccountFactory, {"name": ""}),
    Bad("account_type_known", SourceAccountFactory, {"account_type": "piggy bank"}),
    Bad("account_currency_iso_4217", SourceAccountFactory, {"currency": "usd"}),
    Bad("account_currency_iso_4217", SourceAccountFactory, {"currency": "US"}),
    Bad("account_currency_iso_4217", SourceAccountFactory, {"currency": "US1"}),
    Bad("account_routing_type_known", SourceAccountFactory, {"routing_type": "guess"}),
    Bad("operation_state_known", OperationFactory, {"state": "lost"}),
    Bad("operation_kind_known", OperationFactory, {"kind": "hope"}),
    Bad("status_event_seen_by_known", StatusEventFactory, {"seen_by": "rumour"}),
    Bad("case_state_known", CaseFactory, {"state": "lost"}),
    Bad("case_cause_known", CaseFactory, {"cause": "weather"}),
    Bad("case_outcome_known", CaseFactory, {"outcome": "luck"}),
    Bad("case_closed_has_date", CaseFactory, {"closed_at": LONG_AGO}),
    Bad("webhook_state_known", WebhookEventFactory, {"state": "lost"}),
    Bad("drift_kind_known", DriftFindingFactory, {"kind": "mood"}),
    Bad("callout_state_known", CalloutVersionFactory, {"state": "live"}),
    Bad("callout_title_en_fits", CalloutVersionFactory, {"title_en": "x" * 51}),
    Bad("callout_title_fr_fits", CalloutVersionFactory, {"title_fr": "🍁" * 25 + "x"}),
    Bad("callout_body_en_fits", CalloutVersionFactory, {"body_en": "x" * 151}),
    Bad("callout_body_fr_fits", CalloutVersionFactory, {"body_fr": "🍁" * 75 + "x"}),
    Bad("callout_published_has_dates", CalloutVersionFactory, {"state": "published"}),
    Bad("callout_published_has_dates", CalloutVersionFactory, {"superseded_on": LONG_AGO}),
    Bad("callout_published_is_attested", CalloutVersionFactory, {"attested_on": LONG_AGO}),
    Bad("callout_published_is_attested", CalloutVersionFactory, {"attested_by_name": "Robin Staff"}),
    Bad("approval_state_known", ApprovalFactory, {"state": "perhaps"}),
    Bad("approval_has_reason", ApprovalFactory, {"reason": ""}),
    Bad("access_grant_has_reason", AccessGrantFactory, {"reason": ""}),
    Bad("access_grant_ends_later", AccessGrantFactory, {"expires_at": LONG_AGO}),
    Bad("api_key_has_name", ApiKeyFactory, {"name": ""}),
    Bad("api_key_has_scope", ApiKeyFactory, {"scopes": ""}),
    Bad("api_key_expires_later", ApiKeyFactory, {"expires_at": LONG_AGO}),
    Bad("api_key_revoked_by_somebody", ApiKeyFactory, {"revoked_at": LONG_AGO}),
    Bad("api_key_revoked_by_somebody", ApiKeyFactory, {"revoked_by_name": "Ada Underhill"}),
    Bad("invitation_purpose_known", InvitationFactory, {"purpose": "chat"}),
    Bad("invitation_language_known", InvitationFactory, {"language": "de"}),
    Bad("invitation_end_has_reason", InvitationFactory, {"ended_at": LONG_AGO}),
    Bad("invitation_end_has_reason", InvitationFactory, {"end": "revoked"}),
    Bad("invitation_end_has_reason", InvitationFactory, {"end": "mood", "ended_at": LONG_AGO}),
    Bad("preference_language_known", preference, {"language": "de"}),
    Bad("history_check_state_known", HistoryCheckFactory, {"state": "perhaps"}),
    Bad("history_export_state_known", HistoryExportFactory, {"state": "perhaps"}),
    Bad("history_export_kind_known", HistoryExportFactory, {"kind": "all"}),
    Bad("history_export_ended_has_date", HistoryExportFactory, {"finished_at": None}),
    Bad("history_export_ended_has_date", HistoryExportFactory, {"state": "running"}),
    Bad("mail_kind_known", mail, {"kind": "spam"}),
    Bad("mail_state_known", mail, {"state": "lost", "next_attempt_at": None}),
    Bad("mail_waits_while_queued", mail, {"next_attempt_at": None}),
]
UNIQUE = {
    "company_codat_id_unique",
    "connection_one_live_per_company",
    "account_id_unique_per_company",
    "operation_one_open_per_company_kind",
    "operation_one_open_per_account_kind",
    "batch_item_unique",
    "codat_quota_single_row",
    "case_one_open_per_connection",
    "incident_one_at_a_time",
    "mail_key_unique",
    "history_check_one_waits",
    "seal_delivery_once",
    "approval_one_open_per_key",
    "approval_by_somebody_else",
    "callout_one_published",
    "callout_superseded_after_published",
    "invitation_one_live_per_purpose",
    "knock_one_per_window",
    "daily_figure_unique",
}


def refuses(constraint: str, write: Callable[[], object]) -> None:
    """Assert that the database refuses `write` because of this constraint."""
    with pytest.raises(IntegrityError) as refused, transaction.atomic():
        write()
    # SQLite names the columns of a unique constraint without a condition instead.
    text = str(refused.value)
    assert constraint in text or "UNIQUE constraint failed" in text


def test_every_constraint_of_ours_is_tested_here() -> None:
    declared = {
        constraint.name for model in apps.get_app_config("feeds").get_models() for constraint in model._meta.constraints
    }
    assert {bad.constraint for bad in CHECKED} | UNIQUE == declared


@pytest.mark.parametrize("bad", CHECKED, ids=str)
def test_a_bad_new_row_is_refused(bad: Bad) -> None:
    refuses(bad.constraint, lambda: bad.make(**bad.values))


@pytest.mark.parametrize("bad", CHECKED, ids=str)
def test_a_bad_change_is_refused_even_past_the_models(bad: Bad) -> None:
    row = bad.make()
    rows = type(row)._default_manager.filter(pk=row.pk)
    refuses(bad.constraint, lambda: rows.update(**bad.values))


def test_two_companies_may_lack_a_codat_id_but_not_share_one() -> None:
    CompanyFactory(codat_id="")
    CompanyFactory(codat_id="")
    CompanyFactory(codat_id="same")
    refuses("company_codat_id_unique", lambda: CompanyFactory(codat_id="same"))


def test_customer_numbers_and_uids_are_unique() -> None:
    company = CompanyFactory()
    refuses("customer_number", lambda: CompanyFactory(customer_number=company.customer_number))
    refuses("uid", lambda: CompanyFactory(uid=company.uid))


def test_a_company_has_one_live_connection_and_any_number_that_are_gone() -> None:
    company = CompanyFactory(in_codat=True)
    ConnectionFactory.create_batch(2, company=company, gone_at=timezone.now())
    gone = company.connections.earliest("pk")
    ConnectionFactory(company=company)
    refuses("connection_one_live_per_company", lambda: ConnectionFactory(company=company))
    refuses("connection_one_live_per_company", lambda: Connection.objects.filter(pk=gone.pk).update(gone_at=None))
    refuses("codat_id", lambda: ConnectionFactory(codat_id=gone.codat_id))


def test_an_account_id_is_had_once_by_a_company_and_by_others_too() -> None:
    account = SourceAccountFactory()
    SourceAccountFactory(account_id=account.account_id)
    refuses(
        "account_id_unique_per_company",
        lambda: SourceAccountFactory(company=account.company, account_id=account.account_id),
    )


@pytest.mark.parametrize("state", OperationState)
def test_a_company_has_one_open_row_of_a_kind(state: OperationState) -> None:
    company = CompanyFactory(in_codat=True)
    OperationFactory(company=company, state=state)
    OperationFactory(company=company, kind=OperationKind.UNLINK_CONNECTION)
    OperationFactory(kind=OperationKind.REFRESH_LINK)
    if state in states.OPEN_OPERATION_STATES:
        refuses("operation_one_open_per_company_kind", lambda: OperationFactory(company=company))
    else:
        assert OperationFactory(company=company).pk


@pytest.mark.parametrize("state", OperationState)
def test_an_account_has_one_open_row_of_a_kind(state: OperationState) -> None:
    account, other = SourceAccountFactory(in_codat=True), SourceAccountFactory(in_codat=True)
    of_account = {"company": account.company, "account": account, "kind": OperationKind.RENAME_ACCOUNT}
    OperationFactory(**of_account, state=state)
    OperationFactory(**of_account | {"account": other})
    if state in states.OPEN_OPERATION_STATES:
        refuses("operation_one_open_per_account_kind", lambda: OperationFactory(**of_account))
    else:
        assert OperationFactory(**of_account).pk


def test_a_company_is_in_a_batch_once() -> None:
    batch, company = BatchFactory(), CompanyFactory()
    BatchItem.objects.create(batch=batch, company=company)
    refuses("batch_item_unique", lambda: BatchItem.objects.create(batch=batch, company=company))


def test_the_quota_is_one_row() -> None:
    values = {"limit": 1000, "remaining": 1, "read_at": timezone.now()}
    CodatQuota.objects.create(**values)
    refuses("codat_quota_single_row", lambda: CodatQuota.objects.create(pk=2, **values))


def test_a_connection_has_one_open_case_and_any_number_that_are_closed() -> None:
    case = CaseFactory()
    CaseFactory(company=case.company, connection=case.connection, state=CaseState.CLOSED, closed_at=LONG_AGO)
    refuses("case_one_open_per_connection", lambda: CaseFactory(company=case.company, connection=case.connection))


def test_there_is_one_incident_at_a_time() -> None:
    IncidentFactory(released_at=LONG_AGO, released_by_name="Sam")
    IncidentFactory()
    refuses("incident_one_at_a_time", IncidentFactory)


def test_one_version_of_the_callout_is_published_and_any_number_are_superseded() -> None:
    CalloutVersionFactory.create_batch(2, superseded=True)
    CalloutVersionFactory(published=True)
    refuses("callout_one_published", lambda: CalloutVersionFactory(published=True))


def test_a_version_of_the_callout_is_superseded_after_it_was_published() -> None:
    refuses(
        "callout_superseded_after_published",
        lambda: CalloutVersionFactory(superseded=True, superseded_on=LONG_AGO.date()),
    )


@pytest.mark.parametrize("state", [state for state in CalloutState if state != CalloutState.DRAFT])
def test_a_text_that_is_no_draft_any_more_is_frozen_even_past_the_models(state: CalloutState) -> None:
    dates = {CalloutState.PUBLISHED: {"published": True}, CalloutState.SUPERSEDED: {"superseded": True}}
    version = CalloutVersionFactory(**dates.get(state, {"state": state}))
    row = CalloutVersion.objects.filter(pk=version.pk)
    for name in ("title_en", "body_en", "title_fr", "body_fr"):
        refuses("callout_text_frozen", lambda name=name: row.update(**{name: "Another"}))  # type: ignore[misc]
    assert row.update(note="A note is no text.") == 1


@pytest.mark.parametrize("state", [CalloutState.APPROVED, CalloutState.WITHDRAWN])
def test_what_was_approved_or_withdrawn_never_becomes_a_draft_again(state: CalloutState) -> None:
    row = CalloutVersion.objects.filter(pk=CalloutVersionFactory(state=state).pk)
    refuses("callout_text_frozen", lambda: row.update(state=CalloutState.DRAFT))
    refuses("callout_text_frozen", lambda: row.update(state=CalloutState.SUBMITTED))


def test_the_same_is_asked_for_once_at_a_time() -> None:
    approval = ApprovalFactory()
    ApprovalFactory(key=approval.key, state="refused")
    refuses("approval_one_open_per_key", lambda: ApprovalFactory(key=approval.key))


def test_nobody_decides_their_own_request() -> None:
    approval = ApprovalFactory()
    approval.decided_by = approval.requested_by
    refuses("approval_by_somebody_else", approval.save)


def test_one_verification_of_the_history_waits_at_a_time() -> None:
    HistoryCheckFactory.create_batch(2)
    HistoryCheckFactory(state="queued", finished_at=None)
    refuses("history_check_one_waits", lambda: HistoryCheckFactory(state="queued", finished_at=None))


def test_a_seal_is_sent_to_each_place_once() -> None:
    audit.record("link_revealed", ConnectionFactory())
    seals.seal()
    seal = AuditSeal.objects.latest("pk")
    AuditSealDelivery.objects.create(seal=seal, destination="file:///a")
    AuditSealDelivery.objects.create(seal=seal, destination="file:///b")
    refuses("seal_delivery_once", lambda: AuditSealDelivery.objects.create(seal=seal, destination="file:///a"))


def test_a_mail_with_a_key_exists_once() -> None:
    mail()
    mail(key="digest 2026-01-05")
    mail()
    refuses("mail_key_unique", lambda: mail(key="digest 2026-01-05"))


def test_a_company_has_one_invitation_of_a_purpose_and_any_number_that_have_ended() -> None:
    invitation = InvitationFactory()
    InvitationFactory(company=invitation.company, ended_at=LONG_AGO, end="expired")
    InvitationFactory(company=invitation.company, purpose="reconnect")
    refuses("invitation_one_live_per_purpose", lambda: InvitationFactory(company=invitation.company))


def test_wrong_keys_are_counted_in_one_row_for_an_address_and_a_window() -> None:
    Knock.objects.create(address="a", window=LONG_AGO)
    Knock.objects.create(address="b", window=LONG_AGO)
    refuses("knock_one_per_window", lambda: Knock.objects.create(address="a", window=LONG_AGO))


def test_a_day_has_one_figure_of_a_name() -> None:
    DailyFigure.objects.create(day=LONG_AGO, name="calls")
    refuses("daily_figure_unique", lambda: DailyFigure.objects.create(day=LONG_AGO, name="calls"))


@pytest.mark.parametrize(
    "make", [ConnectionFactory, SourceAccountFactory, OperationFactory], ids=lambda make: make._meta.model.__name__
)
def test_a_company_with_a_past_cannot_be_deleted(make: Callable[[], Any]) -> None:
    with pytest.raises(ProtectedError):
        make().company.delete()


def test_rows_outlive_the_person_who_asked() -> None:
    user = UserFactory()
    company = CompanyFactory(manager=user, onboarding_by=user, onboarding_by_name="Rita Moreau")
    operation = OperationFactory(company=company, requested_by=user, requested_by_name="Rita Moreau")
    user.delete()
    company.refresh_from_db()
    operation.refresh_from_db()
    assert (company.manager, company.onboarding_by, operation.requested_by) == (None, None, None)
    assert operation.requested_by_name == company.onboarding_by_name == "Rita Moreau"


# --- States ----------------------------------------------------------------------------------------------------------
TABLES: list[tuple[type[models.TextChoices], dict[str, Meaning]]] = [
    (states.OnboardingState, states.ONBOARDING_MEANINGS),
    (states.ConnectionStatus, states.CONNECTION_MEANINGS),
    (states.AccountStatus, states.ACCOUNT_MEANINGS),
    (states.OperationState, states.OPERATION_MEANINGS),
    (states.CaseState, states.CASE_MEANINGS),
    (states.CalloutState, states.CALLOUT_MEANINGS),
]
tables = pytest.mark.parametrize(("enum", "meanings"), TABLES, ids=[enum.__name__ for enum, _meanings in TABLES])


@tables
def test_every_state_has_its_words_and_its_colour(enum: type[models.TextChoices], meanings: dict[str, Meaning]) -> None:
    assert set(meanings) - {states.NOT_IN_CODAT} == set(enum.values)
    for meaning in meanings.values():
        assert str(meaning.label)
        assert str(meaning.meaning).endswith(".")
        assert not str(meaning.next_step) or str(meaning.next_step).endswith(".")


@tables
@pytest.mark.parametrize("value", ["Hibernating", " ", "LINKED", "<b>"])
def test_a_state_that_codat_adds_is_shown_as_it_is(
    value: str, enum: type[models.TextChoices], meanings: dict[str, Meaning]
) -> None:
    meaning = states.describe(meanings, value)
    assert (meaning.label, meaning.tone) == (value, states.Tone.WARNING)
    assert "does not know yet" in str(meaning.meaning)


def test_every_row_can_say_its_state_whatever_it_is() -> None:
    for row in (Connection(status="Hibernating"), SourceAccount(status="hibernating"), Operation(state="lost")):
        assert str(row.status_meaning.label if not isinstance(row, Operation) else row.state_meaning.label)
    assert str(Company(onboarding_state="lost").onboarding.label) == "lost"


def test_every_kind_of_operation_has_a_label() -> None:
    assert all(str(kind.label)[0].isupper() for kind in OperationKind)


# --- Small predicates ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "is_there"),
    [({"codat_id": "x"}, True), ({"codat_id": ""}, False), ({"codat_id": "x", "gone_at": timezone.now()}, False)],
)
def test_a_company_is_in_codat(values: dict[str, Any], is_there: bool) -> None:
    assert Company(**values).is_in_codat == is_there


@pytest.mark.parametrize(
    ("values", "is_there"),
    [({"connection_id": 1}, True), ({}, False), ({"connection_id": 1, "gone_at": timezone.now()}, False)],
)
def test_an_account_is_in_codat(values: dict[str, Any], is_there: bool) -> None:
    assert SourceAccount(**values).is_in_codat == is_there


def test_no_row_shows_an_account_number_or_a_link_as_its_name() -> None:
    account = SourceAccountFactory(account_number="900417733218")
    connection = ConnectionFactory(with_link=True, codat_id=str(uuid.uuid4()))
    for text in (str(account), repr(account), str(connection), repr(connection)):
        assert "900417733218" not in text
        assert "otp" not in text
