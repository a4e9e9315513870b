"""Failed sign-ins of one name at one address; too many lock it for a while."""

from __future__ import annotations

from typing import ClassVar

from axes.models import AccessAttempt
from django.utils.translation import gettext_lazy as _


class SignInLock(AccessAttempt):  # type: ignore[misc]  # the library ships no types
    """django-axes' row under a name of ours, to show and unlock it. One for each name, address and browser."""

    class Meta:
        proxy = True
        verbose_name = _("failed sign-in")
        verbose_name_plural = _("failed sign-ins")
        ordering: ClassVar = ["-attempt_time", "-pk"]
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("unlock_signinlock", _("Can unlock a sign-in")),
            ("reset_second_factors", _("Can reset a person's second factors")),
        ]

    def __str__(self) -> str:
        return f"{self.username} @ {self.ip_address}"
