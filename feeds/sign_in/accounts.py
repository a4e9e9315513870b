"""Who may sign in: active staff whom an administrator made, by password unless that is switched off."""

from __future__ import annotations

from typing import Any, cast

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.auth_backends import AuthenticationBackend
from allauth.account.internal.flows.login import clear_authentication_records
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from allauth.mfa.webauthn.internal.flows import did_use_passwordless_login
from axes.backends import AxesStandaloneBackend
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.crypto import get_random_string
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.services import guesses
from feeds.sign_in import identity_provider, lockout, sessions

AUTHENTICATE_STAGE = "feeds.sign_in.second_factors.SecondFactorStage"


class StaffBackend(AxesStandaloneBackend, AuthenticationBackend):  # type: ignore[misc]  # no types are shipped
    """Only active staff: who is neither any more is signed out with the next request.

    One backend, because Django asks for its name wherever there are two.
    """

    def authenticate(self, request: HttpRequest | None, **credentials: Any) -> AbstractBaseUser | None:
        """The person, or None. Raises PermissionDenied while the sign-in is locked, whatever the password."""
        AxesStandaloneBackend.authenticate(self, request, **credentials)
        user: AbstractBaseUser | None = AuthenticationBackend.authenticate(self, request, **credentials)
        return user

    def user_can_authenticate(self, user: AbstractBaseUser | None) -> bool:
        """Whether this person may be signed in at all."""
        return bool(super().user_can_authenticate(user) and getattr(user, "is_staff", False))


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """No sign-up, no mails to verify, and one sentence for every reason why a password was not accepted."""

    error_messages = DefaultAccountAdapter.error_messages | {
        "username_password_mismatch": gettext_lazy(
            "This user name and password do not belong together. After several tries the sign-in is locked for a while."
        ),
        "incorrect_code": gettext_lazy("This code or passkey was not accepted. Wait for the next code and try again."),
        "too_many_login_attempts": gettext_lazy("Too many tries. Wait some minutes, then try again."),
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Administrators make people."""
        return False

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Nothing here: `authenticate` has counted the try."""

    def authenticate(self, request: HttpRequest, **credentials: Any) -> AbstractBaseUser | None:
        """The person, or None: also for a right password of somebody who may not sign in, who is not told so.

        Guesses at one name from many addresses are slowed down; those from one address are the lock-out's business,
        and what it refuses is no guess. While there are too many, whoever fails reads so, be the name anybody's and
        the address known or not.
        """
        if not settings.PASSWORD_SIGN_IN:
            raise self.validation_error("username_password_mismatch")
        if lockout.is_locked(request, credentials):
            return self._authenticated(request, credentials)
        name = lockout.name_of(request, credentials)
        this = guesses.count(request, name)
        self._login_failed_rl_usage = this.usage
        if this.usage is None:
            # Wrong whatever it was. The lock and the history see it all the same, and it takes as long.
            credentials["password"] = get_random_string(40)
        user = self._authenticated(request, credentials)
        if user is None:
            guesses.note_if_too_many(request, name)
            if this.were_too_many:
                raise self.validation_error("too_many_login_attempts")
        return user

    def _authenticated(self, request: HttpRequest, credentials: dict[str, Any]) -> AbstractBaseUser | None:
        user = super().authenticate(request, **credentials)
        return user if user is not None and StaffBackend().user_can_authenticate(user) else None

    def respond_user_inactive(self, request: HttpRequest, user: AbstractBaseUser) -> HttpResponse:
        """By passkey or identity provider: back to the sign-in page, in words that fit every reason."""
        messages.error(request, _("You cannot sign in. Ask an administrator."))
        return HttpResponseRedirect(reverse("account_login"))

    def pre_login(self, request: HttpRequest, user: AbstractBaseUser, **options: Any) -> HttpResponse | None:
        """However somebody proved who they are: only active staff come in.

        A passkey alone stands for the password, so where that was disabled it opens nothing either.
        """
        without_password = did_use_passwordless_login(request, user) and not user.has_usable_password()
        if without_password or not StaffBackend().user_can_authenticate(user):
            clear_authentication_records(request)
            return self.respond_user_inactive(request, user)
        response: HttpResponse | None = super().pre_login(request, user, **options)
        return response

    def post_login(
        self, request: HttpRequest, user: AbstractBaseUser, *, signal_kwargs: dict[str, Any] | None, **options: Any
    ) -> HttpResponse:
        """They are in, second factor included: bind who came from the identity provider for the first time."""
        if sociallogin := (signal_kwargs or {}).get("sociallogin"):
            identity_provider.bind(request, cast(User, user), sociallogin)
        response: HttpResponse = super().post_login(request, user, signal_kwargs=signal_kwargs, **options)
        return response

    def get_login_stages(self) -> list[str]:
        """Between proof and entry there is one stage: the second factor."""
        return [AUTHENTICATE_STAGE]

    def is_reauthentication_required(self, *, app: str, **options: Any) -> bool:
        """Not right after signing in: typing the password twice in a minute proves nothing more."""
        if sessions.signed_in_seconds_ago(self.request) < settings.ACCOUNT_REAUTHENTICATION_TIMEOUT:
            return False
        return bool(super().is_reauthentication_required(app=app, **options))

    def get_reauthentication_methods(self, user: AbstractBaseUser | AnonymousUser) -> list[dict[str, Any]]:
        """As allauth has them; who has none (identity provider, no factor yet) signs out and in again."""
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        if methods or not user.is_authenticated or get_reauthentication_flows(user):
            return methods
        return [{"id": "sign_in_again", "description": _("Sign in again"), "url": reverse("account_logout")}]
