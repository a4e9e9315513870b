"""The table of rights, tried out: every address and action, as everybody.

A new screen, page or action fails here until `feeds/services/rights.py` has a line for it; the message says which.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from feeds.services import rights
from feeds.services.roles import RELATIONSHIP_MANAGERS
from feeds.sign_in import sessions
from tests import rights_walk as walk
from tests.factories import UserFactory
from tests.rights_walk import World, may

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "rights.md"

everybody = pytest.mark.parametrize("person", walk.PEOPLE)


@pytest.fixture
def world(db: None, settings: Any) -> Iterator[World]:
    """Something of everything, as production shows it, with a Codat that refuses everything at once."""
    settings.RM_SEES_ALL_CUSTOMERS = False
    with walk.a_wire_that_refuses(), walk.quietly():
        yield World()


# --- The table is whole ----------------------------------------------------------------------------------------------
def test_every_address_and_action_has_a_line_and_every_line_something_to_be_about() -> None:
    missing = walk.missing_lines()
    assert not missing, "\n".join([walk.NEW_LINE, *missing])
    assert walk.dead_lines() == []


def test_the_walk_finds_what_is_nested_and_what_has_no_name() -> None:
    keys = {address.key for address in walk.addresses()}
    assert {"healthz", "admin:index", "admin:feeds_company_timeline", "admin/feeds/company/<path:object_id>/"} <= keys
    assert ("feeds.case", "hand-over") in walk.actions()
    assert ("feeds.company", "onboard_selected") in walk.list_actions()


def test_a_missing_line_is_said_so_that_it_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ("feeds.batch", "admin:feeds_company_timeline", "feeds.case close", "feeds.connection refresh_links")

    def is_kept(line: rights.Line) -> bool:
        names = {getattr(line, "url", ""), f"{getattr(line, 'model', '')} {getattr(line, 'name', '')}".strip()}
        return not names & set(gone)

    table = tuple(line for line in rights.TABLE if is_kept(line))
    for name in ("pages", "actions", "list_actions"):
        real = getattr(rights, name)
        monkeypatch.setattr(rights, name, lambda table=table, real=real: real(table))
    assert walk.missing_lines() == [
        '    Page("admin:feeds_company_timeline", "what it is in a few words", see=EVERY_ROLE),',
        '    Screen("feeds.batch", "what it lists", see=EVERY_ROLE),',
        '    Action("feeds.case", "close", EVERY_ROLE),',
        '    ListAction("feeds.connection", "refresh_links", EVERY_ROLE),',
    ]


@pytest.mark.slow
def test_signing_in_again_never_leads_to_an_address_where_nobody_can_look(world: World) -> None:
    """Whatever a person sent after their session had ended: found by asking every address whether it can be read."""
    client, tried = world.client(walk.SUPERUSER), []
    for address in walk.addresses():
        page = rights.pages().get(address.key)
        if page is None or walk.try_it(client, "GET", url := world.url(address, page)).status != 405:
            continue
        late = world.client(walk.SUPERUSER)
        session = late.session
        session[sessions.SEEN_AT] = 0
        session.save()
        led = parse_qs(urlsplit(late.post(url, page.form).headers.get("Location", "")).query)
        assert led in ({}, {"next": [reverse("admin:index")], "ended": ["idle"]}), address.key
        tried += [address.key] if led else []
    assert {"language", "admin:feeds_auditseal_verify", "admin:feeds_company_name_preview"} <= set(tried)


@pytest.mark.slow
# --- The table is true -----------------------------------------------------------------------------------------------
@everybody
def test_everything_is_for_whom_the_table_says_and_changes_nothing_for_others(person: str, world: World) -> None:
    client = world.client(person)
    wrong = [*_addresses(world, client, person), *_buttons(world, client, person), *_menus(world, client, person)]
    assert not wrong, "\n".join([f"As {person}:", *wrong])


def _addresses(world: World, client: Client, person: str) -> Iterator[str]:
    pages = rights.pages()
    for address in walk.addresses():
        page = pages.get(address.key)
        if page is None:
            continue  # a button, below
        url = world.url(address, page)
        seen, sent = walk.try_it(client, "GET", url), walk.try_it(client, "POST", url, page.form)
        # Recovery codes are shown once: that they were is noted beside them.
        noted = set(seen.wrote) - ({"mfa_authenticator"} if page.url == "mfa_view_recovery_codes" else set())
        if (page.see is not None and seen.is_open != may(person, page.see)) or noted:
            yield f"GET {url} answers {seen}; the table says {_sentence(person, page.see)}"
        if page.do is not None and sent.is_open != may(person, page.do):
            yield f"POST {url} answers {sent}; the table says {_sentence(person, page.do)}"
        if sent.wrote and not may(person, page.do or rights.NOBODY):
            yield f"POST {url} answers {sent}; the table says that it changes nothing"


def _buttons(world: World, client: Client, person: str) -> Iterator[str]:
    for (model, name), who in rights.actions().items():
        url = world.button(model, name)
        for method in ("GET", "POST"):
            answer = walk.try_it(client, method, url)
            if answer.is_open != may(person, who) or (answer.wrote and (method == "GET" or not may(person, who))):
                yield f"{method} {url} answers {answer}; the table says {_sentence(person, who)}"
    if walk.try_it(client, "POST", world.button("feeds.company", "no-such-button")).is_open:
        yield "a button that does not exist is found"


def _menus(world: World, client: Client, person: str) -> Iterator[str]:
    for (model, name), who in rights.list_actions().items():
        with walk.listening(model, name) as heard:
            answer = walk.try_it(client, "POST", world.list_of(model), world.ticked(model, name))
        if bool(heard) != may(person, who) or answer.wrote:
            yield f"{name} of {model} is {'run' if heard else 'not run'}; the table says {_sentence(person, who)}"


def _sentence(person: str, who: rights.Who | None) -> str:
    return "it is for them" if may(person, who or rights.NOBODY) else "it is not for them"


@pytest.mark.slow
# --- Auditors change nothing -----------------------------------------------------------------------------------------
def test_an_auditor_who_posts_everything_has_changed_nothing(world: World) -> None:
    """Their own password apart: every form and action that exists, kept if it went through."""
    client = world.client(rights.roles.COMPLIANCE_AUDITORS)
    before, wrote = walk.business_rows(), []
    pages = rights.pages()
    for address in walk.addresses():
        page = pages.get(address.key)
        if page is not None and page.url not in NOT_AS_AN_AUDITOR and not page.url.startswith("mfa_"):
            url = world.url(address, page)
            wrote += [(url, walk.try_it(client, "POST", url, form, keep=True).wrote) for form in ({}, _A_FORM)]
    for model, name in walk.actions():
        url = world.button(model, name)
        wrote += [(url, walk.try_it(client, "POST", url, form, keep=True).wrote) for form in ({}, _A_FORM)]
    for model, name in walk.list_actions():
        ticked = {**world.ticked(model, name), "confirmed": "1", "post": "yes"}
        wrote.append((world.list_of(model), walk.try_it(client, "POST", world.list_of(model), ticked, keep=True).wrote))
    assert [(url, tables) for url, tables in wrote if tables] == []
    assert walk.business_rows() == before
    assert len(wrote) > 100


# One's own door, password, second factors and language; and what a customer's key opens, for whoever has it.
NOT_AS_AN_AUDITOR = {
    "account_login", "account_logout", "admin:login", "admin:logout", "admin:password_change", "language",
    "connect", "connect-opened",
}  # fmt: skip
_A_FORM = {
    "reason": "I wonder what happens.", "text": "x", "name": "New name", "customer_number": "C-000001", "to": "1",
    "until": "2027-01-01", "cause": "unknown", "outcome": "not_broken", "legal_name": "New name", "post": "yes",
    "username": "somebody", "password1": "a long invented pass phrase", "password2": "a long invented pass phrase",
}  # fmt: skip


@pytest.mark.slow
# --- Another manager's customer --------------------------------------------------------------------------------------
def test_a_manager_finds_nothing_of_anothers_customer_at_any_address(db: None, settings: Any) -> None:
    settings.RM_SEES_ALL_CUSTOMERS = False
    with walk.a_wire_that_refuses(), walk.quietly():
        world = World(manager=UserFactory(role=RELATIONSHIP_MANAGERS))
        client = world.client(RELATIONSHIP_MANAGERS)
        found = [*_pages_of_objects(world, client), *_buttons_of_objects(world, client), *_rows(world, client)]
    assert found == []


CALLOUT = {"feeds.calloutversion"}
OF_NO_CUSTOMER = ("feeds_calloutversion", "mfa_")
"""The callout is one text for all customers, and one's own second factors are one's own."""


def _pages_of_objects(world: World, client: Client) -> Iterator[str]:
    for address in walk.addresses():
        page = rights.pages().get(address.key)
        # Those without a name only lead on to the page of the object.
        is_object = page is not None and {"object_id", "pk"} & set(address.parts) and address.is_named
        if page is not None and is_object and not any(name in address.key for name in OF_NO_CUSTOMER):
            for method in ("GET", "POST"):
                if walk.try_it(client, method, url := world.url(address, page)).is_open:
                    yield f"{method} {url}"


def _buttons_of_objects(world: World, client: Client) -> Iterator[str]:
    for model, name in walk.actions():
        for method in ("GET", "POST"):
            answer = walk.try_it(client, method, url := world.button(model, name))
            if model not in CALLOUT and (answer.is_open or answer.wrote):
                yield f"{method} {url}"


def _rows(world: World, client: Client) -> Iterator[str]:
    for model in walk.screens().keys() - CALLOUT:
        page = client.get(world.list_of(model), {"q": world.customer.customer_number})
        whole = client.get(world.list_of(model))
        if whole.status_code != 200:
            continue
        # A tab or filter that makes a queryset of its own could forget whose customers they are.
        found = whole.context["cl"]
        queries = {choice["query_string"] for spec in found.filter_specs for choice in spec.choices(found)}
        filtered = [client.get(world.list_of(model) + query) for query in sorted(queries - {"?"})]
        for answer in (page, whole, *filtered):
            if rows := list(answer.context["cl"].result_list):
                yield f"the list of {model} shows {rows} at ?{answer.request['QUERY_STRING']}"


# --- The table is told -----------------------------------------------------------------------------------------------
def test_the_document_says_what_the_tables_say() -> None:
    out = StringIO()
    call_command("rights", stdout=out)
    assert DOCUMENT.read_text() == out.getvalue(), "Write it anew: python3 manage.py rights > docs/rights.md"
