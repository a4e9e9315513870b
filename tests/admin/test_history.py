"""The auditor's list: every filter, pages without a count, words instead of codes, and nothing for who may not read."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds import audit
from feeds.audit import Actor
from feeds.models import AuditEntry, Company
from feeds.services import history
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, SUPPORT
from tests.factories import (
    CompanyFactory,
    ConnectionFactory,
    InvitationFactory,
    OperationFactory,
    SourceAccountFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
LIST = "/admin/feeds/auditentry/"


@pytest.fixture
def auditor() -> Client:
    """An auditor's browser."""
    client = Client()
    client.force_login(UserFactory(role=COMPLIANCE_AUDITORS, username="ada", first_name="Ada", last_name="Underhill"))
    return client


def found(client: Client, **query: Any) -> list[AuditEntry]:
    """The entries of the first page of a search."""
    answer = client.get(LIST, query)
    assert answer.status_code == 200
    assert not answer.context["form"].errors
    return [row.entry for row in answer.context["rows"]]


def text(answer: Any) -> str:
    """What a person reads on the page: without tags, spaces made one."""
    page = re.sub(r"<[^>]+>", " ", answer.content.decode())
    return re.sub(r"\s+", " ", page)


def renamed(company: Company, name: str, actor: Actor) -> AuditEntry:
    """The entry of a new legal name."""
    with audit.acting(actor):
        company.legal_name = name
        company.save()
    entry: AuditEntry = AuditEntry.objects.first()
    return entry


RITA = Actor(name="Rita Moreau", source="admin", reason="The bank's register says so.")
WORKER = Actor.service("worker")


