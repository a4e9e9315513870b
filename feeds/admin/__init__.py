"""One module per screen; `base`, `actions` and `timelines` hold what screens share."""

from feeds.admin import (
    batches,
    cases,
    companies,
    connections,
    drift,
    history,
    incidents,
    operations,
    queue,
    seals,
    source_accounts,
    status_events,
    users,
    webhooks,
)

__all__ = [
    "batches",
    "cases",
    "companies",
    "connections",
    "drift",
    "history",
    "incidents",
    "operations",
    "queue",
    "seals",
    "source_accounts",
    "status_events",
    "users",
    "webhooks",
]
