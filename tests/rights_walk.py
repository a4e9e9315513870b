"""Finds every address and action of the product, and tries each as somebody.

Objects for the addresses are made by `tests.factories`: a new model with a factory there needs nothing here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import responses
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connection, models, transaction
from django.shortcuts import resolve_url
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from factory.django import DjangoModelFactory

from feeds import audit
from feeds.admin.actions import ActionsAdmin
from feeds.models import AuditEntry, AuditSeal, BatchItem, Company, Mail
from feeds.services import health, invitation_keys, rights, seals
from feeds.services.rights import Page, Who
from feeds.states import MailKind, MailState
from tests import factories

SUPERUSER = "a superuser"
NOT_STAFF = "a user who is not staff"
PEOPLE = (rights.ANYONE_WORD, NOT_STAFF, rights.STAFF_WORD, *sorted(rights.EVERY_ROLE), SUPERUSER)
"""As whom everything is tried. `rights.ANYONE_WORD`: nobody is signed in."""

ANYWHERE = re.compile(r"https?://.*")
NEW_LINE = "add to TABLE in feeds/services/rights.py:"
NO_BUSINESS = (
    "django_session", "feeds_auditentry", "feeds_heartbeat", "feeds_dailyfigure", "feeds_knock",
    "feeds_historycheck", "feeds_historyexport",
)  # fmt: skip
"""Tables that a look may write: who is signed in, that somebody looked, verified or took out, what is counted."""


def may(person: str, who: Who) -> bool:
    """Whether a line with `who` is for `person`. A superuser may do whatever anybody may."""
    if person == NOT_STAFF:
        person = rights.ANYONE_WORD
    return bool(who) if person == SUPERUSER else person in who


# --- What there is ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Address:
    """One pattern of the resolver: its name, or its route where it has none, and what has to be filled in."""

    key: str
    route: str
    parts: tuple[str, ...]
    is_named: bool


def addresses() -> list[Address]:
    """Every pattern of the product, however deep it is included."""
    return list(_walk(get_resolver().url_patterns, "", ""))


def _walk(patterns: list[Any], route: str, namespace: str) -> Iterator[Address]:
    for pattern in patterns:
        here = route + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from _walk(pattern.url_patterns, here, inner)
        elif isinstance(pattern, URLPattern):
            parts = getattr(pattern.pattern, "converters", None) or pattern.pattern.regex.groupindex
            yield Address(
                f"{namespace}{pattern.name}" if pattern.name else here, here, tuple(parts), bool(pattern.name)
            )


def screens() -> dict[str, admin.ModelAdmin[Any]]:
    """The screens of models by model, such as "feeds.company"."""
    return {model._meta.label_lower: screen for model, screen in admin.site._registry.items()}


def actions() -> list[tuple[str, str]]:
    """(model, name) of every button on the page of one object."""
    return [
        (model, name)
        for model, screen in screens().items()
        if isinstance(screen, ActionsAdmin)
        for name in screen.object_actions()
    ]


def list_actions() -> list[tuple[str, str]]:
    """(model, name) of every entry of a list's menu that anybody is offered."""
    request = RequestFactory().get("/")
    request.user = User(is_superuser=True, is_active=True, is_staff=True)
    return [(model, name) for model, screen in screens().items() for name in screen.get_actions(request)]


def missing_lines() -> list[str]:
    """The lines that the table lacks, ready to be copied into it; empty when everything is named."""
    pages, buttons = rights.pages(), {f"admin:{m.replace('.', '_')}_action" for m, _name in actions()}
    lines = [
        f'    Page("{address.key}", "what it is in a few words", see=EVERY_ROLE),'
        for address in addresses()
        if address.key not in pages and address.key not in buttons
    ]
    # Where all of a screen is missing, one line says it all.
    for model in screens():
        app, _dot, name = model.partition(".")
        mine = [line for line in lines if f'"admin:{app}_{name}_' in line or f'"admin/{app}/{name}/<' in line]
        if any("_changelist" in line for line in mine):
            stock = [f"admin:{app}_{name}_{page}" for page in ("changelist", "add", "change", "delete", "history")]
            stock.append(f"admin/{app}/{name}/<path:object_id>/")
            lines = [line for line in lines if not any(f'Page("{url}"' in line for url in stock)]
            lines.append(f'    Screen("{model}", "what it lists", see=EVERY_ROLE),')
    lines += [f'    Action("{m}", "{name}", EVERY_ROLE),' for m, name in actions() if (m, name) not in rights.actions()]
    lines += [
        f'    ListAction("{m}", "{name}", EVERY_ROLE),'
        for m, name in list_actions()
        if (m, name) not in rights.list_actions()
    ]
    return lines


