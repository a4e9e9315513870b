"""No page shows a word that was never marked for translation.

Every page is rendered in a French whose every text stands in brackets; what shows outside of brackets must be data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, reverse
from django.utils import timezone
from django.utils.translation import trans_real

from feeds import audit
from feeds.admin.actions import ActionsAdmin
from feeds.admin.callouts import GET_CREDENTIALS
from feeds.models import AuditEntry, BatchItem, CodatQuota, Heartbeat, HistoryExport, SignInLock
from feeds.models.company import TIME_ZONES
from feeds.services import callouts, history_checks, roles, seals
from feeds.sign_in import urls as sign_in_urls
from feeds.states import (
    ApprovalState,
    CalloutState,
    CaseEventKind,
    ExportFormat,
    ExportKind,
    OnboardingState,
    OperationState,
    RoutingType,
    WebhookState,
)
from tests import pseudo_language
from tests.factories import (
    AccessGrantFactory,
    ApprovalFactory,
    BatchFactory,
    CalloutVersionFactory,
    CaseEventFactory,
    CaseFactory,
    CompanyFactory,
    ConnectionFactory,
    DriftFindingFactory,
    IncidentFactory,
    InvitationFactory,
    MailFactory,
    OperationFactory,
    SourceAccountFactory,
    UserFactory,
    WebhookEventFactory,
)

pytestmark = pytest.mark.django_db

NAMES = {
    "Codat", "QuickBooks", "Online", "SANDBOX", "test", "sandbox", "English", "Français", "UTC", "EST", "EDT", "US",
    "CA", "USD", "CAD", "ID", "None", "JSON", "HTML", "uid",
}  # fmt: skip
"""Words that are the same in every language: names, codes, zones, and each language's own name."""


DJANGOS = (
    "If disabled, the current password for this user will be lost.",
    "Whether the user will be able to authenticate using a password or not. If disabled, they may still be able to "
    "authenticate using other backends, such as Single Sign-On or LDAP.",
)
"""Put together by Django when it is loaded, so in English for everybody."""


@pytest.fixture
def rows() -> None:
    """At least one row of everything that has a screen, in states that show as much as possible."""
    robin = UserFactory(role="Support", last_name="Row")
    company = CompanyFactory(in_codat=True, onboarding_state=OnboardingState.FAILED, onboarding_error="Was refused.")
    connection = ConnectionFactory(company=company, with_link=True)
    SourceAccountFactory(company=company, connection=connection, in_codat=True)
    CompanyFactory(onboarding_state=OnboardingState.DRAFT)
    OperationFactory(company=company, state=OperationState.UNKNOWN, error="Was lost.")
    case = CaseFactory(owner=robin, incident=IncidentFactory())
    CaseEventFactory(case=case, kind=CaseEventKind.NOTIFIED, text="Was sent.")
    DriftFindingFactory()
    WebhookEventFactory(state=WebhookState.FAILED, error="Was lost.", due_at=None, applied_at=None)
    BatchItem.objects.create(batch=BatchFactory(), company=company)
    Heartbeat.objects.create(name="worker", beat_at=timezone.now())
    CodatQuota.objects.create(limit=1000, remaining=10, read_at=timezone.now())
    roles.sync_roles()
    approval = ApprovalFactory(requested_by=robin)
    ApprovalFactory(state=ApprovalState.REFUSED, outcome="Was told no.", comment="Not now.", decided_by_name="Kim")
    AccessGrantFactory(company=company, user=robin)
    CalloutVersionFactory(state=CalloutState.SUBMITTED)
    CalloutVersionFactory(published=True)
    draft = CalloutVersionFactory()
    InvitationFactory(company=company)
    MailFactory(case=case)
    SignInLock.objects.create(username="robin", ip_address="192.0.2.7", failures_since_start=9)
    actor = audit.Actor.person(robin, source="admin")
    with audit.acting(actor):
        audit.record("link_revealed", connection, reason="Phoned.")
        audit.record("emergency_access", company, hours=4, grant=approval.pk)
    callouts.edit(draft, {"note": "For the spring."}, actor)
    HistoryExport.objects.create(
        kind=ExportKind.HISTORY, format=ExportFormat.CSV, reason="For the regulator.", requested_by_name="Robin",
        started_at=timezone.now(), filters_text="Was searched.",
    )  # fmt: skip
    seals.seal()
    history_checks.ask(actor=actor)


