"""The operations page in numbers, in the text format that Prometheus reads. The only importer of prometheus-client.

Everything is a gauge read from the database at the moment of the scrape, with a registry of its own: it does not matter
which of several web processes answers, and none counts what another counted already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from feeds.services import figures, operations_page
from feeds.services.operations_page import Snapshot
from feeds.states import OPEN_CASE_STATES, DriftKind

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "bankfeeds"

Value = float | datetime | None


def render() -> bytes:
    """The answer to a scrape, as `CONTENT_TYPE`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(operations_page.read(), figures.latest_connections()))
    return generate_latest(registry)


class _SnapshotCollector(Collector):
    """Tells one snapshot. What is not known is left out: Prometheus knows absence, and 0 would be a lie."""

    def __init__(self, snapshot: Snapshot, connections: dict[str, int]) -> None:
        self._snapshot = snapshot
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        """All gauges that have a value."""
        for name, meaning, value in _plain(self._snapshot):
            if value is not None:
                number = value.timestamp() if isinstance(value, datetime) else value
                yield GaugeMetricFamily(f"{PREFIX}_{name}", meaning, value=number)
        yield from self._labelled()

    def _labelled(self) -> Iterator[Metric]:
        now = self._snapshot
        yield _family(
            "operations",
            "Operations that need a look, by what is wrong with them.",
            "problem",
            [("unknown", now.operations_unknown.value), ("stuck", now.operations_stuck.value)],
        )
        yield _family(
            "open_cases",
            "Cases about broken feeds that are not closed, by state.",
            "state",
            [(state.value, now.cases.get(state, 0)) for state in OPEN_CASE_STATES],
        )
        yield _family(
            "mails",
            "Mails to staff that were not delivered, by state.",
            "state",
            [("failed", now.mails_failed.value), ("held", now.mails_held.value)],
        )
        yield _family(
            "connections",
            "Connections by Codat's status, as counted in the last hour.",
            "status",
            self._connections.items(),
        )
        if now.drift is not None:
            found = now.drift.findings
            yield _family(
                "drift_findings",
                "Differences of the latest comparison that nobody has settled, by kind.",
                "kind",
                [(kind.value, found.get(kind, 0)) for kind in DriftKind],
            )


def _plain(now: Snapshot) -> list[tuple[str, str, Value]]:
    """Name without prefix, help, value. An age is told as the time it is counted from: that does not go stale."""
    calls, inbox = now.budget, now.inbox
    return [
        ("worker_heartbeat_timestamp_seconds", "When a worker last proved that it is alive.", now.worker_beat),
        ("poll_timestamp_seconds", "When statuses were last read from Codat by schedule.", now.poll_beat),
        ("figures_timestamp_seconds", "When the daily figures were last written down.", now.figures_beat),
        ("queue_tasks", "Tasks that wait for a worker, counted up to a cap.", now.queue_waiting.value),
        ("queue_oldest_task_timestamp_seconds", "Since when the oldest waiting task waits.", now.queue_oldest),
        ("codat_calls_limit", "Calls a day that Codat allows.", calls.limit),
        ("codat_calls_remaining", "Calls left until the quota resets.", calls.remaining),
        ("codat_calls_reserve", "Calls kept for people.", None if calls.limit is None else calls.reserve),
        ("codat_quota_reset_timestamp_seconds", "When the quota resets.", calls.resets_at),
        ("codat_quota_read_timestamp_seconds", "When Codat last told its quota.", calls.read_at),
        ("readings_due", "Readings due before the quota resets, counted up to a cap.", now.readings_due.value),
        ("readings_postponed", "Readings that are due and wait for quota.", calls.postponed),
        ("webhook_received_timestamp_seconds", "When a webhook was last received.", inbox.last_received_at),
        (
            "webhook_oldest_unapplied_age_seconds",
            "Age of the oldest webhook that waits to be applied.",
            inbox.oldest_unapplied_seconds or 0.0,
        ),
        ("webhooks_failed", "Webhooks that could not be applied and wait for a person.", inbox.failed),
        ("webhooks_postponed", "Webhooks that wait for quota.", inbox.postponed),
        ("webhooks_badly_signed_today", "Webhooks refused today for their signature.", inbox.bad_signatures_today),
        ("webhooks_silent", "1 when no webhook comes although statuses change.", float(inbox.silent)),
        ("incidents_open", "1 while an incident is open.", float(now.incident is not None)),
        ("incident_cases", "Cases of the open incident.", now.incident_cases),
        (
            "drift_report_timestamp_seconds",
            "When Codat and the mirror were last compared to the end.",
            now.drift.report.finished_at if now.drift else None,
        ),
    ]


def _family(name: str, meaning: str, label: str, values: Iterable[tuple[str, int]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", meaning, labels=[label])
    for value_of_label, value in values:
        family.add_metric([value_of_label], value)
    return family
