"""One module per screen; `base` and `actions` hold what screens share."""

from feeds.admin import batches, companies, connections, history, operations, queue, source_accounts, users, webhooks

__all__ = [
    "batches",
    "companies",
    "connections",
    "history",
    "operations",
    "queue",
    "source_accounts",
    "users",
    "webhooks",
]