def addresses() -> Iterator[str]:
    """Every page that answers to GET: lists, forms, objects, and what each action says before it is done."""
    for pattern in admin.site.get_urls():
        if isinstance(pattern, URLPattern) and pattern.name:
            yield from _reversed(pattern.name)
    for pattern in sign_in_urls.urlpatterns:
        with suppress(NoReverseMatch):
            yield reverse(pattern.name)
    for model, screen in admin.site._registry.items():
        keys = list(model._default_manager.values_list("pk", flat=True)[:3])
        for pattern in screen.get_urls():
            if not pattern.name:
                continue
            yield from _reversed(pattern.name)
            for key in keys:
                yield from _reversed(pattern.name, key)
                if isinstance(screen, ActionsAdmin):
                    yield from (page for name in screen.object_actions() for page in _reversed(pattern.name, key, name))


def _reversed(name: str, *arguments: object) -> Iterator[str]:
    with suppress(NoReverseMatch):  # it takes other arguments
        yield reverse(f"admin:{name}", args=arguments)


def data() -> list[str]:
    """Every value that a row holds, longest first: what is shown of it is not ours to translate."""
    found = {*NAMES, *DJANGOS, *RoutingType.values, *(city for _zone, city in TIME_ZONES), *GET_CREDENTIALS.values()}
    # Not the names of models: "company" is a word that has to be marked.
    for model in set(apps.get_models()) - {ContentType}:
        texts = [field.attname for field in model._meta.fields if not isinstance(field, models.DateTimeField)]
        for values in model._default_manager.values_list(*texts):
            found.update(str(value) for value in values if value not in (None, ""))
    for user in User.objects.all():
        found.add(user.get_full_name())
    # The change history names what was added to a set by its stored name.
    for changes in AuditEntry.objects.exclude(changes=None).values_list("changes", flat=True):
        for change in changes.values():
            if isinstance(change, dict):
                found.add(", ".join(change["objects"])[:CUT])
            else:
                found.update(str(value) for value in change)
    return sorted(found, key=len, reverse=True)


CUT = 159
"""Characters of a long value that a list shows before "…"."""

_CODES = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|https?://\S+|[\w.]+@[\w.]+|[A-Z]-\d+|\b[0-9a-f]{6,}\b|•+\w*|\b\w{2,6}\*+|\bmd5\b|\b[a-z]\w+(?:\.[a-z]\w+)+"
)
"""Addresses, numbers, masked values, and the names of Codat's webhooks."""


def without_data(text: str, values: list[str]) -> str:
    """What is left of a text that is data in part."""
    text = _CODES.sub(" ", text)
    for value in values:
        if len(value) > 1:
            text = text.replace(value, " ")
    return text


@pytest.mark.slow
def test_every_word_of_every_page_was_marked(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    bracketed = pseudo_language.speak(monkeypatch)
    client = Client(headers={"accept-language": "fr"})
    client.force_login(UserFactory(is_superuser=True, first_name="Kim", last_name="Chief"))
    values = data()
    found: dict[str, str] = {}
    rendered = 0
    for address in dict.fromkeys(addresses()):
        answer = client.get(address, follow=True)
        if answer.status_code in (403, 404, 405) or "html" not in answer.headers["Content-Type"]:
            continue
        rendered += 1
        assert answer.status_code == 200, address
        for text in pseudo_language.unmarked(answer.content.decode()):
            left = without_data(text, values)
            if re.search(r"[^\W\d_]{2}", left):
                found.setdefault(text, address)
    assert rendered > 60, "pages were not reached"
    if found:
        pytest.fail("\n".join(f"{page}: {text}" for text, page in sorted(found.items())))
    monkeypatch.undo()
    if without := sorted(text for text in bracketed.asked if not has_french(text)):
        pytest.fail("no French for: " + ", ".join(without))


def has_french(text: str) -> bool:
    """Whether French has words for it, ours or those of the library it comes from; punctuation needs none."""
    french = trans_real.translation("fr")
    is_known = text in french._catalog or (text, 0) in french._catalog or (text, True) in french._catalog  # type: ignore[attr-defined]
    return is_known or text in dict(settings.LANGUAGES).values() or not re.search(r"[^\W\d_]{2}", text)


def test_a_word_that_was_not_marked_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "<p>⟦told <b>by us</b>⟧ and not <a title='by title'>⟦x⟧</a></p>"
    assert list(pseudo_language.unmarked(page)) == ["and not", "by title"]


def test_a_word_that_may_be_broken_is_one_word() -> None:
    assert list(pseudo_language.unmarked("<p>support<wbr>@bank.example</p>")) == ["support@bank.example"]
