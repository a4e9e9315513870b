"""What people chose for themselves: the language of their screens and mails."""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Lower

from feeds.models import Preference
from feeds.states import Language


def choose_language(user: User, language: Language) -> None:
    """Keep the language of the person's screens and mails, on whatever device they sign in next."""
    with transaction.atomic():
        Preference.objects.update_or_create(user=user, defaults={"language": language})


def language_of(user: User) -> str:
    """What the person chose; empty when they never did. One query."""
    return Preference.objects.filter(user=user).values_list("language", flat=True).first() or ""


def by_language(addresses: Iterable[str]) -> dict[str, list[str]]:
    """The addresses, by the language to write to them in: their owner's, or the site's where none of ours chose one."""
    wanted = list(dict.fromkeys(addresses))
    chosen = dict(
        Preference.objects.filter(user__is_active=True)
        .annotate(address=Lower("user__email"))
        .filter(address__in=[address.lower() for address in wanted])
        .values_list("address", "language")
    )
    grouped: dict[str, list[str]] = {}
    for address in wanted:
        grouped.setdefault(chosen.get(address.lower(), settings.LANGUAGE_CODE), []).append(address)
    return grouped
