"""The callout: the text above **Get credentials** on Codat's Link page, version by version. Every version is kept."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from feeds import callout_text
from feeds.callout_text import MAX_BODY, MAX_TITLE
from feeds.models import lookups  # noqa: F401  # the constraints below are written with it
from feeds.models.base import TIMES, AuditedQuerySet, TimeStamped
from feeds.states import CALLOUT_MEANINGS, CalloutEventKind, CalloutState, Meaning, describe


class CalloutText(models.TextField):  # type: ignore[type-arg]  # generic only for type checkers
    """Plain text of at most `limit` UTF-16 units, composed (NFC) wherever it is assigned, queried or stored."""

    def __init__(self, *args: Any, limit: int, **kwargs: Any) -> None:
        self.limit = limit
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        """For migrations."""
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, {**kwargs, "limit": self.limit}

    def to_python(self, value: Any) -> Any:
        """As it is counted."""
        value = super().to_python(value)
        return callout_text.normalise(value) if isinstance(value, str) else value

    def get_prep_value(self, value: Any) -> Any:
        """As it is stored."""
        return self.to_python(super().get_prep_value(value))

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """What was saved is what the instance says."""
        value = self.to_python(super().pre_save(model_instance, add))
        setattr(model_instance, self.attname, value)
        return value

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        """Raise ValidationError with everything that is refused, each by its name and position."""
        super().validate(value, model_instance)
        if found := callout_text.refusals(value, self.limit):
            raise ValidationError([ValidationError(str(refusal), code=refusal.why) for refusal in found])


class CalloutVersion(TimeStamped):
    """One version of the four texts. Its text changes only while it is a draft; the database sees to that too."""

    title_en = CalloutText(_("English title"), limit=MAX_TITLE, blank=True, default="")
    body_en = CalloutText(_("English body"), limit=MAX_BODY, blank=True, default="")
    title_fr = CalloutText(_("French title"), limit=MAX_TITLE, blank=True, default="")
    body_fr = CalloutText(_("French body"), limit=MAX_BODY, blank=True, default="")
    note = models.CharField(
        _("note"),
        max_length=300,
        blank=True,
        help_text=_("What this version is for. Colleagues read it; customers do not."),
    )
    copied_from = models.ForeignKey(
        "self", verbose_name=_("copied from"), null=True, blank=True, editable=False, on_delete=models.PROTECT
    )
    state = models.CharField(
        _("state"), max_length=10, choices=CalloutState.choices, default=CalloutState.DRAFT, editable=False
    )
    state_since = models.DateTimeField(_("since"), editable=False)
    state_by_name = models.CharField(_("by"), max_length=200, editable=False)

    published_on = models.DateField(
        _("published"), null=True, editable=False, help_text=_("The day it was copied into the Portal, as attested.")
    )
    superseded_on = models.DateField(
        _("superseded"), null=True, editable=False, help_text=_("The day another version took its place.")
    )
    attested_on = models.DateField(
        _("last attested"), null=True, editable=False, help_text=_("The last day somebody says it stood in the Portal.")
    )
    attested_by_name = models.CharField(
        _("last attested by"), max_length=200, blank=True, editable=False, help_text=_("Who looked into the Portal.")
    )

    objects = AuditedQuerySet["CalloutVersion"].as_manager()
    bookkeeping: ClassVar = TIMES | {"state_since"}

    class Meta:
        verbose_name = _("callout version")
        verbose_name_plural = _("callout versions")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view", "add", "change")
        permissions: ClassVar = [
            ("submit_callout", _("Can submit and withdraw a version of the callout")),
            ("approve_callout", _("Can approve or send back a version of the callout that others wrote")),
            ("publish_callout", _("Can publish the callout in the Codat Portal and attest to it")),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=CalloutState.values), name="callout_state_known"),
            models.CheckConstraint(condition=Q(title_en__utf16_units__lte=MAX_TITLE), name="callout_title_en_fits"),
            models.CheckConstraint(condition=Q(body_en__utf16_units__lte=MAX_BODY), name="callout_body_en_fits"),
            models.CheckConstraint(condition=Q(title_fr__utf16_units__lte=MAX_TITLE), name="callout_title_fr_fits"),
            models.CheckConstraint(condition=Q(body_fr__utf16_units__lte=MAX_BODY), name="callout_body_fr_fits"),
            models.CheckConstraint(
                condition=Q(state=CalloutState.PUBLISHED, published_on__isnull=False, superseded_on__isnull=True)
                | Q(state=CalloutState.SUPERSEDED, published_on__isnull=False, superseded_on__isnull=False)
                | (
                    ~Q(state__in=(CalloutState.PUBLISHED, CalloutState.SUPERSEDED))
                    & Q(published_on__isnull=True, superseded_on__isnull=True)
                ),
                name="callout_published_has_dates",
            ),
            models.CheckConstraint(
                condition=Q(published_on__isnull=True, attested_on__isnull=True, attested_by_name="")
                | (Q(published_on__isnull=False, attested_on__gte=F("published_on")) & ~Q(attested_by_name="")),
                name="callout_published_is_attested",
            ),
            models.CheckConstraint(
                condition=Q(superseded_on__isnull=True) | Q(superseded_on__gte=F("published_on")),
                name="callout_superseded_after_published",
            ),
            models.UniqueConstraint(
                fields=["state"], condition=Q(state=CalloutState.PUBLISHED), name="callout_one_published"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["state", "-id"], name="callout_state"),
            models.Index(fields=["published_on"], name="callout_published", condition=Q(published_on__isnull=False)),
        ]

    def __str__(self) -> str:
        return str(_("Version %(number)s") % {"number": self.pk})

    @property
    def state_meaning(self) -> Meaning:
        """How the state is shown."""
        return describe(CALLOUT_MEANINGS, self.state)

    @property
    def is_draft(self) -> bool:
        """Whether its text may be changed."""
        return self.state == CalloutState.DRAFT

    @property
    def is_empty(self) -> bool:
        """Whether it has no text at all: published, it takes the box away."""
        return not any(self.texts().values())

    def texts(self) -> dict[str, str]:
        """The four texts by the name of their field."""
        return {name: getattr(self, name) for name in CALLOUT_TEXTS}


CALLOUT_TEXTS: dict[str, int] = {"title_en": MAX_TITLE, "body_en": MAX_BODY, "title_fr": MAX_TITLE, "body_fr": MAX_BODY}
"""Field -> its limit in UTF-16 units, in the order of the Portal's form."""


class CalloutEvent(models.Model):
    """One line of a version's story. Never changed."""

    version = models.ForeignKey(CalloutVersion, on_delete=models.PROTECT, related_name="events")
    kind = models.CharField(_("what"), max_length=12, choices=CalloutEventKind.choices)
    text = models.TextField(_("text"), blank=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(_("who"), max_length=200)
    at = models.DateTimeField(_("when"))

    class Meta:
        verbose_name = _("callout event")
        verbose_name_plural = _("callout events")
        ordering: ClassVar = ["id"]
        default_permissions = ()
        indexes: ClassVar = [models.Index(fields=["version", "id"], name="callout_event_version")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.text}"
