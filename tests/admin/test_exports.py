"""Taking the history out: the file says what it is, memory stays flat, and who took it stands in the history."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tracemalloc
import zipfile
from typing import Any

import pytest
from django.core.signals import request_finished
from django.db import close_old_connections
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext

from feeds import audit
from feeds.audit import Actor
from feeds.models import AuditEntry, HistoryExport
from feeds.services import exports, tables
from feeds.services.history import Search
from feeds.services.roles import ADMINISTRATORS, COMPLIANCE_AUDITORS, RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import ExportFormat, ExportState
from tests.factories import CompanyFactory, SourceAccountFactory, UserFactory

pytestmark = pytest.mark.django_db
EXPORT = "/admin/feeds/auditentry/export/"
WHY = "Asked for by the supervisor."


@pytest.fixture
def auditor() -> Client:
    """An auditor's browser."""
    client = Client()
    client.force_login(UserFactory(role=COMPLIANCE_AUDITORS, username="ada", first_name="Ada", last_name="Underhill"))
    return client


def taken(client: Client, query: str = "", *, format: str = "csv") -> zipfile.ZipFile:
    """The ZIP that the export page hands out."""
    answer = client.post(f"{EXPORT}?{query}", {"format": format, "reason": WHY}, REMOTE_ADDR="192.0.2.9")
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "application/zip"
    assert "no-store" in answer["Cache-Control"]
    return zipfile.ZipFile(io.BytesIO(answer.getvalue()))


def table(archive: zipfile.ZipFile, name: str = "history.csv") -> list[dict[str, str]]:
    """The rows of a CSV file in the ZIP."""
    return list(csv.DictReader(io.StringIO(archive.read(name).decode("utf-8-sig"))))


def manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """What the ZIP says about itself."""
    found: dict[str, Any] = json.loads(archive.read("manifest.json"))
    return found


def events(name: str = "history_exported") -> list[AuditEntry]:
    """What the history says about exports, oldest first."""
    return list(AuditEntry.objects.filter(event=name).order_by("pk"))


