"""The callout studio through the admin, as staff use it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds.admin.actions import JUDGED_ON
from feeds.audit import Actor
from feeds.models import AuditEntry, CalloutEvent, CalloutVersion
from feeds.services import callouts
from feeds.services.errors import Refused
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, ROLES, SUPPORT
from feeds.states import CalloutState
from tests.factories import CalloutVersionFactory, UserFactory

pytestmark = pytest.mark.django_db

SEE = "feeds.view_calloutversion"
ADD = "/admin/feeds/calloutversion/add/"
TEXTS = {
    "title_en": "Before you start",
    "body_en": "Have your password ready.",
    "title_fr": "Avant de commencer",
    "body_fr": "Préparez votre mot de passe.",
    "note": "",
}


@pytest.fixture(autouse=True)
def _two_people_publish(settings: Settings) -> None:
    """As shipped: nobody approves what they wrote."""
    settings.FOUR_EYES = ["publish_callout"]


def browser(**values: Any) -> Client:
    """A signed-in browser: `browser(role=...)` or `browser(permissions=[...])`."""
    client = Client()
    client.force_login(UserFactory(**values))
    return client


def page_of(version: CalloutVersion, page: str = "change") -> str:
    """Address of a page about the version."""
    return reverse(f"admin:feeds_calloutversion_{page}", args=[version.pk])


def message_texts(answer: Any) -> list[str]:
    """The messages the page shows, as text."""
    return [re.sub(r"<[^>]+>", "", str(message)) for message in answer.context["messages"]]


def rows() -> list[Any]:
    """Everything an action could have changed."""
    return [
        list(model._default_manager.order_by("pk").values()) for model in (CalloutVersion, CalloutEvent, AuditEntry)
    ]


@dataclass(frozen=True)
class Action:
    """One action: what it needs, what it does, and where it makes no sense."""

    name: str
    permission: str
    label: str
    state: CalloutState
    becomes: CalloutState
    event: str
    data: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def url(self, version: CalloutVersion) -> str:
        """Its address."""
        return reverse("admin:feeds_calloutversion_action", args=[version.pk, self.name])

    def make(self) -> CalloutVersion:
        """A version it can be done to."""
        version: CalloutVersion = CalloutVersionFactory(state=self.state)
        return version

    def staff(self, *, allowed: bool = True) -> Client:
        """Somebody who sees versions, with or without the action's permission."""
        return browser(permissions=[SEE, self.permission] if allowed else [SEE])

    def post(self, client: Client, version: CalloutVersion, **data: str) -> Any:
        """Open its page, send the form as a browser would, and follow to where it leads."""
        return client.post(self.url(version), {**self.hidden(client, version), **self.posted(), **data}, follow=True)

    def hidden(self, client: Client, version: CalloutVersion) -> dict[str, str]:
        """What the page's form brings back without anybody typing it."""
        found = re.search(rf'name="{JUDGED_ON}" value="(\w+)"', client.get(self.url(version)).content.decode())
        return {JUDGED_ON: found[1]} if found else {}

    def posted(self) -> dict[str, str]:
        """What its form asks for."""
        return {**self.data, **({"on": timezone.localdate().isoformat()} if self.name == "attest" else {})}


D, S, A, P, W = (CalloutState[name] for name in ("DRAFT", "SUBMITTED", "APPROVED", "PUBLISHED", "WITHDRAWN"))
ACTIONS = [
    Action("submit", "feeds.submit_callout", "Submit", D, S, "callout_submitted"),
    Action("approve", "feeds.approve_callout", "Approve", S, A, "callout_approved", {"comment": "Reads well."}),
    Action("send-back", "feeds.approve_callout", "Send back", S, D, "callout_sent_back", {"comment": "Shorter."}),
    Action("attest", "feeds.publish_callout", "Attest", A, P, "callout_attested", {"by_name": "Ravi", "seen": "on"}),
    Action("copy", "feeds.add_calloutversion", "Copy as a new draft", W, W, ""),
    Action("withdraw", "feeds.submit_callout", "Withdraw", A, W, "callout_withdrawn", {"reason": "Not needed."}),
]
every_action = pytest.mark.parametrize("action", ACTIONS, ids=str)
# Any version can be copied, and who may add versions sees them.
every_action_but_copying = pytest.mark.parametrize("action", [it for it in ACTIONS if it.name != "copy"], ids=str)


