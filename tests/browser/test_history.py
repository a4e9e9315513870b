"""An auditor at work in a real browser: search, difference, past, verification, export, evidence; axe finds nothing."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Download, expect

from feeds import audit
from feeds.audit import Actor
from feeds.models import AuditEntry, Company, HistoryExport
from feeds.services import seals
from feeds.states import ExportState
from tests.browser.conftest import Screens
from tests.factories import CaseFactory, OperationFactory, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def company(transactional_db: None) -> Company:
    """A customer with a history of two people and a worker, sealed."""
    UserFactory(username="ada", first_name="Ada", last_name="Underhill", role="Compliance auditors")
    rosa = UserFactory(username="rosa", first_name="Rosa", last_name="Marchetti")
    case = CaseFactory(connection__company__legal_name="Harbor Light Bicycles LLC")
    company: Company = case.company
    with audit.acting(Actor.person(rosa, source="admin", remote_addr="192.0.2.7")):
        company.legal_name, company.notes, company.manager = "Harbor Light Cycles LLC", "Calls on Mondays.", rosa
        company.save()
        audit.record("link_revealed", case.connection, reason="The customer asked on the telephone.")
    with audit.acting(Actor.service("worker")):
        OperationFactory(company=company, reason="They moved banks.")
        company.language = "fr"
        company.save()
    seals.seal()
    return company


def unpacked(download: Download) -> zipfile.ZipFile:
    """The ZIP that the browser saved."""
    return zipfile.ZipFile(io.BytesIO(Path(download.path()).read_bytes()))


def test_an_auditor_searches_reads_a_difference_and_exports_what_was_found(
    company: Company, window: Callable[..., Screens]
) -> None:
    screens = window()
    screens.sign_in("ada")
    page = screens.page
    page.get_by_role("link", name="Change history", exact=True).first.click()
    expect(page.get_by_role("heading", name="Everything, newest first")).to_be_visible()
    screens.check("history-list")

    page.get_by_label("Person").fill("rosa")
    page.get_by_label("Customer").fill("Harbor")
    page.get_by_label("Action").select_option("update")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("heading", name="Found")).to_be_visible()
    page.get_by_role("link", name="7 days").click()
    rows = page.locator(".history-table tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("Harbor Light Bicycles LLC")
    screens.check("history-found")
    shared = page.url

    rows.first.get_by_role("rowheader").get_by_role("link").click()
    expect(page.get_by_role("heading", name="What changed")).to_be_visible()
    expect(page.get_by_role("row", name="Relationship manager")).to_contain_text("Rosa Marchetti")
    screens.check("history-difference")

    page.goto(shared)
    page.get_by_role("link", name="Export what was found").click()
    expect(page.get_by_role("heading", name="What will be taken out")).to_be_visible()
    screens.check("history-export")
    page.get_by_label("Reason").fill("Asked for by the supervisor.")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Export", exact=True).click()
    archive = unpacked(downloading.value)
    (row,) = csv.DictReader(io.StringIO(archive.read("history.csv").decode("utf-8-sig")))
    assert "Legal name: Harbor Light Bicycles LLC → Harbor Light Cycles LLC" in row["what"]
    told = json.loads(archive.read("manifest.json"))
    assert (told["rows"], told["made_by"]) == (1, "Ada Underhill")
    assert told["last_seal"]["number"] == 1

    screens.open("/admin/feeds/historyexport/")
    expect(page.get_by_role("cell", name="Ada Underhill")).to_be_visible()
    expect(page.get_by_text("Complete", exact=True).first).to_be_visible()
    screens.check("history-exports")
    assert HistoryExport.objects.get().state == ExportState.DONE
    stages = [entry.additional_data["stage"] for entry in AuditEntry.objects.filter(event="history_exported")]
    assert stages == ["completed", "started"]


def test_an_auditor_reads_a_customers_story_its_past_and_makes_an_evidence_pack(
    company: Company, window: Callable[..., Screens]
) -> None:
    screens = window()
    screens.sign_in("ada")
    page = screens.page
    screens.open(reverse("admin:feeds_company_change", args=[company.pk]))
    page.get_by_role("link", name="History", exact=True).click()
    expect(page.get_by_role("link", name="Everything about the customer")).to_have_attribute("aria-current", "page")
    expect(page.locator(".history-table")).to_contain_text("Link revealed")
    screens.check("history-story")

    page.get_by_role("link", name="State on a past day").click()
    expect(page.get_by_role("heading", name="As it was")).to_be_visible()
    screens.check("history-state")
    yesterday = (timezone.localdate() - timedelta(days=1)).isoformat()
    page.get_by_label("compared with the end of").fill(yesterday)
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", name="Two days compared")).to_be_visible()
    screens.check("history-compared")

    screens.open(reverse("admin:feeds_company_change", args=[company.pk]))
    page.get_by_role("link", name="Evidence pack").click()
    screens.check("history-evidence")
    page.get_by_label("Reason").fill("Dispute about a feed.")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Make evidence pack").click()
    archive = unpacked(downloading.value)
    assert archive.testzip() is None
    assert "Harbor Light Cycles LLC" in archive.read("index.html").decode()


def test_an_auditor_verifies_the_history(company: Company, window: Callable[..., Screens]) -> None:
    screens = window()
    screens.sign_in("ada")
    page = screens.page
    page.get_by_role("link", name="Seals", exact=True).first.click()
    expect(page.get_by_text("Nobody has verified the history here yet.")).to_be_visible()
    screens.check("history-seals-before")
    page.get_by_role("button", name="Verify now").click()
    expect(page.get_by_text("Verified: nothing was altered.")).to_be_visible()
    screens.check("history-seals")


@pytest.mark.looks
@pytest.mark.parametrize("options", [{"width": 400}, {"color_scheme": "dark"}], ids=["telephone", "dark"])
def test_the_pages_are_accessible_on_a_telephone_and_in_the_dark(
    options: dict[str, object], company: Company, window: Callable[..., Screens]
) -> None:
    screens = window(**options)
    screens.sign_in("ada")
    entry = AuditEntry.objects.filter(action=AuditEntry.Action.UPDATE, object_pk=str(company.pk)).first()
    today = timezone.localdate().isoformat()
    state = reverse("admin:feeds_auditentry_state", args=["feeds.company", str(company.pk)])
    pages = {
        "list": reverse("admin:feeds_auditentry_changelist"),
        "mistake": f"{reverse('admin:feeds_auditentry_changelist')}?key=7",
        "entry": reverse("admin:feeds_auditentry_change", args=[entry.pk]),
        "story": reverse("admin:feeds_auditentry_story", args=["feeds.company", str(company.pk)]),
        "state": f"{state}?day={today}",
        "seals": reverse("admin:feeds_auditseal_changelist"),
        "export": reverse("admin:feeds_auditentry_export"),
        "evidence": reverse("admin:feeds_evidence", args=[company.pk]),
    }
    for name, url in pages.items():
        screens.open(url)
        screens.check(f"history-{name}-{'-'.join(options)}")