# --- Filters ---------------------------------------------------------------------------------------------------------
class TestFilters:
    def test_by_a_person_found_by_user_name_first_name_or_whole_name(self, auditor: Client) -> None:
        rosa = UserFactory(username="rm", first_name="Rosa", last_name="Marchetti")
        company = CompanyFactory()
        mine = renamed(company, "Maple Mill", Actor.person(rosa, source="admin"))
        renamed(company, "Maple Works", WORKER)
        for term in ("rm", "RM", "rosa", "Marchetti", "Rosa Marchetti", " rosa march"):
            assert found(auditor, person=term, kind="feeds.company") == [mine], term

    def test_by_a_service(self, auditor: Client) -> None:
        company = CompanyFactory()
        renamed(company, "Maple Mill", RITA)
        by_worker = renamed(company, "Maple Works", WORKER)
        assert found(auditor, person="worker") == [by_worker]

    def test_a_person_who_is_gone_is_found_by_the_name_that_the_entry_keeps(self, auditor: Client) -> None:
        rosa = UserFactory(username="rm", first_name="Rosa", last_name="Marchetti")
        entry = renamed(CompanyFactory(), "Maple Mill", Actor.person(rosa, source="admin"))
        rosa.delete()
        assert found(auditor, person="Rosa Marchetti") == [entry]

    @pytest.mark.parametrize("term", ["C-007", "Zebra", "zebra im", " C-007 "])
    def test_by_a_customer_with_everything_that_is_the_customers(self, term: str, auditor: Client) -> None:
        company = CompanyFactory(customer_number="C-007", legal_name="Zebra Imports")
        account = SourceAccountFactory(company=company)
        SourceAccountFactory()
        entries = found(auditor, customer=term)
        assert {entry.object_pk for entry in entries if entry.content_type.model == "sourceaccount"} == {
            str(account.pk)
        }
        assert {entry.company_id for entry in entries} == {company.pk}

    def test_a_customer_that_was_deleted_is_still_found_by_number(self, auditor: Client) -> None:
        company = CompanyFactory(customer_number="C-007")
        key = company.pk
        company.delete()
        CompanyFactory()
        assert {entry.company_id for entry in found(auditor, customer="C-007")} == {key}

    def test_a_customer_that_never_was_finds_nothing(self, auditor: Client) -> None:
        CompanyFactory()
        answer = auditor.get(LIST, {"customer": "C-404"})
        assert "No entry matches all of these filters." in text(answer)

    def test_by_kind_of_object_and_by_the_object_itself(self, auditor: Client) -> None:
        one, _other = CompanyFactory(), CompanyFactory()
        connection = ConnectionFactory(company=one)
        assert {entry.content_type.model for entry in found(auditor, kind="feeds.connection")} == {"connection"}
        (entry,) = found(auditor, kind="feeds.connection", key=str(connection.pk))
        assert entry.object_pk == str(connection.pk)

    def test_by_the_field_that_changed(self, auditor: Client) -> None:
        company = CompanyFactory()
        entry = renamed(company, "Maple Mill", RITA)
        company.notes = "Calls on Mondays."
        company.save()
        assert found(auditor, field="feeds.company:legal_name", action="update") == [entry]

    def test_by_what_was_done_and_by_event(self, auditor: Client) -> None:
        connection = ConnectionFactory()
        shown = audit.record("link_revealed", connection)
        changed = renamed(connection.company, "Maple Mill", RITA)
        assert found(auditor, action="link_revealed") == [shown]
        assert shown in found(auditor, action="event")
        assert {entry.action for entry in found(auditor, action="event")} == {AuditEntry.Action.ACCESS}
        assert changed in found(auditor, action="update")
        assert {entry.action for entry in found(auditor, action="create")} == {AuditEntry.Action.CREATE}

    def test_by_source_and_by_everything_of_one_click(self, auditor: Client) -> None:
        company = CompanyFactory()
        entry = renamed(company, "Maple Mill", RITA)
        renamed(company, "Maple Works", WORKER)
        assert entry in found(auditor, source="admin")
        assert {one.source for one in found(auditor, source="admin")} == {"admin"}
        user = UserFactory(is_superuser=True)
        browser = Client()
        browser.force_login(user)
        colleague = UserFactory()
        url = reverse("admin:auth_user_change", args=[colleague.pk])
        browser.post(
            url, {"username": colleague.username, "first_name": "New", "groups": [Group.objects.get(name=SUPPORT).pk]}
        )
        click = AuditEntry.objects.first()
        whole = found(auditor, request=click.cid)
        assert len(whole) == 2
        assert {one.cid for one in whole} == {click.cid}

    def test_by_period_in_the_readers_zone_both_days_included(self, auditor: Client) -> None:
        entry = renamed(CompanyFactory(), "Maple Mill", RITA)
        today = timezone.localdate(entry.timestamp)
        yesterday, tomorrow = today - timedelta(days=1), today + timedelta(days=1)
        narrow = {"field": "feeds.company:legal_name", "action": "update"}
        assert found(auditor, start=today, end=today, **narrow) == [entry]
        assert found(auditor, start=yesterday, **narrow) == found(auditor, end=tomorrow, **narrow) == [entry]
        assert found(auditor, end=yesterday, **narrow) == found(auditor, start=tomorrow, **narrow) == []

    def test_filters_are_joined(self, auditor: Client) -> None:
        company, other = CompanyFactory(customer_number="C-1"), CompanyFactory(customer_number="C-2")
        wanted = renamed(company, "Maple Mill", RITA)
        renamed(other, "Maple Works", RITA)
        renamed(company, "Maple Farm", WORKER)
        today = timezone.localdate()
        query = {"customer": "C-1", "person": "Rita Moreau", "kind": "feeds.company", "start": today, "source": "admin"}
        assert found(auditor, **query) == [wanted]

    @pytest.mark.parametrize("term", ["9" * 40, "%", "'", "_", "\x00", "é" * 300, "0001-01-02", "9999-12-30"])
    @pytest.mark.parametrize(
        "name", ["person", "customer", "key", "field", "action", "source", "request", "start", "end"]
    )
    def test_nonsense_finds_nothing_and_breaks_nothing(self, name: str, term: str, auditor: Client) -> None:
        CompanyFactory()
        answer = auditor.get(LIST, {name: term, "before": term})
        assert answer.status_code == 200
        assert answer.context["form"].errors or answer.context["rows"] == []

    def test_a_mistake_is_said_beside_its_field_and_nothing_is_listed(self, auditor: Client) -> None:
        CompanyFactory()
        query = {"start": "2026-02-01", "end": "2026-01-01", "key": "7", "field": "feeds.company:notes"}
        page = text(auditor.get(LIST, query))
        assert "The period ends before it begins." in page
        assert "Choose the kind of object as well: numbers repeat between kinds." in page
        assert "The search has a mistake. Nothing is listed until it is corrected." in page
        page = text(auditor.get(LIST, {"kind": "feeds.connection", "field": "feeds.company:notes"}))
        assert "The kind of object that you chose has no such field." in page

    def test_the_search_is_said_in_words_and_kept_in_the_address(self, auditor: Client) -> None:
        renamed(CompanyFactory(), "Maple Mill", RITA)
        query = {"person": "Rita Moreau", "field": "feeds.company:legal_name", "action": "update"}
        answer = auditor.get(LIST, query)
        page = text(answer)
        assert "Changed field: Legal name" not in page
        assert "Person: Rita Moreau" in page
        assert "Field: Legal name" in page
        assert "Action: changed" in page
        shared = answer.context["query"]
        again = auditor.get(f"{LIST}?{shared}")
        assert [row.entry for row in again.context["rows"]] == [row.entry for row in answer.context["rows"]]
        assert len(answer.context["rows"]) == 1

    def test_quick_periods_keep_the_other_filters(self, auditor: Client) -> None:
        renamed(CompanyFactory(), "Maple Mill", RITA)
        answer = auditor.get(LIST, {"person": "Rita Moreau"})
        labels = {period.label: period.query for period in answer.context["periods"]}
        assert list(labels) == ["Today", "7 days", "This month", "Last month", "Any time"]
        assert len(auditor.get(f"{LIST}?{labels['Today']}").context["rows"]) == 1
        assert auditor.get(f"{LIST}?{labels['Last month']}").context["rows"] == []
        chosen = [
            period.label for period in auditor.get(f"{LIST}?{labels['7 days']}").context["periods"] if period.is_chosen
        ]
        assert chosen == ["7 days"]


