"""One row of the change history, written only through `feeds.audit`; the seals over the rows; the recorded purges.

The database itself refuses to change or delete any of them: see the triggers in migration 0013.
"""

from __future__ import annotations

from typing import Any, ClassVar

from auditlog.models import AbstractLogEntry, LogEntryManager
from django.conf import settings
from django.db import connection, models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from feeds.models.company import Company
from feeds.states import event_label


class DatabaseNow(Now):
    """The database's clock, on SQLite with the six decimals that Django writes: times are compared as text there."""

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """`strftime` knows thousandths only."""
        template = "STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f000', 'NOW')"
        return self.as_sql(compiler, connection, template=template, **context)


class AuditEntryQuerySet(models.QuerySet["AuditEntry"]):
    """Sets of entries that several rooms ask for."""

    def touching(self, field: str) -> AuditEntryQuerySet:
        """Entries in which `field` (its name in the model) was set or changed. Asks the database twice at once.

        Of a field that few entries touch, the index tells which those are; one that many touch is soon met in a list
        that is read from its end. Either way alone would read a million entries for the other kind.
        """
        found = AuditEntry.objects.order_by().filter(fields__in=_combinations(field)).values_list("pk", flat=True)
        few = list(found[: FEW + 1])
        return self.filter(fields__contains=f",{field},") if len(few) > FEW else self.filter(pk__in=few)


FEW = 1000


