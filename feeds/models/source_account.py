"""A bank account of the customer, offered to QuickBooks through Codat."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from feeds.models.base import READING, TIMES, AuditedQuerySet, Mirrored, TimeStamped
from feeds.models.company import Company
from feeds.models.connection import Connection
from feeds.states import ACCOUNT_MEANINGS, GONE_MEANING, AccountType, Meaning, RoutingType, describe


class SourceAccount(TimeStamped, Mirrored):
    """One source account. `account_id` is ours to choose, is unique per connection and never changes in Codat."""

    company = models.ForeignKey(
        Company, verbose_name=_("company"), on_delete=models.PROTECT, related_name="source_accounts"
    )
    connection = models.ForeignKey(
        Connection,
        verbose_name=_("connection"),
        null=True,
        blank=True,
        editable=False,
        on_delete=models.PROTECT,
        related_name="source_accounts",
    )
    account_id = models.CharField(
        _("account id"),
        max_length=64,
        blank=True,
        validators=[
            RegexValidator(r"^[A-Za-z0-9_.\-]+\Z", _("Use letters, digits, dots, hyphens and underscores only."))
        ],
        help_text=_("Sent to Codat as the account's id. Leave empty and one is made; it never changes."),
    )
    name = models.CharField(_("account name"), max_length=120)
    account_type = models.CharField(_("type"), max_length=16, choices=AccountType.choices, default=AccountType.CHECKING)
    account_number = models.CharField(
        _("account number"),
        max_length=34,
        validators=[RegexValidator(r"^[A-Za-z0-9 \-]{2,34}\Z", _("Use digits, letters, spaces and hyphens only."))],
    )
    routing_type = models.CharField(_("routing type"), max_length=10, choices=RoutingType.choices, blank=True)
    bank_code = models.CharField(
        _("routing number"),
        max_length=34,
        blank=True,
        help_text=_("US: nine digits. Canada: transit and institution, 00011-001 or 000100011."),
    )
    sort_code = models.CharField(_("sort code"), max_length=34, blank=True)
    currency = models.CharField(
        _("currency"),
        max_length=3,
        default="USD",
        validators=[
            RegexValidator(r"^[A-Z]{3}\Z", _("Use the three capital letters of ISO 4217, such as USD or CAD."))
        ],
    )
    balance = models.DecimalField(_("balance"), max_digits=18, decimal_places=2, default=Decimal("0.00"))
    account_open_date = models.DateField(_("opened on"), null=True, blank=True)

    # No choices on purpose: Codat may add a status, and we store what it says. Empty: not in Codat.
    status = models.CharField(_("status"), max_length=32, blank=True, editable=False)
    feed_start_date = models.DateField(_("feed starts"), null=True, blank=True, editable=False)
    last_error = models.TextField(_("what went wrong"), blank=True, editable=False)

    objects = AuditedQuerySet["SourceAccount"].as_manager()
    bookkeeping: ClassVar = TIMES | READING

    class Meta:
        verbose_name = _("source account")
        verbose_name_plural = _("source accounts")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [
            ("reveal_account_number", _("Can see a whole account number")),
            ("rename_sourceaccount", _("Can rename a source account in Codat")),
            ("disconnect_sourceaccount", _("Can disconnect a source account in Codat")),
            ("remove_sourceaccount", _("Can delete a source account in Codat")),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["company", "account_id"],
                name="account_id_unique_per_company",
                violation_error_message=_("This customer already has an account with this account id."),
            ),
            models.CheckConstraint(condition=~Q(account_id=""), name="account_has_account_id"),
            models.CheckConstraint(condition=~Q(account_number=""), name="account_has_number"),
            models.CheckConstraint(condition=~Q(name=""), name="account_has_name"),
            models.CheckConstraint(condition=Q(account_type__in=AccountType.values), name="account_type_known"),
            models.CheckConstraint(condition=Q(currency__regex=r"^[A-Z]{3}$"), name="account_currency_iso_4217"),
            models.CheckConstraint(
                condition=Q(routing_type__in=[*RoutingType.values, ""]), name="account_routing_type_known"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["status", "-id"], name="account_status"),
            models.Index(fields=["account_number"], name="account_number"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def status_meaning(self) -> Meaning:
        """How the status is shown."""
        if self.gone_at is not None:
            return GONE_MEANING
        return describe(ACCOUNT_MEANINGS, self.status)

    @property
    def is_in_codat(self) -> bool:
        """Whether Codat has this account, as far as we know."""
        return self.connection_id is not None and self.gone_at is None