# --- Pages -----------------------------------------------------------------------------------------------------------
class TestPages:
    def test_walking_to_the_end_and_back_shows_every_entry_once(
        self, auditor: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history, "PAGE", 3)
        monkeypatch.setattr(history.page, "__kwdefaults__", {"before": None, "after": None, "size": 3})
        CompanyFactory.create_batch(8)
        query = "kind=feeds.company"
        forward: list[int] = []
        before = ""
        while True:
            page = auditor.get(f"{LIST}?{query}{before}").context["page"]
            forward += [entry.pk for entry in page.entries]
            if page.older is None:
                break
            before = f"&before={page.older}"
        assert forward == sorted(forward, reverse=True)
        assert len(set(forward)) == 8
        back: list[int] = []
        while page.newer is not None:
            page = auditor.get(f"{LIST}?{query}&after={page.newer}").context["page"]
            back = [entry.pk for entry in page.entries] + back
        assert back == forward[:6]

    def test_as_many_queries_for_fifty_as_for_one_and_none_counts_or_skips(
        self, auditor: Client, django_assert_num_queries: Any
    ) -> None:
        SourceAccountFactory(in_codat=True, company__manager=UserFactory())
        today = timezone.localdate()
        searches: list[dict[str, Any]] = [
            {},
            {"person": "ada"},
            {"customer": "Maple"},
            {"start": today, "end": today},
            {"field": "feeds.connection:status"},
            {"action": "create", "source": "service: system"},
        ]
        auditor.get(LIST)
        before = []
        for query in searches:
            with CaptureQueriesContext(database) as few:
                auditor.get(LIST, query)
            before.append(len(few))
            for sql in few:
                assert "COUNT(" not in sql["sql"]
                assert "OFFSET" not in sql["sql"]
        for _number in range(20):
            SourceAccountFactory(in_codat=True, company__manager=UserFactory())
        for query, count in zip(searches, before, strict=True):
            with django_assert_num_queries(count):
                auditor.get(LIST, query)
        assert max(before) <= 16


