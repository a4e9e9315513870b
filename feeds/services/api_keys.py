"""Keys of the API: made, replaced and revoked by administrators; asked for at each call.

A key is shown once, when it is made; only its hash is stored. Whoever reads this database calls nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from feeds import audit
from feeds.audit import Actor
from feeds.models import ApiKey
from feeds.services import knocks
from feeds.services.errors import Refused
from feeds.states import ApiScope, Text

MARK = "bfk_"
"""How every key begins, so that one in the wrong place is recognised as such."""
_SHAPE = re.compile(r"(bfk_[a-z2-7]{8})_[\w-]{43}", re.ASCII)
_NO_KEY = hashlib.sha256(b"").hexdigest()
MINUTE = timedelta(minutes=1)
LONGEST_DAYS, LONGEST_OVERLAP_DAYS = 730, 90


class WrongKey(Exception):
    """No such key, or one that is expired or revoked: all alike."""


class MissingScope(Exception):
    """The key is right, and may not do this."""


class TooManyCalls(Exception):
    """The key has had its calls of this minute. `retry_after`: whole seconds until it has new ones."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many calls")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Made:
    """A key that was just made. `token` is what the program sends: on its way to one screen, never stored or logged."""

    key: ApiKey
    token: str = field(repr=False)


# --- What administrators do ------------------------------------------------------------------------------------------
def make(
    *, name: str, scopes: Collection[str], manager: User | None, days: int, actor: Actor, reason: str = ""
) -> Made:
    """Make a key that works for `days`. Raises Refused for a name, scopes or days that make no sense."""
    name = name.strip()
    if not name:
        raise Refused(_("Say which program uses the key."))
    if unknown := set(scopes) - set(ApiScope.values):
        raise Refused(_("There is no such right: %s.") % ", ".join(sorted(unknown)))
    if not scopes:
        raise Refused(_("Choose at least one right."))
    if not 1 <= days <= LONGEST_DAYS:
        raise Refused(_("A key lives for 1 to %d days.") % LONGEST_DAYS)
    with transaction.atomic(), audit.acting(replace(actor, reason=reason)):
        made = _new(name, scopes, manager, timezone.now() + timedelta(days=days), actor)
        audit.record("api_key_made", made.key, reason=reason)
    return made


def rotate(key: ApiKey, *, overlap_days: int, days: int, actor: Actor) -> Made:
    """Make a key in the place of `key`, which works for `overlap_days` more, if it would have. Raises Refused."""
    if not 0 <= overlap_days <= LONGEST_OVERLAP_DAYS:
        raise Refused(_("Both keys may work for 0 to %d days.") % LONGEST_OVERLAP_DAYS)
    if not 1 <= days <= LONGEST_DAYS:
        raise Refused(_("A key lives for 1 to %d days.") % LONGEST_DAYS)
    with transaction.atomic(), audit.acting(actor):
        older = ApiKey.objects.select_for_update().get(pk=key.pk)
        if why := why_not_rotate(older):
            raise Refused(str(why))
        now = timezone.now()
        made = _new(older.name, older.scope_names, older.manager, now + timedelta(days=days), actor)
        older.replaced_by = made.key
        older.expires_at = min(older.expires_at, now + timedelta(days=overlap_days))
        older.save(update_fields=["replaced_by", "expires_at"])
        audit.record("api_key_replaced", older)
    return made


def why_not_rotate(key: ApiKey) -> Text:
    """Why nothing can take its place, or nothing."""
    if key.replaced_by_id is not None:
        return _("It has been replaced already. Replace its successor.")
    return "" if key.revoked_at is None else _("It is revoked. Make a new key.")


def revoke(key: ApiKey, *, actor: Actor, reason: str) -> None:
    """It opens nothing from now on. Raises Refused when it already does not."""
    with transaction.atomic(), audit.acting(replace(actor, reason=reason)):
        held = ApiKey.objects.select_for_update().get(pk=key.pk)
        if why := why_not_revoke(held):
            raise Refused(str(why))
        held.revoked_at, held.revoked_by_name = timezone.now(), actor.name
        held.save(update_fields=["revoked_at", "revoked_by_name"])
        audit.record("api_key_revoked", held, reason=reason)


def why_not_revoke(key: ApiKey) -> Text:
    """Why there is nothing to revoke, or nothing."""
    return "" if key.is_live(timezone.now()) else _("It opens nothing any more.")


def _new(name: str, scopes: Collection[str], manager: User | None, expires_at: datetime, actor: Actor) -> Made:
    prefix = MARK + base64.b32encode(secrets.token_bytes(5)).decode().lower()
    token = f"{prefix}_{secrets.token_urlsafe(32)}"
    key = ApiKey.objects.create(
        name=name,
        prefix=prefix,
        digest=_digest(token),
        # In the order of the enumeration, so that equal sets are equal texts.
        scopes=" ".join(scope for scope in ApiScope.values if scope in scopes),
        manager=manager,
        made_by_name=actor.name,
        expires_at=expires_at,
    )
    return Made(key, token)


def _digest(token: str) -> str:
    """What is stored of a key. It has 256 random bits, so there is nothing to guess and no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


# --- What a call does ------------------------------------------------------------------------------------------------
@sensitive_variables("token")
def authenticate(token: str, *, scope: ApiScope, address: str) -> ApiKey:
    """The key that `token` is, if it may do `scope`; the call is counted. `address`: where it came from.

    Whatever is wrong with a key, the same is asked of the database and the answer is the same. A right key is never
    refused for wrong ones that came from the same address: a program's neighbour must not lock it out.

    Raises WrongKey, knocks.TooManyKnocks, TooManyCalls and MissingScope.
    """
    now = timezone.now()
    match = _SHAPE.fullmatch(token)
    key = ApiKey.objects.filter(prefix=match[1] if match else "").select_related("manager").first()
    is_right = constant_time_compare(_digest(token), key.digest if key else _NO_KEY)
    if key is None or not is_right or not key.is_live(now):
        knocks.refuse_if_too_many(address, who=knocks.PROGRAMS)
        knocks.count(address, who=knocks.PROGRAMS)
        raise WrongKey
    _count_call(key, now)
    if scope not in key.scope_names:
        raise MissingScope
    return key


def actor(key: ApiKey, *, address: str) -> Actor:
    """Who acts in a call: the program, named by its key."""
    return Actor(name=f"API key {key}", source="api", remote_addr=address)


def _count_call(key: ApiKey, now: datetime) -> None:
    """Count a call. One statement, which never lets more than the limit through, whoever else calls at once."""
    minute = now.replace(second=0, microsecond=0)
    mine = ApiKey.objects.filter(pk=key.pk)
    limit: int = settings.API_CALLS_PER_MINUTE
    in_this_minute = mine.filter(last_used_at__gte=minute)
    for _attempt in range(2):
        if in_this_minute.filter(calls__lt=limit).update(calls=F("calls") + 1):
            return
        if mine.filter(Q(last_used_at__isnull=True) | Q(last_used_at__lt=minute)).update(last_used_at=now, calls=1):
            return
        # Another call began this minute in between: count once more.
    raise TooManyCalls(max(1, 60 - now.second))
