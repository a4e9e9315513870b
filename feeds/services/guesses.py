"""How often the password of one name may be guessed from all addresses together: `password_failed` in the settings.

An address from which somebody of that name has signed in lately has as many tries again, for itself: strangers cannot
shut people out of where they usually work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from allauth.core.internal import ratelimit
from django.contrib.auth.models import User
from django.core.cache import cache
from django.http import HttpRequest
from django.utils import timezone

from feeds import audit
from feeds.models import AuditEntry

USUAL = timedelta(days=90)
"""So long an address is known after somebody signed in from it."""
NOTED_EVERY = 3600
"""Seconds until the history has it again that guessing goes on. The limit is of an hour, too."""
_LIMIT: dict[str, str] = {"app": "allauth.account", "action": "password_failed"}
_NOTED: dict[str, str] = {"app": "allauth.account", "action": "password_failed_noted"}


@dataclass(frozen=True, slots=True)
class Try:
    """One try that was counted. `usage` takes it back (`rollback`); without one the password is not to be looked at."""

    usage: Any
    were_too_many: bool


def count(request: HttpRequest, name: str) -> Try:
    """Count one try at `name`. All count together first: what an answer says must not depend on who is known where."""
    usage = ratelimit.consume(request, key=name, **_LIMIT)
    if usage is not None:
        return Try(usage, were_too_many=False)
    address = request.META.get("REMOTE_ADDR", "")
    if is_usual(name, address):
        usage = ratelimit.consume(request, key=_own(name, address), **_LIMIT)
    return Try(usage, were_too_many=True)


def note_if_too_many(request: HttpRequest, name: str) -> None:
    """Where the tries at `name` are used up, write it into the person's story; once an hour."""
    people = list(User.objects.filter(username__iexact=name)[:2])
    if len(people) != 1 or not _are_used_up(name) or not cache.add(_noted(name), True, NOTED_EVERY):
        return
    actor = audit.Actor.person(request.user, source="sign-in", remote_addr=request.META.get("REMOTE_ADDR"))
    with audit.acting(actor):
        audit.record("passwords_guessed", people[0], name=name)


def forget(name: str, address: str) -> None:
    """Count from nothing again: what was tried at `name` from everywhere, and what beyond that from `address`."""
    for key in (name, _own(name, address)):
        for bucket, _rate in _buckets(key):
            cache.delete(bucket)
    cache.delete(_noted(name))


def is_usual(name: str, address: str) -> bool:
    """Whether somebody of this name has signed in from this very address lately."""
    return bool(address and sign_ins(name).filter(remote_addr=address).exists())


def sign_ins(name: str) -> Any:
    """Entries of the history that somebody of this name signed in, lately. What a person did is indexed."""
    # Asked for nobody's name too, so that the answer takes as long.
    people = list(User.objects.filter(username__iexact=name).values_list("pk", flat=True)) or [0]
    since = timezone.now() - USUAL
    return AuditEntry.objects.order_by().filter(actor__in=people, event="signed_in", timestamp__gte=since)


def _are_used_up(name: str) -> bool:
    now = time.time()
    return any(
        not ratelimit.apply_rate(list(cache.get(bucket, [])), now, rate, dry_run=True)[0]
        for bucket, rate in _buckets(name)
    )


def _buckets(key: str) -> list[tuple[str, Any]]:
    """Where allauth keeps the tries of `key`: the names of its entries in the cache, and the rates they are for."""
    rates = ratelimit.get_rates(**_LIMIT)
    return [(ratelimit.get_cache_key(HttpRequest(), rate=rate, key=key, **_LIMIT), rate) for rate in rates]


def _own(name: str, address: str) -> str:
    return f"{name}\0{address}"  # a name has no such character


def _noted(name: str) -> str:
    rate = ratelimit.Rate(1, NOTED_EVERY, "key")
    return str(ratelimit.get_cache_key(HttpRequest(), rate=rate, key=name, **_NOTED))
