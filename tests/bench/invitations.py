"""How far customers get, and who is stuck, with as many invitations as a large bank makes in two years.

Queries and median time of each screen; it has to take as many queries as the same screen with `FEW` invitations.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection as database
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds.models import Company, Invitation
from feeds.services.roles import RELATIONSHIP_MANAGERS, SUPPORT
from feeds.states import InvitationEnd, Language
from tests.bench.registry import Figure, Options, bench, median_ms
from tests.factories import UserFactory

FEW = 400
MANAGERS = 200
"""The few customers are those of the first twenty, so that each screen has something on it."""
YEARS = 2
LIVES = timedelta(days=90)
"""The longest there is: as many as can be stuck at a time."""
CHUNK = 5000


@bench("invitations")
def measure(options: Options) -> Iterator[Figure]:
    """Time the funnel, the stuck invitations and the home page with `--invitations`, made over two years."""
    settings.RM_SEES_ALL_CUSTOMERS = False
    people = [User(username=f"manager{number}", is_staff=True) for number in range(MANAGERS)]
    managers = [user.pk for user in User.objects.bulk_create(people)]
    manager = UserFactory(role=RELATIONSHIP_MANAGERS)
    managers[2] = manager.pk
    clients = {role: Client(SERVER_NAME="localhost") for role in ("support", "manager")}
    clients["support"].force_login(UserFactory(role=SUPPORT))
    clients["manager"].force_login(manager)
    _fill(managers[:20], FEW)
    few = {name: _queries(clients[role], address) for role, name, address in _addresses(managers)}
    _fill(managers, options.invitations - FEW)
    with database.cursor() as cursor:
        cursor.execute("ANALYZE")
    stuck = Invitation.objects.live(timezone.now()).count()
    size = f"{options.invitations:,} invitations, {stuck:,} live"
    for role, name, address in _addresses(managers):
        queries = _queries(clients[role], address)
        same = "as with few" if queries == few[name] else f"WITH FEW {few[name]}"
        elapsed = median_ms(lambda role=role, address=address: clients[role].get(address), rounds=3)
        yield Figure(name, elapsed, "ms", f"{size}, {queries} queries, {same}")


def _addresses(managers: list[int]) -> Iterator[tuple[str, str, str]]:
    """Who looks, what it is called, and where it is."""
    funnel, rows = reverse("admin:invitation_funnel"), reverse("admin:feeds_invitation_changelist")
    yield "support", "how far customers get", funnel
    yield "support", "how far customers get, a year", f"{funnel}?months=12"
    yield "support", "how far customers get, one manager", f"{funnel}?manager={managers[1]}"
    yield "manager", "how far my customers get", funnel
    yield "support", "stuck, all", f"{rows}?list=all"
    yield "support", "stuck, last page", f"{rows}?list=all&p=2"
    yield "support", "stuck, found by name", f"{rows}?list=all&q=Maple+Bakery+1"
    yield "support", "stuck, invited by me", f"{rows}?list=invited"
    yield "manager", "stuck, my customers", f"{rows}?list=mine"
    yield "manager", "stuck, all a manager sees", f"{rows}?list=all"
    yield "support", "home, support", reverse("admin:index")
    yield "manager", "home, manager", reverse("admin:index")


def _queries(client: Client, address: str) -> int:
    client.get(address)  # fills the caches of content types and templates
    with CaptureQueriesContext(database) as queries:
        answer = client.get(address)
        assert answer.status_code == 200, f"{address}: {answer.status_code}"
    return len(queries)


def _fill(managers: list[int], count: int) -> None:
    """One customer with one invitation each, made evenly over `YEARS`, one in a hundred of nobody's customers."""
    first = Company.objects.count()
    numbers = iter(range(first, first + count))
    while chunk := list(islice(numbers, CHUNK)):
        companies = Company.objects.bulk_create(
            Company(
                customer_number=f"I-{number:07}",
                legal_name=f"Maple Bakery {number} Inc.",
                codat_id=f"company-{number}",
                manager_id=managers[number % len(managers)] if number % 101 else None,
            )
            for number in chunk
        )
        Invitation.objects.bulk_create(
            Invitation(company=company, **_times(number, (number - first) / count))
            for number, company in zip(chunk, companies, strict=True)
        )
    # Saving a row writes the present: the day it was made is put back afterwards.
    Invitation.objects.update(created_at=F("expires_at") - LIVES)


def _made_at(age: float) -> Any:
    return timezone.now() - timedelta(days=365 * YEARS * age + 0.01)


def _times(number: int, age: float) -> dict[str, Any]:
    """Half of them are connected; the others stand on one of the steps, and end after `LIVES`."""
    made = _made_at(age)
    columns = ("sent_at", "opened_at", "started_at", "linked_at", "connected_at")
    steps = len(columns) if number % 2 else number // 2 % len(columns)
    hours = 1 + number % 37
    times: dict[str, Any] = {
        column: made + timedelta(hours=hours * (place + 1) / 10) for place, column in enumerate(columns[:steps])
    }
    times |= {
        "contact_name": "Alex Doe",
        "contact_email": f"alex{number}@maple.example",
        "language": Language.values[number % 3 % 2],
        "expires_at": made + LIVES,
    }
    if steps == len(columns):
        times |= {"end": InvitationEnd.CONNECTED, "ended_at": times["connected_at"]}
    elif made + LIVES < timezone.now():
        times |= {"end": InvitationEnd.EXPIRED, "ended_at": made + LIVES}
    return times
