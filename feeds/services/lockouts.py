"""Locked sign-ins: which are locked, until when, and opening one before its time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit
from feeds.models import SignInLock
from feeds.services import guesses
from feeds.services.errors import Refused


def recent() -> QuerySet[Any]:
    """Failures that still count. `total` is what the lock looks at: those of one name at one address, any browser."""
    counting = SignInLock.objects.filter(attempt_time__gte=timezone.now() - _cool_off())
    same = counting.filter(username=OuterRef("username"), ip_address=OuterRef("ip_address")).order_by()
    total = same.values("username").annotate(total=Sum("failures_since_start")).values("total")
    rows: QuerySet[Any] = counting.annotate(total=Coalesce(Subquery(total), F("failures_since_start")))
    return rows


def is_locked(lock: Any) -> bool:
    """Whether a row of `recent` is locked now."""
    return bool(lock.total >= settings.LOGIN_FAILURE_LIMIT)


def opens_at(lock: Any) -> datetime:
    """When this row is forgotten."""
    at: datetime = lock.attempt_time + _cool_off()
    return at


def unlock(lock: Any) -> None:
    """Forget the failures of this name at this address, so that the person can try again at once. Raises Refused.

    Guesses at the name from everywhere are forgotten too: they keep the person out as well, locked or not.
    """
    with transaction.atomic():
        same = AccessAttempt.objects.filter(username=lock.username, ip_address=lock.ip_address)
        if not same.delete()[0]:
            raise Refused(_("It has opened by itself meanwhile."))
        guesses.forget(lock.username or "", lock.ip_address or "")
        audit.record("sign_in_unlocked", _target(lock), name=lock.username or "", address=lock.ip_address or "")


def record_locked(name: str, address: str | None, failures: int) -> None:
    """Write that this name was locked out at this address."""
    lock = SignInLock.objects.filter(username=name, ip_address=address).first()
    target = lock if lock is not None else SignInLock(username=name, ip_address=address)
    audit.record("sign_in_locked", _target(target), name=name, address=address or "", failures=failures)


def _target(lock: Any) -> Any:
    """The person of this name, so that it stands in their story; the lock itself when nobody has the name."""
    people = list(User.objects.filter(username__iexact=lock.username or "")[:2])
    return people[0] if len(people) == 1 else lock


def prune() -> int:
    """Delete failures that count no more, and sessions that are over; how many rows."""
    old = AccessAttempt.objects.filter(attempt_time__lt=timezone.now() - _cool_off())
    over = Session.objects.filter(expire_date__lt=timezone.now())
    return int(old.delete()[0] + over.delete()[0])


def _cool_off() -> timedelta:
    return timedelta(minutes=settings.LOGIN_LOCK_MINUTES)
