"""allauth's forms with our words; what they check is theirs."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.forms import LoginForm as StockLoginForm
from allauth.core import context
from allauth.mfa.base.forms import AuthenticateForm as StockCodeForm
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.forms import AddWebAuthnForm, EditWebAuthnForm
from django.conf import settings
from django.contrib.admin.forms import AdminPasswordChangeForm
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from feeds.services import second_factors


class LoginForm(StockLoginForm):  # type: ignore[misc]  # the library ships no types
    """User name and password; there is no link for a forgotten one, because administrators set those."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["password"].help_text = ""
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)
        self.fields["login"].widget.attrs |= {"autocapitalize": "none", "spellcheck": "false"}

    def add_prefix(self, field_name: str) -> str:
        """As Django's own sign-in form calls it; password managers know that name."""
        return "username" if field_name == "login" else str(super().add_prefix(field_name))


class OwnPasswordForm(AdminPasswordChangeForm):
    """A new password for oneself. The old one is asked for as at the door: no more guesses, and each is recorded."""

    @sensitive_variables("old_password")
    def clean_old_password(self) -> str:
        """The old password, if it was right. Raises ValidationError, after some wrong ones whatever it was."""
        if not settings.PASSWORD_SIGN_IN:
            raise ValidationError(_("Passwords are switched off here."))
        old_password: str = self.cleaned_data["old_password"]
        request = context.request
        try:
            is_right = get_adapter().reauthenticate(self.user, old_password)
        finally:
            # Who is signed in stays on this page; the lock's own is for those at the door.
            is_locked, request.axes_locked_out = getattr(request, "axes_locked_out", False), False
        if is_right:
            return old_password
        if is_locked:
            raise get_adapter().validation_error("too_many_login_attempts")
        raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")


class CodeForm(StockCodeForm):  # type: ignore[misc]
    """The code of an authenticator app, or a recovery code."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        widget = self.fields["code"].widget
        widget.attrs.pop("placeholder", None)
        widget.attrs |= {"autofocus": True, "inputmode": "numeric"}


class AddPasskeyForm(AddWebAuthnForm):  # type: ignore[misc]
    """A name to know the passkey by, and whether it opens the door alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["name"].label = gettext_lazy("Name")
        self.fields["name"].max_length = 60
        self.fields["name"].help_text = gettext_lazy("To tell it from others, such as “Work phone”.")
        if "passwordless" in self.fields:
            self.fields["passwordless"].label = gettext_lazy("Sign in with this passkey alone, without a password")
            self.fields["passwordless"].help_text = gettext_lazy(
                "The device then asks for your finger, face or PIN each time."
            )


class RenamePasskeyForm(EditWebAuthnForm):  # type: ignore[misc]
    """What a passkey is called. The history has it: an administrator reads the name before resetting factors."""

    def save(self) -> Authenticator:
        """Store the name; allauth announces every change of a factor but this."""
        second_factors.rename(self.instance, self.cleaned_data["name"], store=super().save)
        return self.instance