# --- Words -----------------------------------------------------------------------------------------------------------
class TestWords:
    def test_a_row_says_when_who_what_about_from_to_and_why(self, auditor: Client) -> None:
        company = CompanyFactory(legal_name="Maple Bakery")
        renamed(company, "Maple Mill", RITA)
        page = text(auditor.get(LIST, {"action": "update", "kind": "feeds.company"}))
        for words in (
            "Rita Moreau admin",
            "Changed",
            "Company Maple Mill",
            "Legal name: Maple Bakery",
            "Maple Mill",
            "The bank's register says so.",
        ):
            assert words.replace("'", "&#x27;") in page, words

    def test_codes_keys_and_times_are_shown_in_words(self, auditor: Client) -> None:
        rosa = UserFactory(first_name="Rosa", last_name="Marchetti")
        account = SourceAccountFactory(account_type="creditCard", account_number="000410077206")
        account.company.manager = rosa
        account.company.language = "fr"
        account.company.save()
        page = text(auditor.get(LIST))
        assert "Relationship manager: – → to Rosa Marchetti" in page
        assert "Language: English → to French" in page
        made = AuditEntry.objects.get(content_type__model="sourceaccount")
        page = text(auditor.get(reverse("admin:feeds_auditentry_change", args=[made.pk])))
        assert "Type did not exist Credit card" in page
        assert "Account number did not exist ••••7206" in page
        assert "000410077206" not in page

    def test_an_object_that_a_change_pointed_to_and_that_is_gone_is_named_by_its_number(self, auditor: Client) -> None:
        rosa = UserFactory()
        company = CompanyFactory()
        company.manager = rosa
        company.save()
        key = rosa.pk
        rosa.delete()
        page = text(auditor.get(LIST, {"kind": "feeds.company", "action": "update"}))
        assert f"Relationship manager: – → to #{key}" in page

    def test_a_persons_new_groups_are_named(self, auditor: Client) -> None:
        user = UserFactory()
        user.groups.add(Group.objects.get(name=COMPLIANCE_AUDITORS))
        assert "Groups: Compliance auditors added" in text(auditor.get(LIST, {"kind": "auth.user"}))

    def test_the_page_of_an_entry_shows_every_field_from_what_to_what(self, auditor: Client) -> None:
        company = CompanyFactory(legal_name="Maple Bakery", notes="")
        company.legal_name, company.notes = "Maple <Mill>", "Calls\non Mondays."
        with audit.acting(RITA):
            company.save()
        entry = AuditEntry.objects.first()
        page = auditor.get(reverse("admin:feeds_auditentry_change", args=[entry.pk])).content.decode()
        assert re.search(r"<del>Maple Bakery</del></td><td><ins>Maple &lt;Mill&gt;</ins>", page)
        assert "<ins>Calls<br>on Mondays.</ins>" in page
        assert "The bank&#x27;s register says so." in page

    def test_in_french_details_customers_and_periods_are_said_in_french(self, auditor: Client) -> None:
        invitation = InvitationFactory(company__legal_name="Maple Bakery")
        asked_at = timezone.now().replace(hour=17, minute=30).isoformat()
        audit.record("invitation_link_made", invitation, made_for="mail")
        audit.record("invitation_link_asked_for", invitation, asked_at=asked_at, newer=0)
        auditor.post(reverse("language"), {"language": "fr"})
        today = timezone.localdate().isoformat()
        page = text(auditor.get(LIST, {"kind": "feeds.invitation", "action": "event", "start": today, "end": today}))
        for words in ("créé pour : un courriel", "de Maple Bakery", f"Du : {today}", f"Au : {today}"):
            assert words in page.replace("\N{NO-BREAK SPACE}", " "), words
        assert asked_at not in page

    def test_the_page_of_an_event_shows_its_details_and_leads_to_the_rest_of_the_click(self, auditor: Client) -> None:
        entry = audit.record("webhook_reapplied", CompanyFactory(), type="connection.connected")
        page = text(auditor.get(reverse("admin:feeds_auditentry_change", args=[entry.pk])))
        assert "Webhook applied again" in page
        assert "connection.connected" in page


# --- Stories ---------------------------------------------------------------------------------------------------------
def story(client: Client, kind: str, key: object, **query: Any) -> Any:
    """The story page of an object."""
    return client.get(reverse("admin:feeds_auditentry_story", args=[kind, str(key)]), query)


