"""Companies: where a relationship manager spends the day. Create, onboard, watch, hand over the link."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, Prefetch, Q, QuerySet, prefetch_related_objects
from django.forms.models import BaseInlineFormSet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feeds.admin.actions import ActionsAdmin, ReasonForm, Secret, list_action, object_action, report
from feeds.admin.base import SEARCH_BY_COMPANY, as_of, change_url, named, person, status_pill
from feeds.admin.connections import LINK_REPLACED, link_secret, no_link_needed, no_live_link
from feeds.admin.invitations import InviteForm, contact_mail_preview
from feeds.admin.meanwhile import MeanwhileForm
from feeds.admin.timelines import timeline_page
from feeds.audit import current_actor
from feeds.banking import USUAL_ROUTING_TYPE, Finding, mask
from feeds.models import Company, Connection, Operation, SourceAccount
from feeds.services import access, invitations, link_need, links, onboarding, preflight, sync
from feeds.services import accounts as account_service
from feeds.services import companies as company_service
from feeds.services.approval_rules import INVITING_MANY
from feeds.services.ledger import ACTIVE_ONBOARDING
from feeds.states import AccountStatus, InvitationPurpose, OnboardingState, Text

if TYPE_CHECKING:
    _AccountFormSet = BaseInlineFormSet[SourceAccount, Company, "NewAccountForm"]
    _AccountInline = admin.StackedInline[SourceAccount, Company]
else:
    # Django's classes are generic only for type checkers.
    _AccountFormSet = BaseInlineFormSet
    _AccountInline = admin.StackedInline

_ACCOUNT_FIELD = re.compile(r"accounts\[(?P<index>\d+)\]\.(?P<field>\w+)")

REFRESH_MS = 1500
"""How often a panel that is moving is fetched again."""
COUNTDOWN_MS = 30_000
"""How often it is while only the customer can move it."""

ERROR, WARNING = "error", "warning"


# --- What stands on the page, asked once ----------------------------------------------------------------------------
def live_connection(company: Company) -> Connection | None:
    """The company's connection that still exists in Codat; prefetched by `CompanyAdmin.get_queryset`."""
    found: list[Connection] = company.live_connections  # type: ignore[attr-defined]
    return found[0] if found else None


def offered_accounts(company: Company) -> list[SourceAccount]:
    """The accounts that are, or are to be, in Codat; prefetched by `CompanyAdmin.get_object`."""
    return [account for account in company.source_accounts.all() if account.gone_at is None]


def waiting_accounts(company: Company) -> list[SourceAccount]:
    """The accounts that are not in Codat yet."""
    return [account for account in offered_accounts(company) if not account.is_in_codat]


def is_busy(company: Company) -> bool:
    """Whether onboarding is under way, so that the accounts must hold still."""
    return company.onboarding_state in ACTIVE_ONBOARDING


# --- Forms ----------------------------------------------------------------------------------------------------------
class CompanyForm(MeanwhileForm):
    """What the bank owns. Errors of preflight block; its warnings are shown after saving."""

    class Meta:
        model = Company
        fields = (
            "customer_number", "legal_name", "country", "language", "time_zone", "manager", "contact_name",
            "contact_email", "notes",
        )  # fmt: skip
        widgets = {"notes": forms.Textarea(attrs={"rows": 3})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        manager = self.fields.get("manager")
        if isinstance(manager, forms.ModelChoiceField) and manager.queryset is not None:
            # One who has left stays until somebody else is chosen: saving another field must not take them away.
            manager.queryset |= User.objects.filter(pk=self.instance.manager_id)
        name = self.fields.get("legal_name")
        # Codat keeps the name it was given first.
        if name is not None and not self.instance.codat_id:
            name.widget.attrs["data-name-preview-url"] = reverse("admin:feeds_company_name_preview")

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]  # Django's hook for checks that need the instance
        for finding in preflight.check(self.instance, []):
            if finding.level == ERROR and finding.field in self.fields and finding.field not in self.errors:
                self.add_error(finding.field, finding.message)


