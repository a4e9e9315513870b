"""The Link page and the QuickBooks step, as a browser without scripts would walk through them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin

import pytest

from tests.sandbox.customer import Customer, Form, visit
from tests.sandbox_process import SandboxProcess

HOUR = 3600.0


@pytest.fixture
def customer(sandbox: SandboxProcess) -> Customer:
    return Customer(sandbox, "a", "b")


def quickbooks(customer: Customer) -> Form:
    """Go as far as the choice of accounts."""
    page = Form(Form(visit(customer.link())).submit()).submit()
    assert page.status_code == 200
    return Form(page)


def test_the_customer_walks_from_the_link_to_connected_accounts(customer: Customer) -> None:
    page = visit(customer.link())
    assert page.status_code == 200
    assert "Maple Dental Ltd" in page.text
    assert "Stand-in for Codat" in page.text
    assert "0001234567" not in page.text

    choice = quickbooks(customer)
    assert choice.values["account"] == ["a", "b"]
    week_ago = (datetime.now(UTC) - timedelta(days=7)).date().isoformat()
    assert choice.values["feed_start_date"] == [week_ago]
    done = choice.submit(account=["b"])

    assert done.status_code == 200
    assert "Your bank feed is connected" in done.text
    assert customer.statuses() == ("Linked", ["pending", "connected"])
    assert customer.call("GET", customer.accounts_path).json()[1]["feedStartDate"].startswith(week_ago)


@pytest.mark.parametrize(("days_back", "status"), [(0, 200), (90, 200), (91, 400), (-1, 400), (None, 400)])
def test_a_feed_starts_at_most_90_days_back_and_not_in_the_future(
    customer: Customer, days_back: int | None, status: int
) -> None:
    start = "" if days_back is None else (datetime.now(UTC) - timedelta(days=days_back)).date().isoformat()
    assert quickbooks(customer).submit(feed_start_date=start).status_code == status
    assert customer.statuses()[0] == ("Linked" if status == 200 else "PendingAuth")


def test_at_least_one_known_account_must_be_chosen(customer: Customer) -> None:
    for chosen in ([], ["nobody's"]):
        answer = quickbooks(customer).submit(account=chosen)
        assert answer.status_code == 400
        assert 'role="alert"' in answer.text
    assert customer.statuses() == ("PendingAuth", ["pending", "pending"])


def test_wrong_or_revoked_credentials_do_not_get_in(customer: Customer) -> None:
    signing_in = Form(Form(visit(customer.link())).submit())
    assert signing_in.submit(password="guess").status_code == 401
    customer.call("DELETE", f"{customer.accounts_path}/credentials")
    assert signing_in.submit().status_code == 401


def test_credentials_of_the_api_get_in_and_older_sets_stay_good(customer: Customer) -> None:
    made = customer.call("POST", f"{customer.accounts_path}/credentials", {}).json()
    customer.call("POST", f"{customer.accounts_path}/credentials", {})
    signing_in = Form(Form(visit(customer.link())).submit())
    assert signing_in.submit(**made).status_code == 200


def test_credentials_open_only_their_own_connection(customer: Customer, sandbox: SandboxProcess) -> None:
    other = Customer(sandbox, "z")
    made = other.call("POST", f"{other.accounts_path}/credentials", {}).json()
    assert Form(Form(visit(customer.link())).submit()).submit(**made).status_code == 401


def test_a_link_expires_after_an_hour(customer: Customer, sandbox: SandboxProcess) -> None:
    link = customer.link()
    sandbox.advance(HOUR - 60)
    assert visit(link).status_code == 200
    getting = Form(visit(link))
    sandbox.advance(120)
    assert visit(link).status_code == 401
    assert getting.submit().status_code == 401
    assert "This link has expired" in visit(link).text


def test_a_link_that_is_not_whole_or_not_its_own_is_401(customer: Customer, sandbox: SandboxProcess) -> None:
    link, other = customer.link(), Customer(sandbox, "z").link()
    address, otp = link.split("?otp=")
    last = str((int(otp[-1]) + 1) % 10)
    wrong = [address, f"{address}?otp=", f"{address}?otp={otp[:-1]}{last}", f"{address}?otp={otp}0"]
    wrong += [f"{address}?otp={other.split('?otp=')[1]}", customer.company["redirect"]]
    wrong += [link.replace(customer.connection["id"], "00000000-0000-4000-8000-000000000000")]
    for each in wrong:
        assert visit(each).status_code == 401
    assert visit(link).status_code == 200


def test_older_links_stay_good_when_not_strict(customer: Customer) -> None:
    first, second = customer.link(), customer.link()
    assert first != second
    assert (visit(first).status_code, visit(second).status_code) == (200, 200)


def test_the_link_page_speaks_french_and_keeps_the_otp(customer: Customer) -> None:
    link = customer.link()
    english = visit(link)
    assert f"{link.split('/', 3)[3]}&amp;lang=fr" in english.text
    french = visit(f"{link}&lang=fr")
    assert '<html lang="fr">' in french.text
    assert "Obtenir les identifiants" in french.text
    assert "Continuer vers QuickBooks" in Form(french).submit().text


def test_pages_forbid_scripts_caching_and_indexing(customer: Customer) -> None:
    page = visit(customer.link())
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
    assert (page.headers["Cache-Control"], page.headers["X-Robots-Tag"]) == ("no-store", "noindex")
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert "<script" not in page.text
    assert "style=" not in page.text
    assert visit(urljoin(page.url, "/static/sandbox.css")).headers["Content-Type"].startswith("text/css")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    server = SandboxProcess(tmp_path_factory.mktemp("strict") / "sandbox.sqlite3", "--strict-otp").start()
    yield server
    server.stop()


def test_in_strict_mode_every_reply_with_a_link_kills_the_older_link(strict: SandboxProcess) -> None:
    customer = Customer(strict, "a")
    replies: dict[str, Callable[[], str]] = {
        "create": lambda: customer.connection["linkUrl"],
        "list": customer.link,
        "get": lambda: customer.call("GET", customer.connection_path).json()["linkUrl"],
        "company": lambda: embedded(customer.call("GET", customer.company_path).json()),
        "companies": lambda: embedded(customer.call("GET", "/companies?pageSize=5000").json()["results"][-1]),
        "patch": lambda: embedded(customer.call("PATCH", customer.company_path, {"description": "x"}).json()),
    }
    newest = ""
    for name, reply in replies.items():
        older, newest = newest, reply()
        assert visit(newest).status_code == 200, name
        if older:
            assert visit(older).status_code == 401, name


def test_in_strict_mode_an_event_does_not_kill_the_link_in_hand(strict: SandboxProcess) -> None:
    customer = Customer(strict, "a")
    link = customer.link()
    customer.connect()
    (event,) = (
        event for event in strict.control("GET", "webhooks")["events"] if event["eventType"] == "connection.connected"
    )
    assert visit(event["payload"]["connection"]["linkUrl"]).status_code == 401
    assert visit(link).status_code == 200


def test_in_strict_mode_a_replayed_reply_carries_its_old_dead_link(strict: SandboxProcess) -> None:
    customer, key = Customer(strict), "5f0c1c52-8d0d-4f53-9d7c-2f1f3c1a9e11"
    path = f"{customer.company_path}/connections"
    made = customer.call("POST", path, {"platformKey": "hcws"}, Idempotency_Key=key).json()
    newest = customer.call("GET", f"{path}/{made['id']}").json()["linkUrl"]
    assert customer.call("POST", path, {"platformKey": "hcws"}, Idempotency_Key=key).json() == made
    assert (visit(made["linkUrl"]).status_code, visit(newest).status_code) == (401, 200)


def embedded(company: dict[str, list[dict[str, str]]]) -> str:
    return company["dataConnections"][0]["linkUrl"]
