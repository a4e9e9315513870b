"""Who may open and do what: every address, export and action of the product, as one table.

`services.roles` gives the rights; this table says, in the words of who checks them, what must come of them. A test
walks every address and action that exists with every role and fails on any difference, and on any without a line
here. docs/rights.md is written from it.

To add one: a screen of a model is one `Screen`, any other address one `Page`, a button one `Action`, an entry of a
list's menu one `ListAction`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from django.apps import apps
from django.utils.translation import override

from feeds.services import roles

Who: TypeAlias = frozenset[str]
"""Role names of `services.roles`, and the two words below."""

STAFF_WORD = "every colleague"
ANYONE_WORD = "anyone"

RM: Who = frozenset({roles.RELATIONSHIP_MANAGERS})
SUPPORT: Who = frozenset({roles.SUPPORT})
AUDITOR: Who = frozenset({roles.COMPLIANCE_AUDITORS})
ADMIN: Who = frozenset({roles.ADMINISTRATORS})
NOBODY: Who = frozenset()
EVERY_ROLE: Who = RM | SUPPORT | AUDITOR | ADMIN
STAFF: Who = EVERY_ROLE | {STAFF_WORD}
"""Whoever may sign in here, with a role or without."""
ANYONE: Who = STAFF | {ANYONE_WORD}
"""Also who is not signed in."""
READERS: Who = AUDITOR | ADMIN
"""Who reads the change history."""


@dataclass(frozen=True, slots=True)
class Page:
    """One address. `url` is its name ("admin:feeds_company_progress"), or its route where it has none.

    `see`: for whom GET works; None where it does nothing that matters. `do`: for whom POST does something; without it a
    POST changes nothing for anybody.
    `query`, `sample`, `form`: what the address needs to be tried out: after the question mark, inside it, and in what
    is sent. Objects are filled in by themselves.
    """

    url: str
    what: str
    see: Who | None = NOBODY
    do: Who | None = None
    query: str = ""
    sample: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Screen:
    """The list and the pages of one model ("feeds.company"): five named addresses, and one that leads on to another.

    `history`: for whom its button History leads to the story of a row in the change history.
    """

    model: str
    what: str
    see: Who
    add: Who = NOBODY
    change: Who = NOBODY
    delete: Who = NOBODY
    history: Who = READERS

    def pages(self) -> Iterator[Page]:
        """Its addresses, one by one."""
        app, _dot, model = self.model.partition(".")
        name = f"admin:{app}_{model}"
        yield Page(f"{name}_changelist", self.what, self.see)
        yield Page(f"{name}_add", self.what, self.add, self.add)
        yield Page(f"{name}_change", self.what, self.see, self.change)
        yield Page(f"{name}_delete", self.what, self.delete, self.delete)
        yield Page(f"{name}_history", self.what, self.history)
        yield Page(f"admin/{app}/{model}/<path:object_id>/", self.what, STAFF)


@dataclass(frozen=True, slots=True)
class Action:
    """A button on the page of one object: who may open its page of consequences and press it."""

    model: str
    name: str
    who: Who


@dataclass(frozen=True, slots=True)
class ListAction:
    """An entry of the menu above a list: who may do it to the ticked rows."""

    model: str
    name: str
    who: Who


Line: TypeAlias = Page | Screen | Action | ListAction

TABLE: tuple[Line, ...] = (
    # --- For machines, and before signing in ---
    Page("", "the way to the home page", ANYONE),
    Page("healthz", "whether the process answers", ANYONE),
    Page("readyz", "whether database, worker and polling are well; 503 when not", ANYONE),
    Page("metrics", "figures for Prometheus: with the token METRICS_TOKEN only"),
    Page("codat-webhook", "Codat's webhooks: with Codat's signature only", NOBODY, NOBODY),
    Page("api:openapi-json", "the description of the API for the bank's own application", ANYONE),
    Page("api:open", "the API: make a customer and a link, with a key that may only", NOBODY, NOBODY),
    Page("api:read", "the API: how far a customer is, with a key that may only", sample={"customer_number": "SB-1"}),
    Page("api:api-root", "the start of the API's addresses: nothing"),
    Page("language", "the language of the pages", NOBODY, ANYONE, form={"language": "en"}),
    # Customers have no account: the key in the address is the proof, and there is nothing to be signed in for.
    Page("connect", "a customer's page: with the key of an invitation that works", ANYONE, ANYONE),
    Page("connect-opened", "that a person looks at a customer's page", NOBODY, ANYONE),
    Page("account_login", "sign in", ANYONE, ANYONE),
    Page("account_logout", "sign out", None, ANYONE),
    Page("admin:login", "sign in", ANYONE, ANYONE),
    Page("admin:logout", "sign out", None, ANYONE),
    Page("mfa_login_webauthn", "sign in with a passkey: what the sign-in page asks by script", None),
    Page("mfa_authenticate", "the second factor, after a password that was right", None),
    Page(
        "openid_connect_login",
        "sign in at the bank's own place, where it is set up",
        None,
        sample={"provider_id": "bank"},
    ),
    Page("openid_connect_callback", "the way back from there", None, sample={"provider_id": "bank"}),
    # --- For every colleague ---
    Page("admin:index", "the home page: what the person may see of it", STAFF),
    Page("admin:password_change", "one's own password", STAFF, STAFF),
    Page("admin:password_change_done", "that it was changed", STAFF),
    Page("session_left", "how long one stays signed in, and longer", STAFF, STAFF),
    Page("account_reauthenticate", "one's own password, once more", STAFF, STAFF),
    Page("mfa_reauthenticate", "one's own second factor, once more", STAFF, STAFF),
    Page("mfa_reauthenticate_webauthn", "one's own passkey, once more", STAFF, STAFF),
    Page("mfa_index", "one's own second factors", STAFF),
    Page("mfa_activate_totp", "a new authenticator app of one's own", STAFF, STAFF),
    Page("mfa_deactivate_totp", "remove one's own authenticator app", STAFF, STAFF),
    Page("mfa_list_webauthn", "one's own passkeys", STAFF),
    Page("mfa_add_webauthn", "a new passkey of one's own", STAFF, STAFF),
    Page("mfa_edit_webauthn", "rename a passkey of one's own; nobody has another's", None),
    Page("mfa_remove_webauthn", "remove a passkey of one's own; nobody has another's", None),
    Page("mfa_view_recovery_codes", "how many recovery codes of one's own are left", STAFF),
    Page("mfa_generate_recovery_codes", "new recovery codes of one's own", STAFF, STAFF),
    Page("admin:jsi18n", "the words of the date pickers", STAFF),
    Page("admin:app_list", "the screens of one part", EVERY_ROLE, sample={"app_label": "feeds"}),
    Page("admin/(?P<url>.*)$", "no such address"),
    Page("admin:view_on_site", "no object has a page outside the back office"),
    Page(
        "admin:autocomplete",
        "suggestions while typing: of the customers one sees",
        EVERY_ROLE,
        query="app_label=feeds&model_name=connection&field_name=company&term=x",
    ),
    # --- Customers ---
    Screen("feeds.company", "customers", see=EVERY_ROLE, add=RM | ADMIN, change=RM | ADMIN),
    Page("admin:feeds_company_name_preview", "the name that Codat will store", NOBODY, RM | ADMIN),
    Page("admin:feeds_company_progress", "the live part of a customer's page", EVERY_ROLE),
    Page("admin:feeds_company_timeline", "what happened to a customer: the parts one may see", EVERY_ROLE),
    Action("feeds.company", "onboard", RM | SUPPORT | ADMIN),
    Action("feeds.company", "retry", RM | SUPPORT | ADMIN),
    Action("feeds.company", "show-link", RM | SUPPORT | ADMIN),
    Action("feeds.company", "refresh-link", RM | SUPPORT | ADMIN),
    Action("feeds.company", "refresh-status", RM | SUPPORT | ADMIN),
    Action("feeds.company", "invite", RM | SUPPORT | ADMIN),
    Action("feeds.company", "take-over", RM),
    Action("feeds.company", "delete", ADMIN),
    Action("feeds.company", "delete-in-codat", ADMIN),
    ListAction("feeds.company", "onboard_selected", RM | SUPPORT | ADMIN),
    ListAction("feeds.company", "take_over_selected", RM),
    ListAction("feeds.company", "invite_selected", RM | SUPPORT | ADMIN),
    Screen("feeds.invitation", "invitations to connect", see=EVERY_ROLE),
    Page("admin:invitation_funnel", "how far customers get: of those one sees", EVERY_ROLE),
    Page("admin:invitation_funnel_csv", "the same figures as a file", EVERY_ROLE),
    Action("feeds.invitation", "send", RM | SUPPORT | ADMIN),
    Action("feeds.invitation", "show-address", RM | SUPPORT | ADMIN),
    Action("feeds.invitation", "revoke", RM | SUPPORT | ADMIN),
    Action("feeds.invitation", "renew", RM | SUPPORT | ADMIN),
    Screen("feeds.batch", "bulk onboardings: relationship managers see their own", see=EVERY_ROLE),
    Page("admin:feeds_batch_progress", "the live part of a bulk onboarding's page", EVERY_ROLE),
    Action("feeds.batch", "retry-failed", RM | SUPPORT | ADMIN),
    # Asking is the add page: it is no form of a row.
    Screen("feeds.accessgrant", "emergency accesses", see=RM | AUDITOR | ADMIN, add=RM),
    Action("feeds.accessgrant", "end", RM | ADMIN),
    # --- Callout: one text for all customers. Who had a hand in a version does not approve it. ---
    Screen("feeds.calloutversion", "callout versions", see=EVERY_ROLE, add=RM | ADMIN, change=RM | ADMIN),
    Page("admin:feeds_calloutversion_published", "which text was published on a day", EVERY_ROLE),
    Page("admin:feeds_calloutversion_difference", "what differs between two versions", EVERY_ROLE),
    Page("admin:feeds_calloutversion_checklist", "what to do in the Codat Portal", RM | ADMIN),
    Action("feeds.calloutversion", "submit", RM | ADMIN),
    Action("feeds.calloutversion", "approve", RM | ADMIN),
    Action("feeds.calloutversion", "send-back", RM | ADMIN),
    Action("feeds.calloutversion", "attest", RM | ADMIN),
    Action("feeds.calloutversion", "copy", RM | ADMIN),
    Action("feeds.calloutversion", "withdraw", RM | ADMIN),
    # --- Four eyes: whoever opens these still needs the right to do it themselves, and not to have asked. ---
    Screen("feeds.approval", "requests for approval: of the customers one sees, and one's own", see=EVERY_ROLE),
    Action("feeds.approval", "approve", RM | SUPPORT | ADMIN),
    Action("feeds.approval", "refuse", RM | SUPPORT | ADMIN),
    Action("feeds.approval", "withdraw", RM | SUPPORT | ADMIN),
    # --- Codat ---
    Screen("feeds.connection", "connections", see=EVERY_ROLE),
    Action("feeds.connection", "refresh-link", RM | SUPPORT | ADMIN),
    Action("feeds.connection", "show-link", RM | SUPPORT | ADMIN),
    Action("feeds.connection", "generate-credentials", SUPPORT | ADMIN),
    Action("feeds.connection", "revoke-credentials", SUPPORT | ADMIN),
    Action("feeds.connection", "unlink", SUPPORT | ADMIN),
    Action("feeds.connection", "delete", SUPPORT | ADMIN),
    ListAction("feeds.connection", "refresh_links", RM | SUPPORT | ADMIN),
    Screen("feeds.sourceaccount", "source accounts", see=EVERY_ROLE),
    Action("feeds.sourceaccount", "rename", RM | SUPPORT | ADMIN),
    Action("feeds.sourceaccount", "disconnect", SUPPORT | ADMIN),
    Action("feeds.sourceaccount", "delete", SUPPORT | ADMIN),
    Action("feeds.sourceaccount", "show-number", RM | ADMIN),
    Screen("feeds.operation", "operations: what was asked of Codat", see=EVERY_ROLE),
    Screen("feeds.webhookevent", "webhooks that Codat sent", see=SUPPORT | AUDITOR | ADMIN),
    Action("feeds.webhookevent", "apply-again", SUPPORT | ADMIN),
    ListAction("feeds.webhookevent", "apply_selected_again", SUPPORT | ADMIN),
    # --- Support ---
    Screen("feeds.case", "cases: broken feeds", see=SUPPORT | AUDITOR | ADMIN),
    Action("feeds.case", "take", SUPPORT | ADMIN),
    Action("feeds.case", "verify-now", SUPPORT | ADMIN),
    Action("feeds.case", "invite-to-reconnect", SUPPORT | ADMIN),
    Action("feeds.case", "refresh-link", SUPPORT | ADMIN),
    Action("feeds.case", "show-link", SUPPORT | ADMIN),
    Action("feeds.case", "generate-credentials", SUPPORT | ADMIN),
    Action("feeds.case", "revoke-credentials", SUPPORT | ADMIN),
    Action("feeds.case", "note", SUPPORT | ADMIN),
    Action("feeds.case", "set-cause", SUPPORT | ADMIN),
    Action("feeds.case", "snooze", SUPPORT | ADMIN),
    Action("feeds.case", "hand-over", SUPPORT | ADMIN),
    Action("feeds.case", "close", SUPPORT | ADMIN),
    ListAction("feeds.case", "take_selected", SUPPORT | ADMIN),
    Screen("feeds.incident", "incidents: feeds that broke together", see=SUPPORT | AUDITOR | ADMIN),
    Action("feeds.incident", "release", SUPPORT | ADMIN),
    Screen("feeds.statusevent", "status changes", see=SUPPORT | AUDITOR | ADMIN),
    Screen("feeds.driftreport", "nightly comparisons with Codat", see=SUPPORT | AUDITOR | ADMIN),
    Screen("feeds.driftfinding", "differences with Codat", see=SUPPORT | AUDITOR | ADMIN),
    Action("feeds.driftfinding", "adopt", SUPPORT | ADMIN),
    Screen("feeds.mail", "mails, and what was not delivered", see=RM | SUPPORT | ADMIN),
    Action("feeds.mail", "send-again", SUPPORT | ADMIN),
    Action("feeds.mail", "note-bounce", RM | SUPPORT | ADMIN),
    # --- History: whoever runs the product does not also carry it away. ---
    Screen("feeds.auditentry", "the change history", see=READERS, history=NOBODY),
    Page("admin:feeds_auditentry_story", "the whole story of one object", READERS, sample={"kind": "feeds.company"}),
    Page("admin:feeds_auditentry_state", "one object on a past day", READERS, sample={"kind": "feeds.company"}),
    Page("admin:feeds_auditentry_export", "take a search out of the change history", AUDITOR, AUDITOR),
    Page("admin:feeds_evidence", "the evidence pack of a customer", AUDITOR, AUDITOR),
    Screen("feeds.auditseal", "seals over the change history", see=READERS),
    Page("admin:feeds_auditseal_verify", "verify that nothing was altered", NOBODY, READERS),
    Screen("feeds.historycheck", "verifications", see=READERS),
    Screen("feeds.historyexport", "exports and evidence packs", see=READERS),
    # --- People and system ---
    Screen("auth.user", "colleagues", see=AUDITOR | ADMIN, add=ADMIN, change=ADMIN),
    Page("admin:auth_user_password_change", "a colleague's password", ADMIN, ADMIN),
    Action("auth.user", "reset-second-factors", ADMIN),
    Screen("feeds.signinlock", "failed sign-ins that still count", see=AUDITOR | ADMIN),
    Action("feeds.signinlock", "unlock", ADMIN),
    Screen("feeds.apikey", "keys of the API", see=AUDITOR | ADMIN, add=ADMIN),
    Action("feeds.apikey", "rotate", ADMIN),
    Action("feeds.apikey", "revoke", ADMIN),
    Screen("auth.group", "roles", see=AUDITOR | ADMIN),
    Page("admin:operations_page", "whether everything in the background is well", SUPPORT | ADMIN),
)


def pages(table: Iterable[Line] = TABLE) -> dict[str, Page]:
    """Every address of the table by its name or route; those of screens among them."""
    found: dict[str, Page] = {}
    for line in table:
        found |= {page.url: page for page in _pages_of(line)}
    return found


def actions(table: Iterable[Line] = TABLE) -> dict[tuple[str, str], Who]:
    """(model, name) of every button -> who may press it."""
    return {(line.model, line.name): line.who for line in table if isinstance(line, Action)}


def list_actions(table: Iterable[Line] = TABLE) -> dict[tuple[str, str], Who]:
    """(model, name) of every entry of a list's menu -> who may choose it."""
    return {(line.model, line.name): line.who for line in table if isinstance(line, ListAction)}