def dead_lines() -> list[str]:
    """What the table names and the product does not have."""
    there = {address.key for address in addresses()}
    dead = [f"Page or Screen of {url}" for url in rights.pages() if url not in there]
    dead += [f"Action {key}" for key in rights.actions() if key not in actions()]
    return dead + [f"ListAction {key}" for key in rights.list_actions() if key not in list_actions()]


# --- Things to try it on ---------------------------------------------------------------------------------------------
class World:
    """One object of every model on the site, all of one customer, and people to try it as."""

    def __init__(self, *, manager: User | None = None) -> None:
        self.people = {name: self._person(name) for name in PEOPLE if name != rights.ANYONE_WORD}
        for person in self.people.values():
            TOTP.activate(person, generate_totp_secret())
            RecoveryCodes.activate(person)
        # What relationship managers do, they do to their own.
        self.manager = manager or self.people[rights.roles.RELATIONSHIP_MANAGERS]
        self.customer: Company = factories.CompanyFactory(in_codat=True, manager=self.manager)
        connection = factories.ConnectionFactory(company=self.customer, with_link=True)
        account = factories.SourceAccountFactory(company=self.customer, connection=connection)
        case = factories.CaseFactory(connection=connection)
        batch = factories.BatchFactory(requested_by=self.manager)
        BatchItem.objects.create(batch=batch, company=self.customer)
        self.objects: dict[str, models.Model] = {
            # A draft, because only that can be deleted.
            "feeds.company": factories.CompanyFactory(manager=self.manager),
            "feeds.connection": connection,
            "feeds.sourceaccount": account,
            "feeds.batch": batch,
            "feeds.case": case,
            "feeds.mail": self._mail_to_the_customer(),
            "feeds.statusevent": factories.StatusEventFactory(account=account),
            "feeds.auditentry": audit.record("link_revealed", connection),
            "auth.user": factories.UserFactory(),
            "auth.group": Group.objects.create(name="Night shift"),
            "feeds.approval": factories.ApprovalFactory(connection=connection),
            "feeds.auditseal": _a_seal(),
        }
        waiting = factories.InvitationFactory(company=self.objects["feeds.company"])
        self.key = invitation_keys.address(waiting, made_for=invitation_keys.SHOWN, actor=audit.SYSTEM).url
        for part in (health.WORKER, health.POLL):
            health.beat(part)
        for model in screens().keys() - self.objects.keys():
            self.objects[model] = self._make(model)

    def client(self, person: str) -> Client:
        """A browser of `person`."""
        client = Client()
        if person in self.people:
            client.force_login(self.people[person])
        return client

    def url(self, address: Address, page: Page) -> str:
        """The address with an object of its model filled in."""
        values = dict(page.sample)
        for part in address.parts:
            if part not in values:
                values[part] = self._value(address, part)
        query = f"?{page.query}" if page.query else ""
        if address.is_named:
            return reverse(page.url, kwargs=values) + query
        path = page.url.replace("(?P<url>.*)$", "no-such-address")
        for part, value in values.items():
            path = path.replace(f"<path:{part}>", value)
        return f"/{path}{query}"

    def button(self, model: str, name: str) -> str:
        """The address of a button on the object of a model."""
        return reverse(f"admin:{model.replace('.', '_')}_action", args=[self.objects[model].pk, name])

    def list_of(self, model: str) -> str:
        """The address of a model's list."""
        return reverse(f"admin:{model.replace('.', '_')}_changelist")

    def ticked(self, model: str, name: str) -> dict[str, Any]:
        """What a browser posts when the object is ticked and an entry of the menu chosen."""
        return {"action": name, "_selected_action": [self.objects[model].pk]}

    def _value(self, address: Address, part: str) -> str:
        if part == "url":
            return "no-such-address"
        if part == "key":
            return self.key.rpartition("/")[2] if address.key.startswith("connect") else str(self.customer.pk)
        if address.key.startswith("mfa_"):
            return "0"  # a passkey is made by a browser only: of these pages only a walk in a browser tells
        if part == "company_id":
            return str(self.customer.pk)
        if part in ("object_id", "id", "pk"):
            name = address.key.rpartition(":")[2].replace("admin/", "").replace("/", "_")
            for model, obj in self.objects.items():
                if name.startswith(model.replace(".", "_") + "_"):
                    return str(obj.pk)
        if part in ("object_id", "content_type_id"):
            return "1"
        raise AssertionError(
            f'{address.key}: what is "{part}"? Give its line in feeds/services/rights.py a sample={{"{part}": "..."}}.'
        )

    def _mail_to_the_customer(self) -> Mail:
        """One that was sent: what colleagues are told is not for managers."""
        mail: Mail = factories.MailFactory(
            case=None,
            invitation=factories.InvitationFactory(company=self.customer, purpose="reconnect"),
            kind=MailKind.INVITATION,
            state=MailState.SENT,
            sent_at=timezone.now(),
        )
        return mail

    def _person(self, name: str) -> User:
        user: User = factories.UserFactory(
            role=name if name in rights.EVERY_ROLE else None,
            is_staff=name != NOT_STAFF,
            is_superuser=name == SUPERUSER,
        )
        return user

    def _make(self, model: str) -> models.Model:
        factory = factory_of(model)
        of_customer = {"company": self.customer} if "company" in factory._meta.base_declarations else {}
        made: models.Model = factory(**of_customer)
        return made


