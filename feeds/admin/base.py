"""What the screens share: tuned lists, read-only mirrors, pills, times.

Every list must stay quick at a million rows, so a list here
- counts at most `CappedPaginator.limit` rows and never skips more (no full COUNT, no deep OFFSET);
- searches only where an index answers (`search_exact`, `search_company_path`);
- follows relations in the page's own query (`list_select_related`), and has no `date_hierarchy`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from django import forms
from django.apps import apps
from django.contrib import admin, messages
from django.contrib.auth.models import AbstractUser, User
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feeds.models import Company
from feeds.services import access
from feeds.states import Meaning, Text

M = TypeVar("M", bound=Model)

EMPTY = SafeString("—")
"""What Django's admin shows for an empty value."""

if TYPE_CHECKING:
    from django_stubs_ext import StrPromise as _StrPromise

    class _StockAdmin(admin.ModelAdmin[M]): ...

    _PersonChoice = forms.ModelChoiceField[User]

else:
    # Django's classes are generic only for type checkers.
    class _StockAdmin(admin.ModelAdmin, Generic[M]): ...

    _PersonChoice = forms.ModelChoiceField


class CappedPaginator(Paginator[Any]):
    """Pages over at most `limit` rows: at a million rows a full count or a deep offset costs seconds.

    The list says when it is capped, and search and filters reach the rest.
    """

    limit = 10_000

    @cached_property
    def _counted(self) -> int:
        rows: Any = self.object_list
        # Only the key: a list's annotations would be computed for every row counted.
        return int(rows.order_by().values("pk")[: self.limit + 1].count())

    @cached_property
    def count(self) -> int:
        """Rows that can be paged through: never more than `limit`."""
        return min(self._counted, self.limit)

    @property
    def is_capped(self) -> bool:
        """Whether there are more rows than can be paged through."""
        return self._counted > self.limit


class BackOfficeAdmin(_StockAdmin[M]):
    """A tuned list and the history of one object in our own change history."""

    paginator = CappedPaginator
    show_full_result_count = False
    # Facets count every value of every filter.
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    # "Show all" is a second way to ask for a page of any size.
    list_max_show_all = 50
    # Only the primary key is a cheap order for every list.
    sortable_by: ClassVar[list[str] | tuple[str, ...] | None] = ()

    search_exact: ClassVar[tuple[str, ...]] = ()
    """Own text columns with an index that starts with them; the whole value must be typed."""
    search_company_path: ClassVar[str] = ""
    """Path to the company ("company"), to search by customer number, Codat id or the start of its legal name."""
    search_company_limit: ClassVar[int] = 200

    company_path: ClassVar[str] = ""
    """Path to the company whose manager may see the row; `search_company_path` unless it is said here."""
    of_all_customers: ClassVar[bool] = False
    """Whether the screen tells of all customers together, and so is closed to who sees only their own."""

    # --- Whose customers ------------------------------------------------------------------------------------------
    def visible_to(self, request: HttpRequest, queryset: QuerySet[M]) -> QuerySet[M]:
        """The rows of `queryset` that the signed-in person may know of."""
        path = self.company_path or self.search_company_path
        return access.scope(queryset, request.user, path) if path else queryset

    def get_queryset(self, request: HttpRequest) -> QuerySet[M]:
        """What list, search, object pages and actions choose from. Another manager's row is as if it were not there."""
        return self.visible_to(request, super().get_queryset(request))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> M | None:
        """The object; the page's banner is told when an emergency access alone opens it."""
        obj = super().get_object(request, object_id, from_field)
        path = self.company_path or self.search_company_path
        if obj is not None and path:
            company_id = obj.pk if path == "pk" else _company_id(obj, path)
            grant = access.grant_in_use(request.user, company_id) if company_id else None
            request.emergency_access = grant  # type: ignore[attr-defined]  # for the banner, on whatever page follows
        return obj

    def has_view_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        """By right; a screen of all customers together also needs the right to see them all."""
        if self.of_all_customers and not access.sees_all(request.user):
            return False
        return super().has_view_permission(request, obj)

    # --- The list -------------------------------------------------------------------------------------------------
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The stock list, titled by what it lists."""
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """Whether there is a search box; `get_search_results` does the searching."""
        return [*self.search_exact, *([self.search_company_path] if self.search_company_path else [])]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[M], search_term: str
    ) -> tuple[QuerySet[M], bool]:
        """Rows whose own columns equal the term, or whose company is found by it.

        Companies are looked up first: an OR over two tables would make the database read both whole.
        """
        term = search_term.strip()
        if not term:
            return queryset, False
        match = Q()
        for field in self.search_exact:
            match |= Q(**{field: term})
        if self.search_company_path:
            match |= Q(**{f"{self.search_company_path}__in": self.company_ids(request, term)})
        return queryset.filter(match), False

    def company_ids(self, request: HttpRequest, term: str) -> list[int]:
        """Primary keys of the companies a search term finds, newest first, at most `search_company_limit`.

        Only of those the person sees: with others among them, the limit would hide their own.
        """
        companies = access.visible_companies(request.user)
        # One by one: each is answered by an index of its own, and joined by OR they would walk the table.
        for match in (
            Q(customer_number=term),
            Q(codat_id=term) & ~Q(codat_id=""),  # as the condition of the index has it
            Q(legal_name__istartswith=term),
        ):
            found = companies.filter(match).order_by("-id").values_list("pk", flat=True)
            if ids := list(found[: self.search_company_limit]):
                return ids
        return []

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponseRedirect:
        """As Django's, without its guess that it was deleted: it may be another manager's customer's."""
        if access.sees_all(request.user):
            text = _("There is no %(name)s with this number. Perhaps it was deleted.") % {"name": opts.verbose_name}
        else:
            text = _("There is no %(name)s with this number, or its customer is another manager's. If you need that "
                     "customer, ask for emergency access.") % {"name": opts.verbose_name}  # fmt: skip
        messages.warning(request, text)
        return HttpResponseRedirect(reverse("admin:index"))

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The object's whole story in our change history: it also knows what workers did, and why."""
        if not request.user.has_perm("feeds.view_auditentry"):
            raise PermissionDenied
        return HttpResponseRedirect(story_url(self.model, object_id))


