"""The page of the seals: verified at a button, by the queue when it is long, and what was altered is named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds.models import AuditEntry, AuditSeal, AuditSealDelivery, HistoryCheck
from feeds.services import history_checks, seal_delivery, seals
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import CheckState
from tests.factories import CompanyFactory, UserFactory
from tests.history import unguarded
from tests.services.test_seals import close

pytestmark = pytest.mark.django_db
LIST = "/admin/feeds/auditseal/"
VERIFY = "/admin/feeds/auditseal/verify/"
Drain = Callable[[], int]


@pytest.fixture
def auditor() -> Client:
    """An auditor's browser."""
    client = Client()
    client.force_login(UserFactory(role=COMPLIANCE_AUDITORS, first_name="Ada", last_name="Underhill"))
    return client


@pytest.fixture
def sealed(db: None) -> AuditSeal:
    """Two seals; returns the second."""
    CompanyFactory()
    seals.seal()
    CompanyFactory()
    seals.seal()
    seal: AuditSeal = AuditSeal.objects.first()
    return seal


def pressed(client: Client) -> str:
    """The page after Verify was pressed."""
    return client.post(VERIFY, follow=True).content.decode()


def tamper(entry_id: int) -> None:
    """What only the owner of the tables can do."""
    with unguarded():
        AuditEntry.objects.filter(pk=entry_id).update(actor_name="nobody")


def test_an_intact_history_is_verified_and_the_result_says_as_of_when_by_whom_and_how_much(
    auditor: Client, sealed: AuditSeal
) -> None:
    page = pressed(auditor)
    assert "Verified: nothing was altered." in page
    check = HistoryCheck.objects.get()
    assert (check.state, check.seals, check.first_bad_seal, check.problems) == (CheckState.INTACT, 2, None, [])
    assert check.entries == sum(AuditSeal.objects.values_list("entries", flat=True))
    for words in ("Intact", "as of <time", "Ada Underhill", sealed.sha256):
        assert words in page


def test_an_altered_entry_is_found_and_its_batch_named(auditor: Client, sealed: AuditSeal) -> None:
    tamper(sealed.last_entry)
    page = pressed(auditor)
    assert "The history was altered. What was found stands below." in page
    check = HistoryCheck.objects.get()
    assert (check.state, check.first_bad_seal) == (CheckState.ALTERED, 2)
    assert "First bad batch" in page
    assert "Batch 2 (entries" in page


def test_that_it_was_asked_for_and_what_was_found_is_history(auditor: Client, sealed: AuditSeal) -> None:
    tamper(sealed.last_entry)
    pressed(auditor)
    asked, ended = AuditEntry.objects.filter(event__startswith="history_verif").order_by("pk")
    assert (asked.event, ended.event) == ("history_verification_asked", "history_verified")
    assert {asked.actor_name, ended.actor_name} == {"Ada Underhill"}
    assert ended.additional_data["result"] == "altered"
    assert ended.additional_data["first_bad_seal"] == 2


def test_a_long_history_is_verified_by_the_queue(
    auditor: Client, sealed: AuditSeal, monkeypatch: pytest.MonkeyPatch, drain_queue: Drain
) -> None:
    monkeypatch.setattr(history_checks, "SHORT", 1)
    page = pressed(auditor)
    assert "The verification has started. Reload this page for its result." in page
    assert "Verify now" not in page
    assert HistoryCheck.objects.get().state == CheckState.QUEUED
    drain_queue()
    page = auditor.get(LIST).content.decode()
    assert "Intact" in page
    assert "Verify now" in page


def test_what_takes_longer_than_a_task_may_is_verified_in_parts(
    auditor: Client, sealed: AuditSeal, monkeypatch: pytest.MonkeyPatch, drain_queue: Drain
) -> None:
    CompanyFactory()
    seals.seal()
    tamper(sealed.last_entry)
    monkeypatch.setattr(history_checks, "BUDGET", 0.0)
    page = pressed(auditor)
    assert "The verification has started." in page
    assert f"1 seals, {AuditSeal.objects.get(number=1).entries} entries" in page
    assert "Verify now" not in page
    assert drain_queue() == 2
    check = HistoryCheck.objects.get()
    assert (check.state, check.seals, check.first_bad_seal) == (CheckState.ALTERED, 3, 2)
    assert check.entries == sum(AuditSeal.objects.values_list("entries", flat=True))
    assert check.last_seal_sha256 == AuditSeal.objects.get(number=3).sha256
    assert [problem[:7] for problem in check.problems] == ["Batch 2"]
    assert AuditEntry.objects.filter(event="history_verified").count() == 1


def test_a_part_whose_worker_was_stopped_is_begun_again_by_the_queue(
    sealed: AuditSeal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_checks, "BUDGET", 0.0)
    check = HistoryCheck.objects.create(requested_by_name="Ada", asked_at=timezone.now())
    assert history_checks.run(check.pk) == "1 seals so far"
    HistoryCheck.objects.update(started_at=timezone.now())
    assert history_checks.run(check.pk) == "done already"
    HistoryCheck.objects.update(started_at=timezone.now() - timedelta(minutes=5))
    assert history_checks.run(check.pk) == CheckState.INTACT
    check.refresh_from_db()
    assert check.seals == 2


