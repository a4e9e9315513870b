"""What somebody who signs in has: a browser, a phone with an authenticator app."""

from __future__ import annotations

import re
import time
from typing import Any

from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client, TestCase
from django.urls import reverse

from feeds.models import AuditEntry
from tests.factories import PASSWORD

STEP = 30


def code(secret: str, *, steps: int = 0, good_for: float = 2.0) -> str:
    """What an authenticator app with this secret shows now, or that many half minutes later.

    The server takes it until the half minute after its own is over; where less than `good_for` seconds are left of
    that, the next one is waited for.
    """
    left = (steps + 1 + settings.MFA_TOTP_TOLERANCE) * STEP - time.time() % STEP
    if left < good_for:
        time.sleep(left + 0.01)
    return format_hotp_value(hotp_value(secret, int(time.time()) // STEP + steps))


def log_in(client: Client, username: str, password: str = PASSWORD, **options: Any) -> Any:
    """Post the sign-in form; `options` go to the client (`REMOTE_ADDR`, `follow`)."""
    address = reverse("admin:login") + (f"?next={options.pop('to')}" if "to" in options else "")
    return client.post(address, {"username": username, "password": password}, **options)


def add_app(client: Client, *, steps: int = -1) -> str:
    """Set up an authenticator app for the signed-in person, through the page; its secret.

    The code shown a moment ago is used, so that the next ones are still good.
    """
    page = client.get(reverse("mfa_activate_totp")).content.decode()
    (secret,) = re.findall(r'<code class="secret-value">(\w+)</code>', page)
    with TestCase.captureOnCommitCallbacks(execute=True):
        answer = client.post(reverse("mfa_activate_totp"), {"code": code(secret, steps=steps)})
    assert answer.status_code == 302, answer.content.decode()
    return str(secret)


def recovery_codes(client: Client) -> list[str]:
    """The codes as the page shows them."""
    page = client.get(reverse("mfa_view_recovery_codes")).content.decode()
    return re.findall(r"<li><code>(\d+)</code></li>", page)


def is_in(client: Client) -> bool:
    """Whether this browser is signed in and reaches the home page."""
    return bool(client.get(reverse("admin:index")).status_code == 200)


def events_of(user: User) -> list[str]:
    """Events of the history about this person that this room writes, oldest first."""
    entries = AuditEntry.objects.filter(object_pk=str(user.pk)).exclude(event="").order_by("pk")
    others = ("signed_in", "sign_in_failed", "signed_out")
    return [entry.event for entry in entries if entry.event not in others]
