"""The callout studio: write the four texts, see them as the customer will, have them approved, publish and attest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from feeds import callout_text
from feeds.admin.actions import ActionsAdmin, object_action
from feeds.admin.base import EMPTY, change_url, moment, status_pill
from feeds.audit import current_actor
from feeds.callout_text import Piece
from feeds.models import CalloutVersion
from feeds.models.callout import CALLOUT_TEXTS
from feeds.services import callouts
from feeds.services.errors import Refused
from feeds.states import CALLOUT_RIGHTS, CALLOUT_TRANSITIONS, CalloutState, Language, Text

if TYPE_CHECKING:
    _CalloutForm = forms.ModelForm[CalloutVersion]
else:
    # Django's class is generic only for type checkers.
    _CalloutForm = forms.ModelForm

COMPARABLE = 50
"""Latest versions that one can choose to compare with."""
EXCERPT = 60

GET_CREDENTIALS = {Language.EN: "Get credentials", Language.FR: "Obtenir les identifiants"}
"""The button below the box, in the words of Codat's page: never translated."""


# --- Forms ----------------------------------------------------------------------------------------------------------
def _text_widget(name: str) -> forms.Widget:
    """No `maxlength`: a browser would cut what is pasted without a word. `callout.js` counts and previews."""
    attrs = {"lang": name[-2:], "data-callout-limit": CALLOUT_TEXTS[name], "class": "vLargeTextField"}
    if name.startswith("title"):
        return forms.TextInput(attrs)
    return forms.Textarea({**attrs, "rows": 3})


class CalloutForm(_CalloutForm):
    """The four texts. What is refused in them is said by the model, with its position."""

    class Meta:
        model = CalloutVersion
        fields = (*CALLOUT_TEXTS, "note")
        widgets = {name: _text_widget(name) for name in CALLOUT_TEXTS}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            # What was on the screen goes with the form: only what this person changed is written.
            field.show_hidden_initial = bool(self.instance.pk)
        for name, limit in CALLOUT_TEXTS.items():
            if name in self.fields:
                self.fields[name].help_text = _("Plain text in one line, at most %d characters.") % limit
                self.fields[name].widget.attrs["data-counted"] = _("{count} of {limit} characters")
                self.fields[name].widget.attrs["data-over"] = _("{over} too many")


class CommentForm(forms.Form):
    """Something for the next person, if there is something to say."""

    comment = forms.CharField(
        label=gettext_lazy("Comment"), max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 3})
    )


class SendBackForm(forms.Form):
    """What the author should change."""

    comment = forms.CharField(
        label=gettext_lazy("What should be changed"), max_length=500, widget=forms.Textarea(attrs={"rows": 3})
    )


class WithdrawForm(forms.Form):
    """Why nothing comes of it."""

    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=500, widget=forms.Textarea(attrs={"rows": 3}))


class DayInput(forms.DateInput):
    """The browser's own picker, which speaks ISO dates."""

    input_type = "date"

    def __init__(self) -> None:
        super().__init__(format="%Y-%m-%d")


class AttestForm(forms.Form):
    """When, who, and that it was really looked at."""

    on = forms.DateField(
        label=gettext_lazy("Day"), help_text=gettext_lazy("When it stood in the Portal."), widget=DayInput()
    )
    by_name = forms.CharField(
        label=gettext_lazy("Who was in the Portal"),
        help_text=gettext_lazy("You, or the colleague who told you."),
        max_length=200,
    )
    seen = forms.BooleanField(
        label=gettext_lazy("Every field in the Portal was compared with this version, and saved.")
    )
    comment = forms.CharField(label=gettext_lazy("Comment"), max_length=500, required=False)


class DayForm(forms.Form):
    """One day."""

    on = forms.DateField(label=gettext_lazy("Day"), widget=DayInput())


# --- What the pages show --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Preview:
    """The grey box in one language."""

    code: str
    language: Text
    title: str
    body: str
    button: str


