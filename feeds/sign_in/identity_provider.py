"""OpenID Connect: the bank's identity provider says who somebody is; whether they may in was decided here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import structlog
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialAccount, SocialApp
from allauth.socialaccount.providers.base import AuthProcess
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

log = structlog.get_logger(__name__)

PROVIDER_ID = "staff"
"""Its name in our addresses, which are registered there."""


def bound_to() -> str:
    """Whose identifiers a person is bound by: another provider may give the same one to somebody else."""
    return f"{PROVIDER_ID}-{hashlib.sha256(settings.OIDC_ISSUER.encode()).hexdigest()[:16]}"


class IdentityProviderAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]  # the library ships no types
    """One provider, from the settings. It opens the door to people an administrator has made, and makes nobody."""

    def list_apps(self, request: HttpRequest, provider: str | None = None, client_id: str | None = None) -> list[Any]:
        """The provider of the settings, if there is one; allauth's table of them is not read."""
        if not settings.OIDC_ISSUER or provider not in (None, PROVIDER_ID, bound_to(), "openid_connect"):
            return []
        return [
            SocialApp(
                provider="openid_connect",
                provider_id=PROVIDER_ID,
                name=settings.OIDC_NAME,
                client_id=settings.OIDC_CLIENT_ID,
                secret=settings.OIDC_CLIENT_SECRET,
                settings={
                    "server_url": settings.OIDC_ISSUER,
                    "oauth_pkce_enabled": True,
                    "email_authentication": True,
                },
            )
        ]

    def new_user(self, request: HttpRequest, sociallogin: Any) -> User:
        """Called before the library looks whose identifier it is: let it look among those of this issuer."""
        sociallogin.account.provider = bound_to()
        user: User = super().new_user(request, sociallogin)
        return user

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Nobody is made by signing in."""
        return False

    def authenticate_by_email(self, sociallogin: Any) -> tuple[User, str] | None:
        """The one person with this address, if the provider has verified it and nobody else there is bound to them.

        The first sign-in binds the person to the provider's own identifier: an address that is given to a new
        colleague later opens no old account.
        """
        for address in sociallogin.email_addresses:
            people = list(User.objects.filter(email__iexact=address.email, is_active=True, is_staff=True)[:2])
            if not address.verified or len(people) != 1:
                continue
            if is_bound(people[0]):
                log.warning("identity_provider_other_identity", user=people[0].pk)
                continue
            return people[0], address.email
        return None

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Refuse whom nobody made, in words; and binding a second identity to somebody who is signed in."""
        if sociallogin.state.get("process", AuthProcess.LOGIN) != AuthProcess.LOGIN:
            raise ImmediateHttpResponse(HttpResponseRedirect(reverse("admin:index")))
        if not sociallogin.is_existing:
            log.warning("identity_provider_unknown_person")
            raise ImmediateHttpResponse(_refuse(request, _("Nobody here has your e-mail address.")))
        # What the provider says about a person is read at each sign-in, and not kept.
        sociallogin.account.extra_data = {}
        if sociallogin.account.pk:
            sociallogin.account.save(update_fields=["extra_data"])
        # The library takes an address found in the table of users for unproven, and would void the password.
        sociallogin._did_authenticate_by_email = None

    def on_authentication_error(self, request: HttpRequest, provider: Any, **details: Any) -> None:
        """Back to the sign-in page; what went wrong is in the log, without anything the provider sent."""
        exception = details.get("exception")
        log.warning("identity_provider_failed", error=type(exception).__name__ if exception else "refused there")
        raise ImmediateHttpResponse(_refuse(request, _("It did not confirm who you are.")))

    def send_notification_mail(self, *_args: Any, **_kwargs: Any) -> None:
        """None: the provider has its own."""


def is_bound(user: Any) -> bool:
    """Whether this person has signed in through this provider before."""
    return bool(SocialAccount.objects.filter(user=user, provider=bound_to()).exists())


def bind(request: HttpRequest, user: User, sociallogin: Any) -> None:
    """Tie the person to the provider's identifier, once they are in: whoever fails at the second factor ties nothing.

    Otherwise an administrator could give a colleague's account their own address and be bound to it at once.
    """
    if not sociallogin.account.pk and not is_bound(user):
        sociallogin.connect(request, user)


def patiently(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A view that asks the provider something; when it does not answer, or not as it should, staff read so."""

    @wraps(view)
    def ask(request: HttpRequest, provider_id: str) -> HttpResponse:
        try:
            return view(request, provider_id)
        except (OSError, ValueError, KeyError) as error:  # every error of the HTTP library is an OSError
            log.warning("identity_provider_failed", error=type(error).__name__)
            return _refuse(request, _("It does not answer as it should."))

    return ask


def _refuse(request: HttpRequest, why: str) -> HttpResponse:
    text = _("You could not be signed in with %(name)s. %(why)s Ask an administrator if it stays so.")
    messages.error(request, text % {"name": settings.OIDC_NAME, "why": why})
    return HttpResponseRedirect(reverse("account_login"))
