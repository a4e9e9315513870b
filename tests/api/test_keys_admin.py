"""Making, replacing and revoking keys: through the admin, and from the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core import serializers
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feeds.models import ApiKey, AuditEntry, Company
from feeds.services import roles
from feeds.states import ApiKeyState, ApiScope
from tests.api.conftest import MakeKey, Program, request_for
from tests.factories import ApiKeyFactory, UserFactory

pytestmark = pytest.mark.django_db

ADD = reverse("admin:feeds_apikey_add")
KEYS = reverse("admin:feeds_apikey_changelist")
SHOWN = re.compile(r"bfk_[a-z2-7]{8}_[\w-]{43}")
Browser = Callable[[str], Client]


@pytest.fixture
def browser() -> Browser:
    """Signs somebody of a role in."""

    def sign_in(role: str) -> Client:
        client = Client()
        client.force_login(UserFactory(role=role, first_name="Ada", last_name="Underhill"))
        return client

    return sign_in


def form(**values: Any) -> dict[str, Any]:
    """What is filled in."""
    return {"name": "Portal", "scopes": ApiScope.values, "days": "30", "reason": "The new portal.", **values}


def shown(answer: Any) -> str:
    """The key on a page."""
    found = SHOWN.search(answer.content.decode())
    assert found is not None, answer.content.decode()
    return found[0]


def button(key: ApiKey, name: str) -> str:
    """The address of a button."""
    return reverse("admin:feeds_apikey_action", args=[key.pk, name])


def test_making_shows_the_key_once_and_keeps_it_nowhere(browser: Browser) -> None:
    admin = browser(roles.ADMINISTRATORS)
    answer = admin.post(ADD, form())
    token = shown(answer)
    assert "no-store" in answer["Cache-Control"]
    assert answer["Referrer-Policy"] == "no-referrer"
    key = ApiKey.objects.get()
    assert Program(token).get("SB-1").status_code == 404
    secret = token[13:]
    for address in (KEYS, reverse("admin:feeds_apikey_change", args=[key.pk]), reverse("admin:index")):
        assert secret not in admin.get(address, follow=True).content.decode()
    kept = serializers.serialize("json", [*ApiKey.objects.all(), *AuditEntry.objects.all()])
    assert secret not in kept
    assert key.digest not in serializers.serialize("json", AuditEntry.objects.all())
    made = AuditEntry.objects.get(event="api_key_made")
    assert (made.actor_name, made.reason) == ("Ada Underhill", "The new portal.")


def test_what_is_missing_is_said_and_nothing_is_lost(browser: Browser) -> None:
    answer = browser(roles.ADMINISTRATORS).post(ADD, form(scopes=[], days="9999"))
    page = answer.content.decode()
    assert 'value="Portal"' in page
    assert "This field is required" in page
    assert "less than or equal to 730" in page
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("role", [roles.RELATIONSHIP_MANAGERS, roles.SUPPORT, roles.COMPLIANCE_AUDITORS])
def test_only_administrators_make_replace_and_revoke(browser: Browser, role: str) -> None:
    client, key = browser(role), ApiKeyFactory()
    assert client.post(ADD, form()).status_code == 403
    for name in ("rotate", "revoke"):
        assert client.get(button(key, name)).status_code == 403
        assert client.post(button(key, name), {"reason": "x", "days": 1, "overlap_days": 0}).status_code == 403
    key.refresh_from_db()
    assert key.state == ApiKeyState.WORKS
    assert ApiKey.objects.count() == 1


def test_nobody_edits_or_deletes_a_key(browser: Browser) -> None:
    key, admin = ApiKeyFactory(), browser(roles.ADMINISTRATORS)
    change, delete = (reverse(f"admin:feeds_apikey_{name}", args=[key.pk]) for name in ("change", "delete"))
    assert admin.post(change, {"name": "Mine"}).status_code == 403
    assert admin.post(delete, {"post": "yes"}).status_code == 403
    key.refresh_from_db()
    assert key.name == "Portal"


def test_auditors_read_and_are_offered_no_button(browser: Browser) -> None:
    key, auditor = ApiKeyFactory(), browser(roles.COMPLIANCE_AUDITORS)
    assert key.prefix in auditor.get(KEYS).content.decode()
    page = auditor.get(reverse("admin:feeds_apikey_change", args=[key.pk])).content.decode()
    assert "connect_sessions:write" in page
    assert "/actions/" not in page


def test_replacing_shows_the_new_key_once(browser: Browser, make_key: MakeKey) -> None:
    old = make_key(manager=UserFactory())
    answer = browser(roles.ADMINISTRATORS).post(button(old.key, "rotate"), {"overlap_days": "3", "days": "90"})
    token = shown(answer)
    assert Program(token).get("SB-1").status_code == Program(old.token).get("SB-1").status_code == 404
    held, new = ApiKey.objects.order_by("pk")
    assert (held.replaced_by, held.state) == (new, ApiKeyState.REPLACED)
    assert held.expires_at - timezone.now() < timedelta(days=3, minutes=1)
    assert (new.scopes, new.manager, new.name) == (held.scopes, held.manager, held.name)
    assert AuditEntry.objects.get(event="api_key_replaced").actor_name == "Ada Underhill"


def test_an_old_key_ends_with_its_days_and_at_once_without_any(browser: Browser, make_key: MakeKey) -> None:
    old = make_key()
    browser(roles.ADMINISTRATORS).post(button(old.key, "rotate"), {"overlap_days": "0", "days": "90"})
    assert Program(old.token).get("SB-1").status_code == 401


def test_a_key_is_replaced_once(browser: Browser, make_key: MakeKey) -> None:
    old, admin = make_key(), browser(roles.ADMINISTRATORS)
    for _press in range(2):
        answer = admin.post(button(old.key, "rotate"), {"overlap_days": "1", "days": "90"})
    assert "It has been replaced already" in answer.content.decode()
    assert ApiKey.objects.count() == 2


def test_a_revoked_key_is_refused_at_once_and_the_history_says_why(browser: Browser, make_key: MakeKey) -> None:
    made, admin = make_key(), browser(roles.ADMINISTRATORS)
    assert Program(made.token).get("SB-1").status_code == 404
    admin.post(button(made.key, "revoke"), {"reason": "It was in a mail."})
    assert Program(made.token).get("SB-1").status_code == 401
    event = AuditEntry.objects.get(event="api_key_revoked")
    assert (event.actor_name, event.reason) == ("Ada Underhill", "It was in a mail.")
    assert "It opens nothing any more" in admin.get(button(made.key, "revoke")).content.decode()


def test_the_command_prints_a_key_that_works_and_is_in_the_history() -> None:
    UserFactory(username="rita", first_name="Rita")
    out = StringIO()
    call_command("api_key", "Demo", "--manager", "rita", stdout=out)
    program = Program(out.getvalue().strip())
    assert program.post(request_for()).status_code == 201
    assert Company.objects.get().manager.username == "rita"  # type: ignore[union-attr]
    made = AuditEntry.objects.get(event="api_key_made")
    assert (made.actor_name, made.source) == ("command line", "command line")


def test_the_command_says_what_is_wrong() -> None:
    with pytest.raises(CommandError, match="no active user"):
        call_command("api_key", "Demo", "--manager", "nobody")
    with pytest.raises(CommandError, match="1 to 730 days"):
        call_command("api_key", "Demo", "--days", "0")
