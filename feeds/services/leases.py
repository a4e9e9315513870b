"""One worker at a time talks to Codat about one company.

A lease is claimed by compare-and-swap and always expires, so a killed worker blocks nothing for longer than
`ONBOARDING_LEASE_SECONDS`. `due_at` moves with the lease: a company whose worker died is due by itself.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds.models import Company
from feeds.services import ledger
from feeds.services.errors import LeaseLost, Refused


def _length() -> timedelta:
    return timedelta(seconds=settings.ONBOARDING_LEASE_SECONDS)


def claim(company_id: int) -> uuid.UUID | None:
    """Take the lease and return its token; None while somebody else holds it."""
    now = timezone.now()
    token = uuid.uuid4()
    free = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lte=now)
    expires = now + _length()
    taken = Company.objects.filter(free, pk=company_id).update(
        lease_token=token, lease_expires_at=expires, due_at=expires
    )
    return token if taken else None


def renew(company_id: int, token: uuid.UUID) -> None:
    """Start the lease's time again, before a call. Raises LeaseLost when it is no longer ours."""
    expires = timezone.now() + _length()
    if not Company.objects.filter(pk=company_id, lease_token=token).update(lease_expires_at=expires, due_at=expires):
        raise LeaseLost


def lock(company_id: int, token: uuid.UUID | None) -> Company:
    """The company's row, locked until the transaction ends. Raises LeaseLost when the lease is no longer ours."""
    company = Company.objects.select_for_update().get(pk=company_id)
    if token is None or company.lease_token != token:
        raise LeaseLost
    return company


@contextmanager
def hold(company_id: int, *, patience: float = 3.0) -> Iterator[uuid.UUID]:
    """Hold the lease for an interactive call. Raises Refused when a worker keeps it longer than `patience` seconds.

    The lease may be lost inside, to a worker that found it expired: that is a refusal too. What somebody asks for
    meanwhile is done on leaving.
    """
    deadline = time.monotonic() + patience
    while (token := claim(company_id)) is None:
        if time.monotonic() > deadline:
            raise Refused(_("A worker is talking to Codat about this company right now. Try again in a moment."))
        time.sleep(0.1)
    try:
        yield token
    except LeaseLost as error:
        raise Refused(_("Codat took so long that a worker went on with this company. Try again.")) from error
    finally:
        release(company_id, token)


def release(company_id: int, token: uuid.UUID, *, rest: timedelta = timedelta()) -> None:
    """Give the lease back, unless it is no longer ours. What somebody asked for meanwhile is queued.

    `rest`: how long the company is left alone first, whatever it is owed.
    """
    with transaction.atomic():
        company = Company.objects.select_for_update().get(pk=company_id)
        if company.lease_token != token:
            return
        due_at = ledger.next_due(company)
        if rest and due_at is not None:
            due_at = max(due_at, timezone.now() + rest)
        Company.objects.filter(pk=company_id).update(lease_token=None, lease_expires_at=None, due_at=due_at)
        if due_at is not None and due_at <= timezone.now():
            ledger.wake(company_id)
