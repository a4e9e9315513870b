"""Named actions: every change staff can ask of Codat is one, with its own permission and a page that says what happens.

An object action lives at `<model>/<pk>/actions/<name>/` (URL name `admin:<app>_<model>_action`). GET is a confirmation
page and changes nothing; POST does it through one service call. A list action works on ticked rows, one by one.

Four eyes: where the settings want a second person, POST asks a colleague instead (`feeds.services.approvals`), and what
they approve is carried out by the service, never by a screen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feeds.admin.base import BackOfficeAdmin, change_url
from feeds.audit import current_actor
from feeds.codat.errors import CodatError
from feeds.models import Approval, Operation
from feeds.services import approvals
from feeds.services.approval_rules import RULES
from feeds.services.errors import Refused
from feeds.states import Text
from feeds.wording import colon_in_words, recorded

M = TypeVar("M", bound=Model)
A = TypeVar("A", bound="ActionsAdmin[Any]")


@dataclass(frozen=True)
class Secret:
    """Something shown once: rows of (label, value), what to know, and when it stops working."""

    title: Text
    rows: Sequence[tuple[Text, str]]
    notes: Sequence[Text]
    expires_at: datetime | None = None

    def __repr__(self) -> str:
        """Without the values: a representation ends up in logs and error pages."""
        return f"<Secret {self.title}>"


Outcome = Operation | HttpResponse | Secret | str
"""What an action hands back: the ledger row it asked for, a page, something to show once, or what was done in words."""


MOST_NAMED = 10
"""Rows that a message names for one reason: five hundred would fill the screen."""


JUDGED_ON = "judged_on"
"""Hidden field: the state that the sentences of the page were worded from."""


ASKED = "asked"
"""Hidden field of the page that asks a colleague about many rows: that it was read."""


class ReasonForm(forms.Form):
    """For actions that take something away from a customer: auditors ask why."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        help_text=gettext_lazy("Kept in the change history. Do not write account numbers or passwords."),
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3}),
    )


@dataclass(frozen=True)
class ObjectAction:
    """One named action on one object. Made by `object_action`."""

    name: str
    label: Text
    permission: str
    perform: Callable[[Any, HttpRequest, Any, dict[str, Any]], Outcome]
    consequences: Callable[[Any], Sequence[Text]]
    form: type[forms.Form]
    initial: Callable[[Any], dict[str, Any]]
    unavailable: Callable[[Any], Text]
    confirm: bool
    dangerous: bool
    four_eyes: str = ""
    target: Callable[[Any], Any] = field(default=lambda obj: obj)
    """What a request for approval is about, where it is not the object whose screen this is."""

    @property
    def needs_approval(self) -> bool:
        """Whether a colleague has to approve it here."""
        return bool(self.four_eyes) and approvals.is_needed(self.four_eyes)

    preview: Callable[[Any], Text] = lambda _obj: ""
    judged_on: Callable[[Any], str] = lambda _obj: ""

    def mark_of(self, obj: Any) -> str:
        """What the page was worded from, as a short hash that its form brings back; empty where that cannot matter."""
        if self.needs_approval:
            return approvals.fingerprint(self.four_eyes, self.target(obj))
        return self.judged_on(obj)

    def allowed(self, request: HttpRequest) -> bool:
        """Whether the signed-in person may do this."""
        return request.user.has_perm(self.permission)


@dataclass(frozen=True)
class ActionButton:
    """An action as the object's screen shows it. `unavailable` says why it cannot be done now; empty when it can."""

    name: str
    label: Text
    url: str
    unavailable: Text
    confirm: bool
    dangerous: bool