@dataclass(frozen=True)
class FieldDifference:
    """One field in two versions: the same words, those taken out, those put in."""

    label: Text
    code: str
    pieces: Sequence[Piece]

    @property
    def is_changed(self) -> bool:
        """Whether any word differs."""
        return any(piece.change != callout_text.Change.SAME for piece in self.pieces)


def previews(texts: dict[str, str]) -> list[Preview]:
    """The box in each language, from texts by name of field."""
    return [
        Preview(code, language.label, texts[f"title_{code}"], texts[f"body_{code}"], GET_CREDENTIALS[language])
        for language in Language
        for code in (language.value,)
    ]


def label_of(name: str) -> str:
    """A field as a person calls it."""
    return capfirst(str(CalloutVersion._meta.get_field(name).verbose_name))  # type: ignore[union-attr]


def differences(old: CalloutVersion | None, new: CalloutVersion) -> list[FieldDifference]:
    """How each field of `old` became that of `new`; without an `old`, everything was put in."""
    before = old.texts() if old else dict.fromkeys(CALLOUT_TEXTS, "")
    return [
        FieldDifference(label_of(name), name[-2:], callout_text.difference(before[name], text))
        for name, text in new.texts().items()
    ]


# --- Why an action makes no sense now -------------------------------------------------------------------------------
def _must_allow(state: CalloutState) -> Any:
    def unavailable(version: CalloutVersion) -> Text:
        if state in CALLOUT_TRANSITIONS[version.state]:
            return ""
        values = {"now": version.state_meaning.label, "new": state.label}
        return _("A version that is “%(now)s” cannot become “%(new)s”.") % values

    return unavailable


def cannot_submit(version: CalloutVersion) -> Text:
    """Why it cannot be submitted: no draft, or a language is missing."""
    return _must_allow(CalloutState.SUBMITTED)(version) or " ".join(callouts.missing(version))


def cannot_send_back(version: CalloutVersion) -> Text:
    """Why there is nothing to send back."""
    return "" if version.state == CalloutState.SUBMITTED else _("Only a submitted version can be sent back.")


def submission_consequences(_version: CalloutVersion) -> list[Text]:
    """What holds still, and who may let it go."""
    if callouts.FOUR_EYES in settings.FOUR_EYES:
        return [
            _("The texts hold still until a colleague approves them or sends them back."),
            _("You will not be the one who approves: the version is yours."),
        ]
    return [
        _("The texts hold still until they are approved or sent back."),
        _("No second person is required here: whoever has the right may approve, also what they wrote."),
    ]


def approval_consequences(version: CalloutVersion) -> list[Text]:
    """What the approval says."""
    sentences: list[Text] = [
        _("You say that every customer may read these texts on Codat's Link page."),
        _("Nothing changes for customers until somebody copies them into the Codat Portal."),
    ]
    return sentences + _box_goes(version)


def attestation_consequences(version: CalloutVersion) -> list[Text]:
    """What the attestation changes here."""
    before = callouts.published()
    sentences: list[Text] = [_("Its page then says when it was last attested, and by whom. Nothing is sent to Codat.")]
    if before is not None and before.pk != version.pk:
        sentences.insert(0, _("%(version)s becomes the published one; %(before)s is superseded.") % {
            "version": version, "before": before,
        })  # fmt: skip
    return sentences + _box_goes(version)


def _box_goes(version: CalloutVersion) -> list[Text]:
    return [_("It has no text: customers will see no box.")] if version.is_empty else []


