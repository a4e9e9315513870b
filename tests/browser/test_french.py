"""The same screens in French, which takes a quarter more room: nothing overflows, and axe finds nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from feeds import audit
from feeds.admin.base import story_url
from feeds.models import BatchItem, Company, Connection, Heartbeat, Preference, SignInLock
from feeds.services import history_checks, seals
from feeds.services.roles import RELATIONSHIP_MANAGERS
from feeds.states import AccountStatus, CalloutState, CaseEventKind, OnboardingState, OperationState
from tests.browser.conftest import Screens
from tests.browser.test_sign_in import add_app
from tests.factories import (
    PASSWORD,
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

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

Window = Callable[..., Screens]
ERROR = (
    "Codat refused the data. Correct what it names below, then try again. Correlation id for Codat's support: 8c1f0e."
)


@pytest.fixture
def bank(transactional_db: None) -> list[tuple[str, str]]:
    """Something on every main screen; their names and addresses."""
    chief = UserFactory(username="chief", is_superuser=True)
    ready: Connection = ConnectionFactory(company__legal_name="Boulangerie de l’Érable inc.", with_link=True)
    SourceAccountFactory(company=ready.company, connection=ready, status=AccountStatus.PENDING, balance="1234567.50")
    failed: Company = CompanyFactory(onboarding_state=OnboardingState.FAILED, onboarding_error=ERROR)
    SourceAccountFactory(company=failed)
    batch = BatchFactory(requested_by_name="Robin Hall", source="admin")
    BatchItem.objects.create(batch=batch, company=failed)
    operation = OperationFactory(company=failed, state=OperationState.FAILED, error=ERROR)
    case = CaseFactory(owner=chief)
    CaseEventFactory(case=case, kind=CaseEventKind.TAKEN, text="")
    CaseFactory(incident=IncidentFactory())
    finding = DriftFindingFactory()
    approval = ApprovalFactory(reason="Le client l’a demandé au téléphone.")
    submitted = CalloutVersionFactory(state=CalloutState.SUBMITTED)
    published = CalloutVersionFactory(published=True)
    grant = AccessGrantFactory(company=failed)
    mail = MailFactory(case=case, error=ERROR)
    SignInLock.objects.create(username="robin", ip_address="192.0.2.7", failures_since_start=9)
    with audit.acting(audit.Actor.person(chief, source="admin")):
        entry = audit.record("emergency_access", failed, hours=8, grant=grant.pk)
    seals.seal()
    history_checks.ask(actor=audit.Actor.person(chief, source="admin"))
    WebhookEventFactory()
    # Mailed nine days ago, and never opened.
    InvitationFactory(company=failed, sent_at=timezone.now() - timedelta(days=9))
    Heartbeat.objects.create(name="worker", beat_at=timezone.now())
    lists = ["company", "case", "connection", "sourceaccount", "operation", "webhookevent", "statusevent", "auditentry"]
    return [
        ("home", reverse("admin:index")),
        *((f"{name}-list", reverse(f"admin:feeds_{name}_changelist")) for name in lists),
        ("company-add", reverse("admin:feeds_company_add")),
        ("company-ready", reverse("admin:feeds_company_change", args=[ready.company_id])),
        ("company-failed", reverse("admin:feeds_company_change", args=[failed.pk])),
        ("funnel", reverse("admin:invitation_funnel")),
        ("stuck", f"{reverse('admin:feeds_invitation_changelist')}?list=all"),
        ("batch", reverse("admin:feeds_batch_change", args=[batch.pk])),
        ("connection", reverse("admin:feeds_connection_change", args=[ready.pk])),
        ("unlink", reverse("admin:feeds_connection_action", args=[ready.pk, "unlink"])),
        ("operation", reverse("admin:feeds_operation_change", args=[operation.pk])),
        ("case", reverse("admin:feeds_case_change", args=[case.pk])),
        ("close-case", reverse("admin:feeds_case_action", args=[case.pk, "close"])),
        ("incident", reverse("admin:feeds_incident_changelist")),
        ("drift", reverse("admin:feeds_driftreport_change", args=[finding.report_id])),
        ("system", reverse("admin:operations_page")),
        ("approvals", reverse("admin:feeds_approval_changelist")),
        ("approval", reverse("admin:feeds_approval_change", args=[approval.pk])),
        ("approve", reverse("admin:feeds_approval_action", args=[approval.pk, "approve"])),
        ("callouts", reverse("admin:feeds_calloutversion_changelist")),
        ("callout-add", reverse("admin:feeds_calloutversion_add")),
        ("callout", reverse("admin:feeds_calloutversion_change", args=[submitted.pk])),
        ("callout-published", reverse("admin:feeds_calloutversion_change", args=[published.pk])),
        ("callout-checklist", reverse("admin:feeds_calloutversion_checklist", args=[published.pk])),
        ("callout-difference", reverse("admin:feeds_calloutversion_difference", args=[submitted.pk])),
        ("emergency-accesses", reverse("admin:feeds_accessgrant_changelist")),
        ("emergency-access", reverse("admin:feeds_accessgrant_change", args=[grant.pk])),
        ("emergency-ask", reverse("admin:feeds_accessgrant_add")),
        ("delete-company", reverse("admin:feeds_company_action", args=[ready.company_id, "delete-in-codat"])),
        ("history-entry", reverse("admin:feeds_auditentry_change", args=[entry.pk])),
        ("history-story", story_url(Company, failed.pk)),
        ("history-export", reverse("admin:feeds_auditentry_export")),
        ("seals", reverse("admin:feeds_auditseal_changelist")),
        ("exports", reverse("admin:feeds_historyexport_changelist")),
        ("mails", reverse("admin:feeds_mail_changelist")),
        ("mail", reverse("admin:feeds_mail_change", args=[mail.pk])),
        ("failed-sign-ins", reverse("admin:feeds_signinlock_changelist")),
        ("people", reverse("admin:auth_user_change", args=[chief.pk])),
        ("second-factors", reverse("mfa_index")),
        ("password", reverse("admin:password_change")),
        ("no-such-page", "/no-such-page/"),
    ]


def test_a_person_chooses_french_and_finds_it_again_after_signing_in_anew(window: Window) -> None:
    UserFactory(username="robin", role=RELATIONSHIP_MANAGERS)
    staff = window()
    staff.sign_in("robin")
    staff.page.get_by_role("button", name="Français").click()
    expect(staff.page.get_by_role("heading", name="Accueil")).to_be_visible()
    staff.check("home-french")
    assert Preference.objects.get().language == "fr"
    elsewhere = window()
    elsewhere.sign_in("robin")
    expect(elsewhere.page.locator("html")).to_have_attribute("lang", "fr")
    elsewhere.page.get_by_role("button", name="English").press("Enter")
    expect(elsewhere.page.get_by_role("heading", name="Home")).to_be_visible()


def test_the_sign_in_page_speaks_french_before_anybody_is_known(window: Window) -> None:
    UserFactory(username="robin", role=RELATIONSHIP_MANAGERS)
    staff = window(width=400)
    staff.open(reverse("admin:login"))
    staff.page.get_by_role("button", name="Français").click()
    expect(staff.page.get_by_role("heading", name="Ouvrir une session")).to_be_visible()
    staff.check("sign-in-french")
    staff.page.locator("[name=username]").fill("robin")
    staff.page.locator("[name=password]").fill(PASSWORD)
    staff.page.keyboard.press("Enter")
    expect(staff.page.get_by_role("heading", name="Accueil")).to_be_visible()


@pytest.mark.looks
def test_every_screen_has_room_for_french_wide_and_narrow(window: Window, bank: list[tuple[str, str]]) -> None:
    staff = window()
    staff.sign_in("chief")
    staff.page.get_by_role("button", name="Français").click()
    for name, address in bank:
        staff.open(address)
        expect(staff.page.locator("html")).to_have_attribute("lang", "fr")
        if name == "no-such-page":
            staff.problems.clear()  # the browser reports the 404 itself
        staff.check(f"french-{name}")
        # Narrow screens are tried with axe in English: here it is the longer words that may not fit.
        staff.page.set_viewport_size({"width": 400, "height": 900})
        staff.check_width(f"french-{name}-narrow")
        staff.page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.looks
@pytest.mark.parametrize("width", [1280, 400], ids=["wide", "narrow"])
def test_the_pages_of_signing_in_speak_french(window: Window, transactional_db: None, width: int) -> None:
    UserFactory(username="robin", role=RELATIONSHIP_MANAGERS)
    staff = window(width=width)
    staff.sign_in("robin")
    add_app(staff)
    staff.open(reverse("admin:index"))
    staff.page.get_by_role("button", name="Français").click()
    for name in (
        "mfa_index",
        "mfa_deactivate_totp",
        "mfa_list_webauthn",
        "mfa_add_webauthn",
        "mfa_view_recovery_codes",
        "mfa_generate_recovery_codes",
        "account_logout",
        "account_reauthenticate",
        "mfa_reauthenticate",
    ):
        staff.open(reverse(name))
        expect(staff.page.locator("html")).to_have_attribute("lang", "fr")
        staff.check(f"french-{name}-{width}")
    staff.page.context.clear_cookies()
    staff.open("/admin/login/?ended=idle&ended=not_saved&next=/admin/feeds/")
    staff.page.get_by_role("button", name="Français").click()
    staff.page.locator("[name=login], [name=username]").first.fill("robin")
    staff.page.locator("[name=password]").fill("not the password")
    staff.page.keyboard.press("Enter")
    expect(staff.page.get_by_text("ne vont pas ensemble")).to_be_visible()
    staff.check(f"french-refused-{width}")
