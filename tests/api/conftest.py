"""Keys, and a program that calls the API with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from feeds.audit import Actor
from feeds.services import api_keys
from feeds.services.api_keys import Made
from feeds.states import ApiScope

ADA = Actor(name="Ada Underhill", source="test")
SESSIONS = "/api/v1/connect-sessions"
MakeKey = Callable[..., Made]


class Program:
    """The bank's own application: speaks JSON, and sends its key with each call."""

    def __init__(self, token: str, *, address: str = "192.0.2.10") -> None:
        self.token = token
        self.address = address
        self.client = Client(enforce_csrf_checks=True)

    def post(self, body: Any, **headers: str) -> Any:
        """Ask for a customer's link."""
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.client.post(
            SESSIONS, content, content_type=headers.pop("content_type", "application/json"), **self._sent(headers)
        )

    def get(self, customer_number: str, **headers: str) -> Any:
        """Ask how far a customer is."""
        return self.client.get(f"{SESSIONS}/{customer_number}", **self._sent(headers))

    def _sent(self, headers: dict[str, str]) -> dict[str, Any]:
        return {"headers": {"Authorization": f"Bearer {self.token}", **headers}, "REMOTE_ADDR": self.address}


def customer(**values: Any) -> dict[str, Any]:
    """What a program says of a new customer."""
    return {
        "legal_name": "Juniper Hill Bakery Inc.",
        "contact_name": "Alex Doe",
        "contact_email": "alex@juniper.example",
        "country": "US",
        "language": "en",
        "accounts": [
            {
                "account_name": "Operating",
                "account_type": "checking",
                "account_number": "000410099871",
                "routing_type": "aba",
                "bank_code": "325990015",
                "currency": "USD",
                "balance": "1250.00",
                "account_open_date": "2020-03-11",
            }
        ],
        **values,
    }


def request_for(number: str = "SB-2001", **values: Any) -> dict[str, Any]:
    """A whole request."""
    return {"customer_number": number, "customer": customer(**values)}


@pytest.fixture
def make_key(db: None) -> MakeKey:
    """Makes keys that may do everything, unless said otherwise."""

    def make(**values: Any) -> Made:
        return api_keys.make(
            **{"name": "Portal", "scopes": ApiScope.values, "manager": None, "days": 30, "actor": ADA} | values
        )

    return make


@pytest.fixture
def program(make_key: MakeKey) -> Program:
    """A program whose key may do everything."""
    return Program(make_key().token)
