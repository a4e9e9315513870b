"""What the change history keeps of signing in, beside what Django's own signals tell it.

Only writes: what happens is decided by allauth and axes. Before sign-in is complete the person is known but not signed
in, so they are named as the actor here.
"""

from __future__ import annotations

from typing import Any

from allauth.account.signals import user_logged_in as entered
from allauth.mfa import signals as factors
from allauth.mfa.models import Authenticator
from allauth.socialaccount.signals import social_account_added
from axes.signals import user_locked_out
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest

from feeds import audit
from feeds.services import lockouts
from feeds.sign_in import sessions

USED = {
    Authenticator.Type.TOTP: "authenticator_app_used",
    Authenticator.Type.RECOVERY_CODES: "recovery_code_used",
    Authenticator.Type.WEBAUTHN: "passkey_used",
}


def connect() -> None:
    """Listen (called once, when the app is ready)."""
    user_logged_in.connect(sessions.begin, dispatch_uid="sign_in.begin")
    entered.connect(_entered, dispatch_uid="sign_in.entered")
    factors.authenticator_added.connect(_added, dispatch_uid="sign_in.added")
    factors.authenticator_removed.connect(_removed, dispatch_uid="sign_in.removed")
    factors.authenticator_reset.connect(_reset, dispatch_uid="sign_in.reset")
    factors.authenticator_used.connect(_used, dispatch_uid="sign_in.used")
    factors.authentication_failed.connect(_failed, dispatch_uid="sign_in.failed")
    social_account_added.connect(_bound, dispatch_uid="sign_in.bound")
    user_locked_out.connect(_locked, dispatch_uid="sign_in.locked")


def _record(event: str, user: User, request: HttpRequest, **kinds: str) -> None:
    actor = audit.Actor.person(user, source="sign-in", remote_addr=request.META.get("REMOTE_ADDR"))
    with audit.acting(actor):
        details: dict[str, Any] = dict(kinds)
        audit.record(event, user, **details)


def _added(sender: Any, request: HttpRequest, user: User, authenticator: Any, **_kwargs: Any) -> None:
    _record("second_factor_added", user, request, kind=authenticator.type)


def _removed(sender: Any, request: HttpRequest, user: User, authenticator: Any, **_kwargs: Any) -> None:
    _record("second_factor_removed", user, request, kind=authenticator.type)


def _reset(sender: Any, request: HttpRequest, user: User, **_kwargs: Any) -> None:
    _record("recovery_codes_made", user, request)


def _used(
    sender: Any,
    request: HttpRequest,
    user: User,
    authenticator: Any,
    reauthenticated: bool = False,
    passwordless: bool = False,
    **_kwargs: Any,
) -> None:
    purpose = "confirmation" if reauthenticated else "sign-in without password" if passwordless else "sign-in"
    _record(USED[authenticator.type], user, request, purpose=purpose)


def _failed(sender: Any, request: HttpRequest, user: User, **_kwargs: Any) -> None:
    _record("second_factor_failed", user, request)


def _bound(sender: Any, request: HttpRequest, sociallogin: Any, **_kwargs: Any) -> None:
    _record("identity_provider_bound", sociallogin.user, request)


def _entered(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
    if kwargs.get("sociallogin") is not None:
        _record("identity_provider_used", user, request)


def _locked(sender: Any, request: HttpRequest, username: str, ip_address: str | None, **_kwargs: Any) -> None:
    failures = getattr(request, "axes_failures_since_start", None)
    # Tries while it is locked are announced too, but without a count: they change nothing.
    if failures is None:
        return
    actor = audit.Actor.person(request.user, source="sign-in", remote_addr=request.META.get("REMOTE_ADDR"))
    with audit.acting(actor):
        lockouts.record_locked(username, ip_address, failures)
