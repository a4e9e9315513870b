"""Second factors as the product sees them: who has one, taking them away from a person, and sealing their secrets."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds import audit
from feeds.services.errors import Refused
from feeds.states import Text

PURPOSE = b"backoffice second factors"
SEALED = {Authenticator.Type.TOTP: "secret", Authenticator.Type.RECOVERY_CODES: "seed"}
"""Which entry of an authenticator's data is sealed. A passkey's is its public half, and no secret."""


class Unreadable(Exception):
    """None of the configured keys opens this. SECRET_KEY was changed without SECRET_KEY_FALLBACKS."""


def seal(text: str) -> str:
    """`text`, readable only with SECRET_KEY."""
    return _keys().encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """What was sealed with SECRET_KEY or one of SECRET_KEY_FALLBACKS. Raises Unreadable."""
    try:
        return _keys().decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise Unreadable from None


def _keys() -> MultiFernet:
    return MultiFernet([_key(secret) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)])


def _key(secret: str) -> Fernet:
    derived = HKDF(SHA256(), 32, salt=None, info=PURPOSE).derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(derived))


def reseal() -> int:
    """Seal with today's SECRET_KEY what an older key sealed; how many. After a day the older one can be removed."""
    current, changed = _key(settings.SECRET_KEY), 0
    for factor in Authenticator.objects.filter(type__in=SEALED).iterator():
        entry = SEALED[factor.type]
        if _opens(current, factor.data[entry]):
            continue
        with transaction.atomic():
            locked = Authenticator.objects.select_for_update().filter(pk=factor.pk).first()
            if locked is None:
                continue
            try:
                locked.data[entry] = _keys().rotate(locked.data[entry].encode()).decode()
            except InvalidToken:
                continue  # its owner is told at the next sign-in
            locked.save(update_fields=["data"])
            changed += 1
    return changed


def _opens(key: Fernet, sealed: str) -> bool:
    try:
        key.decrypt(sealed.encode())
    except InvalidToken:
        return False
    return True


def has_one(user: Any) -> bool:
    """Whether this person has an authenticator app or a passkey. Recovery codes alone are none."""
    return bool(_main(user).exists())


def is_last(factor: Any) -> bool:
    """Whether its owner would have no second factor without it."""
    return not _main(factor.user_id).exclude(pk=factor.pk).exists()


def passkeys_of(user: Any) -> int:
    """How many passkeys this person has."""
    return int(Authenticator.objects.filter(user=user, type=Authenticator.Type.WEBAUTHN).count())


def _main(user: Any) -> Any:
    return Authenticator.objects.filter(user=user).exclude(type=Authenticator.Type.RECOVERY_CODES)


def names_of(user: User) -> list[str]:
    """What this person proves themselves with, in words, for the page of the person."""
    factors = Authenticator.objects.filter(user=user).order_by("pk")
    names = [_name(factor) for factor in factors]
    if SocialAccount.objects.filter(user=user).exists():
        names.append(_("identity provider"))
    return names


def _name(factor: Any) -> str:
    if factor.type == Authenticator.Type.WEBAUTHN:
        name: str = factor.data.get("name", "")
        return _("passkey “%s”") % name
    return _("authenticator app") if factor.type == Authenticator.Type.TOTP else _("recovery codes")


def state_of(user: User) -> dict[str, Any]:
    """What a decision about a reset is judged on: what there is to lose, and whose account it is."""
    types = list(Authenticator.objects.filter(user=user).values_list("type", flat=True))
    return {
        "apps": types.count(Authenticator.Type.TOTP),
        "passkeys": types.count(Authenticator.Type.WEBAUTHN),
        "identity_provider": SocialAccount.objects.filter(user=user).exists(),
        "is_superuser": user.is_superuser,
    }


def why_not_reset(user: User, *, by: User | None) -> Text:
    """Why `by` cannot have the second factors of `user` taken away, or nothing."""
    if by is not None and user.pk == by.pk:
        return _("Your own second factors are changed under “Second factors”, at the top of the page.")
    if user.is_superuser and not (by is not None and by.is_superuser):
        return _("A superuser's second factors are reset by superusers only.")
    if not Authenticator.objects.filter(user=user).exists() and not SocialAccount.objects.filter(user=user).exists():
        return _("%s has no second factor.") % (user.get_full_name() or user.get_username())
    return ""


def reset(user: User, *, by: User, reason: str) -> int:
    """Take every second factor away from `user`, unbind them from the identity provider and sign them out everywhere.

    Returns how many there were. Raises Refused for oneself (there is a page for that, which asks for proof), for a
    superuser unless `by` is one, and when there is nothing to take away.
    """
    with transaction.atomic():
        user = User.objects.select_for_update().get(pk=user.pk)
        if why := why_not_reset(user, by=by):
            raise Refused(str(why))
        taken = Authenticator.objects.filter(user=user).delete()[0]
        unbound = SocialAccount.objects.filter(user=user).delete()[0]
        ended = end_sessions(user)
        audit.record("second_factors_reset", user, reason=reason, factors=taken, unbound=unbound, sessions=ended)
    return int(taken)


def rename(passkey: Any, name: str, *, store: Callable[[], Any]) -> None:
    """Call a passkey something else, and keep that in the history. `store` writes it as the library does."""
    before = passkey.wrap().name
    with transaction.atomic(), audit.acting(replace(audit.current_actor(), source="sign-in")):
        store()
        if before != name:
            names: dict[str, Any] = {"before": audit.without_numbers(before), "name": audit.without_numbers(name)}
            audit.record("passkey_renamed", passkey.user, **names)


def end_sessions(user: User) -> int:
    """Sign a person out everywhere; how many sessions that were.

    Sessions are not indexed by person. They live hours and belong to staff, so there are few.
    """
    live = Session.objects.filter(expire_date__gt=timezone.now())
    theirs = [each.pk for each in live.iterator() if each.get_decoded().get("_auth_user_id") == str(user.pk)]
    return int(Session.objects.filter(pk__in=theirs).delete()[0])
