"""Prometheus reads the system's health, with the token and in its own format; nobody else does."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection as database
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from pytest_django.fixtures import Settings

from feeds import queue
from feeds.models import Case, CodatQuota, DriftFinding, DriftReport, Heartbeat, Incident, WebhookEvent
from feeds.services import figures, health
from feeds.states import CaseState, DriftKind, OperationState
from tests.factories import ConnectionFactory, OperationFactory

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "an-invented-token-of-forty-characters-xx"


@pytest.fixture(autouse=True)
def _token(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN


def scrape(**headers: str) -> Any:
    """What a scraper is answered."""
    return Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"} | headers)


def samples() -> list[Sample]:
    """Everything that is told, as Prometheus' own parser reads it."""
    text = scrape().content.decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def told(name: str, **labels: str) -> float | None:
    """The value of one series; None when it is not told."""
    found = [sample.value for sample in samples() if sample.name == name and sample.labels == labels]
    assert len(found) <= 1
    return found[0] if found else None


class TestWhoMayRead:
    def test_without_a_configured_token_there_is_no_such_page(self) -> None:
        with override_settings(METRICS_TOKEN=""):
            assert scrape().status_code == 404
            assert scrape(Authorization="Bearer ").status_code == 404

    @pytest.mark.parametrize(
        "header", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"]
    )
    def test_a_wrong_token_is_refused(self, header: str) -> None:
        answer = scrape(Authorization=header)
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == "Bearer"
        assert b"bankfeeds" not in answer.content

    def test_being_signed_in_is_not_enough(self, admin_client: Client) -> None:
        assert admin_client.get("/metrics").status_code == 401

    def test_a_refusal_costs_no_query(self, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            scrape(Authorization="Bearer wrong")

    def test_it_is_only_read(self) -> None:
        answer = Client().post("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 405

    def test_plain_http_from_inside_is_not_redirected(self) -> None:
        with override_settings(SECURE_SSL_REDIRECT=True):
            assert scrape().status_code == 200
            assert Client().get("/admin/").status_code == 301


def test_the_answer_is_in_prometheus_own_format_and_never_cached() -> None:
    answer = scrape()
    assert answer["Content-Type"].startswith("text/plain; version=")
    assert "no-cache" in answer["Cache-Control"]
    families = list(text_string_to_metric_families(answer.content.decode()))
    assert len(families) >= 10
    for family in families:
        assert family.name.startswith("bankfeeds_")
        assert family.type == "gauge"
        assert family.documentation.endswith(".")


def test_what_is_not_known_is_left_out_instead_of_told_as_zero() -> None:
    for name in (
        "bankfeeds_worker_heartbeat_timestamp_seconds",
        "bankfeeds_codat_calls_remaining",
        "bankfeeds_drift_report_timestamp_seconds",
        "bankfeeds_queue_oldest_task_timestamp_seconds",
    ):
        assert told(name) is None
    assert told("bankfeeds_connections", status="Linked") is None
    assert told("bankfeeds_queue_tasks") == 0


def test_the_values_are_those_of_the_database() -> None:
    now = timezone.now()
    Heartbeat.objects.create(name=health.WORKER, beat_at=now - timedelta(seconds=90))
    CodatQuota.objects.create(limit=1000, remaining=400, resets_at=now + timedelta(hours=1), read_at=now)
    queue.enqueue(queue.HEARTBEAT)
    incident = Incident.objects.create(opened_at=now)
    for state in (CaseState.OPEN, CaseState.OPEN, CaseState.SNOOZED):
        connection = ConnectionFactory(status="Linked", poll_due_at=now)
        Case.objects.create(
            company=connection.company,
            connection=connection,
            incident=incident,
            state=state,
            opened_at=now,
            broke_at=now,
            due_at=now,
        )
    OperationFactory(state=OperationState.UNKNOWN)
    report = DriftReport.objects.create(started_at=now, finished_at=now)
    DriftFinding.objects.create(report=report, kind=DriftKind.RENAMED)
    figures.record_day()

    expected = {
        ("bankfeeds_worker_heartbeat_timestamp_seconds", ()): (now - timedelta(seconds=90)).timestamp(),
        ("bankfeeds_queue_tasks", ()): 1,
        ("bankfeeds_codat_calls_limit", ()): 1000,
        ("bankfeeds_codat_calls_remaining", ()): 400,
        ("bankfeeds_codat_calls_reserve", ()): 200,
        ("bankfeeds_readings_due", ()): 3,
        ("bankfeeds_open_cases", (("state", "open"),)): 2,
        ("bankfeeds_open_cases", (("state", "snoozed"),)): 1,
        ("bankfeeds_open_cases", (("state", "taken"),)): 0,
        ("bankfeeds_operations", (("problem", "unknown"),)): 1,
        ("bankfeeds_operations", (("problem", "stuck"),)): 0,
        ("bankfeeds_incidents_open", ()): 1,
        ("bankfeeds_incident_cases", ()): 3,
        ("bankfeeds_connections", (("status", "Linked"),)): 3,
        ("bankfeeds_connections", (("status", "other"),)): 0,
        ("bankfeeds_drift_findings", (("kind", "renamed"),)): 1,
        ("bankfeeds_drift_findings", (("kind", "status"),)): 0,
        ("bankfeeds_webhooks_silent", ()): 0,
    }
    found = {(sample.name, tuple(sample.labels.items())): sample.value for sample in samples()}
    assert {key: found.get(key) for key in expected} == expected


def test_no_series_is_told_twice_even_after_many_scrapes() -> None:
    for _ in range(3):
        scrape()
    keys = [(sample.name, tuple(sample.labels.items())) for sample in samples()]
    assert len(keys) == len(set(keys))


def test_a_scrape_takes_the_same_number_of_queries_however_many_rows_there_are() -> None:
    with CaptureQueriesContext(database) as few:
        scrape()
    for _ in range(20):
        OperationFactory(state=OperationState.UNKNOWN)
        ConnectionFactory(poll_due_at=timezone.now())
        queue.enqueue(queue.HEARTBEAT)
    with CaptureQueriesContext(database) as many:
        scrape()
    assert len(many) == len(few) <= 22


def test_the_probe_still_answers(client: Client) -> None:
    answer = client.get("/readyz")
    assert set(answer.json()) == {"ok", "database", "migrations", "worker", "queue", "ledger", "last_good_poll"}


def test_every_series_is_in_the_manual_and_the_other_way_round() -> None:
    now = timezone.now()
    for name in (health.WORKER, health.POLL, health.FIGURES):
        Heartbeat.objects.create(name=name, beat_at=now)
    CodatQuota.objects.create(limit=10, remaining=5, resets_at=now + timedelta(hours=1), read_at=now)
    DriftReport.objects.create(started_at=now, finished_at=now)
    WebhookEvent.objects.create(webhook_id="msg_1", event_type="connection.connected")
    queue.enqueue(queue.HEARTBEAT)
    figures.record_day()
    manual = (ROOT / "docs" / "operations.md").read_text()
    # "`bankfeeds_codat_calls_limit`, `_remaining`" names two series.
    for stem, tail in re.findall(r"`(bankfeeds_codat_calls)_limit`((?:, `_\w+`)+)", manual):
        manual += " ".join(stem + end for end in re.findall(r"_\w+", tail))
    assert {sample.name for sample in samples()} == set(re.findall(r"bankfeeds_\w+", manual))