class TestTheFile:
    def test_it_holds_every_entry_that_the_search_finds_oldest_first(self, auditor: Client) -> None:
        companies = CompanyFactory.create_batch(3)
        SourceAccountFactory()
        archive = taken(auditor, "kind=feeds.company")
        rows = table(archive)
        assert [row["object_id"] for row in rows][:3] == [str(company.pk) for company in companies]
        assert {row["kind"] for row in rows} == {"company"}
        assert [int(row["id"]) for row in rows] == sorted(int(row["id"]) for row in rows)

    def test_a_row_says_who_when_from_where_what_and_why(self, auditor: Client) -> None:
        company = CompanyFactory(legal_name="Maple Bakery")
        actor = Actor(name="Rita Moreau", source="admin", reason="=cmd|' /C calc'!A0", remote_addr="192.0.2.7")
        with audit.acting(actor):
            company.legal_name = "Maple Mill"
            company.save()
        entry = AuditEntry.objects.get(action=AuditEntry.Action.UPDATE, actor_name="Rita Moreau")
        (row,) = table(taken(auditor, "action=update&kind=feeds.company"))
        assert row["at_utc"].startswith(f"{entry.timestamp:%Y-%m-%dT%H:%M:%S}")
        assert (row["who"], row["source"], row["ip"]) == ("Rita Moreau", "admin", "192.0.2.7")
        assert row["what"] == "Legal name: Maple Bakery → Maple Mill"
        assert json.loads(row["changes"]) == {"legal_name": ["Maple Bakery", "Maple Mill"]}
        assert row["reason"] == "'=cmd|' /C calc'!A0"

    def test_json_lines_keep_what_is_json_as_json(self, auditor: Client) -> None:
        company = CompanyFactory(legal_name="=Maple")
        audit.record("link_revealed", company, seconds=7)
        lines = taken(auditor, "kind=feeds.company", format="jsonl").read("history.jsonl").decode().splitlines()
        made, shown = (json.loads(line) for line in lines)
        assert made["changes"]["legal_name"][1] == "=Maple"
        assert (shown["event"], shown["details"]) == ("link_revealed", {"seconds": 7})
        assert list(made) == list(exports.COLUMNS)

    def test_account_numbers_are_masked(self, auditor: Client) -> None:
        SourceAccountFactory(account_number="900417733218")
        archive = taken(auditor)
        everything = b"".join(archive.read(name) for name in archive.namelist()).decode()
        assert "••••3218" in everything
        assert "900417733218" not in everything

    def test_the_manifest_says_what_was_asked_for_by_whom_and_what_came(self, auditor: Client) -> None:
        CompanyFactory.create_batch(2)
        archive = taken(auditor, "kind=feeds.company&action=create")
        told = manifest(archive)
        assert told["what"] == "History export"
        assert (told["made_by"], told["reason"]) == ("Ada Underhill", WHY)
        assert told["filters"] == {"kind": "feeds.company", "action": "create"}
        assert told["filters_in_words"] == "Kind of object: Company; Action: created"
        rows = table(archive)
        assert (told["rows"], told["first_entry"], told["last_entry"]) == (2, int(rows[0]["id"]), int(rows[1]["id"]))
        data = archive.read("history.csv")
        assert told["files"] == [
            {"name": "history.csv", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        ]
        assert told["last_seal"] is None
        assert any("apostrophe" in note for note in told["notes"])

    def test_a_search_that_finds_nothing_gives_an_empty_file_that_says_so(self, auditor: Client) -> None:
        archive = taken(auditor, "customer=C-404")
        assert table(archive) == []
        assert manifest(archive)["rows"] == 0

    def test_what_happens_while_it_is_sent_is_not_in_it(self, auditor: Client) -> None:
        CompanyFactory()
        answer = auditor.post(EXPORT, {"format": "csv", "reason": WHY})
        pieces = iter(answer)
        first = next(pieces)
        CompanyFactory(legal_name="Too late Inc.")
        archive = zipfile.ZipFile(io.BytesIO(first + b"".join(pieces)))
        assert b"Too late" not in archive.read("history.csv")


class TestTheRecord:
    def test_it_stands_in_the_history_before_the_first_byte_and_after_the_last(self, auditor: Client) -> None:
        CompanyFactory()
        answer = auditor.post(f"{EXPORT}?kind=feeds.company", {"format": "csv", "reason": WHY}, REMOTE_ADDR="192.0.2.9")
        (started,) = events()
        assert started.additional_data["stage"] == "started"
        assert started.additional_data["asked_for"] == "Kind of object: Company"
        assert HistoryExport.objects.get().state == ExportState.RUNNING
        data = zipfile.ZipFile(io.BytesIO(answer.getvalue())).read("history.csv")
        _started, completed = events()
        digest = hashlib.sha256(data).hexdigest()
        assert completed.additional_data["stage"] == "completed"
        assert (completed.additional_data["rows"], completed.additional_data["sha256"]) == (1, digest)
        for entry in (started, completed):
            assert (entry.actor_name, entry.source, entry.reason) == ("Ada Underhill", "admin", WHY)
            assert entry.remote_addr == "192.0.2.9"
        assert completed.cid == started.cid is not None
        kept = HistoryExport.objects.get()
        assert (kept.state, kept.rows, kept.sha256) == (ExportState.DONE, 1, digest)

    def test_one_that_the_reader_broke_off_halfway_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "CHUNK", 1)
        CompanyFactory.create_batch(3)
        delivery = exports.export(Search(), ExportFormat.CSV, actor=audit.SYSTEM, reason=WHY)
        next(delivery.content)
        delivery.content.close()  # type: ignore[attr-defined]  # as a server does
        assert [entry.additional_data["stage"] for entry in events()] == ["started", "broken_off"]

    def test_of_one_that_is_broken_off_it_says_how_many_rows_may_have_left(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tables, "CHUNK", 1)
        CompanyFactory.create_batch(300)
        delivery = exports.export(Search(), ExportFormat.CSV, actor=audit.SYSTEM, reason=WHY)
        sent = 0
        while sent < 2000:
            sent += len(next(delivery.content))
        delivery.content.close()  # type: ignore[attr-defined]  # as a server does
        assert 0 < HistoryExport.objects.get().rows == events()[-1].additional_data["rows"] < 300

    def test_one_that_the_reader_never_began_to_read_is_seen(self, auditor: Client) -> None:
        CompanyFactory()
        answer = auditor.post(EXPORT, {"format": "csv", "reason": WHY})
        # The test's own connection must outlive the request.
        request_finished.disconnect(close_old_connections)
        answer.close()
        request_finished.connect(close_old_connections)
        started, broken = events()
        assert (started.additional_data["stage"], broken.additional_data["stage"]) == ("started", "broken_off")
        assert HistoryExport.objects.get().state == ExportState.BROKEN

    def test_one_that_failed_on_our_side_is_seen_too(self, auditor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_arguments: object) -> None:
            raise RuntimeError("the disk is gone")

        answer = auditor.post(EXPORT, {"format": "csv", "reason": WHY})
        monkeypatch.setattr(exports, "row_of", fail)
        with pytest.raises(RuntimeError):
            answer.getvalue()
        assert [entry.additional_data["stage"] for entry in events()] == ["started", "broken_off"]

    def test_the_list_of_exports_says_who_took_what(self, auditor: Client) -> None:
        CompanyFactory()
        taken(auditor, "kind=feeds.company")
        page = auditor.get("/admin/feeds/historyexport/").content.decode()
        assert "Ada Underhill" in page
        assert "Kind of object: Company" in page
        assert "Complete" in page
        page = auditor.get(f"/admin/feeds/historyexport/{HistoryExport.objects.get().pk}/change/").content.decode()
        assert WHY in page
        assert "The last byte was handed over." in page


