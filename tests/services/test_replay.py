"""What an object looked like: forwards from its beginning, backwards where that is gone, and honest where neither."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feeds.models import AuditEntry, Company, SourceAccount
from feeds.services.replay import Ground, Replay, Value
from feeds.services.roles import COMPLIANCE_AUDITORS
from tests.factories import CompanyFactory, SourceAccountFactory, UserFactory
from tests.history import unguarded

pytestmark = pytest.mark.django_db


def of(row: models.Model) -> Replay:
    """The replay of a row's history."""
    return Replay(ContentType.objects.get_for_model(row), str(row.pk))


def value(replay: Replay, at: datetime, field: str) -> Value:
    """One field at a moment."""
    return next(one for one in replay.at(at).values if one.field == field)


def after(row: models.Model) -> datetime:
    """The moment of the row's newest entry."""
    entry = AuditEntry.objects.get_for_object(row).order_by("-pk").first()
    return entry.timestamp


def test_a_field_has_the_value_it_was_last_set_to() -> None:
    company = CompanyFactory(legal_name="Maple Bakery")
    made = after(company)
    company.legal_name = "Maple Mill"
    company.save()
    renamed = after(company)
    company.legal_name = "Maple Works"
    company.save()
    replay = of(company)
    assert value(replay, made, "legal_name").text == "Maple Bakery"
    was = value(replay, renamed, "legal_name")
    assert (was.text, was.ground) == ("Maple Mill", Ground.SET)
    assert was.since.timestamp == renamed
    assert value(replay, timezone.now(), "legal_name").text == "Maple Works"


def test_values_are_told_in_words_and_what_it_was_made_without_is_empty() -> None:
    company = CompanyFactory()
    made = after(company)
    company.language, company.manager = "fr", UserFactory(first_name="Rosa", last_name="Marchetti")
    company.save()
    replay = of(company)
    assert value(replay, made, "language").text == "English"
    was = value(replay, made, "manager")
    assert (was.text, was.ground) == ("–", Ground.EMPTY)
    assert value(replay, timezone.now(), "manager").text == "Rosa Marchetti"


def test_before_it_was_made_it_did_not_exist_and_nothing_is_told_of_it() -> None:
    company = CompanyFactory()
    state = of(company).at(timezone.now() - timedelta(days=1))
    assert state.exists is False
    assert {one.ground for one in state.values} == {Ground.UNKNOWN}


def test_after_it_was_deleted_it_does_not_exist_and_before_it_did() -> None:
    company = CompanyFactory(legal_name="Maple Bakery")
    made, kind, key = after(company), ContentType.objects.get_for_model(company), str(company.pk)
    company.delete()
    replay = Replay(kind, key)
    assert replay.at(made).exists is True
    assert value(replay, made, "legal_name").text == "Maple Bakery"
    assert replay.at(timezone.now()).exists is False


def without_beginning(company: Company) -> datetime:
    """A company older than its history: its first entry is a change. Returns a moment before that change."""
    company_without = Company.objects.bulk_create([company])[0]
    moment = timezone.now()
    company_without.legal_name = "Maple Mill"
    company_without.save()
    return moment


def test_where_the_beginning_is_missing_the_next_change_says_what_was_before_it() -> None:
    company = CompanyFactory.build(legal_name="Maple Bakery", notes="Calls on Mondays.")
    moment = without_beginning(company)
    replay = of(company)
    assert replay.limits().beginning_is_missing
    was = value(replay, moment, "legal_name")
    assert (was.text, was.ground) == ("Maple Bakery", Ground.LATER)
    assert value(replay, timezone.now(), "legal_name").ground == Ground.SET
    never_mentioned = value(replay, moment, "notes")
    assert (never_mentioned.text, never_mentioned.ground) == ("Calls on Mondays.", Ground.UNCHANGED)


