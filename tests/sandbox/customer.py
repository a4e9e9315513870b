"""What tests of the stand-in share: a caller with the API key, one customer's objects, and that customer's browser."""

from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import requests

from tests.sandbox_process import SandboxProcess

ACCOUNTS = "/companies/{id}/connections/{id}/connectionInfo/bankFeedAccounts"


class Customer:
    """One company with one connection and, once added, source accounts; ``call`` sends any request with the key.

    Args:
        sandbox: The stand-in.
        accounts: Ids of the source accounts to add.
    """

    def __init__(self, sandbox: SandboxProcess, *accounts: str, name: str = "Maple Dental Ltd") -> None:
        self.sandbox = sandbox
        self.company: dict[str, Any] = call(sandbox, "POST", "/companies", {"name": name}).json()
        self.company_path = f"/companies/{self.company['id']}"
        answer = call(sandbox, "POST", f"{self.company_path}/connections", {"platformKey": "hcws"})
        self.connection: dict[str, Any] = answer.json()
        self.connection_path = f"{self.company_path}/connections/{self.connection['id']}"
        self.accounts_path = f"{self.connection_path}/connectionInfo/bankFeedAccounts"
        if accounts:
            self.call("POST", f"{self.accounts_path}/batch", [account(name) for name in accounts])

    @property
    def ids(self) -> dict[str, str]:
        """The ids as control endpoints take them."""
        return {"companyId": self.company["id"], "connectionId": self.connection["id"]}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        """Send one request with the API key."""
        return call(self.sandbox, method, path, body, **headers)

    def link(self) -> str:
        """Return a fresh link, by listing the connections."""
        link: str = self.call("GET", f"{self.company_path}/connections").json()["results"][0]["linkUrl"]
        return link

    def connect(self, **fields: Any) -> None:
        """Finish in QuickBooks."""
        self.sandbox.connect(self.company["id"], self.connection["id"], **fields)

    def statuses(self) -> tuple[str, list[str]]:
        """Return the status of the connection and of its accounts, in order."""
        accounts = self.call("GET", self.accounts_path).json()
        return self.call("GET", self.connection_path).json()["status"], [item["status"] for item in accounts]


def call(sandbox: SandboxProcess, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
    """Send one request with the API key; header names are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(
        method, sandbox.url + path, json=body, headers={**sandbox.authorization, **named}, timeout=30
    )


def account(account_id: str, **changes: Any) -> dict[str, Any]:
    """Return a source account in today's shape (v2)."""
    return {
        "id": account_id,
        "accountName": f"Operating {account_id}",
        "accountType": "checking",
        "accountNumber": "0001234567",
        "currency": "USD",
        "balance": 0,
        "routingInfo": {"bankCode": "021000021", "type": "aba"},
        **changes,
    }


def guide_account(account_id: str, **changes: Any) -> dict[str, Any]:
    """Return a source account in the guide's shape (v1)."""
    return {
        "id": account_id,
        "accountName": "Business credit",
        "accountType": "Credit",
        "accountNumber": "12345678",
        "sortCode": "040004",
        "currency": "CAD",
        "balance": 99.99,
        **changes,
    }


class Form(HTMLParser):
    """The one form of a page: its action and the values a browser would send."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__()
        self.action = ""
        self.values: dict[str, list[str]] = {}
        self.feed(answer.text)
        self.action = urljoin(answer.url, self.action)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember the form and its fields."""
        found = dict(attrs)
        if tag == "form":
            self.action = found["action"] or ""
        if tag == "input" and (found.get("type") != "checkbox" or "checked" in found):
            self.values.setdefault(str(found["name"]), []).append(found.get("value") or "")

    def submit(self, **changes: object) -> requests.Response:
        """Send it, with `changes` in place of what it holds."""
        return requests.post(self.action, {**self.values, **changes}, timeout=10)


def visit(link: str) -> requests.Response:
    """Open a page as a browser without scripts would."""
    return requests.get(link, timeout=10)


def connect_through(link: str, *, accounts: Sequence[str] | None = None) -> requests.Response:
    """Walk from the link to the last page: get credentials, sign in, connect `accounts` (None: all that are ticked)."""
    choice = Form(Form(Form(visit(link)).submit()).submit())
    return choice.submit() if accounts is None else choice.submit(account=list(accounts))
