"""The home page: what the signed-in person should look at first."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import User
from django.http import HttpRequest

from feeds.services import home


def home_context(request: HttpRequest) -> dict[str, Any]:
    """What `admin/index.html` renders. The site lets only signed-in staff come this far."""
    return {
        "home": home.for_person(cast(User, request.user)),
        "expiring_minutes": home.EXPIRING_WITHIN.seconds // 60,
    }
