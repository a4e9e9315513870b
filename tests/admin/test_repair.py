"""Support repairs a feed that Codat still calls Linked: one account has fallen silent, the other works.

Through the case page as support uses it, with the customer's own browser on Codat's page; with a Codat that ends older
links, and with one that does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from feeds import audit, tasks
from feeds.models import Case, Connection, SourceAccount
from feeds.services import onboarding, sync
from feeds.services.roles import SUPPORT
from feeds.states import AccountStatus, CaseOutcome, CaseState, ConnectionStatus
from tests.conftest import point_product_at
from tests.factories import CompanyFactory, SourceAccountFactory, UserFactory
from tests.sandbox.customer import connect_through, visit
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["lenient", "strict"])
def any_codat(request: pytest.FixtureRequest, settings: Settings) -> SandboxProcess:
    """A stand-in that lets older links live, and one that ends them."""
    server = request.getfixturevalue("sandbox_server" if request.param == "lenient" else "strict_server")
    server.reset()
    return point_product_at(server, settings)


@pytest.fixture
def case(any_codat: SandboxProcess, drain_queue: Callable[[], int]) -> Case:
    """Of a customer with two accounts, one of which QuickBooks no longer reads; the connection is Linked."""
    company = CompanyFactory()
    SourceAccountFactory(company=company, name="Operating", account_id="operating")
    SourceAccountFactory(company=company, name="Payroll", account_id="payroll")
    onboarding.request(company, actor=audit.SYSTEM)
    drain_queue()
    company.refresh_from_db()
    connection = company.connections.get()
    any_codat.connect(company.codat_id, connection.codat_id)
    sync.refresh_company(company, actor=audit.SYSTEM)
    any_codat.disconnect(company.codat_id, connection.codat_id, accountId="operating", now=True)
    poll()
    connection.refresh_from_db()
    assert (connection.status, connection.link_url) == (ConnectionStatus.LINKED, "")
    return Case.objects.get()


@pytest.fixture
def support(db: None) -> Client:
    """A member of support, signed in."""
    client = Client()
    client.force_login(UserFactory(role=SUPPORT))
    return client


def poll() -> None:
    """What the worker does each minute, with every connection due."""
    Connection.objects.update(poll_due_at=timezone.now())
    tasks.poll()
    tasks.clear_expired_links()


def press(client: Client, case: Case, name: str) -> str:
    """Press a button of the case page; what it answers with."""
    answer = client.post(reverse("admin:feeds_case_action", args=[case.pk, name]), follow=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


def page_of(client: Client, case: Case) -> str:
    return str(client.get(reverse("admin:feeds_case_change", args=[case.pk])).content.decode())


def shown_link(client: Client, case: Case) -> str:
    """The link on the page that Show link answers with."""
    found = re.search(r'value="(http[^"]+/link/company/[^"]+otp=\d+)"', press(client, case, "show-link"))
    assert found is not None
    return found[1]


def statuses() -> dict[str, str]:
    return dict(SourceAccount.objects.values_list("account_id", "status"))


def test_support_hands_over_a_link_the_customer_reconnects_and_the_case_closes(
    case: Case, support: Client, drain_queue: Callable[[], int]
) -> None:
    assert "no link" in page_of(support, case)
    assert "Asked for; follow it here" in press(support, case, "refresh-link")
    drain_queue()
    assert "link ready" in page_of(support, case)
    link = shown_link(support, case)

    # The customer takes their time: polls, the clearing of links and Verify now leave the link alone.
    poll()
    assert "Still broken: disconnected: Operating." in press(support, case, "verify-now")
    assert visit(link).status_code == 200
    assert Connection.objects.get().link_url == link

    assert connect_through(link).status_code == 200
    poll()
    case.refresh_from_db()
    assert (case.state, case.outcome) == (CaseState.CLOSED, CaseOutcome.RECONNECTED)
    assert set(statuses().values()) == {AccountStatus.CONNECTED}
    assert Connection.objects.get().link_url == ""
    assert "not needed" in page_of(support, case)


def test_who_reconnects_one_account_of_two_keeps_the_link_for_the_other(
    any_codat: SandboxProcess, case: Case, support: Client, drain_queue: Callable[[], int]
) -> None:
    connection = Connection.objects.select_related("company").get()
    any_codat.disconnect(connection.company.codat_id, connection.codat_id, accountId="payroll", now=True)
    poll()
    press(support, case, "refresh-link")
    drain_queue()
    link = shown_link(support, case)

    assert connect_through(link, accounts=["operating"]).status_code == 200
    poll()
    assert statuses() == {"operating": AccountStatus.CONNECTED, "payroll": AccountStatus.DISCONNECTED}
    case.refresh_from_db()
    assert case.is_open
    assert visit(link).status_code == 200

    assert connect_through(link, accounts=["payroll"]).status_code == 200
    poll()
    case.refresh_from_db()
    assert case.state == CaseState.CLOSED


def test_the_company_page_offers_the_same(case: Case, support: Client, drain_queue: Callable[[], int]) -> None:
    user = User.objects.get(pk=support.session["_auth_user_id"])
    assert user.has_perms(["feeds.refresh_link", "feeds.reveal_link"])
    page = reverse("admin:feeds_company_change", args=[case.company_id])
    assert "the customer needs no link" not in support.get(page).content.decode()
    for name in ("refresh-link", "show-link"):
        url = reverse("admin:feeds_company_action", args=[case.company_id, name])
        answer = support.post(url, follow=True)
        assert answer.status_code == 200
        assert "the customer needs no link" not in answer.content.decode()
        drain_queue()
    assert "otp=" in answer.content.decode()


def test_every_button_of_the_playbook_stands_on_the_case_page(case: Case, support: Client) -> None:
    page = page_of(support, case)
    for name in ("verify-now", "refresh-link", "generate-credentials"):
        assert reverse("admin:feeds_case_action", args=[case.pk, name]) in page
