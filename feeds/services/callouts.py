"""The callout's way from a draft to the Portal: written, submitted, approved by a second person, pasted, attested.

Codat has no API for it. So "published" means that a person said on which day it was copied into the Portal, and the
product never claims to know more. Every move locks the version, is a line of its story and an event of the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from feeds import audit
from feeds.audit import Actor
from feeds.callout_text import normalise
from feeds.models import CalloutEvent, CalloutVersion
from feeds.models.callout import CALLOUT_TEXTS
from feeds.services import ledger, outbox
from feeds.services.errors import Refused
from feeds.states import (
    CALLOUT_AUTHORSHIP,
    CALLOUT_RIGHTS,
    CALLOUT_TRANSITIONS,
    CalloutEventKind,
    CalloutState,
    FrenchRule,
    MailKind,
)
from feeds.wording import recorded

FOUR_EYES = "publish_callout"
"""Its name in the setting FOUR_EYES."""

_FRENCH_OF = {"title_en": "title_fr", "body_en": "body_fr"}


# --- Reading ---------------------------------------------------------------------------------------------------------
def published() -> CalloutVersion | None:
    """The version that was attested last and not superseded since; None when there never was one."""
    return CalloutVersion.objects.filter(state=CalloutState.PUBLISHED).first()


@dataclass(frozen=True, slots=True)
class Words:
    """The callout in one language, as customers read it. Either may be empty."""

    title: str
    body: str


def words_in(language: str) -> Words | None:
    """What the published version says in `language` ("en", "fr"); None when it says nothing."""
    version = published()
    if version is None:
        return None
    texts = version.texts()
    words = Words(texts[f"title_{language}"], texts[f"body_{language}"])
    return words if words.title or words.body else None


def published_on(day: date) -> list[CalloutVersion]:
    """The versions that were published on `day`, in the order in which customers saw them.

    Attestations name days, not hours: on a day of change it is the old version and the new one. The state of those
    that were superseded is as old as that, which is the order they went in.
    """
    return published_between(day, day)


def published_between(first: date, last: date) -> list[CalloutVersion]:
    """The versions that were published on any day from `first` to `last`, in the order in which customers saw them."""
    began = CalloutVersion.objects.filter(published_on__lte=last)
    there = began.filter(Q(superseded_on__isnull=True) | Q(superseded_on__gte=first))
    return list(there.order_by("published_on", F("superseded_on").asc(nulls_last=True), "state_since"))


def missing(version: CalloutVersion) -> list[str]:
    """What the rule of languages (setting CALLOUT_FRENCH) still asks for before the version can be submitted."""
    if settings.CALLOUT_FRENCH == FrenchRule.OPTIONAL:
        return []
    names = {field.name: str(field.verbose_name) for field in CalloutVersion._meta.fields}
    texts = version.texts()
    sentences = []
    for english, french in _FRENCH_OF.items():
        pairs = [(english, french)]
        if settings.CALLOUT_FRENCH == FrenchRule.BOTH:
            pairs.append((french, english))
        for there, wanted in pairs:
            if texts[there] and not texts[wanted]:
                values = {"wanted": names[wanted], "there": names[there]}
                sentences.append(_("%(wanted)s is empty, and %(there)s is not.") % values)
    return sentences


def has_hand_in(version: CalloutVersion, user: User) -> bool:
    """Whether the person wrote, changed or submitted the version."""
    return version.events.filter(actor=user, kind__in=CALLOUT_AUTHORSHIP).exists()


def needs_other_eyes(version: CalloutVersion, user: User) -> bool:
    """Whether the four-eyes rule keeps the person from approving the version."""
    return FOUR_EYES in settings.FOUR_EYES and has_hand_in(version, user)


def waiting_for(user: User, limit: int) -> list[CalloutVersion]:
    """Versions that wait for this person: to approve, or to publish. Oldest first, at most `limit`."""
    may_approve, may_publish = (user.has_perm(CALLOUT_RIGHTS[move]) for move in ("approve", "publish"))
    wanted = Q(pk__in=())
    if may_approve:
        wanted |= Q(state=CalloutState.SUBMITTED)
    if may_publish:
        wanted |= Q(state=CalloutState.APPROVED)
    found = CalloutVersion.objects.filter(wanted).order_by("pk")
    if may_approve and FOUR_EYES in settings.FOUR_EYES:
        own = CalloutEvent.objects.filter(actor=user, kind__in=CALLOUT_AUTHORSHIP).values("version")
        found = found.exclude(state=CalloutState.SUBMITTED, pk__in=own)
    return list(found[:limit])


# --- Writing ---------------------------------------------------------------------------------------------------------
def create(values: Mapping[str, str], actor: Actor, copied_from: CalloutVersion | None = None) -> CalloutVersion:
    """Make a draft from texts and note by name of field. Raises Refused when a text is refused, naming what."""
    with audit.acting(actor), transaction.atomic():
        version = CalloutVersion(
            **values, copied_from=copied_from, state_since=timezone.now(), state_by_name=_person(actor).name
        )
        _check(version)
        version.save()
        _tell(version, CalloutEventKind.CREATED, actor, _copied(copied_from))
    return version


def copy(version: CalloutVersion, actor: Actor) -> CalloutVersion:
    """A new draft with the texts of `version`, whatever has become of it."""
    return create(version.texts(), actor, copied_from=version)


def edit(version: CalloutVersion, values: Mapping[str, str], actor: Actor) -> CalloutVersion:
    """Change texts or note of a draft. Raises Refused when it is no draft any more, or a text is refused."""
    with _locked(version, actor) as version:
        if not version.is_draft:
            raise Refused(no_draft(version))
        changed = [name for name, value in values.items() if getattr(version, name) != normalise(value)]
        for name in changed:
            setattr(version, name, values[name])
        _check(version)
        if changed:
            version.save(update_fields=[*changed, "updated_at"])
            with recorded():
                labels = [str(CalloutVersion._meta.get_field(name).verbose_name) for name in changed]  # type: ignore[union-attr]
            _tell(version, CalloutEventKind.EDITED, actor, ", ".join(labels))
    return version


def no_draft(version: CalloutVersion) -> str:
    """Why its text cannot be changed."""
    return _("%(version)s is not a draft any more (%(state)s). Copy it as a new draft to change the text.") % {
        "version": version,
        "state": version.state_meaning.label,
    }


def submit(version: CalloutVersion, actor: Actor, comment: str = "") -> None:
    """Ask for approval. Raises Refused when it is no draft, or French or English is missing."""
    with _locked(version, actor, comment) as version:
        _move(version, CalloutState.SUBMITTED, actor)
        _check(version)
        if lacking := missing(version):
            raise Refused(_("It cannot be submitted yet. %s") % " ".join(lacking))
        version.save()
        _happened(version, CalloutEventKind.SUBMITTED, actor, comment)


def mark(version: CalloutVersion) -> str:
    """The four texts as a short hash: what a person who approves has read."""
    return ledger.fingerprint(version.texts())[:32]


def approve(read: CalloutVersion, actor: Actor, comment: str = "") -> None:
    """Approve what is submitted, as it was `read`. Raises Refused when it is not submitted, when its texts are others
    by now (sent back, changed and submitted again), or when the actor has a hand in it (four eyes).
    """
    with _locked(read, actor, comment) as version:
        _move(version, CalloutState.APPROVED, actor)
        if needs_other_eyes(version, _user(actor)):
            raise Refused(_("You wrote, changed or submitted this version. Somebody else has to approve it."))
        if version.texts() != read.texts():
            raise Refused(_("The texts have changed since you read them. Read them again before you approve."))
        version.save()
        _happened(version, CalloutEventKind.APPROVED, actor, comment)


def send_back(version: CalloutVersion, actor: Actor, comment: str) -> None:
    """Make it a draft again, saying why. Raises Refused when it is not submitted, or without a comment."""
    if not comment.strip():
        raise Refused(_("Say what should be changed."))
    with _locked(version, actor, comment) as version:
        _move(version, CalloutState.DRAFT, actor)
        version.save()
        _happened(version, CalloutEventKind.SENT_BACK, actor, comment)


def withdraw(version: CalloutVersion, actor: Actor, reason: str) -> None:
    """Give it up before it is published, saying why. Raises Refused when it was published, or without a reason."""
    if not reason.strip():
        raise Refused(_("Say why it is given up."))
    with _locked(version, actor, reason) as version:
        _move(version, CalloutState.WITHDRAWN, actor)
        version.save()
        _happened(version, CalloutEventKind.WITHDRAWN, actor, reason)


def attest(version: CalloutVersion, actor: Actor, *, on: date, by_name: str, comment: str = "") -> None:
    """Record that `by_name` copied the texts into the Portal on that day; of what is published, that they saw it there.

    The first attestation publishes the version and supersedes the one before. Raises Refused when it is not approved,
    for a day in the future, before the approval, or before what was attested already, and without a name.
    """
    by_name = by_name.strip()
    if not by_name:
        raise Refused(_("Name the person who was in the Portal."))
    with audit.acting(replace(actor, reason=comment.strip() or actor.reason)), transaction.atomic():
        before, version = _published_and(version)
        _check_day(version, before, on)
        if version.state != CalloutState.PUBLISHED:
            if before is not None:
                _supersede(before, version, actor, on)
            _move(version, CalloutState.PUBLISHED, actor)
            version.published_on = on
        version.attested_on, version.attested_by_name = on, by_name
        version.save()
        with recorded():
            said = _("In the Portal on %(day)s, by %(name)s.") % {"day": _day(on), "name": by_name}
        _happened(version, CalloutEventKind.ATTESTED, actor, " ".join(filter(None, [said, comment.strip()])))


def _published_and(version: CalloutVersion) -> tuple[CalloutVersion | None, CalloutVersion]:
    """What is published, and `version`, both as they are now and locked.

    Everything that could be published is locked with them, in one order: of two people who attest at the same time the
    second sees what the first did.
    """
    candidates = Q(state__in=(CalloutState.APPROVED, CalloutState.PUBLISHED)) | Q(pk=version.pk)
    rows = list(CalloutVersion.objects.select_for_update().filter(candidates).order_by("pk"))
    before = next((row for row in rows if row.state == CalloutState.PUBLISHED), None)
    return before, next(row for row in rows if row.pk == version.pk)


def _supersede(before: CalloutVersion, by: CalloutVersion, actor: Actor, on: date) -> None:
    _move(before, CalloutState.SUPERSEDED, actor)
    before.superseded_on = on
    before.save()
    with recorded():
        said = _("By %(version)s.") % {"version": by}
    _happened(before, CalloutEventKind.SUPERSEDED, actor, said)


def _check_day(version: CalloutVersion, before: CalloutVersion | None, on: date) -> None:
    """Raise Refused for a day on which the texts cannot have been copied."""
    if version.state not in (CalloutState.APPROVED, CalloutState.PUBLISHED):
        raise Refused(cannot_attest(version))
    if on > timezone.localdate():
        raise Refused(_("That day is in the future. Attest when it has been done."))
    if version.state == CalloutState.APPROVED and on < (approved := timezone.localdate(version.state_since)):
        raise Refused(_("It was approved on %(day)s. Choose that day or a later one.") % {"day": _day(approved)})
    if before is not None and before.attested_on is not None and on < before.attested_on:
        values = {"version": before, "day": _day(before.attested_on)}
        raise Refused(_("%(version)s was attested on %(day)s. Choose that day or a later one.") % values)


def cannot_attest(version: CalloutVersion) -> str:
    """Why there is nothing to attest to; empty when there is."""
    if version.state in (CalloutState.APPROVED, CalloutState.PUBLISHED):
        return ""
    return _("Only an approved version is published; this one is “%(state)s”.") % {"state": version.state_meaning.label}


# --- Reminders -------------------------------------------------------------------------------------------------------
def remind() -> int:
    """Write the mails about approved versions that nobody has published; how many.

    One for each version and each `CALLOUT_REMIND_DAYS` that have gone by since its approval, however often called.
    Zero days: none.
    """
    if settings.CALLOUT_REMIND_DAYS < 1:
        return 0
    late = timezone.now() - timedelta(days=settings.CALLOUT_REMIND_DAYS)
    waiting = CalloutVersion.objects.filter(state=CalloutState.APPROVED, state_since__lte=late)
    return sum(_remind(pk) for pk in waiting.order_by("pk").values_list("pk", flat=True))


def _remind(pk: int) -> bool:
    with transaction.atomic():
        # One worker at a time for each version: without the lock two could miss the other's mail.
        version = CalloutVersion.objects.select_for_update().get(pk=pk)
        days = (timezone.now() - version.state_since).days
        interval = days // settings.CALLOUT_REMIND_DAYS
        if version.state != CalloutState.APPROVED or interval < 1:
            return False
        return outbox.put(
            MailKind.CALLOUT_REMINDER,
            to=_reminded(version),
            subject=lambda: _reminder(days),
            context={"version": version, "url": outbox.page_of(version)},
            key=f"callout {pk} reminder {interval}",
        )


def _reminder(days: int) -> str:
    words = ngettext(
        "Callout approved %(days)s day ago is not published",
        "Callout approved %(days)s days ago is not published",
        days,
    )
    return words % {"days": days}


def _reminded(version: CalloutVersion) -> list[str]:
    """The setting's addresses, and the people who brought the version here and may still publish it."""
    involved = version.events.filter(kind__in=(CalloutEventKind.SUBMITTED, CalloutEventKind.APPROVED))
    people = User.objects.filter(is_active=True, pk__in=involved.values("actor")).exclude(email="")
    may_publish = (user.email for user in people if user.has_perm(CALLOUT_RIGHTS["publish"]))
    return sorted({*settings.CALLOUT_NOTIFY_TO, *may_publish})


