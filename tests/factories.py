"""Rows for tests. All names and numbers are invented."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import factory
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone
from factory.django import DjangoModelFactory

from feeds.models import (
    AccessGrant,
    ApiKey,
    Approval,
    Batch,
    CalloutVersion,
    Case,
    CaseEvent,
    Company,
    Connection,
    DriftFinding,
    DriftReport,
    HistoryCheck,
    HistoryExport,
    Incident,
    Invitation,
    Mail,
    Operation,
    SignInLock,
    SourceAccount,
    StatusEvent,
    WebhookEvent,
)
from feeds.services import approval_rules, roles
from feeds.states import (
    AccountStatus,
    ApiScope,
    CalloutState,
    CaseEventKind,
    CaseOutcome,
    CaseState,
    CheckState,
    ConnectionStatus,
    DriftKind,
    ExportFormat,
    ExportKind,
    ExportState,
    MailKind,
    MailState,
    OnboardingState,
    OperationKind,
    SeenBy,
)

PASSWORD = "a long invented pass phrase"


def make_roles() -> None:
    """The groups that `sync_roles` makes, quickly and without their history: nearly every test needs them."""
    missing = roles.ROLES.keys() - set(Group.objects.filter(name__in=roles.ROLES).values_list("name", flat=True))
    if not missing:
        return
    keys = {
        f"{app}.{codename}": pk
        for pk, app, codename in Permission.objects.values_list("pk", "content_type__app_label", "codename")
    }
    groups = Group.objects.bulk_create(Group(name=name) for name in sorted(missing))
    holds = Group.permissions.through
    holds.objects.bulk_create(
        holds(group_id=group.pk, permission_id=keys[label]) for group in groups for label in roles.ROLES[group.name]
    )


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
            make_roles()
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


class ApiKeyFactory(DjangoModelFactory[ApiKey]):
    """A key that may do everything, and that no program has; `services.api_keys.make` makes one that works."""

    class Meta:
        model = ApiKey

    name = "Portal"
    prefix = factory.Sequence(lambda n: f"bfk_{n:08}")
    digest = factory.Sequence(lambda n: f"{n:064}")
    scopes = " ".join(ApiScope.values)
    made_by_name = "Ada Underhill"
    expires_at = factory.LazyFunction(lambda: timezone.now() + timedelta(days=30))


class InvitationFactory(DjangoModelFactory[Invitation]):
    """An invitation to connect that lives for two weeks."""

    class Meta:
        model = Invitation

    company = factory.SubFactory(CompanyFactory, in_codat=True)
    contact_name = "Alex Doe"
    contact_email = "alex@maple.example"
    language = "en"
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


class ApprovalFactory(DjangoModelFactory[Approval]):
    """A request to unlink a connection, which waits: `ApprovalFactory(connection=..., requested_by=...)`."""

    class Meta:
        model = Approval
        exclude = ("connection",)

    connection = factory.SubFactory(ConnectionFactory, linked=True)
    action = "unlink_connection"
    target_type = factory.LazyFunction(lambda: ContentType.objects.get_for_model(Connection))
    target_pk = factory.LazyAttribute(lambda it: it.connection.pk)
    target_name = factory.LazyAttribute(lambda it: str(it.connection))
    key = factory.LazyAttribute(lambda it: f"feeds.connection:{it.connection.pk}")
    company = factory.LazyAttribute(lambda it: it.connection.company)
    payload = factory.LazyFunction(lambda: {"data": {}})
    judged_on = factory.LazyAttribute(lambda it: approval_rules.RULES["unlink_connection"].state(it.connection))
    consequences = factory.LazyFunction(lambda: ["3 accounts stop feeding."])
    reason = "The customer asked for it by phone."
    requested_by = factory.SubFactory("tests.factories.UserFactory", role="Support")
    requested_by_name = factory.LazyAttribute(lambda it: it.requested_by.get_full_name())
    expires_at = factory.LazyFunction(lambda: timezone.now() + timedelta(hours=72))


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


class AccessGrantFactory(DjangoModelFactory[AccessGrant]):
    """An emergency access to another manager's customer, in force for some hours."""

    class Meta:
        model = AccessGrant

    company = factory.SubFactory(CompanyFactory, manager=factory.SubFactory(UserFactory))
    user = factory.SubFactory(UserFactory)
    user_name = factory.LazyAttribute(lambda grant: grant.user.get_full_name())
    reason = "The manager is away and the customer waits."
    expires_at = factory.LazyFunction(lambda: timezone.now() + timedelta(hours=8))


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


class MailFactory(DjangoModelFactory[Mail]):
    """A mail to the team that failed: `MailFactory(state=MailState.HELD)` is held by an incident."""

    class Meta:
        model = Mail

    kind = MailKind.BROKE
    to = "support@bank.example"
    subject = factory.Sequence(lambda n: f"Feed broke: Maple Bakery {n} Inc.")
    body = "A feed broke. Take the case."
    html = "<p>A feed broke. Take the case.</p>"
    case = factory.SubFactory(CaseFactory)
    invitation: Invitation | None = None
    company = factory.LazyAttribute(lambda mail: about.company if (about := mail.case or mail.invitation) else None)
    state = MailState.FAILED
    attempts = 10


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


class CalloutVersionFactory(DjangoModelFactory[CalloutVersion]):
    """A draft with text in both languages, without its story.

    `state=` any other; `published=True` was attested today, `superseded=True` until today. What a test does to a
    version goes through `services.callouts`.
    """

    class Meta:
        model = CalloutVersion

    class Params:
        published = factory.Trait(
            state=CalloutState.PUBLISHED,
            published_on=factory.LazyFunction(timezone.localdate),
            attested_on=factory.SelfAttribute("published_on"),
            attested_by_name="Robin Staff",
        )
        superseded = factory.Trait(
            published=True,
            state=CalloutState.SUPERSEDED,
            superseded_on=factory.SelfAttribute("published_on"),
        )

    title_en = "Before you start"
    body_en = "Have your QuickBooks password ready."
    title_fr = "Avant de commencer"
    body_fr = "Préparez votre mot de passe QuickBooks."
    state_since = factory.LazyFunction(timezone.now)
    state_by_name = "Robin Staff"


class HistoryCheckFactory(DjangoModelFactory[HistoryCheck]):
    """A verification of the change history that found nothing wrong."""

    class Meta:
        model = HistoryCheck

    state = CheckState.INTACT
    requested_by_name = "Ada Underhill"
    asked_at = factory.LazyFunction(timezone.now)
    finished_at = factory.SelfAttribute("asked_at")


class HistoryExportFactory(DjangoModelFactory[HistoryExport]):
    """An export of the change history that ended."""

    class Meta:
        model = HistoryExport

    kind = ExportKind.HISTORY
    format = ExportFormat.CSV
    state = ExportState.DONE
    reason = "The yearly review."
    requested_by_name = "Ada Underhill"
    started_at = factory.LazyFunction(timezone.now)
    finished_at = factory.SelfAttribute("started_at")


class SignInLockFactory(DjangoModelFactory[SignInLock]):
    """A sign-in that failed once a moment ago."""

    class Meta:
        model = SignInLock

    username = factory.Sequence(lambda n: f"robin{n}")
    ip_address = "192.0.2.9"
    failures_since_start = 1
