"""Connect sessions: from a customer number to a connected customer, and every reason why not."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import requests
from django.test import Client

from feeds.models import Company, Invitation
from feeds.services import sync
from tests.api.conftest import ADA, Program, request_for
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db


def test_a_customer_comes_from_nothing_to_connected_without_staff(
    program: Program, client: Client, codat: SandboxProcess, drain_queue: Callable[[], int]
) -> None:
    answer = program.post(request_for())
    assert answer.status_code == 201, answer.content
    opened = answer.json()
    assert opened["state"] == "preparing"
    drain_queue()
    assert program.get("SB-2001").json()["state"] == "ready"

    address = urlsplit(opened["connect_url"]).path
    assert "Juniper Hill Bakery" in client.get(address).content.decode()
    pressed = client.post(address)
    assert requests.get(pressed["Location"], timeout=10).status_code == 200
    assert program.get("SB-2001").json()["state"] == "started"

    company = Company.objects.get()
    codat.connect(company.codat_id, company.connections.get().codat_id)
    sync.refresh_company(company, actor=ADA)
    connected = program.get("SB-2001").json()
    assert (connected["state"], connected["connected_accounts"], connected["total_accounts"]) == ("connected", 1, 1)
    assert Invitation.objects.get().connected_at is not None
