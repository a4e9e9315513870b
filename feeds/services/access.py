"""Who sees which customer: the one place that decides it, for screens, searches, actions and exports alike.

A person without the right `SEES_ALL` sees their own customers, those that have no manager, and for some hours those
they asked for in an emergency. Everything that hangs on a company is seen with it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from feeds import audit, queue
from feeds.audit import Actor
from feeds.models import AccessGrant, Approval, Batch, Company
from feeds.models.company import CompanyQuerySet
from feeds.services import outbox, roles
from feeds.services.errors import Refused
from feeds.states import MailKind

SEES_ALL = "feeds.view_all_companies"
REASSIGN = "feeds.reassign_company"
BREAK_GLASS = "feeds.break_glass"
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"

Person = AbstractBaseUser | AnonymousUser
M = TypeVar("M", bound=Model)


# --- Who sees what ---------------------------------------------------------------------------------------------------
def sees_all(user: Person) -> bool:
    """Whether `user` sees every customer: by right, or because the setting RM_SEES_ALL_CUSTOMERS says so."""
    return settings.RM_SEES_ALL_CUSTOMERS or (isinstance(user, User) and user.has_perm(SEES_ALL))


def visible_companies(user: Person) -> CompanyQuerySet:
    """The companies that `user` sees, as of now: keep the queryset no longer than one request.

    It can stand inside another query. One query tells which emergency accesses are in force; none for who sees all.
    """
    companies = Company.objects.all()
    return companies if sees_all(user) else companies.filter(_seen_by(user))


def companies_of(actor: Actor) -> CompanyQuerySet:
    """As `visible_companies`, of whoever acts. A part of the system that acts by itself sees all of them."""
    return Company.objects.all() if actor.user is None else visible_companies(actor.user)


def scope(queryset: QuerySet[M], user: Person, path: str = "company") -> QuerySet[M]:
    """The rows of `queryset` whose company `user` sees. `path` leads there ("company", "case__company"; "pk" if the
    rows are companies). Rows that belong to no company are for who sees all.

    One subquery on the companies' index by manager, whatever the table; nothing is added for who sees all.
    """
    if sees_all(user):
        return queryset
    if path == "pk":
        return queryset.filter(_seen_by(user))
    return queryset.filter(**{f"{path}__in": visible_companies(user).order_by().values("pk")})


def visible_batches(user: Person, queryset: QuerySet[Batch] | None = None) -> QuerySet[Batch]:
    """The bulk onboardings that `user` sees: those they asked for themselves, unless they see all customers."""
    batches = Batch.objects.all() if queryset is None else queryset
    return batches if sees_all(user) else batches.filter(requested_by=user.pk)


def visible_grants(user: Person, queryset: QuerySet[AccessGrant] | None = None) -> QuerySet[AccessGrant]:
    """The emergency accesses that `user` may know of: their own and those to their customers, or all."""
    grants = AccessGrant.objects.all() if queryset is None else queryset
    return grants if sees_all(user) else grants.filter(Q(user=user.pk) | Q(company__manager=user.pk))


def visible_approvals(
    user: Person, queryset: QuerySet[Approval], of_no_customer: Collection[str]
) -> QuerySet[Approval]:
    """The requests that `user` may know of: their own, those about one customer they see, and of the actions
    `of_no_customer`. One for many rows names many customers: it is for who asked and who sees all.
    """
    if sees_all(user):
        return queryset
    seen = Q(company__in=visible_companies(user).order_by().values("pk"))
    return queryset.filter(seen | Q(requested_by=user.pk) | Q(action__in=of_no_customer))


def people_who_see(company: Company | None) -> Q:
    """A condition on users: who sees `company` now. None stands for many companies: who sees all of them."""
    if settings.RM_SEES_ALL_CUSTOMERS or (company is not None and company.manager_id is None):
        return Q()
    # Named, because a site with several ways to sign in has several backends.
    by_right = Q(pk__in=User.objects.with_perm(SEES_ALL, backend=MODEL_BACKEND).values("pk"))
    if company is None:
        return by_right
    opened = AccessGrant.objects.in_force(timezone.now()).filter(company=company).order_by()
    return by_right | Q(pk=company.manager_id) | Q(pk__in=list(opened.values_list("user", flat=True)))


def can_see(user: Person, company: Company) -> bool:
    """Whether `user` sees `company` now."""
    return visible_companies(user).filter(pk=company.pk).exists()


def grant_in_use(user: Person, company_id: int) -> AccessGrant | None:
    """The emergency access by which alone `user` sees the company; None when they see it anyway, or not at all."""
    if sees_all(user):
        return None
    found = AccessGrant.objects.in_force(timezone.now()).filter(user=user.pk, company=company_id)
    grant = found.select_related("company").order_by("-expires_at").first()
    return grant if grant is not None and grant.company.manager_id not in (None, user.pk) else None


def _seen_by(user: Person) -> Q:
    # Asked by the clock, so that an access ends at its second whether or not anything runs then. Read first, a handful
    # of keys: as a subquery in an OR they make PostgreSQL read the whole table (1.3 s at a million companies).
    opened = AccessGrant.objects.in_force(timezone.now()).filter(user=user.pk).order_by()
    seen = Q(manager=user.pk) | Q(manager__isnull=True)
    keys = list(opened.values_list("company", flat=True))
    return seen | Q(pk__in=keys) if keys else seen


# --- Whose customer it is --------------------------------------------------------------------------------------------
def take_over(company: Company, actor: Actor) -> None:
    """Make `actor` the manager of a company that has none.

    Raises Refused when it has one meanwhile, or when no person acts.
    """
    with audit.acting(actor), transaction.atomic():
        locked = Company.objects.select_for_update().select_related(None).get(pk=company.pk)
        if locked.manager_id is not None:
            raise Refused(_("This company has a manager. Ask an administrator to give it to you."))
        if actor.user is None:
            raise Refused(_("Only a person can look after a company."))
        locked.manager = actor.user
        locked.save(update_fields=["manager", "updated_at"])
    company.manager = actor.user


# --- Emergency access ------------------------------------------------------------------------------------------------
def break_glass(*, actor: Actor, customer_number: str, reason: str) -> AccessGrant:
    """Open one customer of another manager to `actor` for EMERGENCY_ACCESS_HOURS, and tell those concerned.

    The whole customer number has to be known, so that nobody browses; a number that finds nothing is recorded too.
    Raises Refused when there is no such customer, when the person sees it anyway, or without a reason.
    """
    # It stands in a banner and in mails: a number that somebody types there is nobody else's to read.
    reason, number = audit.without_numbers(reason.strip()), customer_number.strip()
    user = actor.user
    if user is None or not reason:
        raise Refused(_("Say why you need this customer."))
    with audit.acting(replace(actor, reason=reason)), transaction.atomic():
        # The lock keeps two presses of one button from making two accesses and two mails.
        company = Company.objects.select_for_update(of=("self",)).filter(customer_number=number).first()
        if company is not None and not can_see(user, company):
            return _let_in(user, company, actor.name, reason)
        if company is None:
            audit.record("emergency_access_refused", user, customer_number=number)
    if company is None:
        raise Refused(_("There is no customer with this number. Enter the whole number, exactly as it is stored."))
    raise Refused(_("You see this customer already: search for it among the companies."))


def end(grant: AccessGrant, actor: Actor) -> None:
    """End an emergency access now. Raises Refused when it has ended."""
    with audit.acting(actor), transaction.atomic():
        locked = AccessGrant.objects.select_for_update(of=("self",)).get(pk=grant.pk)
        if reason := why_not_end(locked):
            raise Refused(reason)
        locked.ended_at, locked.ended_by_name = timezone.now(), actor.name
        locked.save(update_fields=["ended_at", "ended_by_name"])


def why_not_end(grant: AccessGrant) -> str:
    """Why there is nothing to end; "" when there is."""
    if grant.ended_at is None and grant.expires_at > timezone.now():
        return ""
    return _("This emergency access has ended already.")


def _let_in(user: User, company: Company, name: str, reason: str) -> AccessGrant:
    hours = settings.EMERGENCY_ACCESS_HOURS
    grant = AccessGrant.objects.create(
        company=company,
        user=user,
        user_name=name,
        reason=reason,
        expires_at=timezone.now() + timedelta(hours=hours),
    )
    # On the customer's own history too, where an auditor of the customer looks.
    audit.record("emergency_access", company, hours=hours, grant=grant.pk)
    outbox.put(
        MailKind.EMERGENCY_ACCESS,
        to=_concerned(company),
        subject=lambda: _("Emergency access to %(company)s") % {"company": company.legal_name},
        context={
            "grant": grant,
            "manager": company.manager,
            "until": date_format(timezone.localtime(grant.expires_at), "Y-m-d H:i T"),
            "url": outbox.page_of(grant),
        },
        company=company,
    )
    queue.enqueue(queue.SEND_MAILS)
    return grant


def _concerned(company: Company) -> list[str]:
    """Addresses of the company's manager and of the administrators."""
    told = Q(groups__name=roles.ADMINISTRATORS) | Q(pk=company.manager_id)
    people = User.objects.filter(told, is_active=True).exclude(email="").distinct()
    return sorted(people.values_list("email", flat=True))