def test_the_table_names_every_action() -> None:
    declared = admin.site.get_model_admin(CalloutVersion).object_actions()  # type: ignore[attr-defined]
    assert [(it.name, it.permission, it.label) for it in ACTIONS] == [
        (it.name, it.permission, it.label) for it in declared.values()
    ]


class TestActions:
    @every_action
    def test_it_works_and_says_so(self, action: Action) -> None:
        version = action.make()
        answer = action.post(action.staff(), version)
        assert answer.status_code == 200
        assert len(message_texts(answer)) == 1
        assert str(version) in message_texts(answer)[0]
        version.refresh_from_db()
        assert version.state == action.becomes

    @every_action
    def test_it_is_hidden_and_refused_without_the_permission(self, action: Action) -> None:
        version = action.make()
        staff = action.staff(allowed=False)
        assert action.url(version) not in staff.get(page_of(version)).content.decode()
        before = rows()
        assert staff.get(action.url(version)).status_code == 403
        assert staff.post(action.url(version), action.posted()).status_code == 403
        assert rows() == before

    @every_action_but_copying
    def test_it_is_refused_to_who_may_not_see_versions(self, action: Action) -> None:
        assert browser(permissions=[action.permission]).post(action.url(action.make())).status_code == 403

    @every_action
    def test_its_button_is_there_with_the_permission_and_get_changes_nothing(self, action: Action) -> None:
        version = action.make()
        staff = action.staff()
        page = staff.get(page_of(version)).content.decode()
        assert action.url(version) in page
        before = rows()
        assert action.label in staff.get(action.url(version)).content.decode()
        assert rows() == before

    @every_action_but_copying
    def test_where_it_makes_no_sense_it_says_why_and_does_nothing(self, action: Action) -> None:
        version = CalloutVersionFactory(state=CalloutState.WITHDRAWN)
        staff = action.staff()
        before = rows()
        answer = action.post(staff, version)
        assert "Withdrawn" in message_texts(answer)[0] or "Only a submitted" in message_texts(answer)[0]
        assert rows() == before
        assert action.url(version) not in staff.get(page_of(version)).content.decode()

    @every_action
    def test_it_leaves_its_trace_in_the_history(self, action: Action) -> None:
        version = action.make()
        action.post(action.staff(), version)
        entries = AuditEntry.objects.filter(content_type__model="calloutversion", source="admin")
        if action.event:
            assert entries.filter(object_pk=str(version.pk), event=action.event).exists()
            assert "state" in (entries.filter(object_pk=str(version.pk), event="").latest("pk").changes or {})
        else:
            assert entries.latest("pk").action == AuditEntry.Action.CREATE

    @pytest.mark.parametrize("name", ["send-back", "attest", "withdraw"])
    def test_what_must_be_said_is_asked_for(self, name: str) -> None:
        action = next(it for it in ACTIONS if it.name == name)
        version, staff = action.make(), action.staff()
        before = rows()
        answer = staff.post(action.url(version), {})
        assert answer.status_code == 200
        assert answer.context["form"].errors
        assert rows() == before


