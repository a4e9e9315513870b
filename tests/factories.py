"""Rows for tests. All names and numbers are invented."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import factory
from django.contrib.auth.models import Group, Permission, User
from django.utils import timezone
from factory.django import DjangoModelFactory

from feeds.models import (
    Batch,
    Case,
    CaseEvent,
    Company,
    Connection,
    DriftFinding,
    DriftReport,
    Incident,
    Invitation,
    Operation,
    SourceAccount,
    StatusEvent,
    WebhookEvent,
)
from feeds.services import roles
from feeds.states import (
    AccountStatus,
    CaseEventKind,
    CaseOutcome,
    CaseState,
    ConnectionStatus,
    DriftKind,
    OnboardingState,
    OperationKind,
    SeenBy,
)

PASSWORD = "a long invented pass phrase"


class UserFactory(DjangoModelFactory[User]):
    """A staff member: `UserFactory(role="Support")`, or `UserFactory(permissions=["feeds.view_company"])`."""

    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"staff{n}")
    first_name = "Robin"
    last_name = factory.Sequence(lambda n: f"Staff {n}")
    email = factory.LazyAttribute(lambda user: f"{user.username}@bank.example")
    is_staff = True
    password = factory.django.Password(PASSWORD)

    @factory.post_generation
    def role(self: User, create: bool, name: str | None, **_kwargs: Any) -> None:  # type: ignore[misc]
        """One of `services.roles.ROLES`."""
        if name is not None:
            roles.sync_roles()
            self.groups.add(Group.objects.get(name=name))

    @factory.post_generation
    def permissions(self: User, create: bool, labels: Sequence[str] | None, **_kwargs: Any) -> None:  # type: ignore[misc]
        """Full labels, such as "feeds.view_company"."""
        for label in labels or ():
            app_label, codename = label.split(".")
            self.user_permissions.add(Permission.objects.get(content_type__app_label=app_label, codename=codename))


class CompanyFactory(DjangoModelFactory[Company]):
    """A company that is only here. `in_codat=True`: Codat has it too."""

    class Meta:
        model = Company

    class Params:
        in_codat = factory.Trait(
            codat_id=factory.LazyFunction(lambda: str(uuid.uuid4())),
            codat_name=factory.SelfAttribute("legal_name"),
            onboarding_state=OnboardingState.LINK_READY,
            read_at=factory.LazyFunction(timezone.now),
        )

    customer_number = factory.Sequence(lambda n: f"C-{n:06}")
    legal_name = factory.Sequence(lambda n: f"Maple Bakery {n} Inc.")
    contact_name = "Alex Doe"
    contact_email = factory.Sequence(lambda n: f"alex{n}@maple.example")


class InvitationFactory(DjangoModelFactory[Invitation]):
    """An invitation to connect that lives for two weeks."""

    class Meta:
        model = Invitation

    company = factory.SubFactory(CompanyFactory, in_codat=True)
    contact_name = "Alex Doe"
    contact_email = "alex@maple.example"
    made_by_name = "Robin Staff"
    expires_at = factory.LazyFunction(lambda: timezone.now() + timedelta(days=14))


class ConnectionFactory(DjangoModelFactory[Connection]):
    """A connection that waits for the customer. `with_link=True`: we hold a link that works for an hour.

    `handed_out=True`: and somebody was shown it.
    """

    class Meta:
        model = Connection

    class Params:
        with_link = factory.Trait(
            link_url=factory.LazyAttribute(lambda it: f"https://link.example/{it.codat_id}?otp=112233"),
            link_fetched_at=factory.LazyFunction(timezone.now),
            link_expires_at=factory.LazyFunction(lambda: timezone.now() + timedelta(hours=1)),
        )
        handed_out = factory.Trait(with_link=True, link_shown_at=factory.SelfAttribute("link_fetched_at"))
        linked = factory.Trait(status=ConnectionStatus.LINKED)

    company = factory.SubFactory(CompanyFactory, in_codat=True)
    codat_id = factory.LazyFunction(lambda: str(uuid.uuid4()))
    status = ConnectionStatus.PENDING_AUTH
    read_at = factory.LazyFunction(timezone.now)


class SourceAccountFactory(DjangoModelFactory[SourceAccount]):
    """An account that is only here. `in_codat=True`: it is on a connection of its company, and pending."""

    class Meta:
        model = SourceAccount

    class Params:
        in_codat = factory.Trait(
            company=factory.SubFactory(CompanyFactory, in_codat=True),
            connection=factory.SubFactory(ConnectionFactory, company=factory.SelfAttribute("..company")),
            status=AccountStatus.PENDING,
            read_at=factory.LazyFunction(timezone.now),
        )

    company = factory.SubFactory(CompanyFactory)
    account_id = factory.LazyFunction(lambda: str(uuid.uuid4()))
    name = factory.Sequence(lambda n: f"Operating account {n}")
    account_number = factory.Sequence(lambda n: f"{4_000_100_000 + n}")


class OperationFactory(DjangoModelFactory[Operation]):
    """A ledger row that waits."""

    class Meta:
        model = Operation

    company = factory.SubFactory(CompanyFactory, in_codat=True)
    kind = OperationKind.REFRESH_LINK
    requested_by_name = "Robin Staff"


class BatchFactory(DjangoModelFactory[Batch]):
    """A bulk onboarding without companies; add them through `BatchItem`."""

    class Meta:
        model = Batch

    label = factory.Sequence(lambda n: f"Upload {n}")


class StatusEventFactory(DjangoModelFactory[StatusEvent]):
    """A poll that found an account disconnected."""

    class Meta:
        model = StatusEvent

    account = factory.SubFactory(SourceAccountFactory, in_codat=True, status=AccountStatus.DISCONNECTED)
    connection = factory.SelfAttribute("account.connection")
    company = factory.SelfAttribute("connection.company")
    old = AccountStatus.CONNECTED
    new = AccountStatus.DISCONNECTED
    seen_at = factory.LazyFunction(timezone.now)
    seen_by = SeenBy.POLL


class IncidentFactory(DjangoModelFactory[Incident]):
    """An incident that still holds its mails."""

    class Meta:
        model = Incident

    opened_at = factory.LazyFunction(timezone.now)


class CaseFactory(DjangoModelFactory[Case]):
    """A case nobody has taken, about a Linked connection with one disconnected account.

    `CaseFactory(owner=somebody)` is taken; `CaseFactory(closed=True)` is closed.
    """

    class Meta:
        model = Case
        skip_postgeneration_save = True

    class Params:
        closed = factory.Trait(
            state=CaseState.CLOSED,
            outcome=CaseOutcome.RECONNECTED,
            closed_at=factory.LazyFunction(timezone.now),
        )

    connection = factory.SubFactory(ConnectionFactory, linked=True)
    company = factory.SelfAttribute("connection.company")
    state = factory.LazyAttribute(lambda case: CaseState.TAKEN if case.owner else CaseState.OPEN)
    owner = None
    opened_at = factory.LazyFunction(timezone.now)
    broke_at = factory.SelfAttribute("opened_at")
    checked_at = factory.LazyFunction(timezone.now)
    due_at = factory.LazyAttribute(lambda case: case.opened_at + timedelta(days=1))
    what_is_broken = "disconnected: Operating account"
    accounts_broken = 1

    @factory.post_generation
    def account(self: Case, create: bool, name: str | None, **_kwargs: Any) -> None:  # type: ignore[misc]
        """The account that broke, and the reading that showed it."""
        broken = SourceAccountFactory(
            company=self.company,
            connection=self.connection,
            name=name or "Operating account",
            status=AccountStatus.DISCONNECTED,
            read_at=self.opened_at,
        )
        StatusEventFactory(account=broken, seen_at=self.opened_at)


class CaseEventFactory(DjangoModelFactory[CaseEvent]):
    """A note in a case."""

    class Meta:
        model = CaseEvent

    case = factory.SubFactory(CaseFactory)
    kind = CaseEventKind.NOTE
    text = "Left a message."
    actor_name = "Robin Staff"
    at = factory.LazyFunction(timezone.now)


class DriftReportFactory(DjangoModelFactory[DriftReport]):
    """A comparison that has ended."""

    class Meta:
        model = DriftReport

    started_at = factory.LazyFunction(timezone.now)
    finished_at = factory.LazyFunction(timezone.now)
    companies_read = 2


class DriftFindingFactory(DjangoModelFactory[DriftFinding]):
    """A company that somebody made in the Codat Portal."""

    class Meta:
        model = DriftFinding

    report = factory.SubFactory(DriftReportFactory)
    kind = DriftKind.MISSING_HERE
    codat_company_id = factory.LazyFunction(lambda: str(uuid.uuid4()))
    there = factory.Sequence(lambda n: f"Portal Bakery {n}")


class WebhookEventFactory(DjangoModelFactory[WebhookEvent]):
    """A webhook that was received a moment ago, about a company that is not ours; its task is not queued."""

    class Meta:
        model = WebhookEvent

    webhook_id = factory.Sequence(lambda n: f"msg-{n}")
    event_type = "connection.connected"
    codat_company_id = factory.LazyFunction(lambda: str(uuid.uuid4()))
    body = factory.LazyAttribute(
        lambda it: {"eventType": it.event_type, "payload": {"referenceCompany": {"id": it.codat_company_id}}}
    )
