"""One module per screen; `base`, `actions` and `timelines` hold what screens share."""

from feeds.admin import (
    access_grants,
    batches,
    cases,
    companies,
    connections,
    drift,
    history,
    incidents,
    operations,
    queue,
    source_accounts,
    status_events,
    users,
    webhooks,
)

__all__ = [
    "access_grants",
    "batches",
    "cases",
    "companies",
    "connections",
    "drift",
    "history",
    "incidents",
    "operations",
    "queue",
    "source_accounts",
    "status_events",
    "users",
    "webhooks",
]