def _combinations(field: str) -> list[str]:
    """The values of `fields` that name the field: some hundred exist, and each step here is one look into the index."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE combination(names) AS ("
            " SELECT min(fields) FROM feeds_auditentry WHERE fields > ''"
            " UNION ALL SELECT (SELECT min(fields) FROM feeds_auditentry WHERE fields > combination.names)"
            " FROM combination WHERE combination.names IS NOT NULL"
            ") SELECT names FROM combination WHERE names IS NOT NULL"
        )
        return [names for (names,) in cursor.fetchall() if f",{field}," in names]


_Manager = LogEntryManager.from_queryset(AuditEntryQuerySet)


class AuditEntry(AbstractLogEntry):  # type: ignore[misc]  # the library ships no types
    """django-auditlog's entry plus what an auditor asks for.

    Its keys are plain numbers without constraints: a history that cannot be changed cannot follow what is deleted.
    So `actor`, `company` or `content_type` may point to nothing; `actor_name` and `object_repr` outlive them.
    """

    timestamp = models.DateTimeField(
        _("when"),
        db_default=DatabaseNow(),
        editable=False,
        help_text=_("The database's own clock; no other time is accepted."),
    )
    content_type = models.ForeignKey(
        "contenttypes.ContentType",
        verbose_name=_("kind of object"),
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    object_pk = models.CharField(_("object pk"), max_length=255, blank=True)
    object_id = models.BigIntegerField(_("object id"), null=True, blank=True)
    action = models.PositiveSmallIntegerField(_("action"), choices=AbstractLogEntry.Action.choices)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("actor"),
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    cid = models.CharField(  # noqa: DJ001  # the library's own column, in which nothing is NULL
        _("request or task"),
        max_length=255,
        null=True,
        blank=True,
        help_text=_("The same for all of one click or task."),
    )
    company = models.ForeignKey(
        Company,
        verbose_name=_("customer"),
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    fields = models.TextField(
        _("fields"),
        blank=True,
        help_text=_("Names of the fields that were set, as ,errors,status, in alphabetical order."),
    )
    actor_name = models.CharField(_("who"), max_length=200, blank=True)
    source = models.CharField(_("source"), max_length=40, blank=True)
    reason = models.TextField(_("reason"), blank=True)
    event = models.CharField(
        _("event"), max_length=40, blank=True, help_text=_("Set for events that change no row, such as showing a link.")
    )

    objects = _Manager()

    class Meta:
        verbose_name = _("history entry")
        verbose_name_plural = _("change history")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        indexes: ClassVar = [
            models.Index(fields=["content_type", "object_pk", "-id"], name="audit_object"),
            models.Index(fields=["content_type", "-id"], name="audit_model"),
            models.Index(fields=["company", "-id"], name="audit_company", condition=Q(company__isnull=False)),
            models.Index(fields=["actor", "-id"], name="audit_actor", condition=Q(actor__isnull=False)),
            models.Index(fields=["actor_name", "-id"], name="audit_actor_name"),
            models.Index(fields=["source", "-id"], name="audit_source"),
            models.Index(fields=["action", "-id"], name="audit_action"),
            models.Index(fields=["event", "-id"], name="audit_event"),
            models.Index(fields=["cid", "-id"], name="audit_cid", condition=Q(cid__isnull=False)),
            models.Index(fields=["fields", "-id"], name="audit_fields"),
            models.Index(fields=["-timestamp", "-id"], name="audit_timestamp"),
        ]

    def __str__(self) -> str:
        action = event_label(self.event) if self.event else self.get_action_display()
        return f"{self.timestamp:%Y-%m-%d %H:%M:%S} {self.actor_name} {action}"


class AuditSeal(models.Model):
    """A hash over a run of entries and over the seal before it. What is sealed cannot change without being found.

    `number` counts from 1 without gaps. How the hashes are computed: `feeds/services/seals.py`.
    """

    number = models.PositiveBigIntegerField(_("seal"), unique=True)
    version = models.PositiveSmallIntegerField(_("format"), default=1)
    first_entry = models.BigIntegerField(_("first entry"))
    last_entry = models.BigIntegerField(_("last entry"), unique=True)
    entries = models.PositiveIntegerField(_("entries"))
    oldest_at = models.DateTimeField(_("oldest entry"))
    newest_at = models.DateTimeField(_("newest entry"))
    entries_sha256 = models.CharField(_("hash of the entries"), max_length=64)
    previous_sha256 = models.CharField(
        _("hash of the seal before"), max_length=64, unique=True, help_text=_("Of the first seal: 64 zeros.")
    )
    sha256 = models.CharField(_("hash"), max_length=64, unique=True)
    sealed_at = models.DateTimeField(_("sealed"), db_index=True)

    class Meta:
        verbose_name = _("seal")
        verbose_name_plural = _("seals")
        ordering: ClassVar = ["-number"]
        default_permissions = ("view",)
        permissions: ClassVar = [("verify_history", _("Can verify the seals of the change history"))]

    def __str__(self) -> str:
        return str(self.number)


class AuditSealDelivery(models.Model):
    """One seal on its way to one place outside this host. Bookkeeping: unlike the seal itself, it changes."""

    class State(models.TextChoices):
        """What has become of it."""

        QUEUED = "queued", _("Waiting")
        SENT = "sent", _("Sent")
        FAILED = "failed", _("Failed")

    seal = models.ForeignKey(
        AuditSeal, verbose_name=_("seal"), on_delete=models.DO_NOTHING, db_constraint=False, related_name="deliveries"
    )
    destination = models.CharField(
        _("destination"), max_length=300, help_text=_("As the setting names it, without any password.")
    )
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.QUEUED)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, blank=True)
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)
    error = models.TextField(_("what went wrong"), blank=True)

    class Meta:
        verbose_name = _("seal sent")
        verbose_name_plural = _("seals sent")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["seal", "destination"], name="seal_delivery_once"),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["next_attempt_at"], name="seal_delivery_due", condition=Q(next_attempt_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.seal_id} {self.destination}"


class AuditPurge(models.Model):
    """Entries deleted because they were older than the retention. The seals over them stay, so the chain stays whole.

    Only while such a row covers an entry does the database let it go.
    """

    first_entry = models.BigIntegerField(_("first entry"))
    last_entry = models.BigIntegerField(_("last entry"), unique=True)
    entries = models.PositiveBigIntegerField(_("entries"))
    first_seal = models.PositiveBigIntegerField(_("first seal"))
    last_seal = models.PositiveBigIntegerField(_("last seal"))
    seal_sha256 = models.CharField(_("hash of the last seal"), max_length=64)
    older_than = models.DateTimeField(_("entries before"))
    retention_days = models.PositiveIntegerField(_("retention in days"))
    actor_name = models.CharField(_("who"), max_length=200)
    source = models.CharField(_("source"), max_length=40)
    reason = models.TextField(_("reason"))
    purged_at = models.DateTimeField(_("purged"))
    previous_sha256 = models.CharField(_("hash of the purge before"), max_length=64, unique=True)
    sha256 = models.CharField(_("hash"), max_length=64, unique=True)

    class Meta:
        verbose_name = _("purge of the history")
        verbose_name_plural = _("purges of the history")
        ordering: ClassVar = ["-id"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.first_entry}-{self.last_entry}"