def test_a_masked_field_that_no_entry_mentions_is_not_known_rather_than_shown_whole() -> None:
    account = SourceAccountFactory.build(company=CompanyFactory(), account_number="900417733218")
    account = SourceAccount.objects.bulk_create([account])[0]
    account.name = "Payroll"
    account.save()
    assert value(of(account), timezone.now(), "account_number").ground == Ground.UNKNOWN


def test_groups_are_added_and_removed_in_order() -> None:
    user = UserFactory()
    group = Group.objects.create(name="Night shift")
    user.groups.add(group)
    then = after(user)
    user.groups.remove(group)
    replay = of(user)
    assert value(replay, then, "groups").text == "Night shift"
    assert value(replay, timezone.now(), "groups").text == "–"


def test_groups_of_a_person_whose_beginning_was_purged_are_told_from_todays() -> None:
    day, night, late = (Group.objects.create(name=name) for name in ("Day shift", "Night shift", "Late shift"))
    user = UserFactory()
    user.groups.set([day, late])
    with unguarded():
        AuditEntry.objects.filter(object_pk=str(user.pk), content_type__model="user").delete()
    before = timezone.now()
    user.groups.add(night)
    user.groups.remove(late)
    was, now = (value(of(user), moment, "groups") for moment in (before, timezone.now()))
    assert (was.text, was.ground) == ("Day shift, Late shift", Ground.LATER)
    assert (now.text, now.ground) == ("Day shift, Night shift", Ground.SET)
    never = UserFactory()
    never.groups.add(day)
    with unguarded():
        AuditEntry.objects.filter(object_pk=str(never.pk), content_type__model="user").delete()
    never.save()
    assert value(of(never), timezone.now(), "groups").text == "Day shift"


def test_two_moments_are_compared_field_by_field() -> None:
    company = CompanyFactory(legal_name="Maple Bakery")
    made = after(company)
    company.legal_name = "Maple Mill"
    company.save()
    rows = of(company).compare(made, timezone.now())
    assert [row.label for row in rows if row.differs] == ["Legal name"]


def test_what_is_not_kept_is_named() -> None:
    limits = of(CompanyFactory()).limits()
    assert "Next look" in limits.not_kept
    assert "Legal name" not in limits.not_kept
    assert not limits.beginning_is_missing


# --- The page --------------------------------------------------------------------------------------------------------
@pytest.fixture
def auditor() -> Client:
    """An auditor's browser."""
    client = Client()
    client.force_login(UserFactory(role=COMPLIANCE_AUDITORS))
    return client


def page(client: Client, row: models.Model, **query: str) -> str:
    """The page of the row's past."""
    url = reverse("admin:feeds_auditentry_state", args=[row._meta.label_lower, str(row.pk)])
    answer = client.get(url, query)
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_page_shows_a_day_how_each_value_is_known_and_what_is_not(auditor: Client) -> None:
    company = CompanyFactory(legal_name="Maple Bakery")
    today = timezone.localdate().isoformat()
    shown = page(auditor, company, day=today)
    assert "Maple Bakery" in shown
    assert "set <time" in shown
    assert "The history does not keep these fields:" in shown
    yesterday = (timezone.localdate() - timedelta(days=1)).isoformat()
    assert "It did not exist then" in page(auditor, company, day=yesterday)


def test_the_page_compares_two_days(auditor: Client) -> None:
    company = CompanyFactory(legal_name="Maple Bakery")
    today = timezone.localdate()
    yesterday = today - timedelta(days=1)
    shown = page(auditor, company, day=yesterday.isoformat(), other=today.isoformat())
    assert "did not exist" in shown
    assert "fields differ." in shown


@pytest.mark.parametrize("day", ["", "yesterday", "2026-02-30", "0001-01-01", "9999-12-31"])
def test_a_day_that_is_none_is_said(day: str, auditor: Client) -> None:
    assert "Please correct the error below." in page(auditor, CompanyFactory(), day=day)