# --- Shared ----------------------------------------------------------------------------------------------------------
@contextmanager
def _locked(version: CalloutVersion, actor: Actor, reason: str = "") -> Iterator[CalloutVersion]:
    """The version as it is now, held until the end of the transaction; what is saved is the actor's, for the reason."""
    with audit.acting(replace(actor, reason=reason.strip() or actor.reason)), transaction.atomic():
        yield CalloutVersion.objects.select_for_update().get(pk=version.pk)


def _move(version: CalloutVersion, state: CalloutState, actor: Actor) -> None:
    """Set the state (not saved). Raises Refused on a move that is not allowed, and without a person."""
    if state not in CALLOUT_TRANSITIONS[version.state]:
        values = {"now": version.state_meaning.label, "new": state.label}
        raise Refused(_("A version that is “%(now)s” cannot become “%(new)s”.") % values)
    version.state = state
    version.state_since = timezone.now()
    version.state_by_name = _person(actor).name


def _check(version: CalloutVersion) -> None:
    """Raise Refused with everything that is refused in the four texts and the note."""
    fields = {*CALLOUT_TEXTS, "note"}
    try:
        version.clean_fields(exclude={field.name for field in version._meta.fields} - fields)
    except ValidationError as error:
        said = [
            f"{version._meta.get_field(name).verbose_name}: {' '.join(messages)}"  # type: ignore[union-attr]
            for name, messages in error.message_dict.items()
        ]
        raise Refused(" ".join(said)) from error


def _happened(version: CalloutVersion, kind: CalloutEventKind, actor: Actor, text: str) -> None:
    """A line of the story, and an event of the change history."""
    _tell(version, kind, actor, text)
    audit.record(f"callout_{kind.value}", version, reason=text.strip())


def _tell(version: CalloutVersion, kind: CalloutEventKind, actor: Actor, text: str = "") -> None:
    CalloutEvent.objects.create(
        version=version, kind=kind, text=text.strip(), actor=actor.user, actor_name=actor.name, at=timezone.now()
    )


def _copied(source: CalloutVersion | None) -> str:
    with recorded():
        return _("Copied from %(version)s.") % {"version": source} if source else ""


def _person(actor: Actor) -> Actor:
    _user(actor)
    return actor


def _user(actor: Actor) -> User:
    if actor.user is None:
        raise Refused(_("Only a person can do this."))
    return actor.user


def _day(day: date) -> Any:
    return date_format(day, "Y-m-d")