@admin.register(CalloutVersion)
class CalloutVersionAdmin(ActionsAdmin[CalloutVersion]):
    """List, form, and the pages about one version."""

    form = CalloutForm
    action_template = "admin/feeds/calloutversion/action.html"
    list_display = ("version", "pill", "since", "attested")
    list_display_links = ("version",)
    list_filter = ("state",)
    fieldsets = (
        (gettext_lazy("English"), {"fields": ("title_en", "body_en")}),
        (gettext_lazy("French"), {"fields": ("title_fr", "body_fr")}),
        (gettext_lazy("For colleagues"), {"fields": ("note",)}),
    )

    class Media:
        js = ("feeds/callout.js",)

    # --- The list ---------------------------------------------------------------------------------------------------
    @admin.display(description=gettext_lazy("version"))
    def version(self, version: CalloutVersion) -> SafeString:
        text = next(filter(None, version.texts().values()), "")
        shown = f"{text[:EXCERPT]}…" if len(text) > EXCERPT else text
        return format_html('{} <span class="quiet">{}</span>', version, shown)

    @admin.display(description=gettext_lazy("state"))
    def pill(self, version: CalloutVersion) -> SafeString:
        return status_pill(version.state_meaning)

    @admin.display(description=gettext_lazy("as of"))
    def since(self, version: CalloutVersion) -> SafeString:
        return format_html('{}<br><span class="quiet">{}</span>', moment(version.state_since), version.state_by_name)

    @admin.display(description=gettext_lazy("last attested"))
    def attested(self, version: CalloutVersion) -> SafeString:
        if version.attested_on is None:
            return EMPTY
        return format_html('{}<br><span class="quiet">{}</span>', _day(version.attested_on), version.attested_by_name)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The versions, below what is published."""
        now = callouts.published() if self.has_view_permission(request) else None
        context = {"published": now, "published_attestation": attestation(now) if now else ""}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    # --- Rights -----------------------------------------------------------------------------------------------------
    def has_change_permission(self, request: HttpRequest, obj: CalloutVersion | None = None) -> bool:
        """Only a draft's texts are changed."""
        return super().has_change_permission(request, obj) and (obj is None or obj.is_draft)

    def has_delete_permission(self, request: HttpRequest, obj: CalloutVersion | None = None) -> bool:
        """Every version is kept."""
        return False

    # --- Writing ----------------------------------------------------------------------------------------------------
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The stock form. Who saves a version that is no draft any more finds what was typed in a new draft."""
        try:
            if request.method == "POST" and object_id is not None:
                self._refuse_unless_draft(request, object_id)
            return super().changeform_view(request, object_id, form_url, extra_context)
        except Refused as refusal:
            messages.error(request, str(refusal))
            typed = {name: request.POST[name] for name in CalloutForm.Meta.fields if request.POST.get(name)}
            return HttpResponseRedirect(f"{reverse('admin:feeds_calloutversion_add')}?{urlencode(typed)}")

    def _refuse_unless_draft(self, request: HttpRequest, object_id: str) -> None:
        version = self.get_object(request, unquote(object_id))
        if version is not None and not version.is_draft and self.has_add_permission(request):
            raise Refused(callouts.no_draft(version))

    def save_model(
        self, request: HttpRequest, obj: CalloutVersion, form: forms.ModelForm[CalloutVersion], change: bool
    ) -> None:
        """By the service, which keeps the story."""
        if change:
            callouts.edit(obj, {name: form.cleaned_data[name] for name in form.changed_data}, current_actor())
        else:
            obj.pk = callouts.create(form.cleaned_data, current_actor()).pk

    # --- The page of one version ------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        """Our pages first: the stock addresses end with one for anything."""
        name = "feeds_calloutversion"
        pages = [
            path("published/", self.admin_site.admin_view(require_safe(self.day_view)), name=f"{name}_published"),
            path("<int:pk>/difference/", self.admin_site.admin_view(require_safe(self.difference_view)),
                 name=f"{name}_difference"),
            path("<int:pk>/checklist/", self.admin_site.admin_view(require_safe(self.checklist_view)),
                 name=f"{name}_checklist"),
        ]  # fmt: skip
        return [*pages, *super().get_urls()]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: CalloutVersion | None = None,
    ) -> HttpResponse:
        """The form beside its preview; of a version that exists, also its state, what it changes, and its story."""
        context["previews"] = previews(_shown(context["adminform"].form, obj))
        if obj is not None:
            context |= self._page(request, obj)
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)

    def _page(self, request: HttpRequest, version: CalloutVersion) -> dict[str, Any]:
        user = cast(User, request.user)
        own = version.state == CalloutState.SUBMITTED and callouts.needs_other_eyes(version, user)
        now = callouts.published()
        return {
            "title": str(version),
            "subtitle": capfirst(self.opts.verbose_name),
            "version": version,
            "attestation": attestation(version),
            "missing": callouts.missing(version) if version.is_draft else [],
            "is_own": own,
            "buttons": [
                button
                for button in self.action_buttons(request, version)
                if not button.unavailable and not (own and button.name == "approve")
            ],
            "may_publish": user.has_perm(CALLOUT_RIGHTS["publish"]) and not callouts.cannot_attest(version),
            "published": now,
            "differences": differences(now, version) if now != version else None,
            "events": list(version.events.all()),
        }

    def difference_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What differs between this version and the one that `?with=` names; else the published, or the latest."""
        version = self._seen(request, pk)
        others = list(CalloutVersion.objects.exclude(pk=pk)[:COMPARABLE])
        chosen = request.GET.get("with", "")
        asked_for = (it for it in others if str(it.pk) == chosen)
        is_published = (it for it in others if it.state == CalloutState.PUBLISHED)
        other = next(asked_for, None) or next(is_published, None) or (others[0] if others else None)
        context = {"other": other, "others": others, "differences": differences(other, version)}
        return self._about(request, version, "difference", _("Difference"), context)

    def checklist_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What to do in the Portal, with a button to copy each text. Raises PermissionDenied without the right to."""
        if not request.user.has_perm(CALLOUT_RIGHTS["publish"]):
            raise PermissionDenied
        version = self._seen(request, pk)
        context = {
            "refusal": callouts.cannot_attest(version),
            "portal_url": settings.CODAT_PORTAL_URL,
            "is_sandbox": settings.CODAT_SANDBOX,
            "fields": [(name, label_of(name), text) for name, text in version.texts().items()],
            "attestation": attestation(version),
            "attest_url": self.action_url(version, "attest"),
        }
        return self._about(request, version, "checklist", _("Publishing checklist"), context)

    def day_view(self, request: HttpRequest) -> HttpResponse:
        """Which text was published on a given day: today, unless `?on=` says otherwise."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = DayForm(request.GET if "on" in request.GET else {"on": timezone.localdate().isoformat()})
        day: date | None = form.cleaned_data["on"] if form.is_valid() else None
        found = callouts.published_on(day) if day else []
        context = {
            **self.admin_site.each_context(request),
            "title": _("Which text was published on a given day?"),
            "opts": self.opts,
            "form": form,
            "day": day,
            "is_future": day is not None and day > timezone.localdate(),
            "found": [(version, attestation(version), previews(version.texts())) for version in found],
        }
        return TemplateResponse(request, "admin/feeds/calloutversion/published.html", context)

    def _seen(self, request: HttpRequest, pk: int) -> CalloutVersion:
        version = self.get_object(request, str(pk))
        if not self.has_view_permission(request, version):
            raise PermissionDenied
        if version is None:
            raise Http404
        return version

    def _about(
        self, request: HttpRequest, version: CalloutVersion, template: str, title: str, context: dict[str, Any]
    ) -> HttpResponse:
        shared = {
            **self.admin_site.each_context(request),
            "title": title,
            "subtitle": str(version),
            "opts": self.opts,
            "object": version,
            "object_url": change_url(version),
            "version": version,
        }
        return TemplateResponse(request, f"admin/feeds/calloutversion/{template}.html", {**shared, **context})

    # --- Actions ----------------------------------------------------------------------------------------------------
    def action_context(self, obj: CalloutVersion) -> dict[str, Any]:
        """The words that are decided on."""
        return {"previews": previews(obj.texts())}

    @object_action(
        "submit",
        gettext_lazy("Submit"),
        permission=CALLOUT_RIGHTS["submit"],
        form=CommentForm,
        consequences=submission_consequences,
        unavailable=cannot_submit,
    )
    def submit(self, request: HttpRequest, version: CalloutVersion, data: dict[str, Any]) -> str:
        callouts.submit(version, current_actor(), data["comment"])
        return _("%s waits for approval.") % version

    @object_action(
        "approve",
        gettext_lazy("Approve"),
        permission=CALLOUT_RIGHTS["approve"],
        form=CommentForm,
        consequences=approval_consequences,
        unavailable=_must_allow(CalloutState.APPROVED),
        judged_on=callouts.mark,
    )
    def approve(self, request: HttpRequest, version: CalloutVersion, data: dict[str, Any]) -> str:
        callouts.approve(version, current_actor(), data["comment"])
        return _("%s is approved. Now it has to be copied into the Codat Portal.") % version

    @object_action(
        "send-back",
        gettext_lazy("Send back"),
        permission=CALLOUT_RIGHTS["approve"],
        form=SendBackForm,
        consequences=lambda _version: [_("It becomes a draft again, and its authors read what you write.")],
        unavailable=cannot_send_back,
    )
    def send_back(self, request: HttpRequest, version: CalloutVersion, data: dict[str, Any]) -> str:
        callouts.send_back(version, current_actor(), data["comment"])
        return _("%s is a draft again.") % version

    @object_action(
        "attest",
        gettext_lazy("Attest"),
        permission=CALLOUT_RIGHTS["publish"],
        form=AttestForm,
        initial=lambda _version: {"on": timezone.localdate(), "by_name": current_actor().name},
        consequences=attestation_consequences,
        unavailable=callouts.cannot_attest,
    )
    def attest(self, request: HttpRequest, version: CalloutVersion, data: dict[str, Any]) -> SafeString:
        callouts.attest(version, current_actor(), on=data["on"], by_name=data["by_name"], comment=data["comment"])
        version.refresh_from_db()
        return format_html("{}: {}.", version, attestation(version))

    @object_action(
        "copy",
        gettext_lazy("Copy as a new draft"),
        permission=CALLOUT_RIGHTS["create"],
        consequences=lambda _version: [_("A new draft is made with these texts. This version stays as it is.")],
        confirm=False,
    )
    def copy(self, request: HttpRequest, version: CalloutVersion, data: dict[str, Any]) -> HttpResponse:
        draft = callouts.copy(version, current_actor())
        messages.success(request, _("%(draft)s is a draft with the texts of %(version)s.") % {
            "draft": draft, "version": version,
        })  # fmt: skip
        return HttpResponseRedirect(change_url(draft))

    @object_action(
        "withdraw",
        gettext_lazy("Withdraw"),
        permission=CALLOUT_RIGHTS["submit"],
        form=WithdrawForm,
        consequences=lambda _version: [_("It will not be published. It is kept, and can be copied as a new draft.")],
        unavailable=_must_allow(CalloutState.WITHDRAWN),
        dangerous=True,
    )
    def withdraw(self, request: HttpRequest, version: CalloutVersion, data: dict[str, Any]) -> str:
        callouts.withdraw(version, current_actor(), data["reason"])
        return _("%s is withdrawn.") % version


def attestation(version: CalloutVersion) -> SafeString:
    """ "last attested on <day> by <name>"; empty when it never was."""
    if version.attested_on is None:
        return SafeString("")
    return format_html(_("last attested on {} by {}"), _day(version.attested_on), version.attested_by_name)


def _day(day: date) -> SafeString:
    return format_html('<time class="nowrap" datetime="{0}">{0}</time>', day.isoformat())


def _shown(form: forms.ModelForm[CalloutVersion], obj: CalloutVersion | None) -> dict[str, str]:
    """The texts as they stand in the form, which may hold what was refused; of a page without a form, as stored."""
    stored = obj.texts() if obj else dict.fromkeys(CALLOUT_TEXTS, "")
    return {name: (form[name].value() or "") if name in form.fields else text for name, text in stored.items()}