def object_action(
    name: str,
    label: Text,
    *,
    permission: str,
    consequences: Callable[[Any], Sequence[Text]],
    form: type[forms.Form] = forms.Form,
    initial: Callable[[Any], dict[str, Any]] = lambda _obj: {},
    unavailable: Callable[[Any], Text] = lambda _obj: "",
    confirm: bool = True,
    dangerous: bool = False,
    four_eyes: str = "",
    preview: Callable[[Any], Text] = lambda _obj: "",
    judged_on: Callable[[Any], str] = lambda _obj: "",
) -> Callable[[Callable[[A, HttpRequest, Any, dict[str, Any]], Outcome]], ObjectAction]:
    """Declare a method `(self, request, obj, data) -> Outcome` of an `ActionsAdmin` as an object action.

    `permission`: full label ("feeds.unlink_connection"); without it the button is hidden and the URL answers 403.
    `consequences(obj)`: sentences that say what will happen to the customer. `form`: what else to ask; its cleaned data
    is `data`. `unavailable(obj)`: why it makes no sense now, or "". `confirm=False`: the button posts at once (only for
    actions that take nothing away). `preview(obj)`: a text that is about to be sent, shown as it is. The
    method may raise `Refused` and `CodatError`: they become messages.
    `four_eyes`: the action of `services.approval_rules.RULES` that it is; where the settings say so, a colleague is
    asked and the method is not called. Its form must ask for the reason.
    `judged_on(obj)`: a hash of what the person has to have read. Where it is another by the time the form comes back,
    the page is shown again and nothing is done.
    """

    def declare(perform: Callable[[A, HttpRequest, Any, dict[str, Any]], Outcome]) -> ObjectAction:
        return ObjectAction(
            name,
            label,
            permission,
            perform,
            consequences,
            form,
            initial,
            unavailable,
            confirm,
            dangerous,
            four_eyes=four_eyes,
            preview=preview,
            judged_on=judged_on,
        )

    return declare


