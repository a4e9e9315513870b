"""What screens share (`feeds.admin.base`, `feeds.admin.pictures`), for templates."""

from __future__ import annotations

from typing import Any

from django import template
from django.contrib.admin import ListFilter
from django.contrib.admin.views.main import ChangeList

from feeds.admin import pictures
from feeds.admin.base import as_of, change_url, moment, named, person, since, status_pill
from feeds.banking import mask
from feeds.services.changes import action_label
from feeds.wording import before_stop, colon_in_words, retold

register = template.Library()
register.filter("pill", status_pill)
register.filter("as_of", as_of)
register.filter("moment", moment)
register.filter("since", since)
register.filter("person", person)
register.filter("named", named)
register.filter("change_url", change_url)
register.filter("masked", mask)
register.filter("told_action", action_label)
register.filter("retold", retold)
register.filter("before_stop", before_stop)
register.simple_tag(colon_in_words, name="colon")


@register.inclusion_tag("admin/feeds/pictures/support.html")
def support_pictures() -> dict[str, Any]:
    """The pictures beside support's worklist."""
    return {"pictures": pictures.for_support()}


@register.filter
def tabs(chosen: ListFilter, changelist: ChangeList) -> list[Any]:
    """The choices of a list's filter, to show them elsewhere than in the sidebar."""
    return list(chosen.choices(changelist))