def _company_id(obj: Model, path: str) -> int | None:
    """The key of the company that `path` ("company", "case__company") leads to, if it leads to any."""
    *steps, last = path.split("__")
    row: Model | None = obj
    for step in steps:
        row = getattr(row, step) if row is not None else None
    found: int | None = getattr(row, f"{last}_id") if row is not None else None
    return found


class MirrorAdmin(BackOfficeAdmin[M]):
    """A screen of what Codat or a service owns. Nobody edits it: changes are named actions (`feeds.admin.actions`)."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Rows are made by services."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        """Rows are changed by services."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        """Mirrored rows are marked gone, never deleted."""
        return False

    def get_form(
        self, request: HttpRequest, obj: M | None = None, change: bool = False, **kwargs: Any
    ) -> type[forms.ModelForm[M]]:
        """Without help texts: they say how to fill in a field, and here nobody does."""
        silence = {field.name: "" for field in self.model._meta.fields}
        return super().get_form(request, obj, change, help_texts=silence, **kwargs)


class ValuesFilter(admin.SimpleListFilter):
    """Filters an indexed text column by values known in code, without asking the database which exist."""

    values: Sequence[tuple[str, Text]] = ()

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """The values declared in `states`."""
        return list(self.values)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Rows with the chosen value."""
        chosen = self.value()
        return queryset.filter(**{str(self.parameter_name): chosen}) if chosen else queryset


def values_filter(column: str, label: Text, choices: Sequence[tuple[str, Text]]) -> type[ValuesFilter]:
    """A `ValuesFilter` over `column`, for a column that has no `choices` of its own because Codat may add values."""
    return type(
        f"{column.title()}Filter", (ValuesFilter,), {"parameter_name": column, "title": label, "values": choices}
    )


def status_pill(meaning: Meaning) -> SafeString:
    """A state as a coloured pill with words; the colour never carries the meaning alone."""
    return format_html(
        '<span class="pill pill-{}" title="{}">{}</span>', meaning.tone.value, meaning.meaning, meaning.label
    )


