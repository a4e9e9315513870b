"""Failed sign-ins that still count, and the button that forgets them.

The screens of the sign-in libraries are taken off the site: they show secrets and let rows be edited.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.admin.actions import ActionsAdmin, Outcome, object_action
from feeds.admin.base import EMPTY, MirrorAdmin, moment, status_pill, time_column, withdraw
from feeds.models import SignInLock
from feeds.services import lockouts
from feeds.states import SIGN_IN_COUNTING, SIGN_IN_LOCKED

for label in ("account", "mfa", "socialaccount"):
    withdraw(label, *apps.get_app_config(label).get_models())


@admin.register(SignInLock)
class SignInLockAdmin(MirrorAdmin[SignInLock], ActionsAdmin[SignInLock]):
    """Newest first. A row disappears by itself when it counts no more."""

    list_display = ("username", "ip_address", "state", "failures", "when", "opens")
    search_exact = ("username",)
    search_help_text = gettext_lazy("The whole user name, in small letters.")
    sortable_by = ()
    fields = ("username", "ip_address", "state", "failures", "when", "opens", "user_agent")
    change_form_template = "admin/feeds/change_form.html"

    when = time_column("attempt_time", gettext_lazy("last try"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """What still counts, with the total that the lock looks at."""
        return lockouts.recent()

    @object_action(
        "unlock",
        gettext_lazy("Unlock"),
        permission="feeds.unlock_signinlock",
        consequences=lambda lock: [
            _("The failed tries of %(name)s from %(address)s are forgotten, and the next try is allowed at once.")
            % {"name": lock.username, "address": lock.ip_address},
            _("What was tried at this name from other addresses is counted from nothing again."),
            _("If the tries were not theirs, somebody else gets as many again."),
        ],
    )
    def unlock(self, request: HttpRequest, lock: SignInLock, _data: dict[str, Any]) -> Outcome:
        lockouts.unlock(lock)
        messages.success(request, _("Unlocked: %s may sign in again.") % lock.username)
        return HttpResponseRedirect(reverse("admin:feeds_signinlock_changelist"))  # its own page is gone

    @admin.display(description=gettext_lazy("state"))
    def state(self, lock: Any) -> SafeString:
        return status_pill(SIGN_IN_LOCKED if lockouts.is_locked(lock) else SIGN_IN_COUNTING)

    @admin.display(description=gettext_lazy("failed tries"))
    def failures(self, lock: Any) -> int:
        return int(lock.total)

    @admin.display(description=gettext_lazy("forgotten at"))
    def opens(self, lock: Any) -> SafeString:
        return moment(lockouts.opens_at(lock)) if lock.attempt_time else EMPTY