def _pages_of(line: Line) -> Iterable[Page]:
    if isinstance(line, Screen):
        return line.pages()
    return [line] if isinstance(line, Page) else []


# --- For people ------------------------------------------------------------------------------------------------------
_SHORT = {
    roles.RELATIONSHIP_MANAGERS: "RM",
    roles.SUPPORT: "Support",
    roles.COMPLIANCE_AUDITORS: "Auditor",
    roles.ADMINISTRATORS: "Admin",
}

_INTRODUCTION = """\
# Who may do what

Written by `python3 manage.py rights` from `feeds/services/roles.py` and `feeds/services/rights.py`; change those. A
test opens every address and presses every button with every role, signed out, and as a colleague without a role, and
compares what happens with these tables.

RM: relationship managers. They see their own customers, those without a manager, and, for `EMERGENCY_ACCESS_HOURS`,
one that they opened by emergency access; `RM_SEES_ALL_CUSTOMERS` lets them see all. What hangs on a customer is seen
with it. Support, auditors and administrators see all customers. Auditors change nothing; their own password is theirs.
A superuser may do whatever anybody may. Codat's links, QuickBooks credentials and whole account numbers are rights of
their own, below.
"""


def as_markdown() -> str:
    """The tables as a document: docs/rights.md."""
    parts = [
        _INTRODUCTION,
        "## Rights\n",
        _grid(["Right", *_SHORT.values()], _right_rows()),
        "## Screens\n\nA list, and a page for each row. The history of a row is for auditors and administrators.\n",
        _grid(["Screen", "See", "Add", "Change", "Delete"], _screen_rows()),
        "## Buttons on one row, and on ticked rows\n",
        _grid(["Screen", "Action", "Who"], _action_rows()),
        "## Other addresses\n",
        _grid(["Address", "What", "Open", "Send"], _page_rows()),
    ]
    return "\n".join(parts)


