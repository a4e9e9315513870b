"""Second factors: when one is asked for, who must have one, and how their secrets are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from allauth.account.internal.flows.login import get_authentication_records
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.base.views import IndexView
from allauth.mfa.models import Authenticator
from allauth.mfa.stages import AuthenticateStage
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.services import second_factors
from feeds.sign_in import identity_provider
from feeds.sign_in.accounts import AccountAdapter

UNREADABLE = "unreadable"
"""Code of the error that a second factor cannot be opened."""
OPEN_WITHOUT = frozenset(
    {
        # Setting one up, proving who one is for that, and leaving.
        "mfa_index", "mfa_activate_totp", "mfa_add_webauthn", "mfa_view_recovery_codes",
        "account_reauthenticate", "account_login", "account_logout", "session_left",
        "language",
        # Machines ask these.
        "healthz", "readyz", "metrics", "codat-webhook", "api:openapi-json", "api:open", "api:read",
    }
)  # fmt: skip
"""Names of the only addresses for a person who still owes a second factor."""


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # the library ships no types
    """Secrets of authenticator apps and recovery codes are sealed before they are stored."""

    error_messages = DefaultMFAAdapter.error_messages | {
        "incorrect_code": AccountAdapter.error_messages["incorrect_code"],
        UNREADABLE: gettext_lazy("Your second factor can no longer be read. Ask an administrator to reset it."),
        "last_one": gettext_lazy("This is your only second factor, and one is required. Add another one first."),
    }

    def encrypt(self, text: str) -> str:
        """Sealed with a key that follows from SECRET_KEY."""
        return second_factors.seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        """What was sealed. Raises ValidationError when no configured key opens it: never a guess, never empty."""
        try:
            return second_factors.unseal(encrypted_text)
        except second_factors.Unreadable:
            raise self.validation_error(UNREADABLE) from None

    def get_totp_label(self, user: AbstractBaseUser) -> str:
        """The user name, as one types it."""
        return user.get_username()

    def can_delete_authenticator(self, authenticator: Any) -> bool:
        """Not the last one where one is required."""
        return not (settings.REQUIRE_SECOND_FACTOR and second_factors.is_last(authenticator))

    def generate_authenticator_name(self, user: AbstractBaseUser, type: Any) -> str:  # noqa: A002  # the library's name
        """What a passkey is called until its owner says something better."""
        return _("Passkey %d") % (second_factors.passkeys_of(user) + 1)

    def _get_site_name(self) -> str:
        return str(settings.MFA_TOTP_ISSUER)


class Overview(IndexView):  # type: ignore[misc]
    """What one has, and how many recovery codes are left: counted here, because a template cannot say why not."""

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Stock context plus `codes_left`, or `codes_unreadable`, the sentence that says what to do."""
        context: dict[str, Any] = super().get_context_data(**kwargs)
        try:
            if codes := context["authenticators"].get(Authenticator.Type.RECOVERY_CODES):
                context["codes_left"] = len(codes.get_unused_codes())
        except ValidationError as error:
            context["codes_unreadable"] = " ".join(error.messages)
        return context


class SecondFactorStage(AuthenticateStage):  # type: ignore[misc]
    """Asks for the second factor; not after an identity provider that is trusted to have asked itself.

    Whom it brings for the first time is known by an address only, which an administrator can change: who has a second
    factor here shows it then.
    """

    def _should_handle(self, request: HttpRequest) -> bool:
        person = self.login.user
        if came_through_trusted_provider(request, person) and identity_provider.is_bound(person):
            return False
        return bool(super()._should_handle(request))


def came_through_trusted_provider(request: HttpRequest, user: Any) -> bool:
    """Whether this session began at the identity provider, and its second factor counts as ours."""
    if not settings.OIDC_IS_SECOND_FACTOR:
        return False
    return any(record.get("method") == "socialaccount" for record in get_authentication_records(request, user))


class SecondFactorMiddleware:
    """Where a second factor is required, who has none sets one up first and reaches nothing else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Go on; `process_view` does the work, when it is known where to."""
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: Any) -> HttpResponse | None:
        """Lead to the page where second factors are set up; nothing that was sent is done."""
        if not settings.REQUIRE_SECOND_FACTOR or not request.user.is_authenticated:
            return None
        match = request.resolver_match
        if match is not None and match.view_name in OPEN_WITHOUT:
            return None
        if second_factors.has_one(request.user) or came_through_trusted_provider(request, request.user):
            return None
        messages.warning(request, _("Set up a second factor first: everybody here needs one."))
        return HttpResponseRedirect(reverse("mfa_index"))