class TestApproval:
    def test_the_author_is_refused_and_told_whom_to_ask(self) -> None:
        author = UserFactory(role=RELATIONSHIP_MANAGERS)
        client = Client()
        client.force_login(author)
        client.post(ADD, TEXTS)
        version = CalloutVersion.objects.get()
        client.post(ACTIONS[0].url(version))
        page = client.get(page_of(version)).content.decode()
        assert "a colleague has to approve it" in page
        assert ACTIONS[1].url(version) not in page
        answer = ACTIONS[1].post(client, version)
        assert message_texts(answer) == [
            "You wrote, changed or submitted this version. Somebody else has to approve it."
        ]
        version.refresh_from_db()
        assert version.state == CalloutState.SUBMITTED

    @pytest.mark.parametrize("names", [["publish_callout"], []])
    def test_the_page_before_submitting_promises_a_second_person_only_where_there_is_one(
        self, settings: Settings, names: list[str]
    ) -> None:
        settings.FOUR_EYES = names
        client = browser(role=RELATIONSHIP_MANAGERS)
        client.post(ADD, TEXTS)
        version = CalloutVersion.objects.get()
        page = client.get(ACTIONS[0].url(version)).content.decode()
        assert ("You will not be the one who approves" in page) == bool(names)
        assert ("No second person is required here" in page) == (not names)
        ACTIONS[0].post(client, version)
        ACTIONS[1].post(client, version)
        version.refresh_from_db()
        assert (version.state == CalloutState.SUBMITTED) == bool(names)

    def test_a_text_that_was_exchanged_behind_an_open_page_is_not_approved(self) -> None:
        author, other = (Actor.person(UserFactory(role=RELATIONSHIP_MANAGERS), source="test") for _person in range(2))
        version = CalloutVersionFactory(state=CalloutState.SUBMITTED)
        client = browser(role=RELATIONSHIP_MANAGERS)
        shown = client.get(ACTIONS[1].url(version)).content.decode()
        assert all(text in shown for text in version.texts().values())
        hidden = ACTIONS[1].hidden(client, version)
        callouts.send_back(version, other, "Shorter.")
        callouts.edit(version, {"title_en": "Send us your password"}, author)
        callouts.submit(version, author)

        answer = client.post(ACTIONS[1].url(version), {**hidden, "comment": "Reads well."}, follow=True)

        assert message_texts(answer) == [
            "What this page shows has changed since you opened it. Nothing was done: read it again."
        ]
        page = answer.content.decode()
        assert "Send us your password" in page
        assert "Reads well." in page
        version.refresh_from_db()
        assert version.state == CalloutState.SUBMITTED
        client.post(ACTIONS[1].url(version), {"comment": ""})
        version.refresh_from_db()
        assert version.state == CalloutState.SUBMITTED
        ACTIONS[1].post(client, version)
        version.refresh_from_db()
        assert version.state == CalloutState.APPROVED

    @pytest.mark.parametrize("role", [RELATIONSHIP_MANAGERS, ADMINISTRATORS])
    def test_another_manager_or_an_administrator_approves(self, role: str) -> None:
        version = CalloutVersionFactory(state=CalloutState.SUBMITTED)
        ACTIONS[1].post(browser(role=role), version)
        version.refresh_from_db()
        assert version.state == CalloutState.APPROVED

    @pytest.mark.parametrize("role", [SUPPORT, COMPLIANCE_AUDITORS])
    def test_support_and_auditors_only_look(self, role: str) -> None:
        client = browser(role=role)
        version = CalloutVersionFactory()
        assert client.get(page_of(version)).status_code == 200
        assert client.get(ADD).status_code == 403
        assert client.post(page_of(version), TEXTS).status_code == 403
        for action in ACTIONS:
            assert client.post(action.url(version), action.posted()).status_code == 403