def test_a_seal_taken_away_between_two_parts_is_missed(
    sealed: AuditSeal, monkeypatch: pytest.MonkeyPatch, drain_queue: Drain
) -> None:
    monkeypatch.setattr(history_checks, "BUDGET", 0.0)
    check = HistoryCheck.objects.create(requested_by_name="Ada", asked_at=timezone.now())
    history_checks.run(check.pk)
    with unguarded():
        AuditSeal.objects.filter(number=1).delete()
    drain_queue()
    check.refresh_from_db()
    assert (check.state, check.first_bad_seal) == (CheckState.ALTERED, 1)


def test_two_at_once_are_refused(auditor: Client, sealed: AuditSeal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_checks, "SHORT", 1)
    pressed(auditor)
    assert "A verification is under way already. Its result will stand here." in pressed(auditor)
    assert HistoryCheck.objects.count() == 1


def test_one_whose_worker_was_stopped_is_given_up_for_the_next(auditor: Client, sealed: AuditSeal) -> None:
    long_ago = timezone.now() - timedelta(hours=1)
    lost = HistoryCheck.objects.create(requested_by_name="Ada", asked_at=long_ago, started_at=long_ago)
    assert "Its worker was stopped" in auditor.get(LIST).content.decode()
    pressed(auditor)
    lost.refresh_from_db()
    assert lost.state == CheckState.FAILED
    assert HistoryCheck.objects.first().state == CheckState.INTACT


def test_a_fault_while_verifying_is_a_result_too(
    auditor: Client, sealed: AuditSeal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_options: object) -> None:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(seals, "verify", fail)
    assert "The verification stopped before its end: nothing is known. Try again." in pressed(auditor)
    assert HistoryCheck.objects.get().state == CheckState.FAILED


def test_a_result_is_not_computed_twice(sealed: AuditSeal) -> None:
    check = HistoryCheck.objects.create(requested_by_name="Ada", asked_at=timezone.now())
    assert history_checks.run(check.pk) == CheckState.INTACT
    assert history_checks.run(check.pk) == "done already"
    assert AuditEntry.objects.filter(event="history_verified").count() == 1


def test_the_list_says_where_each_seal_was_sent(auditor: Client, sealed: AuditSeal) -> None:
    AuditSealDelivery.objects.create(
        seal=sealed, destination="mailto:board@bank.example", state="failed", error="refused"
    )
    page = auditor.get(LIST).content.decode()
    assert "mailto:board@bank.example" in page
    assert "Failed" in page
    assert sealed.sha256[:12] in page
    page = auditor.get(f"{LIST}{sealed.pk}/change/").content.decode()
    assert sealed.sha256 in page
    assert sealed.previous_sha256 in page


def test_a_file_of_seals_that_cannot_be_read_from_here_is_named_and_no_fault(
    auditor: Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AUDIT_SEAL_TO = [f"file://{tmp_path / 'seals.jsonl'}"]
    CompanyFactory()
    seals.seal()
    seal_delivery.send_due()
    close(tmp_path / "seals.jsonl", monkeypatch)
    page = pressed(auditor)
    assert HistoryCheck.objects.get().state == CheckState.INTACT
    assert f"The seals in {tmp_path / 'seals.jsonl'} cannot be read from here and are not compared" in page


def test_what_is_not_sealed_yet_is_said(auditor: Client) -> None:
    company = CompanyFactory()
    assert company.pk
    assert "have no seal yet: the next run seals them." in auditor.get(LIST).content.decode()


@pytest.mark.parametrize("role", [RELATIONSHIP_MANAGERS, SUPPORT, ADMINISTRATORS])
def test_auditors_and_administrators_verify_and_nobody_else(role: str, sealed: AuditSeal) -> None:
    client = Client()
    client.force_login(UserFactory(role=role))
    expected = role == ADMINISTRATORS
    assert client.post(VERIFY).status_code == (302 if expected else 403)
    assert HistoryCheck.objects.exists() is expected


def test_without_the_right_to_verify_the_button_is_hidden_and_refused(sealed: AuditSeal) -> None:
    client = Client()
    client.force_login(UserFactory(permissions=["feeds.view_auditseal"]))
    assert "Verify now" not in client.get(LIST).content.decode()
    assert client.post(VERIFY).status_code == 403


def test_looking_does_not_verify(auditor: Client, sealed: AuditSeal) -> None:
    assert auditor.get(VERIFY).status_code == 405
    assert not HistoryCheck.objects.exists()


def test_a_manifest_names_the_last_seal(auditor: Client, sealed: AuditSeal) -> None:
    from tests.admin.test_exports import manifest, taken

    told = manifest(taken(auditor))["last_seal"]
    assert (told["number"], told["sha256"], told["last_entry"]) == (2, sealed.sha256, sealed.last_entry)
