"""The formatting that screens share (`feeds.admin.base`), for templates."""

from __future__ import annotations

from django import template

from feeds.admin.base import as_of, change_url, moment, status_pill
from feeds.banking import mask

register = template.Library()
register.filter("pill", status_pill)
register.filter("as_of", as_of)
register.filter("moment", moment)
register.filter("change_url", change_url)
register.filter("masked", mask)
