"""The addresses of signing in, below /admin/. Of allauth's views only those that staff need."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.recovery_codes import views as recovery
from allauth.mfa.totp import views as totp
from allauth.mfa.webauthn import views as webauthn
from allauth.socialaccount.providers.openid_connect import views as oidc
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.cache import never_cache

from feeds.sign_in import sessions
from feeds.sign_in.identity_provider import PROVIDER_ID, patiently
from feeds.sign_in.second_factors import UNREADABLE, Overview

View = Callable[..., HttpResponseBase]


def page(view: View) -> View:
    """One of allauth's views with what our templates read, kept by no browser: some of them show secrets.

    Where it needs a secret that no key opens, it leads to the overview, which needs none, and says what to do.
    """

    @never_cache
    @wraps(view)
    def shown(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = view(request, *args, **kwargs)
        except ValidationError as error:
            if error.code != UNREADABLE:
                raise
            messages.error(request, " ".join(error.messages))
            return HttpResponseRedirect(reverse("mfa_index"))
        if isinstance(response, TemplateResponse):
            response.context_data = {
                **admin.site.each_context(request),
                "password_sign_in": settings.PASSWORD_SIGN_IN,
                "oidc_name": settings.OIDC_NAME if settings.OIDC_ISSUER else "",
                "oidc_provider": PROVIDER_ID,
                "ended": request.GET.getlist("ended"),
                "idle_minutes": settings.SESSION_IDLE_MINUTES,
                "absolute_hours": settings.SESSION_ABSOLUTE_HOURS,
                "second_factor_is_required": settings.REQUIRE_SECOND_FACTOR,
                **(response.context_data or {}),
            }
        return response

    return shown


FACTORS = "second-factors"
KEYS = f"{FACTORS}/passkeys"
CODES = f"{FACTORS}/recovery-codes"

urlpatterns = [
    path("login/", page(account.login), name="account_login"),
    path("logout/", page(account.logout), name="account_logout"),
    path("session/", sessions.left, name="session_left"),
    path("confirm-password/", page(account.reauthenticate), name="account_reauthenticate"),
    path(f"{FACTORS}/", page(Overview.as_view()), name="mfa_index"),
    path(f"{FACTORS}/ask/", page(mfa.authenticate), name="mfa_authenticate"),
    path(f"{FACTORS}/confirm/", page(mfa.reauthenticate), name="mfa_reauthenticate"),
    path(f"{FACTORS}/app/add/", page(totp.activate_totp), name="mfa_activate_totp"),
    path(f"{FACTORS}/app/remove/", page(totp.deactivate_totp), name="mfa_deactivate_totp"),
    path(f"{KEYS}/", page(webauthn.list_webauthn), name="mfa_list_webauthn"),
    path(f"{KEYS}/add/", page(webauthn.add_webauthn), name="mfa_add_webauthn"),
    path(f"{KEYS}/sign-in/", page(webauthn.login_webauthn), name="mfa_login_webauthn"),
    path(f"{KEYS}/confirm/", page(webauthn.reauthenticate_webauthn), name="mfa_reauthenticate_webauthn"),
    path(f"{KEYS}/<int:pk>/rename/", page(webauthn.edit_webauthn), name="mfa_edit_webauthn"),
    path(f"{KEYS}/<int:pk>/remove/", page(webauthn.remove_webauthn), name="mfa_remove_webauthn"),
    path(f"{CODES}/", page(recovery.view_recovery_codes), name="mfa_view_recovery_codes"),
    path(f"{CODES}/new/", page(recovery.generate_recovery_codes), name="mfa_generate_recovery_codes"),
    path("oidc/<slug:provider_id>/login/", page(patiently(oidc.login)), name="openid_connect_login"),
    path("oidc/<slug:provider_id>/login/callback/", page(patiently(oidc.callback)), name="openid_connect_callback"),
]