class TestForm:
    def test_a_draft_is_made_and_changed_and_the_story_knows(self) -> None:
        client = browser(role=RELATIONSHIP_MANAGERS)
        client.post(ADD, TEXTS, follow=True)
        version = CalloutVersion.objects.get()
        answer = client.post(page_of(version), {**TEXTS, "title_en": "Before you begin"}, follow=True)
        assert "was changed successfully" in message_texts(answer)[0]
        version.refresh_from_db()
        assert version.title_en == "Before you begin"
        assert [event.kind for event in version.events.all()] == ["created", "edited"]
        entry = AuditEntry.objects.filter(object_pk=str(version.pk)).latest("pk")
        assert entry.changes == {"title_en": ["Before you start", "Before you begin"]}

    def test_what_is_refused_is_said_beside_its_field_and_kept(self) -> None:
        answer = browser(role=RELATIONSHIP_MANAGERS).post(ADD, {**TEXTS, "title_en": "x" * 51, "body_fr": "a\u200bb"})
        assert answer.context["adminform"].form.errors == {
            "title_en": ["51 characters are too many: at most 50. Take out 1."],
            "body_fr": ["Position 2, after “a”: an invisible character (U+200B). Remove it."],
        }
        assert "x" * 51 in answer.content.decode()
        assert not CalloutVersion.objects.exists()

    def test_a_draft_says_what_it_lacks_before_it_can_be_submitted(self) -> None:
        version = CalloutVersionFactory(body_fr="")
        client = browser(role=RELATIONSHIP_MANAGERS)
        sentence = "French body is empty, and English body is not."
        assert sentence in client.get(page_of(version)).content.decode()
        assert sentence in client.get(ACTIONS[0].url(version)).content.decode()

    def test_what_was_typed_while_a_colleague_submitted_is_found_in_a_new_draft(self) -> None:
        version = CalloutVersionFactory(state=CalloutState.SUBMITTED)
        answer = browser(role=RELATIONSHIP_MANAGERS).post(page_of(version), {**TEXTS, "title_en": "Typed"}, follow=True)
        assert "is not a draft any more" in message_texts(answer)[0]
        assert answer.context["adminform"].form["title_en"].value() == "Typed"
        version.refresh_from_db()
        assert version.title_en == "Before you start"

    def test_so_it_is_when_they_submit_between_reading_and_writing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        version = CalloutVersionFactory()

        def refuse(*_args: object) -> None:
            raise Refused(callouts.no_draft(version))

        monkeypatch.setattr(callouts, "edit", refuse)
        answer = browser(role=RELATIONSHIP_MANAGERS).post(page_of(version), {**TEXTS, "title_en": "Typed"}, follow=True)
        assert answer.context["adminform"].form["title_en"].value() == "Typed"

    def test_two_people_who_write_in_one_draft_at_once_both_keep_their_words(self) -> None:
        version = CalloutVersionFactory(title_fr="", body_fr="")
        english, french = browser(role=RELATIONSHIP_MANAGERS), browser(role=RELATIONSHIP_MANAGERS)
        seen = french.get(page_of(version))
        assert 'name="initial-title_en"' in seen.content.decode()
        shown = {**version.texts(), "note": ""}
        initial = {f"initial-{name}": text for name, text in shown.items()}
        english.post(page_of(version), {**shown, **initial, "title_en": "Before you begin"})
        french.post(page_of(version), {**shown, **initial, "title_fr": "Avant de commencer"})
        version.refresh_from_db()
        assert (version.title_en, version.title_fr) == ("Before you begin", "Avant de commencer")

    def test_no_version_is_deleted_whoever_asks(self) -> None:
        version = CalloutVersionFactory()
        boss = browser(is_superuser=True)
        assert boss.post(page_of(version, "delete"), {"post": "yes"}).status_code == 403
        assert "delete_selected" not in boss.get(reverse("admin:feeds_calloutversion_changelist")).content.decode()


