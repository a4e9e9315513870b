"""People and customers to try the product with. All of them are invented; their addresses are at example.com."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.utils.translation import gettext as _

from feeds.audit import Actor, acting
from feeds.models import Company
from feeds.services import import_files, imports, roles
from feeds.services.errors import Refused


@dataclass(frozen=True, slots=True)
class DemoUser:
    """One login. Everybody has the password of the setting DEMO_PASSWORD."""

    username: str
    first_name: str
    last_name: str
    role: str

    @property
    def email(self) -> str:
        """Also tells a demo user from a real one of the same name."""
        return f"{self.username}@example.com"


USERS: Final = (
    DemoUser("rm", "Rosa", "Marchetti", roles.RELATIONSHIP_MANAGERS),
    DemoUser("rm2", "Ravi", "Menon", roles.RELATIONSHIP_MANAGERS),
    DemoUser("support", "Sofie", "Uppman", roles.SUPPORT),
    DemoUser("support2", "Sam", "Ueda", roles.SUPPORT),
    DemoUser("auditor", "Ada", "Underhill", roles.COMPLIANCE_AUDITORS),
    DemoUser("admin", "Ahmed", "Dimassi", roles.ADMINISTRATORS),
    DemoUser("admin2", "Agnes", "Dahl", roles.ADMINISTRATORS),
)

# In the shape of an import file, so that they pass the same checks as a bank's own.
COMPANIES: Final[list[dict[str, Any]]] = [
    {
        "customer_number": "DEMO-1", "legal_name": "Café du Vieux-Port inc.", "contact_name": "Maude Tessier",
        "contact_email": "maude.tessier@example.com", "country": "CA", "language": "fr", "manager": "rm",
        "accounts": [
            {"account_name": "Compte courant", "account_type": "checking", "account_number": "1050021",
             "routing_type": "bankcode", "bank_code": "00021-829", "currency": "CAD", "balance": "14250.75"},
            {"account_name": "Carte de crédit", "account_type": "creditCard", "account_number": "4030027714",
             "routing_type": "bankcode", "bank_code": "00021-829", "currency": "CAD", "balance": "-620.10"},
        ],
    },
    {
        "customer_number": "DEMO-2", "legal_name": "Harbor Light Bicycles LLC", "contact_name": "Owen Pryce",
        "contact_email": "owen.pryce@example.com", "country": "US", "language": "en", "manager": "rm",
        "accounts": [
            {"account_name": "Operating", "account_type": "checking", "account_number": "000410077206",
             "routing_type": "aba", "bank_code": "325990015", "currency": "USD", "balance": "8931.00"},
            {"account_name": "Savings", "account_type": "savings", "account_number": "000410077214",
             "routing_type": "aba", "bank_code": "325990015", "currency": "USD", "balance": "25000.00"},
        ],
    },
    {
        "customer_number": "DEMO-3", "legal_name": "Señora Luna Catering", "contact_name": "Inés Castañeda",
        "contact_email": "ines.castaneda@example.com", "country": "US", "language": "en", "manager": "rm2",
        "accounts": [
            {"account_name": "Checking", "account_type": "checking", "account_number": "000410081983",
             "routing_type": "aba", "bank_code": "325990015", "currency": "USD", "balance": "2210.35"},
        ],
    },
]  # fmt: skip


def is_wanted() -> bool:
    """Whether this place may have demo users: never in production, nor beside real customers in Codat."""
    return bool(settings.CODAT_SANDBOX and not settings.IS_PRODUCTION)


def left_over() -> list[str]:
    """User names of demo users that can sign in, for places that must not have them."""
    emails = [user.email for user in USERS]
    active = User.objects.filter(email__in=emails, username__in=[user.username for user in USERS], is_active=True)
    return sorted(active.values_list("username", flat=True))


def create(*, actor: Actor) -> None:
    """Make the demo users and companies that are missing; those that exist are left as somebody made them.

    Needs the roles. Raises Refused where demo users must not exist.
    """
    if not is_wanted():
        raise Refused(_("Demo users are made only with the stand-in Codat, and never in production."))
    with transaction.atomic(), acting(actor):
        for user in USERS:
            _create_user(user)
        _create_companies(actor)


def _create_user(demo: DemoUser) -> None:
    if User.objects.filter(username=demo.username).exists():
        return
    user = User.objects.create_user(
        demo.username,
        demo.email,
        settings.DEMO_PASSWORD,
        first_name=demo.first_name,
        last_name=demo.last_name,
        is_staff=True,
    )
    user.groups.add(Group.objects.get(name=demo.role))


def _create_companies(actor: Actor) -> None:
    numbers = [company["customer_number"] for company in COMPANIES]
    existing = set(Company.objects.filter(customer_number__in=numbers).values_list("customer_number", flat=True))
    missing = [company for company in COMPANIES if company["customer_number"] not in existing]
    if missing:
        imports.store(import_files.parse_bytes("demo.json", json.dumps(missing).encode()), actor=actor)
