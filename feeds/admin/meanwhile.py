"""A form that lay open while somebody else wrote: only what this person changed is written.

What was on the screen goes with the form, in hidden fields beside the visible ones. A field that the person left alone
takes the value it has by now. One that both changed is refused once: what it is now and who made it so stand beside it,
what was typed stays, and saving again means it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django import forms
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from feeds.models import AuditEntry
from feeds.wording import before_stop

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Any]
else:
    # Django's classes are generic only for type checkers.
    _ModelForm = forms.ModelForm

SHOWN = 200
"""Letters of a colleague's value that the message quotes: notes may be long."""


class MeanwhileForm(_ModelForm):
    """A form of one row that several people may have open."""

    not_sent: ClassVar[frozenset[str]] = frozenset()
    """Fields whose value the page does not show: no copy of it goes with the form, and the last one to write wins."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._overtaken: list[str] = []
        if self.instance.pk is None:
            return
        for _name, field in self._sent():
            field.show_hidden_initial = True
        if self.is_bound:
            self._catch_up()

    def clean(self) -> dict[str, Any]:
        """Refuse what somebody else has changed too."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        for name in self._overtaken:
            self.add_error(name, self._what_it_is_now(name))
        return data

    def _sent(self) -> Iterator[tuple[str, forms.Field]]:
        """The fields whose value goes with the form. One that is disabled shows something else, as a password's."""
        columns = {field.name for field in self.instance._meta.get_fields()}
        for name, field in self.fields.items():
            if name in columns and name not in self.not_sent and not field.disabled:
                yield name, field

    def _catch_up(self) -> None:
        """Make the posted form one that was opened just now, with this person's changes in it."""
        data = cast(QueryDict, self.data).copy()
        # No list of many that was empty leaves a trace, so the form is looked at as a whole. Without copies nobody
        # knows what was on the screen: it is compared with the row, as Django does.
        has_copies = any(self[name].html_initial_name in data for name, _field in self._sent())
        for name, field in self._sent():
            bound = self[name]
            now = _as_sent(field, bound.initial)
            shown = _tidy(data.getlist(bound.html_initial_name)) if has_copies else now
            if shown != now:
                if not field.has_changed(_as_initial(field, shown), bound.data):
                    data.setlist(bound.html_name, now)
                elif field.has_changed(_as_initial(field, now), bound.data):
                    self._overtaken.append(name)
            data.setlist(bound.html_initial_name, now)
        self.data = data

    def _what_it_is_now(self, name: str) -> str:
        kind = ContentType.objects.get_for_model(self.instance)
        entries = AuditEntry.objects.filter(content_type=kind, object_pk=str(self.instance.pk))
        entry = entries.filter(fields__contains=f",{name},").order_by("-id").first()
        now = before_stop(Truncator(self._in_words(name)).chars(SHOWN))
        words = {"now": now, "who": entry.actor_name if entry else ""}
        if not words["who"]:
            return (
                _("This was changed after you opened the page. It is now: %(now)s. Save again to replace it.") % words
            )
        text = _("%(who)s changed this after you opened the page. It is now: %(now)s. Ask them, or save again to "
                 "replace it.")  # fmt: skip
        return text % words

    def _in_words(self, name: str) -> str:
        """The row's value as the page would show it: the row still has it while the form is being cleaned."""
        field, value = self.fields[name], getattr(self.instance, name)
        if isinstance(field, forms.ModelMultipleChoiceField):
            return ", ".join(field.label_from_instance(it) for it in value.all()) or _("none")
        if isinstance(value, bool):
            return _("yes") if value else _("no")
        if value in ("", None):
            return _("none")
        if isinstance(field, forms.ModelChoiceField):
            return field.label_from_instance(value)
        return str(dict(getattr(field, "choices", ())).get(value, value))


def _as_sent(field: forms.Field, value: Any) -> list[str]:
    """What a browser sends back of a hidden field with this value."""
    prepared = field.prepare_value(value)
    several = prepared if isinstance(prepared, list | tuple | set) else [prepared]
    return _tidy(["" if it is None else str(it) for it in several])


def _tidy(sent: list[str]) -> list[str]:
    """In one order, and with the one kind of line end that browsers send."""
    return sorted(text.replace("\r\n", "\n").replace("\n", "\r\n") for text in sent)


def _as_initial(field: forms.Field, sent: list[str]) -> Any:
    """The value that a hidden field stood for, to be compared with what was typed."""
    if isinstance(field, forms.ModelMultipleChoiceField):
        return sent
    text = sent[-1] if sent else ""
    if isinstance(field, forms.ModelChoiceField):
        return text
    try:
        return field.to_python(text)
    except ValidationError:
        return text