class TestAsking:
    def test_the_page_says_what_will_be_taken_and_does_nothing(self, auditor: Client) -> None:
        page = auditor.get(f"{EXPORT}?kind=feeds.company").content.decode()
        assert "Kind of object" in page
        assert "<dd>Company</dd>" in page
        assert "No filter is set" not in page
        assert "No filter is set: the whole history is taken out." in auditor.get(EXPORT).content.decode()
        assert not HistoryExport.objects.exists()
        assert events() == []

    @pytest.mark.parametrize("data", [{"format": "csv"}, {"format": "xls", "reason": WHY}, {"reason": WHY}, {}])
    def test_without_a_reason_or_a_format_nothing_is_taken(self, data: dict[str, str], auditor: Client) -> None:
        answer = auditor.post(EXPORT, data)
        assert "Please correct the error below." in answer.content.decode()
        assert not HistoryExport.objects.exists()

    def test_a_search_with_a_mistake_is_not_exported(self, auditor: Client) -> None:
        answer = auditor.post(f"{EXPORT}?key=7", {"format": "csv", "reason": WHY}, follow=True)
        assert "Nothing was exported: the search has a mistake. Correct it first." in answer.content.decode()
        assert not HistoryExport.objects.exists()

    @pytest.mark.parametrize("role", [RELATIONSHIP_MANAGERS, SUPPORT, ADMINISTRATORS])
    def test_only_auditors_export(self, role: str) -> None:
        client = Client()
        client.force_login(UserFactory(role=role))
        assert client.get(EXPORT).status_code == 403
        assert client.post(EXPORT, {"format": "csv", "reason": WHY}).status_code == 403
        if role == ADMINISTRATORS:
            assert "Export everything" not in client.get("/admin/feeds/auditentry/").content.decode()
        assert not HistoryExport.objects.exists()

    def test_the_right_to_export_is_not_enough_without_the_right_to_read(self) -> None:
        client = Client()
        client.force_login(UserFactory(permissions=["feeds.export_history"]))
        assert client.get(EXPORT).status_code == 403

    def test_the_list_offers_what_was_found(self, auditor: Client) -> None:
        CompanyFactory()
        page = auditor.get("/admin/feeds/auditentry/?kind=feeds.company").content.decode()
        assert f'href="{EXPORT}?kind=feeds.company"' in page


class TestSize:
    def test_queries_follow_the_number_of_entries_by_the_thousand(
        self, auditor: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "READ_AT_ONCE", 10)
        CompanyFactory.create_batch(10)
        with CaptureQueriesContext(database) as few:
            taken(auditor, "kind=feeds.company")
        CompanyFactory.create_batch(30)
        with CaptureQueriesContext(database) as many:
            taken(auditor, "kind=feeds.company")
        assert len(many) - len(few) == 6  # for each ten more: the entries, and the names of their customers

    def test_memory_does_not_grow_with_the_number_of_entries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        CompanyFactory()
        template = AuditEntry.objects.filter(content_type__model="company").get()

        def peak(entries: int) -> int:
            copies = (
                AuditEntry(
                    content_type_id=template.content_type_id,
                    object_pk=template.object_pk,
                    object_repr=template.object_repr,
                    action=template.action,
                    changes={**template.changes, "notes": ["", f"{number} " * 40]},
                )
                for number in range(entries)
            )
            AuditEntry.objects.bulk_create(copies, batch_size=500)
            delivery = exports.export(Search(), ExportFormat.CSV, actor=audit.SYSTEM, reason="measured")
            tracemalloc.start()
            sent = sum(map(len, delivery.content))
            reached = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert sent
            return reached

        monkeypatch.setattr(exports, "READ_AT_ONCE", 100)
        monkeypatch.setattr(tables, "CHUNK", 50)
        few, many = peak(300), peak(1500)
        assert many < 1.3 * few