def _a_seal() -> AuditSeal:
    """A seal over what there is of history."""
    seals.seal()
    found: AuditSeal = AuditSeal.objects.get()
    return found


def factory_of(model: str) -> type[DjangoModelFactory[Any]]:
    """The factory of a model, which `tests.factories` has to have."""
    for it in vars(factories).values():
        is_factory = isinstance(it, type) and issubclass(it, DjangoModelFactory) and it is not DjangoModelFactory
        if is_factory and it._meta.model._meta.label_lower == model:
            return it
    raise AssertionError(f"{model} is a screen without an object to try it on: add its factory to tests/factories.py.")


# --- Trying ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answer:
    """What came of one request: whether it was let through, and the business tables it wrote to."""

    status: int
    is_open: bool
    wrote: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.status}{f', writes to {self.wrote}' if self.wrote else ''}"


@contextmanager
def quietly() -> Iterator[None]:
    """Without log lines: thousands of requests write tens of thousands."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@contextmanager
def a_wire_that_refuses() -> Iterator[None]:
    """Codat answers, at once and with no: what is looked at is who may ask."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
            wire.add(method, ANYWHERE, json={"statusCode": 400, "error": "No."}, status=400)
        yield


def try_it(
    client: Client, method: str, url: str, data: Mapping[str, Any] | None = None, *, keep: bool = False
) -> Answer:
    """One request. What it changed is taken back, unless `keep`.

    What its templates were given is not kept: that is copied
    copied for every block of every page, and nobody looks at it.
    """
    # A savepoint and no atomic block: some of what is tried insists on being the outermost.
    before, cookies = transaction.savepoint(), deepcopy(client.cookies)
    with CaptureQueriesContext(connection) as queries, mock.patch("django.test.client.store_rendered_templates"):
        answer = client.post(url, dict(data or {})) if method == "POST" else client.get(url)
    if keep:
        transaction.savepoint_commit(before)
    else:
        transaction.savepoint_rollback(before)
        client.cookies = cookies  # who signed out is in again
    written = sorted({table for query in queries if (table := _written(query["sql"]))} - set(NO_BUSINESS))
    return Answer(answer.status_code, _let_through(answer, url), tuple(written))


def _let_through(answer: Any, url: str) -> bool:
    """Not refused, not unknown, not sent to the sign-in page, and not sent home because there is no such object."""
    if answer.status_code >= 400:
        return False
    if url == reverse("account_logout"):
        return True  # it ends at the sign-in page for everybody
    target = urlsplit(answer.headers.get("Location", "")).path
    is_screen = url.startswith((reverse("admin:app_list", args=["feeds"]), reverse("admin:app_list", args=["auth"])))
    if is_screen and target == reverse("admin:index"):
        return False
    return target not in {reverse("admin:login"), resolve_url(settings.LOGIN_URL)}


def _written(sql: str) -> str:
    words = sql.split()
    place = {"INSERT": 2, "UPDATE": 1, "DELETE": 2}.get(words[0].upper() if words else "")
    return words[place].strip('"') if place else ""


@contextmanager
def listening(model: str, name: str) -> Iterator[list[str]]:
    """Replace a list action by one that only notes that it was run; its right and its name stay."""
    screen = type(screens()[model])
    real = getattr(screen, name)
    heard: list[str] = []

    def note(*_args: Any) -> None:
        heard.append(name)

    note.__dict__.update(real.__dict__)
    note.__name__ = name
    with mock.patch.object(screen, name, note):
        yield heard


def business_rows() -> dict[str, list[dict[str, Any]]]:
    """Every row of every table in which the bank's business stands. Who signed in and who looked is not business."""
    found = {}
    for model in apps.get_models():
        if model._meta.app_label in ("feeds", "auth") and model is not AuditEntry:
            rows = list(model._default_manager.order_by("pk").values())
            for row in rows:
                row.pop("last_login", None)
            if model._meta.db_table not in NO_BUSINESS:
                found[model._meta.label] = rows
    return found