def list_action(
    label: Text, *, permission: str, four_eyes: str = ""
) -> Callable[[Callable[[A, HttpRequest, list[Any]], HttpResponse | None]], Callable[..., HttpResponse | None]]:
    """Declare a method `(self, request, objects)` of an `ActionsAdmin` as a list action; name it in `actions`.

    Hidden and refused without `permission`. "Select all" hands over every matching row, so more than
    `settings.BULK_LIMIT` rows are refused as a whole.

    `four_eyes`: the action of `services.approval_rules.RULES` by which a colleague approves it for more rows than
    `settings.FOUR_EYES_BULK_ROWS`. Without one, so many rows are refused where the settings want a second person.
    """

    def declare(
        method: Callable[[A, HttpRequest, list[Any]], HttpResponse | None],
    ) -> Callable[..., HttpResponse | None]:
        @functools.wraps(method)
        def run(self: A, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
            limit: int = settings.BULK_LIMIT
            objects = list(queryset[: limit + 1])
            if len(objects) > limit:
                refusal = _("Nothing was done: select at most %(limit)d at a time.") % {"limit": limit}
                messages.error(request, refusal)
                return None
            # What came from the page that asks is asked for, even where fewer rows are left of it by now.
            asks = bool(four_eyes) and ASKED in request.POST and approvals.is_needed(four_eyes)
            if not asks and not approvals.is_needed_for(len(objects)):
                return method(self, request, objects)
            if not four_eyes:
                most: int = settings.FOUR_EYES_BULK_ROWS
                messages.error(request, _("Nothing was done: select at most %(limit)d at a time.") % {"limit": most})
                return None
            return self.ask_for_many(request, four_eyes, objects)

        run.short_description = label  # type: ignore[attr-defined]
        run.required_permission = permission  # type: ignore[attr-defined]
        run.four_eyes = four_eyes  # type: ignore[attr-defined]
        return run

    return declare


class ActionsAdmin(BackOfficeAdmin[M]):
    """A screen with named actions."""

    action_template = "admin/feeds/action.html"

    @classmethod
    def object_actions(cls) -> dict[str, ObjectAction]:
        """Every object action declared on the class and its bases, in order of declaration, by name."""
        declared = (value for base in reversed(cls.__mro__) for value in vars(base).values())
        return {value.name: value for value in declared if isinstance(value, ObjectAction)}

    def action_url(self, obj: M, name: str) -> str:
        """Address of one action on `obj`."""
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_action", args=[obj.pk, name])

    def action_buttons(self, request: HttpRequest, obj: M) -> list[ActionButton]:
        """The actions the signed-in person may take on `obj`, with those that make no sense now marked."""
        return [
            ActionButton(
                name=action.name,
                label=action.label,
                url=self.action_url(obj, action.name),
                unavailable=action.unavailable(obj),
                confirm=action.confirm,
                dangerous=action.dangerous,
            )
            for action in self.object_actions().values()
            if action.allowed(request)
        ]

    def get_urls(self) -> list[URLPattern]:
        """The stock addresses and one for object actions, which must come before the stock catch-all."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_action"
        view = self.admin_site.admin_view(self.action_view)
        return [path("<path:object_id>/actions/<slug:action_name>/", view, name=name), *super().get_urls()]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """List actions the signed-in person may take. Django asks again on POST, so the others are refused too."""
        return {
            name: entry
            for name, entry in super().get_actions(request).items()
            if entry is not None and request.user.has_perm(getattr(entry[0], "required_permission", ""))
        }

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: M | None = None,
    ) -> HttpResponse:
        """The stock page with the object's action buttons."""
        context["action_buttons"] = self.action_buttons(request, obj) if obj is not None else []
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)

    def action_view(self, request: HttpRequest, object_id: str, action_name: str) -> HttpResponse:
        """GET: what will happen. POST: do it. 403 without the permission, 404 for an unknown action or object."""
        action = self.object_actions().get(action_name)
        if action is None:
            raise Http404
        if not action.allowed(request):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            raise Http404
        if not self.has_view_permission(request, obj):
            raise PermissionDenied
        if request.method == "POST":
            return self._perform(request, action, obj)
        if request.method in ("GET", "HEAD"):
            return self._action_page(request, action, obj, action.form(initial=action.initial(obj)))
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])

    def _perform(self, request: HttpRequest, action: ObjectAction, obj: M) -> HttpResponse:
        form = action.form(request.POST)
        if reason := action.unavailable(obj):
            return self._not_done(request, action, obj, form, str(reason))
        if not form.is_valid():
            return self._action_page(request, action, obj, form)
        if request.POST.get(JUDGED_ON, "") != action.mark_of(obj):
            return self._not_done(request, action, obj, form, _changed_since(action))
        if action.needs_approval:
            return self._ask(request, action, obj, form)
        try:
            outcome = action.perform(self, request, obj, form.cleaned_data)
        except (Refused, CodatError) as error:
            return self._not_done(request, action, obj, form, _why(error))
        if isinstance(outcome, HttpResponse):
            return outcome
        if isinstance(outcome, Secret):
            return self._secret_page(request, obj, outcome)
        messages.success(request, _asked_for(outcome) if isinstance(outcome, Operation) else outcome)
        return HttpResponseRedirect(change_url(obj))

    def _ask(self, request: HttpRequest, action: ObjectAction, obj: M, form: forms.Form) -> HttpResponse:
        """Ask a colleague. The page's sentences are frozen with the request."""
        target = action.target(obj)
        try:
            with recorded():
                words = action.consequences(obj)
            approval = approvals.ask(
                action.four_eyes,
                target,
                data=form.cleaned_data,
                consequences=words,
                reason=form.cleaned_data["reason"],
                actor=current_actor(),
            )
        except Refused as error:
            return self._not_done(request, action, obj, form, explained(error))
        tell_asked(request, approval)
        return HttpResponseRedirect(change_url(obj))

    def ask_for_many(self, request: HttpRequest, action: str, objects: Sequence[M]) -> HttpResponse:
        """First a page that says what will happen and asks why; then the request, and its page."""
        rule = RULES[action]
        form = ReasonForm(request.POST if ASKED in request.POST else None)
        shown = len(request.POST.getlist(ACTION_CHECKBOX_NAME))
        if form.is_bound and len(objects) < shown:
            left = _("Some rows are not in this list any more. Nothing was asked: look at the rows again.")
            messages.error(request, left)
        elif form.is_valid():
            try:
                approval = approvals.ask_many(
                    action,
                    objects,
                    consequences=rule.words,
                    reason=form.cleaned_data["reason"],
                    actor=current_actor(),
                )
            except Refused as error:
                messages.error(request, explained(error))
            else:
                tell_asked(request, approval)
                return HttpResponseRedirect(request.get_full_path())
        return TemplateResponse(
            request,
            "admin/feeds/ask_for_many.html",
            {
                **self.admin_site.each_context(request),
                "title": rule.label,
                "opts": self.opts,
                "objects": objects,
                "consequences": rule.words,
                "form": form,
                "action_name": request.POST.get("action", ""),
                "checkbox_name": ACTION_CHECKBOX_NAME,
                "asked_field": ASKED,
                "expire_hours": settings.FOUR_EYES_EXPIRE_HOURS,
                "most_alone": settings.FOUR_EYES_BULK_ROWS,
            },
        )

    def _not_done(self, request: HttpRequest, action: ObjectAction, obj: M, form: forms.Form, why: str) -> HttpResponse:
        """Say why; where a form was filled in, keep what was typed."""
        messages.error(request, why)
        if action.confirm:
            return self._action_page(request, action, obj, form)
        return HttpResponseRedirect(change_url(obj))

    def _action_page(self, request: HttpRequest, action: ObjectAction, obj: M, form: forms.Form) -> HttpResponse:
        waiting = approvals.open_request(action.four_eyes, action.target(obj)) if action.needs_approval else None
        return TemplateResponse(
            request,
            self.action_template,
            {
                **self.admin_site.each_context(request),
                "title": action.label,
                "subtitle": str(obj),
                "opts": self.opts,
                "object": obj,
                "action": action,
                "form": form,
                "consequences": action.consequences(obj),
                "preview": action.preview(obj),
                "unavailable": action.unavailable(obj),
                "object_url": change_url(obj),
                "needs_approval": action.needs_approval,
                "waiting": waiting,
                "judged_on": action.mark_of(obj),
                "judged_on_field": JUDGED_ON,
                "expire_hours": settings.FOUR_EYES_EXPIRE_HOURS,
                **self.action_context(obj),
            },
        )

    def action_context(self, obj: M) -> dict[str, Any]:
        """What the page of an action on `obj` shows beside its sentences, for the screen's own `action_template`."""
        return {}

    def for_each(self, request: HttpRequest, objects: Iterable[M], perform: Callable[[M], object]) -> None:
        """Call `perform` on every object and report; one that is refused does not stop the others."""
        done = 0
        refused: list[tuple[Model, str]] = []
        for obj in objects:
            try:
                perform(obj)
            except (Refused, CodatError) as error:
                refused.append((obj, _why(error)))
            else:
                done += 1
        report(request, done, refused)

    def _secret_page(self, request: HttpRequest, obj: M, secret: Secret) -> HttpResponse:
        """Never named to another site by the Referer header; the site lets no view be stored."""
        response = TemplateResponse(
            request,
            "admin/feeds/secret.html",
            {
                **self.admin_site.each_context(request),
                "title": secret.title,
                "subtitle": str(obj),
                "opts": self.opts,
                "object": obj,
                "secret": secret,
                "object_url": change_url(obj),
            },
        )
        response["Referrer-Policy"] = "no-referrer"
        return response