def status_explained(meaning: Meaning) -> SafeString:
    """The pill, what it means and what to do next."""
    return format_html(
        '{} <span class="pill-meaning">{} {}</span>', status_pill(meaning), meaning.meaning, meaning.next_step
    )


def as_of(at: datetime | None) -> SafeString:
    """ "as of <time>" for a mirrored value, in the staff member's zone; "never read" when it never was."""
    if at is None:
        return conditional_escape(_("never read"))
    return format_html(_("as of {}"), moment(at))


def moment(at: datetime | None) -> SafeString:
    """A time to the second in the staff member's zone, with the exact UTC time for machines; a dash for none."""
    if at is None:
        return EMPTY
    local = timezone.localtime(at)
    return format_html(
        '<time class="nowrap" datetime="{}">{}</time>', at.isoformat(), date_format(local, "Y-m-d H:i:s T")
    )


def since(at: datetime | None) -> SafeString:
    """How long it has been, in words, with the exact time in the staff member's zone to hover over; a dash for none."""
    return EMPTY if at is None else _told(at, timesince(at, depth=1))


def ago(at: datetime | None) -> SafeString:
    """As `since`, of something that was done: "7 minutes ago", "just now"."""
    if at is None:
        return EMPTY
    is_recent = timezone.now() - at < timedelta(minutes=1)
    return _told(at, _("just now") if is_recent else _("%s ago") % timesince(at, depth=1))


def _told(at: datetime, words: str) -> SafeString:
    exact = date_format(timezone.localtime(at), "Y-m-d H:i:s T")
    return format_html('<time datetime="{}" title="{}">{}</time>', at.isoformat(), exact, words)


def named(company: Company) -> SafeString:
    """A company's legal name and, quieter, its customer number."""
    return format_html('{} <span class="quiet nowrap">{}</span>', company.legal_name, company.customer_number)


def time_column(field: str, label: str | _StrPromise) -> Callable[[Any, Any], SafeString]:
    """A display method of an admin class that shows the time in `field`."""

    @admin.display(description=label)
    def show(_screen: Any, obj: Any) -> SafeString:
        return moment(getattr(obj, field))

    return show


def link_column(field: str, label: str | _StrPromise) -> Callable[[Any, Any], SafeString]:
    """A display method of an admin class that links to the related object in `field`."""

    @admin.display(description=label)
    def show(_screen: Any, obj: Any) -> SafeString:
        return link_to(getattr(obj, field))

    return show


def person(user: AbstractUser | None) -> str:
    """How a colleague is named; nothing for nobody."""
    return user.get_full_name() or user.get_username() if user else ""


class PersonField(_PersonChoice):
    """A choice of colleagues, by name."""

    def label_from_instance(self, obj: User) -> str:
        """The name."""
        return person(obj)


def link_to(obj: Model | None, label: Text | None = None) -> SafeString:
    """A link to the object's screen; a dash for none."""
    if obj is None:
        return EMPTY
    return format_html('<a href="{}">{}</a>', change_url(obj), label if label is not None else str(obj))


def change_url(obj: Model) -> str:
    """Address of the object's screen."""
    return reverse(f"admin:{obj._meta.app_label}_{obj._meta.model_name}_change", args=[obj.pk])


def story_url(model: type[Model], key: object) -> str:
    """Address of an object's whole story in the change history, whether or not the object is still there."""
    return reverse("admin:feeds_auditentry_story", args=[model._meta.label_lower, str(key)])


def json_block(value: object) -> SafeString:
    """JSON, indented; the keyboard reaches it, because a narrow screen has to scroll it."""
    return format_html('<pre tabindex="0">{}</pre>', json.dumps(value, indent=2, ensure_ascii=False))


def withdraw(app_label: str, *models: type[Model]) -> None:
    """Take those of `models` that `app_label` registered off the site, to show them in our own way or not at all.

    Admin modules are loaded in the order of INSTALLED_APPS; loading the other app's now lets it register first.
    """
    import_module(f"{apps.get_app_config(app_label).name}.admin")
    admin.site.unregister([model for model in models if admin.site.is_registered(model)])


SEARCH_BY_COMPANY = gettext_lazy("Customer number, Codat company id, or the start of the legal name.")
