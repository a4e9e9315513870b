"""The form above the change history: one field for each filter of `services.history.Search`, kept in the address."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import QueryDict
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from feeds import audit
from feeds.services import history, replay
from feeds.services.changes import action_labels
from feeds.services.history import Search
from feeds.states import event_label

ANY = ("", gettext_lazy("any"))
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2999, 12, 31)
"""Beyond them the calendar ends somewhere: a day more, or two less, would be none."""
EVENT_NAME = r"^[a-z0-9_]+$"


class DayInput(forms.DateInput):
    """The browser's own choice of a day."""

    input_type = "date"

    def __init__(self) -> None:
        # The only form a browser takes, whatever the language.
        super().__init__(format="%Y-%m-%d")


def day_field(label: Any, **options: Any) -> forms.DateField:
    """A day, typed or chosen."""
    within = [MinValueValidator(FIRST_DAY), MaxValueValidator(LAST_DAY)]
    return forms.DateField(label=label, widget=DayInput(), input_formats=["%Y-%m-%d"], validators=within, **options)


class SearchForm(forms.Form):
    """Every filter; none has to be filled in. `search` is what was asked for, as far as it makes sense."""

    person = forms.CharField(
        label=gettext_lazy("Person"),
        required=False,
        max_length=200,
        help_text=gettext_lazy("User name, start of a name, or a service such as worker."),
        widget=forms.TextInput(attrs={"list": "history-people"}),
    )
    customer = forms.CharField(
        label=gettext_lazy("Customer"),
        required=False,
        max_length=200,
        help_text=gettext_lazy("Customer number, or start of the legal name."),
    )
    kind = forms.ChoiceField(label=gettext_lazy("Kind of object"), required=False)
    key = forms.CharField(
        label=gettext_lazy("Object number"),
        required=False,
        max_length=64,
        help_text=gettext_lazy("As in its address. Choose its kind too."),
    )
    field = forms.ChoiceField(label=gettext_lazy("Changed field"), required=False)
    action = forms.CharField(label=gettext_lazy("Action"), required=False, max_length=40)
    source = forms.ChoiceField(label=gettext_lazy("Source"), required=False)
    request = forms.CharField(
        label=gettext_lazy("Request or task"),
        required=False,
        max_length=255,
        help_text=gettext_lazy("What one click or task did has one id."),
    )
    start = day_field(pgettext_lazy("first day", "From"), required=False)
    end = day_field(pgettext_lazy("last day", "To"), required=False)

    def __init__(self, data: QueryDict) -> None:
        super().__init__(data)
        self.sources = history.known_sources()
        self.people = history.known_people(self.sources)
        kinds = replay.kinds()
        self._choose("kind", [ANY, *kinds])
        self._choose("field", [ANY, *((label, _fields(kind)) for kind, label in kinds)])
        self._choose("source", [ANY, *((source, source) for source in self.sources)])
        events = [(event, capfirst(event_label(event))) for event in history.known_events()]
        actions = [(name, capfirst(label)) for name, label in action_labels().items()]
        self.fields["action"].widget = forms.Select(choices=[ANY, *actions, (_("Events"), events)])

    def _choose(self, name: str, choices: list[Any]) -> None:
        field = self.fields[name]
        if isinstance(field, forms.ChoiceField):
            field.choices = choices

    def clean(self) -> dict[str, Any]:
        """What only makes sense together."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get("key") and not data.get("kind"):
            self.add_error("key", _("Choose the kind of object as well: numbers repeat between kinds."))
        kind, _colon, _field = data.get("field", "").partition(":")
        if kind and data.get("kind") not in ("", kind, None):
            self.add_error("field", _("The kind of object that you chose has no such field."))
        start, end = data.get("start"), data.get("end")
        if start and end and end < start:
            self.add_error("end", _("The period ends before it begins."))
        return data

    @property
    def search(self) -> Search:
        """What to look for. Only of a valid form."""
        data = dict(self.cleaned_data)
        kind, _colon, field = data["field"].partition(":")
        return Search(**(data | {"kind": data["kind"] or kind, "field": field}))


def _fields(kind: str) -> list[tuple[str, str]]:
    found = history.content_type_of(kind)
    names = audit.kept_fields(found.model_class() if found else None)
    labels = ((f"{kind}:{name}", history.field_in_words(kind, name)) for name in names)
    return sorted(labels, key=lambda pair: pair[1])


def query_of(search: Search, **more: str) -> str:
    """The search as a query string that `SearchForm` reads."""
    values = search.as_dict() | more
    if search.field:
        values["field"] = f"{search.kind}:{search.field}"
    return urlencode(values)


@dataclass(frozen=True, slots=True)
class Period:
    """A quick period: its label, its address, and whether it is the one chosen now."""

    label: str
    query: str
    is_chosen: bool


def quick_periods(search: Search) -> list[Period]:
    """The same search in the periods that are asked for every day."""
    found = []
    for label, start, end in history.quick_periods(timezone.localdate()).values():
        found.append(Period(label, query_of(_during(search, start, end)), (search.start, search.end) == (start, end)))
    found.append(Period(_("Any time"), query_of(_during(search, None, None)), not (search.start or search.end)))
    return found


def _during(search: Search, start: date | None, end: date | None) -> Search:
    return replace(search, start=start, end=end)
