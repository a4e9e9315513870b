"""docs/api.md, openapi.json and the code say the same, and what is there to be copied works."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import requests
from django.test import Client
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from feeds.api import connect_sessions
from feeds.api.problems import CONTENT_TYPE, KINDS
from feeds.api.schemas import STATES
from feeds.services.connect_sessions import SessionState
from feeds.states import ApiScope
from tests.api.conftest import MakeKey, Program, customer, request_for

DOCUMENT = (Path(__file__).parents[2] / "docs/api.md").read_text()
pytestmark = pytest.mark.django_db


def blocks(language: str) -> list[str]:
    """The blocks of code in the document."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def sent() -> list[dict[str, Any]]:
    """What the examples send."""
    return [json.loads(data) for data in re.findall(r"--data '(.*?)'\n", "".join(blocks("sh")), re.DOTALL)]


@pytest.fixture
def description(client: Client) -> dict[str, Any]:
    """openapi.json, as anybody gets it."""
    described: dict[str, Any] = client.get("/api/v1/openapi.json").json()
    return described


def test_every_state_is_in_the_table_and_in_the_description(description: dict[str, Any]) -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", DOCUMENT, re.MULTILINE)
    assert rows == [(state.value, STATES[state]) for state in SessionState]
    told = description["components"]["schemas"]["ConnectSession"]["properties"]["state"]["description"]
    assert all(f"`{name}`: {meaning}" in told for name, meaning in rows)


def test_every_problem_is_in_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \| `([a-z-]+)` \| (.+) \|$", DOCUMENT, re.MULTILINE)
    assert rows == [(str(it.status), it.code, f"{it.title} {it.advice}") for it in KINDS.values()]


def test_every_scope_is_in_the_table() -> None:
    assert re.findall(r"^\| `(connect_sessions:\w+)` \|", DOCUMENT, re.MULTILINE) == ApiScope.values


def test_every_problem_of_an_address_is_in_the_description(description: dict[str, Any]) -> None:
    post = description["paths"]["/api/v1/connect-sessions"]["post"]
    get = description["paths"]["/api/v1/connect-sessions/{customer_number}"]["get"]
    for operation, codes in ((post, connect_sessions.OF_POST), (get, connect_sessions.OF_GET)):
        problems = {status: it for status, it in operation["responses"].items() if int(status) >= 400}
        assert set(problems) == {str(KINDS[code].status) for code in codes}
        for code in codes:
            assert f"`{code}`" in problems[str(KINDS[code].status)]["description"]
        assert all(list(it["content"]) == [CONTENT_TYPE] for it in problems.values())
        assert operation["security"]
    # What no address answers by itself is answered for all of them.
    assert KINDS.keys() - {*connect_sessions.OF_POST} == {"no-such-address", "method-not-allowed"}


def test_what_the_examples_send_is_accepted_and_answered_as_they_say(program: Program) -> None:
    new, again = (program.post(body) for body in sent())
    assert (new.status_code, again.status_code) == (201, 200)
    answer = new.json()
    told = json.loads(blocks("json")[0])
    assert told.keys() == answer.keys()
    unlike = {"expires_at", "connect_url"}
    assert {name: told[name] for name in told.keys() - unlike} == {name: answer[name] for name in told.keys() - unlike}


def test_the_problem_that_is_shown_is_the_answer(program: Program) -> None:
    wrong = {**customer()["accounts"][0], "currency": "DOG"}
    assert program.post(request_for(accounts=[wrong])).json() == json.loads(blocks("json")[1])


# --- The button ------------------------------------------------------------------------------------------------------
class Elements(HTMLParser):
    """What a snippet is made of; fails on what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str | None]] = {}
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] = dict(attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_button_is_a_plain_form_to_the_banks_own_server() -> None:
    (html,) = blocks("html")
    elements = Elements(html).found
    assert elements == {"form": {"method": "post", "action": "/connect-quickbooks"}, "button": {"type": "submit"}}
    assert not re.search(r"bfk_|Bearer|api/v1|customer", html)


@pytest.mark.django_db(transaction=True)
def test_the_banks_server_in_python_gets_a_link_that_opens(
    live_server: LiveServer, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.SITE_URL = live_server.url
    monkeypatch.setenv("BANK_FEEDS_URL", live_server.url)
    monkeypatch.setenv("BANK_FEEDS_KEY", make_key().token)
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "docs/api.md", "exec"), names)  # noqa: S102
    Program(make_key().token).post(request_for())
    page = requests.get(names["connect_url"]("SB-2001"), timeout=10)
    assert page.status_code == 200
    assert "Juniper Hill Bakery" in page.text
