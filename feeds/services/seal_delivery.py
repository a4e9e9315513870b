"""Seals on their way off this host: to files, mailboxes and web addresses named by AUDIT_SEAL_TO.

At least once: a delivery is written with its seal, claimed for `CLAIM`, handed over, then marked as sent; a worker
killed in between hands it over again. `requests` belongs to the client of Codat, with Codat's limits and errors; one
POST of a few hundred bytes needs no more than the standard library, which checks certificates and follows no redirect.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from smtplib import SMTPException
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import queue
from feeds.models import AuditSeal, AuditSealDelivery

log = structlog.get_logger(__name__)

CLAIM = timedelta(minutes=5)
LONGEST_WAIT = timedelta(hours=6)
MAX_ATTEMPTS = 40
"""Reach over more than a week."""
BUDGET = 40.0
HTTP_TIMEOUT = 10
PUBLISHED = (
    "version", "number", "first_entry", "last_entry", "entries", "oldest_at", "newest_at", "entries_sha256",
    "previous_sha256", "sealed_at", "sha256",
)  # fmt: skip
"""What leaves the host: hashes, numbers and dates, nothing of any entry."""


class NotDelivered(Exception):
    """The destination did not take the seal; the message is for staff."""


def post(seal: AuditSeal) -> None:
    """Write down where a new seal has to go, and queue it; call inside the transaction that makes it."""
    destinations = [label(destination) for destination in settings.AUDIT_SEAL_TO]
    for destination in dict.fromkeys(destinations):
        AuditSealDelivery.objects.create(seal=seal, destination=destination, next_attempt_at=timezone.now())
    if destinations:
        queue.enqueue(queue.SEND_SEALS)


def label(destination: str) -> str:
    """A destination without user, password and query, which may be secrets."""
    parts = urlsplit(destination)
    if parts.scheme not in ("http", "https"):
        return destination[:300]
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"[:300]


def published(seal: AuditSeal) -> dict[str, Any]:
    """The seal as it leaves the host."""
    values = {name: getattr(seal, name) for name in PUBLISHED}
    return {
        name: value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
        for name, value in values.items()
    }


def send_due() -> int:
    """Send what is due, oldest first; how many went out. One destination that fails never stops the others."""
    deadline = time.monotonic() + BUDGET
    due = AuditSealDelivery.objects.filter(next_attempt_at__lte=timezone.now()).order_by("next_attempt_at", "pk")
    sent = 0
    for delivery in due.select_related("seal")[:500]:
        if time.monotonic() > deadline:
            break
        if _claim(delivery):
            sent += _send(delivery)
    return sent


def copies() -> Iterator[dict[str, Any]]:
    """Seals in the files that we send to, as far as they can be read from here; `unreadable` names the others."""
    for path in filter(None, map(_path, settings.AUDIT_SEAL_TO)):
        try:
            yield from read_copies(path)
        except FileNotFoundError:  # nothing was sent there yet, or another machine sends
            continue
        except OSError as error:
            log.warning("seal_copy_not_read", destination=str(path), error=type(error).__name__)


def unreadable() -> list[str]:
    """The files that we send to and may only add to: their seals have to be compared where they can be read."""
    return [str(path) for path in filter(None, map(_path, settings.AUDIT_SEAL_TO)) if not _may_be_read(path)]


def _may_be_read(path: Path) -> bool:
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def read_copies(path: Path) -> Iterator[dict[str, Any]]:
    """The seals in one file, one JSON object a line. A line that is no seal is skipped. Raises OSError."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                copy = json.loads(line)
            except ValueError:
                continue
            if isinstance(copy, dict) and isinstance(copy.get("number"), int) and "sha256" in copy:
                yield copy


def _claim(delivery: AuditSealDelivery) -> bool:
    """Take the delivery for a while; False when another worker was first, or when it was tried often enough."""
    mine = AuditSealDelivery.objects.filter(pk=delivery.pk, next_attempt_at=delivery.next_attempt_at)
    if delivery.attempts >= MAX_ATTEMPTS:
        log.error("seal_given_up", seal=delivery.seal.number, destination=delivery.destination)
        mine.update(state=AuditSealDelivery.State.FAILED, next_attempt_at=None)
        return False
    return bool(mine.update(attempts=delivery.attempts + 1, next_attempt_at=timezone.now() + CLAIM))


def _send(delivery: AuditSealDelivery) -> bool:
    ours = AuditSealDelivery.objects.filter(pk=delivery.pk)
    try:
        _hand_over(delivery)
    except (NotDelivered, OSError, SMTPException, http.client.HTTPException) as error:
        why = str(error) if isinstance(error, NotDelivered) else type(error).__name__
        log.warning("seal_not_sent", seal=delivery.seal.number, destination=delivery.destination, error=why)
        wait = min(CLAIM * 2 ** min(delivery.attempts, 10), LONGEST_WAIT)
        ours.update(error=why, next_attempt_at=timezone.now() + wait)
        return False
    ours.update(state=AuditSealDelivery.State.SENT, sent_at=timezone.now(), next_attempt_at=None, error="")
    return True


def _hand_over(delivery: AuditSealDelivery) -> None:
    """Raises NotDelivered, OSError, SMTPException, HTTPException."""
    destination = next((it for it in settings.AUDIT_SEAL_TO if label(it) == delivery.destination), None)
    if destination is None:
        raise NotDelivered(_("AUDIT_SEAL_TO no longer names this destination."))
    body = json.dumps(published(delivery.seal), sort_keys=True)
    parts = urlsplit(destination)
    if (path := _path(destination)) is not None:
        _append(path, body)
    elif parts.scheme == "mailto":
        _mail(unquote(parts.path), delivery.seal, body)
    else:
        _post(parts, body)


def _path(destination: str) -> Path | None:
    parts = urlsplit(destination)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _append(path: Path, body: str) -> None:
    """One line, on the disk before it counts as sent."""
    with path.open("a", encoding="utf-8") as file:
        # What a full disk or a killed worker left of an earlier attempt must not swallow this one.
        file.write(f"{body}\n" if _ends_with_a_line(path) else f"\n{body}\n")
        file.flush()
        os.fsync(file.fileno())


def _ends_with_a_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:  # may be added to, but not read: an empty line harms nobody
        return False


def _mail(to: str, seal: AuditSeal, body: str) -> None:
    subject = _("Seal %(number)d of the change history: %(hash)s") % {"number": seal.number, "hash": seal.sha256}
    host = urlsplit(settings.SITE_URL).hostname or "localhost"
    EmailMessage(
        subject, body, to=[to], headers={"Message-ID": f"<seal-{seal.number}-{seal.sha256[:16]}@{host}>"}
    ).send()


def _post(parts: SplitResult, body: str) -> None:
    host = parts.hostname or ""
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=HTTP_TIMEOUT, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=HTTP_TIMEOUT)
    headers = {"Content-Type": "application/json"}
    if parts.username:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
    try:
        connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise NotDelivered(_("The destination answered %d.") % status)
