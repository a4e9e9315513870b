"""`manage.py setup`: roles, schedules, and demo data only where it belongs."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django_q.models import Schedule

from feeds import queue
from feeds.audit import Actor
from feeds.models import AuditEntry, CalloutVersion, Company
from feeds.services import access, demo, import_files, imports, roles
from feeds.services.errors import Refused
from tests.factories import CalloutVersionFactory

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _beside_the_stand_in(settings: Any) -> None:
    settings.CODAT_SANDBOX, settings.IS_PRODUCTION = True, False


def setup() -> tuple[str, str]:
    """What `manage.py setup` prints, on stdout and stderr."""
    out, err = StringIO(), StringIO()
    call_command("setup", stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_it_prints_the_address_and_logins_that_work(settings: Any, client: Client) -> None:
    settings.PORT, settings.DEMO_PASSWORD = 8042, "an invented demo password"
    out, _err = setup()

    assert "http://localhost:8042/" in out
    for user in demo.USERS:
        assert f"{user.username} " in out
        answer = client.post(
            reverse("admin:login"), {"username": user.username, "password": "an invented demo password"}
        )
        assert answer.status_code == 302
        client.logout()
    assert "an invented demo password" in out


def test_demo_users_have_one_role_each_and_no_superuser_is_among_them() -> None:
    setup()
    held = {user.username: list(user.groups.values_list("name", flat=True)) for user in User.objects.all()}
    assert held == {user.username: [user.role] for user in demo.USERS}
    assert {user.role for user in demo.USERS} == set(roles.ROLES)
    assert not User.objects.filter(is_superuser=True).exists()


def test_demo_companies_are_drafts_with_accounts_and_a_manager() -> None:
    setup()
    assert Company.objects.count() == len(demo.COMPANIES) > 0
    for company in Company.objects.all():
        assert (company.onboarding_state, company.manager is not None) == ("draft", True)
        assert company.source_accounts.exists()


def test_a_callout_is_published_by_two_people_and_another_is_being_written(settings: Any) -> None:
    settings.FOUR_EYES = settings.PRODUCT_FOUR_EYES
    setup()
    draft, published = CalloutVersion.objects.all()
    assert (draft.state, published.state) == ("draft", "published")
    assert published.texts() == json.loads((ROOT / demo.CALLOUT).read_text())
    assert all(draft.texts().values())
    assert [(event.kind, event.actor_name) for event in published.events.all()] == [
        ("created", "Rosa Marchetti"),
        ("submitted", "Rosa Marchetti"),
        ("approved", "Ravi Menon"),
        ("attested", "Ravi Menon"),
    ]
    entries = AuditEntry.objects.filter(content_type__model="calloutversion")
    assert {(entry.actor_name, entry.source) for entry in entries} == {
        ("Rosa Marchetti", "service: setup"),
        ("Ravi Menon", "service: setup"),
    }


def test_no_callout_is_added_to_those_that_a_bank_wrote() -> None:
    CalloutVersionFactory(state="withdrawn")
    setup()
    assert CalloutVersion.objects.count() == 1


def test_the_stand_ins_portal_begins_with_the_text_that_is_published() -> None:
    assert f"--callout {demo.CALLOUT}" in (ROOT / "Procfile").read_text()


def test_running_it_again_changes_nothing_and_overwrites_nothing() -> None:
    setup()
    User.objects.filter(username="rm").update(first_name="Changed")
    Company.objects.filter(customer_number="DEMO-1").update(legal_name="Changed too")
    history, schedules = AuditEntry.objects.count(), Schedule.objects.count()

    out, _err = setup()

    assert "Role " not in out
    assert "Schedules" not in out
    assert (AuditEntry.objects.count(), Schedule.objects.count()) == (history, schedules)
    assert User.objects.get(username="rm").first_name == "Changed"
    assert Company.objects.get(customer_number="DEMO-1").legal_name == "Changed too"


def test_it_says_which_stray_permission_it_took_away() -> None:
    setup()
    Group.objects.get(name="Support").permissions.clear()
    out, _err = setup()
    assert "Role Support: granted" in out
    assert "feeds.unlink_connection" in out


def test_roles_and_schedules_are_made_in_production_without_any_demo(settings: Any) -> None:
    settings.IS_PRODUCTION, settings.CODAT_SANDBOX = True, False
    setup()
    assert Group.objects.count() == len(roles.ROLES)
    assert Schedule.objects.count() == len(queue.SCHEDULES)
    assert not User.objects.exists()
    assert not CalloutVersion.objects.exists()
    assert not Company.objects.exists()


@pytest.mark.parametrize(("sandbox", "production"), [(True, True), (False, False), (False, True)])
def test_demo_users_are_refused_anywhere_else(settings: Any, sandbox: bool, production: bool) -> None:
    settings.CODAT_SANDBOX, settings.IS_PRODUCTION = sandbox, production
    with pytest.raises(Refused):
        demo.create(actor=Actor.service("test"))
    assert not User.objects.exists()


def test_production_does_not_start_with_demo_users_that_can_sign_in(settings: Any) -> None:
    setup()
    settings.IS_PRODUCTION, settings.CODAT_SANDBOX = True, False
    with pytest.raises(CommandError, match="admin, admin2, auditor, rm, rm2, support, support2"):
        setup()

    User.objects.update(is_active=False)
    setup()


def test_leaving_the_stand_in_for_a_trial_is_possible_but_said(settings: Any) -> None:
    setup()
    settings.CODAT_SANDBOX = False
    _out, err = setup()
    assert "Demo users can sign in here" in err


def test_rm_sees_the_demo_customer_and_what_an_import_brings_and_rm2_not_the_first(settings: Any) -> None:
    settings.RM_SEES_ALL_CUSTOMERS = False
    setup()
    imports.store(import_files.parse(ROOT / "docs" / "sample" / "companies.csv"), actor=Actor.service("command line"))
    seen = {
        name: set(access.visible_companies(User.objects.get(username=name)).values_list("legal_name", flat=True))
        for name in ("rm", "rm2")
    }
    assert {"Harbor Light Bicycles LLC", "Maple & Pine Bakery, Inc."} <= seen["rm"]
    assert "Maple & Pine Bakery, Inc." in seen["rm2"]
    assert "Harbor Light Bicycles LLC" not in seen["rm2"]
