"""Webhooks as Codat sends them, signed; to post them by any means."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from django.http import HttpResponse
from django.test import Client
from standardwebhooks import Webhook

from tests.sandbox_process import WEBHOOK_SECRET as SECRET

OTHER_SECRET = "whsec_YW5vdGhlci1rZXktZm9yLXRoZS1pbmJveA=="
PATH = "/webhooks/codat"


def envelope(event_type: str, company_id: str = "", **payload: Any) -> dict[str, Any]:
    """The body of one webhook; with `company_id` it is about that company."""
    reference = {"referenceCompany": {"id": company_id, "name": "Maple Bakery", "links": {}}} if company_id else {}
    return {
        "id": str(uuid.uuid4()),
        "eventType": event_type,
        "generatedDate": datetime.now(UTC).isoformat(),
        "payload": {**reference, **payload},
    }


def signed(
    body: bytes,
    webhook_id: str,
    *,
    secret: str = SECRET,
    at: datetime | None = None,
    prefix: str = "webhook-",
) -> dict[str, str]:
    """The headers of a delivery: `webhook_id`, `at` (now by default) and the signature over both and the body."""
    stamp = at or datetime.now(UTC)
    return {
        f"{prefix}id": webhook_id,
        f"{prefix}timestamp": str(int(stamp.timestamp())),
        f"{prefix}signature": Webhook(secret).sign(webhook_id, stamp, body.decode()),
    }


def post(client: Client, event: dict[str, Any], **how: Any) -> HttpResponse:
    """Deliver `event` to the inbox through the front door; `how` is passed to `signed`."""
    body = json.dumps(event).encode()
    return post_raw(client, body, signed(body, event["id"], **how))


def post_raw(client: Client, body: bytes, headers: dict[str, str]) -> HttpResponse:
    """Deliver any bytes with any headers."""
    return client.post(PATH, data=body, content_type="application/json", headers=headers)  # type: ignore[return-value]