class NewAccountForm(MeanwhileForm):
    """An account that is not in Codat yet. A stored number is not shown again: typing nothing keeps it."""

    instance: SourceAccount
    not_sent = frozenset({"account_number"})

    class Meta:
        model = SourceAccount
        fields = (
            "name", "account_type", "account_number", "currency", "bank_code", "routing_type", "balance",
            "account_open_date", "sort_code", "account_id",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        number = self.fields.get("account_number")
        if number is not None and self.instance.pk:
            self.initial["account_number"] = ""
            number.required = False
            number.widget.attrs["placeholder"] = mask(self.instance.account_number)
            number.help_text = _("Leave empty to keep the number that is stored.")
            number.widget.attrs["autocomplete"] = "off"

    def clean_account_number(self) -> str:
        """What was typed, or what is stored."""
        return self.cleaned_data["account_number"] or self.instance.account_number

    def clean(self) -> dict[str, Any]:
        """Fill what can be known: the usual routing type, and the id, so that a duplicate is found with the rest."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get("bank_code") and not data.get("routing_type"):
            data["routing_type"] = USUAL_ROUTING_TYPE.get(data["company"].country, "")
        if not data.get("account_id") and data.get("account_number"):
            account = SourceAccount(
                company=data["company"],
                account_id=self.instance.account_id,
                account_number=data["account_number"],
            )
            account_service.assign_account_id(account)
            data["account_id"] = account.account_id
        return data


class NewAccountFormSet(_AccountFormSet):
    """The accounts of one company that are not in Codat yet, checked together with those that are."""

    instance: Company

    def clean(self) -> None:
        """Refuse while onboarding is under way; put preflight's errors beside their fields."""
        super().clean()
        if any(form.instance.pk is None for form in self.initial_forms):
            raise ValidationError(
                _("An account on this page was sent to Codat, or removed, meanwhile. Nothing was saved; open it again.")
            )
        if self.instance.pk and self.has_changed() and is_busy(self.instance):
            raise ValidationError(_("Onboarding is under way. Change the accounts when it has ended."))
        kept = [
            form
            for form in self.forms
            if form.is_valid() and form not in self.deleted_forms and (form.instance.pk or form.has_changed())
        ]
        # The new ones come first, so that the places in preflight's findings are those of the forms.
        accounts = [form.instance for form in kept] + self._in_codat()
        for finding in preflight.check(self.instance, accounts):
            place = _ACCOUNT_FIELD.fullmatch(finding.field)
            if finding.level == ERROR and place is not None and int(place["index"]) < len(kept):
                kept[int(place["index"])].add_error(place["field"], finding.message)

    def get_unique_error_message(self, unique_check: Sequence[str]) -> str:
        """The only thing that must differ between accounts is their id, which follows from the number."""
        return _("Two of these accounts have the same account number or account id. Enter each account once.")

    def _in_codat(self) -> list[SourceAccount]:
        if not self.instance.pk:
            return []
        return list(self.instance.source_accounts.filter(connection__isnull=False, gone_at__isnull=True))


class NewAccountInline(_AccountInline):
    """Accounts that can still be changed here; once in Codat they are read-only and change by named actions."""

    model = SourceAccount
    form = NewAccountForm
    formset = NewAccountFormSet  # type: ignore[assignment]  # the stubs know no form of one's own
    verbose_name = gettext_lazy("source account")
    verbose_name_plural = gettext_lazy("Source accounts that are not in Codat yet")
    fieldsets = (
        (None, {"fields": (("name", "account_type"), ("account_number", "currency"), ("bank_code", "routing_type"))}),
        (
            gettext_lazy("More about this account"),
            {"fields": (("balance", "account_open_date"), ("sort_code", "account_id")), "classes": ("collapse",)},
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[SourceAccount]:
        """Only those that are not in Codat, in the order they were typed."""
        return super().get_queryset(request).filter(connection__isnull=True, gone_at__isnull=True).order_by("pk")

    def get_extra(self, request: HttpRequest, obj: Company | None = None, **kwargs: Any) -> int:
        """One empty account to begin with."""
        return 0 if obj else 1


class ManagerFilter(admin.SimpleListFilter):
    """Companies by who looks after them."""

    title = gettext_lazy("relationship manager")
    parameter_name = "manager"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Two choices, whatever the size of the bank."""
        return [("me", _("me")), ("nobody", _("nobody"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Company]) -> QuerySet[Company]:
        """Companies of the signed-in person, or of nobody."""
        if self.value() == "me":
            return queryset.filter(manager=request.user.pk)
        if self.value() == "nobody":
            return queryset.filter(manager__isnull=True)
        return queryset


def _one_mail_for_each_language(companies: list[Company], purpose: InvitationPurpose) -> list[tuple[str, str, str]]:
    """Language in words, its code, and the mail to the first company that gets it in that language."""
    firsts = {company.language: company for company in reversed(companies)}
    return [
        (first.get_language_display(), language, contact_mail_preview(first, purpose))
        for language, first in sorted(firsts.items())
    ]


# --- Why an action makes no sense now -------------------------------------------------------------------------------
def cannot_onboard(company: Company) -> Text:
    """Why Onboard has nothing to start."""
    if is_busy(company):
        return _("Onboarding is under way.")
    if company.onboarding_state == OnboardingState.FAILED:
        return _("A step has failed: correct what it names, then press Retry.")
    if not offered_accounts(company):
        return _("Add at least one source account and save, then press Onboard.")
    if company.onboarding_state in onboarding.FINAL_STATES and not waiting_accounts(company):
        return _("Everything is in Codat already.")
    return ""


def has_manager(company: Company) -> Text:
    """Why it cannot be taken over."""
    if company.manager is None:
        return ""
    return _("%(name)s looks after this company.") % {"name": person(company.manager)}


def cannot_retry(company: Company) -> Text:
    """Why Retry has nothing to continue."""
    if company.onboarding_state in (OnboardingState.FAILED, OnboardingState.RETRYING):
        return ""
    return _("No step has failed.")


def cannot_refresh(company: Company) -> Text:
    """Why there is nothing to read."""
    if not company.is_in_codat:
        return _("This company is not in Codat yet. Press Onboard first.")
    return _("Onboarding is under way.") if is_busy(company) else ""


def no_link_to_show(company: Company) -> Text:
    """Why there is no link."""
    connection = live_connection(company)
    return no_live_link(connection) if connection else _("There is no connection in Codat yet. Press Onboard first.")


def no_link_to_refresh(company: Company) -> Text:
    """Why no fresh link can be had."""
    connection = live_connection(company)
    if connection is None:
        return _("There is no connection in Codat yet. Press Onboard first.")
    return no_link_needed(connection) or cannot_refresh(company)


def read_from_codat(company: Company) -> str:
    """Read the company's statuses from Codat now and say what changed. Raises CodatError and Refused."""
    changes = sync.refresh_company(company, actor=current_actor()).changes
    return _("Read from Codat: %s.") % "; ".join(changes) if changes else _("Read from Codat: nothing has changed.")


def onboarding_consequences(company: Company) -> list[Text]:
    """What Onboard or Retry will create, and what preflight finds."""
    waiting = waiting_accounts(company)
    planned = []
    if not company.is_in_codat:
        planned.append(_("1 company, stored as “%(name)s”") % {"name": preflight.stored_name(company.legal_name)})
    if live_connection(company) is None:
        planned.append(_("1 connection"))
    if waiting:
        count = len(waiting)
        planned.append(ngettext("%(count)d source account", "%(count)d source accounts", count) % {"count": count})
    requests = ngettext("%(count)d request", "%(count)d requests", len(planned)) % {"count": len(planned)}
    sentences: list[Text] = [
        _("Created in Codat: %(things)s (%(requests)s).") % {"things": ", ".join(planned), "requests": requests}
        if planned
        else _("Everything is in Codat already; only the link is read.")
    ]
    sentences.append(_("Nothing is sent to the customer. You hand over the link when it is ready."))
    return sentences + [_said(finding) for finding in preflight.check(company, offered_accounts(company))]


def deletion_consequences(company: Company) -> list[Text]:
    """What goes with the company."""
    count = len(offered_accounts(company))
    accounts = ngettext("%(count)d source account goes with it.", "%(count)d source accounts go with it.", count)
    return [
        _("%s is deleted here. This cannot be undone; the change history keeps what it was.") % company,
        accounts % {"count": count},
        _("It never was in Codat, so nothing changes there."),
    ]


def off_boarding_consequences(company: Company) -> list[Text]:
    """What Codat deletes, and what stops with it."""
    reading = sum(account.status == AccountStatus.CONNECTED for account in offered_accounts(company))
    stop = ngettext("%(count)d account stops feeding.", "%(count)d accounts stop feeding.", reading)
    return [
        _("%s is deleted in Codat, with its connection and its accounts. This cannot be undone.") % company,
        stop % {"count": reading},
        _("What was handed over to QuickBooks already stays there."),
        _("Here the rows stay, marked as gone, with their history."),
    ]


def _said(finding: Finding) -> str:
    level = _("Must be corrected first") if finding.level == ERROR else _("Please check")
    return f"{level}: {finding.message}"


@admin.register(Company)
class CompanyAdmin(ActionsAdmin[Company]):
    """The company page: its onboarding, what Codat has of it, and the form of what the bank owns."""

    form = CompanyForm
    inlines = (NewAccountInline,)
    list_display = ("name_and_number", "onboarding_pill", "connection_now", "manager_name", "country_code")
    list_display_links = ("name_and_number",)
    list_select_related = ("manager",)
    list_filter = ("onboarding_state", ManagerFilter, "country", "language")
    actions = ("onboard_selected", "invite_selected", "take_over_selected")
    # The company itself is what is looked up.
    search_company_path = "pk"
    search_help_text = SEARCH_BY_COMPANY
    fieldsets = (
        (gettext_lazy("Customer"), {"fields": ("legal_name", ("customer_number", "country"), ("manager", "language"))}),
        (gettext_lazy("Contact"), {"fields": (("contact_name", "contact_email"), "time_zone")}),
        (gettext_lazy("Notes"), {"fields": ("notes",)}),
    )

    class Media:
        js = ("feeds/name_preview.js", "feeds/progress.js")

    # --- Reading ----------------------------------------------------------------------------------------------------
    def get_queryset(self, request: HttpRequest) -> QuerySet[Company]:
        """Companies with their live connection: one more query for the whole page."""
        live = link_need.annotated(Connection.objects.filter(gone_at__isnull=True))
        return (
            super()
            .get_queryset(request)
            .prefetch_related(Prefetch("connections", queryset=live, to_attr="live_connections"))
        )

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Company | None:
        """The company with its accounts, which every part of its page asks for."""
        company = super().get_object(request, object_id, from_field)
        if company is not None:
            accounts = SourceAccount.objects.order_by("pk")
            prefetch_related_objects([company], Prefetch("source_accounts", queryset=accounts))
        return company

    @admin.display(description=gettext_lazy("company"))
    def name_and_number(self, company: Company) -> SafeString:
        return named(company)

    @admin.display(description=gettext_lazy("onboarding"))
    def onboarding_pill(self, company: Company) -> SafeString:
        return status_pill(company.onboarding)

    @admin.display(description=gettext_lazy("connection"))
    def connection_now(self, company: Company) -> SafeString | str:
        connection = live_connection(company)
        if connection is None:
            return self.get_empty_value_display()
        return format_html(
            '{} <span class="as-of nowrap">{}</span>', status_pill(connection.status_meaning), as_of(connection.read_at)
        )

    @admin.display(description=gettext_lazy("manager"))
    def manager_name(self, company: Company) -> str:
        return person(company.manager) or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("country"))
    def country_code(self, company: Company) -> str:
        return company.country

    # --- Writing ----------------------------------------------------------------------------------------------------
    def get_readonly_fields(self, request: HttpRequest, obj: Company | None = None) -> tuple[str, ...]:
        """Once the company is in Codat, the number that names it here stays; who gives customers away has a right."""
        fields = ("customer_number",) if obj and obj.codat_id else ()
        return fields if request.user.has_perm(access.REASSIGN) else (*fields, "manager_name")

    def get_fieldsets(self, request: HttpRequest, obj: Company | None = None) -> Any:
        """Who may not give customers away reads the manager's name; a new company becomes its maker's."""
        fieldsets = super().get_fieldsets(request, obj)
        if request.user.has_perm(access.REASSIGN):
            return fieldsets
        shown: Any = "language" if obj is None else ("manager_name", "language")
        title, options = fieldsets[0]
        fields = [shown if field == ("manager", "language") else field for field in options["fields"]]
        return [(title, {**options, "fields": fields}), *fieldsets[1:]]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Whoever creates a company usually looks after it."""
        return {"manager": request.user.pk, **super().get_changeform_initial_data(request)}

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Managers are staff who are still here."""
        if db_field.name == "manager":
            users = db_field.remote_field.model._default_manager
            kwargs["queryset"] = users.filter(is_active=True, is_staff=True).order_by("last_name", "username")
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if db_field.name == "manager" and field is not None:
            field.label_from_instance = person  # type: ignore[method-assign, assignment]  # Django's own way
        return field

    def get_inline_instances(self, request: HttpRequest, obj: Company | None = None) -> list[Any]:
        """Only for who may edit accounts, and not while they are being sent: the panel shows them then.

        A form that was open meanwhile is still read, to be told so.
        """
        if obj is not None and not (request.method == "POST" or self._accounts_stand_in_form(request, obj)):
            return []
        return super().get_inline_instances(request, obj)

    def _accounts_stand_in_form(self, request: HttpRequest, company: Company) -> bool:
        may_edit = request.user.has_perm("feeds.change_sourceaccount")
        return may_edit and self.has_change_permission(request, company) and not is_busy(company)

    def has_delete_permission(self, request: HttpRequest, obj: Company | None = None) -> bool:
        """By the action of that name, which asks why: one at a time, and only what never reached Codat."""
        return False

    def save_model(self, request: HttpRequest, obj: Company, form: forms.ModelForm[Company], change: bool) -> None:
        """Write only what was typed: a worker may be writing the other columns now."""
        if change:
            obj.save(update_fields=[*form.changed_data, "updated_at"])
        else:
            if not request.user.has_perm(access.REASSIGN):
                obj.manager = cast(User, request.user)
            obj.save()

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """As `save_model`, for accounts."""
        formset.save(commit=False)
        for account in formset.deleted_objects:
            account.delete()
        for account, changed in formset.changed_objects:
            account.save(update_fields=[*changed, "updated_at"])
        for account in formset.new_objects:
            account.save()
        formset.save_m2m()

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """After everything is stored: what preflight wants looked at. Warnings never block."""
        super().save_related(request, form, formsets, change)
        company = form.instance
        accounts = list(company.source_accounts.filter(gone_at__isnull=True).order_by("pk"))
        for finding in preflight.check(company, accounts):
            if finding.level == WARNING:
                messages.warning(request, self._about(finding, accounts))

    @staticmethod
    def _about(finding: Finding, accounts: list[SourceAccount]) -> str:
        place = _ACCOUNT_FIELD.fullmatch(finding.field)
        return f"{accounts[int(place['index'])].name}: {finding.message}" if place else finding.message

    def response_post_save_add(self, request: HttpRequest, obj: Company) -> HttpResponseRedirect:
        """On to the company's page: Onboard is there."""
        return HttpResponseRedirect(change_url(obj))

    def response_post_save_change(self, request: HttpRequest, obj: Company) -> HttpResponseRedirect:
        """Back to the company's page."""
        return HttpResponseRedirect(change_url(obj))

    # --- The page ---------------------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        """The stock addresses, the live panel and the name preview."""
        view = self.admin_site.admin_view
        return [
            path("name-preview/", view(self.name_preview_view), name="feeds_company_name_preview"),
            path("<path:object_id>/progress/", view(self.progress_view), name="feeds_company_progress"),
            path("<path:object_id>/timeline/", view(self.timeline_view), name="feeds_company_timeline"),
            *super().get_urls(),
        ]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Company | None = None,
    ) -> HttpResponse:
        """The form, with the live panel above it."""
        # Saving leads back to this page anyway.
        context["show_save_and_continue"] = False
        if obj is not None:
            context |= self._panel(request, obj, accounts_in_form=self._accounts_stand_in_form(request, obj))
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)

    def _panel(self, request: HttpRequest, company: Company, *, accounts_in_form: bool) -> dict[str, Any]:
        """What `admin/feeds/company/progress.html` renders. Accounts that the page's form shows are not repeated."""
        buttons = self.action_buttons(request, company)
        connection = live_connection(company)
        now = timezone.now()
        link_is_live = connection is not None and connection.has_live_link(now)
        is_moving = is_busy(company) or Operation.objects.open().filter(company=company).exists()
        accounts = [
            account for account in company.source_accounts.all() if account.connection_id or not accounts_in_form
        ]
        return {
            "company": company,
            "steps": onboarding.steps(company),
            "connection": connection,
            "now": now,
            "link_is_live": link_is_live,
            "link_replaced": LINK_REPLACED if connection is not None and connection.has_replaced_link(now) else None,
            "accounts": accounts,
            "panel_buttons": [button for button in buttons if not button.unavailable],
            # A link counts down, and whoever holds it may connect at any moment.
            "refresh_ms": REFRESH_MS if is_moving else COUNTDOWN_MS if link_is_live else None,
            "accounts_in_form": accounts_in_form,
            # The page was loaded while they had to hold still; its form can be had again.
            "offer_reload": not accounts_in_form and self._accounts_stand_in_form(request, company),
        }

    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The live panel alone; `progress.js` asks for it until nothing is under way."""
        company = self.get_object(request, object_id)
        if company is None:
            raise Http404
        if not self.has_view_permission(request, company):
            raise PermissionDenied
        panel = self._panel(request, company, accounts_in_form="accounts_in_form" in request.GET)
        return render(request, "admin/feeds/company/progress.html", panel)

    def timeline_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What happened to the company, newest first."""
        company = super().get_object(request, object_id)
        if company is None:
            raise Http404
        if not self.has_view_permission(request, company):
            raise PermissionDenied
        return timeline_page(self, request, company)

    def name_preview_view(self, request: HttpRequest) -> HttpResponse:
        """What Codat will store for the posted `legal_name`: ``{"stored", "message", "tone"}``."""
        if not (self.has_add_permission(request) or self.has_change_permission(request)):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        typed = request.POST.get("legal_name", "").strip()
        stored = preflight.stored_name(typed)
        company = Company(customer_number="-", contact_email="", legal_name=typed)
        refusals = [f.message for f in preflight.check(company, []) if f.field == "legal_name" and f.level == ERROR]
        if refusals:
            return JsonResponse({"stored": stored, "message": " ".join(refusals), "tone": "bad"})
        message = _("Codat will store: %(name)s") % {"name": stored}
        return JsonResponse({"stored": stored, "message": message, "tone": "" if stored == typed else "warning"})

    # --- Actions ----------------------------------------------------------------------------------------------------
    @object_action(
        "onboard",
        gettext_lazy("Onboard"),
        permission="feeds.onboard_company",
        consequences=onboarding_consequences,
        unavailable=cannot_onboard,
    )
    def onboard(self, request: HttpRequest, company: Company, data: dict[str, Any]) -> str:
        onboarding.request(company, actor=current_actor())
        return _("Onboarding has started. This page follows it.")

    @object_action(
        "retry",
        gettext_lazy("Retry"),
        permission="feeds.onboard_company",
        consequences=lambda company: [
            _("Onboarding continues from the step that failed. What is in Codat already is not created again."),
            *onboarding_consequences(company),
        ],
        unavailable=cannot_retry,
    )
    def retry(self, request: HttpRequest, company: Company, data: dict[str, Any]) -> str:
        onboarding.request(company, actor=current_actor())
        return _("Onboarding continues. This page follows it.")

    @object_action(
        "invite",
        gettext_lazy("Invite customer"),
        permission="feeds.invite_company",
        form=InviteForm,
        initial=lambda company: {
            "purpose": InvitationPurpose.CONNECT,
            "contact_name": company.contact_name,
            "contact_email": company.contact_email,
            "language": company.language,
            "days": settings.INVITATION_DAYS,
        },
        consequences=lambda company: [
            _("An invitation to our own page is made. Its link works for days and can be mailed."),
            _("Codat's link, which lives for an hour, is fetched when the customer presses the button there."),
            _("Nothing is sent yet: on the next page you see the mail before it goes, or copy the link."),
            _("An invitation of %s for the same purpose that still works is replaced.") % company,
        ],
        unavailable=invitations.why_not,
    )
    def invite_customer(self, request: HttpRequest, company: Company, data: dict[str, Any]) -> HttpResponse:
        invitation = invitations.invite(company, actor=current_actor(), **data)
        messages.success(request, _("The invitation is made. Now send it by mail, or show its link."))
        return HttpResponseRedirect(change_url(invitation))

    @object_action(
        "show-link",
        gettext_lazy("Show link"),
        permission="feeds.reveal_link",
        consequences=lambda company: [
            _("The link of %(company)s is shown. Whoever has it can connect this customer's accounts.")
            % {"company": company},
            _("That you saw it is kept in the change history."),
        ],
        unavailable=no_link_to_show,
    )
    def show_link(self, request: HttpRequest, company: Company, data: dict[str, Any]) -> Secret:
        return link_secret(cast(Connection, live_connection(company)))

    @object_action(
        "refresh-link",
        gettext_lazy("Refresh link"),
        permission="feeds.refresh_link",
        consequences=lambda _company: [
            _("A fresh link is fetched from Codat. It works for one hour."),
            _("A link that you handed over before may stop working."),
        ],
        unavailable=no_link_to_refresh,
    )
    def refresh_link(self, request: HttpRequest, company: Company, data: dict[str, Any]) -> str:
        links.refresh(cast(Connection, live_connection(company)), actor=current_actor())
        return _("A fresh link is being fetched. This page follows it.")

    @object_action(
        "refresh-status",
        gettext_lazy("Refresh status"),
        permission="feeds.refresh_company",
        consequences=lambda _company: [_("The connection and its accounts are read from Codat; nothing changes.")],
        unavailable=cannot_refresh,
        confirm=False,
    )
    def refresh_status(self, request: HttpRequest, company: Company, data: dict[str, Any]) -> str:
        return read_from_codat(company)

    @object_action(
        "delete",
        gettext_lazy("Delete"),
        permission="feeds.delete_company",
        form=ReasonForm,
        consequences=deletion_consequences,
        unavailable=company_service.why_not_deletable,
        dangerous=True,
        four_eyes="delete_company",
    )
    def delete(self, request: HttpRequest, company: Company, data: dict[str, Any]) -> HttpResponse:
        done = company_service.delete(company, actor=current_actor(), reason=data["reason"])
        messages.success(request, done)
        return HttpResponseRedirect(reverse("admin:feeds_company_changelist"))

    @object_action(
        "delete-in-codat",
        gettext_lazy("Delete in Codat"),
        permission="feeds.remove_company",
        form=ReasonForm,
        consequences=off_boarding_consequences,
        unavailable=company_service.why_not_deletable_in_codat,
        dangerous=True,
        four_eyes="delete_company_in_codat",
    )
    def delete_in_codat(self, request: HttpRequest, company: Company, data: dict[str, Any]) -> Operation:
        return company_service.delete_in_codat(company, actor=current_actor(), reason=data["reason"])

    @object_action(
        "take-over",
        gettext_lazy("Take over"),
        permission="feeds.take_company",
        consequences=lambda company: [
            _("You become the relationship manager of %(company)s.") % {"company": company},
            _("From then on the other relationship managers no longer see it."),
        ],
        unavailable=has_manager,
    )
    def take_over(self, request: HttpRequest, company: Company, data: dict[str, Any]) -> str:
        access.take_over(company, current_actor())
        return _("You look after %(company)s now.") % {"company": company}

    @list_action(gettext_lazy("Take over selected companies"), permission="feeds.take_company")
    def take_over_selected(self, request: HttpRequest, companies: list[Company]) -> None:
        self.for_each(request, companies, lambda company: access.take_over(company, current_actor()))

    @list_action(
        gettext_lazy("Onboard selected companies"),
        permission="feeds.onboard_company",
        four_eyes="onboard_companies",
    )
    def onboard_selected(self, request: HttpRequest, companies: list[Company]) -> HttpResponse:
        """First a page that says what will happen; confirmed, a batch and its page."""
        if "confirmed" not in request.POST:
            return self._confirm_selected(request, companies)
        label = _("Selected companies (%(count)d)") % {"count": len(companies)}
        result = onboarding.request_many(companies, label=label, actor=current_actor())
        report(request, result.accepted, result.refused)
        return HttpResponseRedirect(change_url(result.batch))

    @list_action(
        gettext_lazy("Invite selected companies"),
        permission="feeds.invite_company",
        four_eyes="invite_companies",
    )
    def invite_selected(self, request: HttpRequest, companies: list[Company]) -> HttpResponse | None:
        """First a page with the addresses and the mail; confirmed, an invitation and a mail for each."""
        purpose = InvitationPurpose.CONNECT
        if "confirmed" in request.POST:
            self.for_each(
                request,
                companies,
                lambda company: invitations.invite_contact(company, purpose=purpose, actor=current_actor()),
            )
            return None
        return TemplateResponse(
            request,
            "admin/feeds/company/invite_selected.html",
            {
                **self.admin_site.each_context(request),
                "title": _("Invite selected companies"),
                "opts": self.opts,
                "companies": companies,
                "consequences": INVITING_MANY,
                "previews": _one_mail_for_each_language(companies, purpose),
                "action_name": "invite_selected",
                "checkbox_name": ACTION_CHECKBOX_NAME,
            },
        )

    def _confirm_selected(self, request: HttpRequest, companies: list[Company]) -> HttpResponse:
        chosen = [company.pk for company in companies]
        offered = Q(source_accounts__gone_at__isnull=True)
        counted = Company.objects.filter(pk__in=chosen).annotate(accounts=Count("source_accounts", filter=offered))
        return TemplateResponse(
            request,
            "admin/feeds/company/onboard_selected.html",
            {
                **self.admin_site.each_context(request),
                "title": _("Onboard selected companies"),
                "opts": self.opts,
                "companies": list(counted.order_by("-pk")),
                "action_name": "onboard_selected",
                "checkbox_name": ACTION_CHECKBOX_NAME,
            },
        )