class TestStories:
    def test_the_history_button_of_an_object_leads_to_its_story(self, auditor: Client) -> None:
        mine, _other = SourceAccountFactory(in_codat=True), SourceAccountFactory(in_codat=True)
        answer = auditor.get(reverse("admin:feeds_sourceaccount_history", args=[mine.pk]), follow=True)
        assert {row.entry.object_pk for row in answer.context["rows"]} == {str(mine.pk)}
        page = auditor.get(reverse("admin:feeds_sourceaccount_change", args=[mine.pk])).content.decode()
        assert reverse("admin:feeds_sourceaccount_history", args=[mine.pk]) in page

    def test_a_customers_story_has_everything_about_the_customer_or_the_company_only(self, auditor: Client) -> None:
        account = SourceAccountFactory(in_codat=True)
        company = account.company
        OperationFactory(company=company)
        SourceAccountFactory(in_codat=True)
        rows = story(auditor, "feeds.company", company.pk).context["rows"]
        assert {row.entry.content_type.model for row in rows} == {"company", "connection", "sourceaccount", "operation"}
        assert {row.entry.company_id for row in rows} == {company.pk}
        own = story(auditor, "feeds.company", company.pk, own="1").context["rows"]
        assert {row.entry.content_type.model for row in own} == {"company"}

    def test_what_was_deleted_still_has_its_story(self, auditor: Client) -> None:
        company = CompanyFactory(legal_name="Maple Bakery")
        key = company.pk
        company.delete()
        answer = story(auditor, "feeds.company", key)
        assert [row.action for row in answer.context["rows"]] == ["Deleted", "Created"]
        assert "It does not exist any more" in text(answer)
        assert "Maple Bakery" in text(answer)

    @pytest.mark.parametrize(
        ("kind", "key"),
        [("feeds.company", "404"), ("feeds.company", "x"), ("feeds.nothing", "1"), ("sessions.session", "x"),
         ("nonsense", "1"), ("feeds.company", "9" * 40), ("feeds.batch", "x")],
    )  # fmt: skip
    def test_what_never_was_has_none(self, kind: str, key: str, auditor: Client) -> None:
        assert story(auditor, kind, key).status_code == 404

    def test_a_story_takes_as_many_queries_for_fifty_entries_as_for_one(
        self, auditor: Client, django_assert_num_queries: Any
    ) -> None:
        company = CompanyFactory()
        story(auditor, "feeds.company", company.pk)
        with CaptureQueriesContext(database) as few:
            story(auditor, "feeds.company", company.pk)
        for number in range(60):
            renamed(company, f"Maple Mill {number}", RITA)
        with django_assert_num_queries(len(few)):
            answer = story(auditor, "feeds.company", company.pk)
        assert len(answer.context["rows"]) == 50
        assert answer.context["page"].older


# --- Who may read ----------------------------------------------------------------------------------------------------
READERS = {COMPLIANCE_AUDITORS, ADMINISTRATORS}


@pytest.mark.parametrize("role", [RELATIONSHIP_MANAGERS, SUPPORT, COMPLIANCE_AUDITORS, ADMINISTRATORS])
def test_the_history_is_read_by_auditors_and_administrators_only(role: str) -> None:
    client = Client()
    client.force_login(UserFactory(role=role))
    company = CompanyFactory()
    entry = AuditEntry.objects.first()
    key = str(company.pk)
    pages = [
        LIST,
        reverse("admin:feeds_auditentry_change", args=[entry.pk]),
        reverse("admin:feeds_auditentry_story", args=["feeds.company", key]),
        reverse("admin:feeds_auditentry_state", args=["feeds.company", key]),
    ]
    expected = 200 if role in READERS else 403
    assert [client.get(url).status_code for url in pages] == [expected] * 4
    history_button = reverse("admin:feeds_company_history", args=[company.pk])
    assert client.get(history_button).status_code == (302 if role in READERS else 403)
    page = client.get(reverse("admin:feeds_company_change", args=[company.pk])).content.decode()
    assert (history_button in page) is (role in READERS)


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_the_pages_that_only_show_refuse_to_be_told_anything(method: str, auditor: Client) -> None:
    company = CompanyFactory()
    key = str(company.pk)
    for url in (
        LIST,
        reverse("admin:feeds_auditentry_story", args=["feeds.company", key]),
        reverse("admin:feeds_auditentry_state", args=["feeds.company", key]),
    ):
        assert getattr(auditor, method)(url).status_code == 405


def test_users_are_counted_among_what_is_kept(auditor: Client) -> None:
    user = User.objects.get(username="ada")
    assert found(auditor, kind="auth.user", key=str(user.pk))


Make = Callable[[], Any]
