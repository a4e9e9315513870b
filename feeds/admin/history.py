"""The change history: who did what, when, from where, why. Searched, read, compared, taken out; nobody edits it."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from feeds.admin import history_rows
from feeds.admin.actions import ReasonForm
from feeds.admin.base import MirrorAdmin, link_column, status_explained, status_pill, time_column, withdraw
from feeds.admin.history_search import SearchForm, day_field, query_of, quick_periods
from feeds.audit import current_actor
from feeds.models import AuditEntry, Company, HistoryExport
from feeds.services import evidence, exports, history, replay
from feeds.services.errors import Refused
from feeds.services.history import Page, Search
from feeds.states import ExportFormat

withdraw("auditlog", AuditEntry)

EXPORT = "feeds.export_history"
EVIDENCE = "feeds.make_evidence_pack"

read_only = method_decorator(require_safe)
asked_then_done = method_decorator(require_http_methods(["GET", "HEAD", "POST"]))


class ExportForm(ReasonForm):
    """How to write the rows, and why they are taken out."""

    format = forms.ChoiceField(
        label=gettext_lazy("Format"),
        choices=ExportFormat.choices,
        initial=ExportFormat.CSV,
        widget=forms.RadioSelect,
    )
    field_order = ("format", "reason")


class EvidenceForm(ReasonForm):
    """For which period, and why."""

    start = day_field(pgettext_lazy("first day", "From"))
    end = day_field(pgettext_lazy("last day", "To"), help_text=gettext_lazy("Both days are included."))
    field_order = ("start", "end", "reason")


class DaysForm(forms.Form):
    """One day, or two to compare."""

    day = day_field(gettext_lazy("At the end of"))
    other = day_field(gettext_lazy("compared with the end of"), required=False)


@admin.register(AuditEntry)
class AuditEntryAdmin(MirrorAdmin[AuditEntry]):
    """The searched list, an entry, an object's story and its past; exports and evidence packs."""

    of_all_customers = True

    def get_urls(self) -> list[URLPattern]:
        """The stock addresses, and those of this room: before them, because they end with one for anything."""
        view = self.admin_site.admin_view
        return [
            path("of/<str:kind>/<path:key>/then/", view(self.state_view), name="feeds_auditentry_state"),
            path("of/<str:kind>/<path:key>/", view(self.story_view), name="feeds_auditentry_story"),
            path("export/", view(self.export_view), name="feeds_auditentry_export"),
            path("evidence/<int:company_id>/", view(self.evidence_view), name="feeds_evidence"),
            *super().get_urls(),
        ]

    # --- The list ---------------------------------------------------------------------------------------------------
    @read_only
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """One page of what was searched for. Found by the place where the one before ended, so nothing is counted."""
        self._demand_view(request)
        form = SearchForm(request.GET)
        is_valid = form.is_valid()
        search = form.search if is_valid else Search()
        page = _page(request, search) if is_valid else Page([], None, None)
        context = self._context(request, title=capfirst(self.opts.verbose_name_plural)) | {
            "form": form,
            "search": search,
            "chosen": history.in_words(search),
            "query": query_of(search),
            "periods": quick_periods(search),
            "page": page,
            "rows": history_rows.rows(page.entries),
            "may_export": is_valid and request.user.has_perm(EXPORT),
        }
        return TemplateResponse(request, "admin/feeds/auditentry/change_list.html", context | (extra_context or {}))

    # --- One entry ----------------------------------------------------------------------------------------------------
    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: AuditEntry | None = None,
    ) -> HttpResponse:
        """The entry as a difference."""
        if obj is not None:
            (row,) = history_rows.rows([obj], shown=1000)
            context |= {"row": row, "same_click": history_rows.same_click(obj)}
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The history has none of its own: it cannot change."""
        raise Http404

    # --- An object ----------------------------------------------------------------------------------------------------
    @read_only
    def story_view(self, request: HttpRequest, kind: str, key: str) -> HttpResponse:
        """Everything about one object, and of a customer everything about the customer, newest first."""
        self._demand_view(request)
        subject = _subject(request, kind, key)
        own = subject["is_customer"] and "own" in request.GET
        whole = subject["is_customer"] and not own
        found = history.of_customer(int(key)) if whole else history.of_object(subject["content_type"], key)
        page = history.page_of(found, before=_number(request, "before"), after=_number(request, "after"))
        if not page.entries and subject["object"] is None and "before" not in request.GET:
            raise Http404
        name = str(subject["object"] or page.entries[-1].object_repr if page.entries else subject["object"] or key)
        context = self._context(request, title=_("Story"), subtitle=name) | {
            **subject,
            "name": name,
            "own": own,
            "page": page,
            "rows": history_rows.rows(page.entries),
            "query": "own=1" if own else "",
            "search_query": query_of(Search(kind=kind, key=key)),
            "may_pack": subject["is_customer"] and subject["object"] and request.user.has_perm(EVIDENCE),
        }
        return TemplateResponse(request, "admin/feeds/auditentry/story.html", context)

    @read_only
    def state_view(self, request: HttpRequest, kind: str, key: str) -> HttpResponse:
        """What the object looked like on one day, or on two."""
        self._demand_view(request)
        subject = _subject(request, kind, key)
        replayed = replay.Replay(subject["content_type"], key)
        if not replayed.entries and replayed.row is None:
            raise Http404
        today = timezone.localdate()
        form = DaysForm(request.GET if "day" in request.GET else {"day": today.isoformat()})
        first = second = None
        compared: list[replay.Row] = []
        if form.is_valid():
            first = replayed.at(_end_of(form.cleaned_data["day"]))
            if other := form.cleaned_data["other"]:
                second = replayed.at(_end_of(other))
                compared = replayed.compare(first.at, second.at)
        name = str(subject["object"] or (replayed.entries[-1].object_repr if replayed.entries else key))
        context = self._context(request, title=_("State on a past day"), subtitle=name) | {
            **subject,
            "name": name,
            "form": form,
            "first": first,
            "second": second,
            "compared": compared,
            "differences": sum(row.differs for row in compared),
            "limits": replayed.limits(),
        }
        return TemplateResponse(request, "admin/feeds/auditentry/state.html", context)

    # --- Taking it out ----------------------------------------------------------------------------------------------
    @asked_then_done
    def export_view(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """GET: what will be taken out. POST: the file. The search stands in the address both times."""
        self._demand(request, EXPORT)
        asked = SearchForm(request.GET)
        if not asked.is_valid():
            messages.error(request, _("Nothing was exported: the search has a mistake. Correct it first."))
            return HttpResponseRedirect(f"{_list_url()}?{request.GET.urlencode()}")
        search = asked.search
        form = ExportForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            data = form.cleaned_data
            return _streamed(exports.export(search, data["format"], actor=current_actor(), reason=data["reason"]))
        context = self._context(request, title=_("Export")) | {
            "form": form,
            "chosen": history.in_words(search),
            "spreadsheet_rows": f"{exports.SPREADSHEET_ROWS:,}",
            "back": f"{_list_url()}?{query_of(search)}",
        }
        return TemplateResponse(request, "admin/feeds/auditentry/export.html", context)

    @asked_then_done
    def evidence_view(self, request: HttpRequest, company_id: int) -> HttpResponse | StreamingHttpResponse:
        """GET: what a pack holds. POST: the pack."""
        self._demand(request, EVIDENCE)
        company = Company.objects.filter(pk=company_id).first()
        if company is None:
            raise Http404
        form = EvidenceForm(request.POST if request.method == "POST" else None, initial=_last_year())
        if request.method == "POST" and form.is_valid():
            data = form.cleaned_data
            try:
                pack = evidence.make(company, data["start"], data["end"], actor=current_actor(), reason=data["reason"])
            except Refused as refusal:
                form.add_error("end", str(refusal))
            else:
                return _streamed(pack)
        context = self._context(request, title=_("Evidence pack"), subtitle=str(company)) | {
            "form": form,
            "company": company,
            "sections": evidence.SECTIONS,
            "back": reverse("admin:feeds_auditentry_story", args=["feeds.company", str(company_id)]),
        }
        return TemplateResponse(request, "admin/feeds/auditentry/evidence.html", context)

    # --- Shared ----------------------------------------------------------------------------------------------------
    def _context(self, request: HttpRequest, **more: Any) -> dict[str, Any]:
        return {**self.admin_site.each_context(request), "opts": self.opts, **more}

    def _demand_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _demand(self, request: HttpRequest, permission: str) -> None:
        self._demand_view(request)
        if not request.user.has_perm(permission):
            raise PermissionDenied


@admin.register(HistoryExport)
class HistoryExportAdmin(MirrorAdmin[HistoryExport]):
    """Who took what out of the history, and whether all of it."""

    of_all_customers = True

    list_display = ("what", "requested_by_name", "started", "asked_for", "state_pill", "rows")
    list_display_links = ("what",)
    list_filter = ("kind", "state")
    list_select_related = ("company",)
    fieldsets = (
        (None, {"fields": ("what", "state_words", "requested_by_name", "started", "finished", "reason")}),
        (gettext_lazy("What was taken"), {"fields": ("asked_for", "company_link", "format", "rows", "sha256")}),
    )

    started = time_column("started_at", gettext_lazy("started"))
    finished = time_column("finished_at", gettext_lazy("ended"))
    company_link = link_column("company", gettext_lazy("company"))

    @admin.display(description=gettext_lazy("what"))
    def what(self, taken: HistoryExport) -> str:
        return str(taken)

    @admin.display(description=gettext_lazy("asked for"))
    def asked_for(self, taken: HistoryExport) -> str:
        return taken.filters_text or _("the whole history")

    @admin.display(description=gettext_lazy("state"))
    def state_pill(self, taken: HistoryExport) -> str:
        return status_pill(taken.state_meaning)

    @admin.display(description=gettext_lazy("state"))
    def state_words(self, taken: HistoryExport) -> str:
        return status_explained(taken.state_meaning)


# --- Reading the address ---------------------------------------------------------------------------------------------


def _number(request: HttpRequest, name: str) -> int | None:
    """A place in the list; anything that is none is ignored."""
    return _whole(request.GET.get(name, ""))


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _page(request: HttpRequest, search: Search) -> Page:
    return history.page(search, before=_number(request, "before"), after=_number(request, "after"))


def _subject(request: HttpRequest, kind: str, key: str) -> dict[str, Any]:
    """The object an address names. Raises Http404 for a kind that is none."""
    content_type = history.content_type_of(kind)
    model = content_type.model_class() if content_type else None
    # Only what this product is about: a session or a queued task is nobody's to read.
    if content_type is None or model is None or content_type.app_label not in ("feeds", "auth"):
        raise Http404
    is_customer = model is Company
    if is_customer and _whole(key) is None:
        raise Http404
    obj = replay.row_of_today(model, key)
    return {
        "kind": kind,
        "key": key,
        "content_type": content_type,
        "kind_name": capfirst(content_type.name),
        "object": obj,
        "object_url": history_rows.object_url(request, obj),
        "is_customer": is_customer,
    }


def _end_of(day: date) -> datetime:
    """The last moment of the day; of today, now: nothing is known of the rest of it."""
    return min(timezone.make_aware(datetime.combine(day, time.max)), timezone.now())


def _last_year() -> dict[str, date]:
    today = timezone.localdate()
    return {"start": today.replace(year=today.year - 1, day=1), "end": today}


def _list_url() -> str:
    return reverse("admin:feeds_auditentry_changelist")


def _streamed(delivery: exports.Delivery) -> StreamingHttpResponse:
    """The file, sent as it is made: no proxy holds it back. That nothing of the admin is stored, the site says."""
    response = StreamingHttpResponse(delivery.content, content_type="application/zip")
    response["Content-Disposition"] = f'attachment; filename="{delivery.filename}"'
    response["X-Accel-Buffering"] = "no"
    return response