class TestPages:
    @pytest.mark.parametrize("page", ["difference", "checklist"])
    def test_they_are_closed_without_the_right(self, page: str) -> None:
        version = CalloutVersionFactory(state=CalloutState.APPROVED)
        assert browser().get(page_of(version, page)).status_code == 403
        assert browser(permissions=["feeds.publish_callout"]).get(page_of(version, page)).status_code == 403

    def test_the_checklist_is_for_who_may_publish(self) -> None:
        version = CalloutVersionFactory(state=CalloutState.APPROVED)
        assert browser(permissions=[SEE]).get(page_of(version, "checklist")).status_code == 403

    def test_the_checklist_has_every_text_and_the_way_to_the_portal(self, settings: Settings) -> None:
        settings.CODAT_PORTAL_URL = "https://portal.example/callout"
        version = CalloutVersionFactory(state=CalloutState.APPROVED, body_en="")
        page = browser(role=RELATIONSHIP_MANAGERS).get(page_of(version, "checklist")).content.decode()
        assert 'href="https://portal.example/callout"' in page
        for name in ("title_en", "title_fr", "body_fr"):
            assert f'data-copy="copy-{name}"' in page
        assert 'data-copy="copy-body_en"' not in page
        assert "Empty this field in the Portal" in page

    def test_the_checklist_of_a_draft_says_why_there_is_none(self) -> None:
        page = browser(role=RELATIONSHIP_MANAGERS).get(page_of(CalloutVersionFactory(), "checklist")).content.decode()
        assert "Only an approved version is published; this one is “Draft”." in page

    def test_the_difference_names_words_for_eyes_and_ears(self) -> None:
        old = CalloutVersionFactory(published=True, title_en="Have it ready")
        version = CalloutVersionFactory(title_en="Have everything ready")
        page = browser(permissions=[SEE]).get(page_of(version, "difference")).content.decode()
        assert re.search(r"<del>.*taken out.*>it<.*</del>", page)
        assert re.search(r"<ins>.*put in.*>everything<.*</ins>", page)
        assert f"{old}, Published" in page

    def test_any_other_version_can_be_compared_with(self) -> None:
        CalloutVersionFactory(published=True)
        wanted, version = CalloutVersionFactory(title_en="Wanted"), CalloutVersionFactory()
        answer = browser(permissions=[SEE]).get(page_of(version, "difference"), {"with": wanted.pk})
        assert answer.context["other"] == wanted
        answer = browser(permissions=[SEE]).get(page_of(version, "difference"), {"with": "nonsense"})
        assert answer.context["other"].state == CalloutState.PUBLISHED

    def test_which_text_was_published_on_a_day_is_one_question(self) -> None:
        day = timezone.localdate()
        CalloutVersionFactory(superseded=True, published_on=day - timedelta(days=9), superseded_on=day, title_en="Old")
        CalloutVersionFactory(published=True, title_en="New")
        client, url = browser(permissions=[SEE]), reverse("admin:feeds_calloutversion_published")

        def titles(**query: str) -> list[str]:
            return [version.title_en for version, _attested, _previews in client.get(url, query).context["found"]]

        assert titles() == titles(on=day.isoformat()) == ["Old", "New"]
        assert titles(on=(day - timedelta(days=1)).isoformat()) == ["Old"]
        assert titles(on=(day - timedelta(days=10)).isoformat()) == []
        assert titles(on="yesterday") == []
        assert "Enter a valid date." in client.get(url, {"on": "yesterday"}).content.decode()
        assert browser().get(url).status_code == 403

    @pytest.mark.parametrize("page", ["changelist", "published"])
    def test_it_says_when_it_was_last_attested_and_by_whom_and_never_live(self, page: str) -> None:
        CalloutVersionFactory(published=True)
        shown = browser(permissions=[SEE]).get(reverse(f"admin:feeds_calloutversion_{page}")).content.decode()
        day = timezone.localdate().isoformat()
        assert f'last attested on <time class="nowrap" datetime="{day}">{day}</time> by Robin Staff' in shown
        assert not re.search(r"\blive\b", re.sub(r"<[^>]*>", "", shown))

    def test_the_page_of_a_version_costs_the_same_however_many_there_are(self) -> None:
        CalloutVersionFactory(published=True)
        version = CalloutVersionFactory()
        client = browser(role=RELATIONSHIP_MANAGERS)

        def queries(address: str) -> int:
            with CaptureQueriesContext(database) as captured:
                assert client.get(address).status_code == 200
            return len(captured)

        addresses = [page_of(version), page_of(version, "difference"), reverse("admin:feeds_calloutversion_published")]
        few = [queries(address) for address in addresses]
        CalloutVersionFactory.create_batch(30, state=CalloutState.APPROVED)
        assert [queries(address) for address in addresses] == few
        assert max(few) <= 12

    @pytest.mark.parametrize("role", ROLES)
    def test_every_role_sees_the_list(self, role: str) -> None:
        CalloutVersionFactory(published=True)
        assert browser(role=role).get(reverse("admin:feeds_calloutversion_changelist")).status_code == 200