def _right_rows() -> Iterator[list[str]]:
    names = _permission_names()
    for label in sorted(set().union(*roles.ROLES.values()), key=lambda label: (label.partition("_")[2], label)):
        yield [names.get(label, label), *("yes" if label in roles.ROLES[role] else "" for role in _SHORT)]


def _permission_names() -> dict[str, str]:
    """Label -> what it allows, in English, as Django will name it in the database."""
    names: dict[str, str] = {}
    with override("en"):
        for model in apps.get_models():
            options, app = model._meta, model._meta.app_label
            for verb in options.default_permissions:
                names[f"{app}.{verb}_{options.model_name}"] = f"Can {verb} {options.verbose_name_raw}"
            names |= {f"{app}.{codename}": str(name) for codename, name in options.permissions}
    return names


def _screen_rows() -> Iterator[list[str]]:
    for line in TABLE:
        if isinstance(line, Screen):
            yield [line.what, *(_words(who) for who in (line.see, line.add, line.change, line.delete))]


def _action_rows() -> Iterator[list[str]]:
    screens = {line.model: line.what.partition(":")[0] for line in TABLE if isinstance(line, Screen)}
    for line in TABLE:
        if isinstance(line, Action):
            yield [screens[line.model], line.name.replace("-", " "), _words(line.who)]
        elif isinstance(line, ListAction):
            yield [screens[line.model], f"ticked rows: {line.name.replace('_', ' ')}", _words(line.who)]


def _page_rows() -> Iterator[list[str]]:
    for line in TABLE:
        if isinstance(line, Page):
            yield [
                line.url.replace("|", "\\|") or "/",
                line.what,
                _words(line.see or NOBODY),
                _words(line.do or NOBODY),
            ]


def _words(who: Who) -> str:
    """The widest word that fits, or the roles."""
    for word in (ANYONE_WORD, STAFF_WORD):
        if word in who:
            return word
    return "every role" if who == EVERY_ROLE else ", ".join(short for role, short in _SHORT.items() if role in who)


def _grid(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
