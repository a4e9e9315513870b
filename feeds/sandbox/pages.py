"""The pages a browser sees: Codat's hosted Link page, the QuickBooks step after it, and the Portal's callout form.

No page keeps a session: the otp in the address, then the credentials in the form, say who is there.
"""

from datetime import date
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from feeds.sandbox import accounts, callout, companies, connections, lifecycle
from feeds.sandbox.clock import day_of
from feeds.sandbox.links import otp_is_good
from feeds.sandbox.program import Sandbox, Work
from feeds.sandbox.replies import Refusal
from feeds.sandbox.server import style_sheet
from feeds.sandbox.store import Record
from feeds.sandbox.texts import LANGUAGES, TEXTS

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Pages:
    """The Django views of the pages."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def home(self, request: HttpRequest) -> HttpResponse:
        """``/``: what this program is."""
        return _page(request, "home.html", {})

    def style(self, request: HttpRequest) -> HttpResponse:
        """``/static/sandbox.css``."""
        return HttpResponse(style_sheet(), content_type="text/css; charset=utf-8")

    def closed(self, request: HttpRequest, company_id: str) -> HttpResponse:
        """``/link/company/{companyId}``: a link without an otp opens nothing."""
        return _closed(request)

    def link(self, request: HttpRequest, company_id: str, connection_id: str) -> HttpResponse:
        """The Link page; POST is **Get credentials**. 401 when the otp is unknown, expired or replaced."""
        with self._sandbox.work(request.get_host()) as work:
            otp = request.GET.get("otp", "")
            try:
                context = _context(work, company_id, connection_id)
            except Refusal:
                return _closed(request)
            if not otp_is_good(work.db, connection_id, otp, work.now, self._sandbox.options.strict_otp):
                return _closed(request)
            if request.method != "POST":
                texts = callout.saved(work.db)
                language = _language(request)
                shown = {"title": texts.get(f"title_{language}"), "body": texts.get(f"body_{language}")}
                return _page(request, "link.html", {**context, "callout": shown})
            credentials = lifecycle.issue_credentials(work.db, connection_id)
        return _page(request, "credentials.html", {**context, "credentials": credentials})

    def quickbooks(self, request: HttpRequest, company_id: str, connection_id: str) -> HttpResponse:
        """The QuickBooks step: POST signs in with the credentials; with ``step=connect`` it connects accounts."""
        with self._sandbox.work(request.get_host()) as work:
            try:
                context = _context(work, company_id, connection_id)
            except Refusal:
                return _closed(request)
            username, password = request.POST.get("username", ""), request.POST.get("password", "")
            if not lifecycle.credentials_are_good(work.db, connection_id, username, password):
                return _page(request, "refused.html", context, 401)
            if request.POST.get("step") == "connect":
                return self._connect(request, work, context)
            chosen = [account["id"] for account in context["accounts"]]
            start = lifecycle.default_feed_start(work.now)
            return _choose(request, work, context, chosen, start.isoformat(), "")

    def callout(self, request: HttpRequest) -> HttpResponse:
        """``/portal/callout``: the form under Settings > Integrations > Bank feeds > Manage."""
        with self._sandbox.store.transaction() as db:
            if request.method != "POST":
                texts = callout.saved(db)
                return _page(request, "callout.html", {"fields": callout.fields(lambda name: texts.get(name, ""))})
            fields = callout.fields(lambda name: request.POST.get(name, ""))
            refused = any(field.error for field in fields)
            if not refused:
                callout.save(db, fields)
        return _page(request, "callout.html", {"fields": fields, "saved": not refused}, 400 if refused else 200)

    def _connect(self, request: HttpRequest, work: Work, context: Record) -> HttpResponse:
        chosen = request.POST.getlist("account")
        start = request.POST.get("feed_start_date", "")
        words = TEXTS[_language(request)]
        if not chosen:
            return _choose(request, work, context, chosen, start, words["choose_one"])
        day = _day(start)
        if day is None or not lifecycle.feed_start_is_good(day, work.now):
            return _choose(request, work, context, chosen, start, words["bad_date"])
        if not {account["id"] for account in context["accounts"]}.issuperset(chosen):
            return _choose(request, work, context, chosen, start, words["mismatch"])
        company_id, connection_id = context["company"]["id"], context["connection_id"]
        connected = lifecycle.connect(work.db, company_id, connection_id, chosen, day, work.mint, work.now)
        return _page(request, "connected.html", {**context, "connected": connected})


def _context(work: Work, company_id: str, connection_id: str) -> Record:
    connections.get(work.db, company_id, connection_id)
    offered = [
        {**account, "ending": account["accountNumber"][-4:]} for account in accounts.listing(work.db, connection_id)
    ]
    return {
        "company": companies.get(work.db, company_id),
        "connection_id": connection_id,
        "accounts": offered,
        "path": f"/link/company/{company_id}/connection/{connection_id}",
    }


def _choose(
    request: HttpRequest, work: Work, context: Record, chosen: list[str], start: str, error: str
) -> HttpResponse:
    today = day_of(work.now)
    values = {
        "username": request.POST["username"],
        "password": request.POST["password"],
        "chosen": chosen,
        "start": start,
        "earliest": (today - lifecycle.LONGEST_HISTORY).isoformat(),
        "latest": today.isoformat(),
        "error": error,
    }
    return _page(request, "quickbooks.html", {**context, **values}, 400 if error else 200)


def _closed(request: HttpRequest) -> HttpResponse:
    return _page(request, "closed.html", {}, 401)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _language(request: HttpRequest) -> str:
    asked = request.GET.get("lang", "")
    return asked if asked in LANGUAGES else LANGUAGES[0]


def _page(request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    language = _language(request)
    words = {"t": TEXTS[language], "lang": language, "otp": request.GET.get("otp", ""), "here": request.path}
    response = HttpResponse(render_to_string(template, {**words, **context}), status=status)
    for name, value in HEADERS.items():
        response[name] = value
    return response
