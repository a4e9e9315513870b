"""One module per screen; `base` and `actions` hold what screens share."""

from feeds.admin import connections, history, operations, queue, source_accounts, users

__all__ = ["connections", "history", "operations", "queue", "source_accounts", "users"]
