"""People, customers and a callout to try the product with. All are invented; addresses are at example.com."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feeds.audit import Actor, acting
from feeds.models import CalloutVersion, Company
from feeds.services import callouts, import_files, imports, roles
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

CALLOUT: Final = "docs/sample/callout.json"
"""The published texts, below the checkout. The stand-in's Portal begins with the same file: "published" is true."""
DRAFT: Final = {
    "title_en": "Before you start",
    "body_en": "Have your QuickBooks password ready. It takes five minutes. Questions? "
    "Call the number on your statement.",
    "title_fr": "Avant de commencer",
    "body_fr": "Ayez votre mot de passe QuickBooks à portée de main. Comptez cinq minutes. Des questions? "
    "Composez le numéro de votre relevé.",
    "note": "Says whom to call. Submit it as rm, approve it as rm2.",
}
"""What a relationship manager is writing: how it differs from the published one is worth a look."""


def is_wanted() -> bool:
    """Whether this place may have demo users: never in production, nor beside real customers in Codat."""
    return bool(settings.CODAT_SANDBOX and not settings.IS_PRODUCTION)


def left_over() -> list[str]:
    """User names of demo users that can sign in, for places that must not have them."""
    emails = [user.email for user in USERS]
    active = User.objects.filter(email__in=emails, username__in=[user.username for user in USERS], is_active=True)
    return sorted(active.values_list("username", flat=True))


def create(*, actor: Actor) -> None:
    """Make the demo users and companies that are missing, and a first callout; what exists is left as it is.

    Needs the roles. Raises Refused where demo users must not exist.
    """
    if not is_wanted():
        raise Refused(_("Demo users are made only with the stand-in Codat, and never in production."))
    with transaction.atomic(), acting(actor):
        for user in USERS:
            _create_user(user)
        _create_companies(actor)
        _create_callout(actor)


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


def _create_callout(actor: Actor) -> None:
    """One published version, which two people brought there as they would on screen, and a draft."""
    if CalloutVersion.objects.exists():
        return
    writes, approves = (_acting_as(demo, actor) for demo in USERS[:2])
    version = callouts.create(json.loads((settings.BASE_DIR / CALLOUT).read_text()), writes)
    callouts.submit(version, writes)
    callouts.approve(version, approves)
    callouts.attest(version, approves, on=timezone.localdate(), by_name=approves.name)
    callouts.create(DRAFT, writes)


def _acting_as(demo: DemoUser, actor: Actor) -> Actor:
    """The demo user, while `actor` (whom the source names) does it for them."""
    user = User.objects.get(username=demo.username)
    return replace(actor, user=user, name=user.get_full_name() or user.get_username())
