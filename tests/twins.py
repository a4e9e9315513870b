"""The statuses as our mirror has them and as the stand-in has them, in one shape: to be compared."""

from __future__ import annotations

from typing import Any

import requests

from feeds.models import Connection, SourceAccount
from tests.sandbox_process import SandboxProcess

Statuses = dict[str, tuple[str, dict[str, str]]]
"""Connection id -> its status, and account id -> status of its accounts. What is gone is not in it."""


def here() -> Statuses:
    """What the mirror says."""
    found: Statuses = {}
    for connection in Connection.objects.filter(gone_at__isnull=True):
        accounts = SourceAccount.objects.filter(connection=connection, gone_at__isnull=True)
        found[connection.codat_id] = (connection.status, dict(accounts.values_list("account_id", "status")))
    return found


def there(codat: SandboxProcess) -> Statuses:
    """What the stand-in says, by its API."""
    found: Statuses = {}
    with requests.Session() as session:
        session.headers.update(codat.authorization)
        for company in _get(session, f"{codat.url}/companies?pageSize=5000")["results"]:
            for connection in company["dataConnections"]:
                path = f"/companies/{company['id']}/connections/{connection['id']}/connectionInfo/bankFeedAccounts"
                accounts = _get(session, codat.url + path)
                found[connection["id"]] = (connection["status"], {it["id"]: it["status"] for it in accounts})
    return found


def _get(session: requests.Session, url: str) -> Any:
    answer = session.get(url, timeout=60)
    answer.raise_for_status()
    return answer.json()