def _changed_since(action: ObjectAction) -> str:
    if action.needs_approval:
        return _("What will happen has changed since this page was shown. Nothing was asked: read it again.")
    return _("What this page shows has changed since you opened it. Nothing was done: read it again.")


def report(request: HttpRequest, done: int, refused: Sequence[tuple[Model, str]]) -> None:
    """One message for a list action: how many were done, how many refused and why ("8 done, 2 refused: ...").

    Each reason stands once, after the rows it is about.
    """
    total = ngettext("%(count)d done", "%(count)d done", done) % {"count": done}
    if not refused:
        messages.success(request, total)
        return
    about: dict[str, list[str]] = {}
    for obj, reason in refused:
        about.setdefault(reason, []).append(str(obj))
    why = "; ".join(f"{_some(names)}{colon_in_words()}{reason}" for reason, names in about.items())
    text = ngettext("%(done)s, %(count)d refused: %(why)s", "%(done)s, %(count)d refused: %(why)s", len(refused))
    messages.warning(request, text % {"done": total, "count": len(refused), "why": why})


def tell_asked(request: HttpRequest, approval: Approval) -> None:
    """Say that a colleague was asked, and whether there is any who could approve."""
    asked = _('Nothing was done yet: a colleague has to approve. <a href="{}">Request #{}</a>')
    messages.success(request, format_html(asked, change_url(approval), approval.pk))
    if not approvals.deciders_of(approval):
        nobody = _("Nobody else has the right to approve this now. Ask an administrator.")
        messages.warning(request, nobody)


def explained(error: Refused) -> str:
    """The refusal as a message; where the same is asked for already, with a link to that request."""
    if not isinstance(error, approvals.AlreadyAsked):
        return str(error)
    return format_html('{} <a href="{}">{}</a>', str(error), change_url(error.approval), _("See the request"))


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    listed, more = ", ".join(names[:MOST_NAMED]), len(names) - MOST_NAMED
    return _("%(names)s and %(count)d more") % {"names": listed, "count": more} if more > 0 else listed


def _why(error: Refused | CodatError) -> str:
    return error.staff_message if isinstance(error, CodatError) else str(error)


def _asked_for(operation: Operation) -> SafeString:
    return format_html(_('Asked for; follow it here: <a href="{}">{}</a>.'), change_url(operation), str(operation))
