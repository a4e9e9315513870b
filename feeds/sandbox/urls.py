"""Which address is answered by what."""

from django.urls import URLPattern, path, re_path

from feeds.sandbox import api
from feeds.sandbox.control import Control
from feeds.sandbox.pages import Pages
from feeds.sandbox.program import Sandbox

ID_NAMES = ("company_id", "connection_id", "account_id")


def url_patterns(sandbox: Sandbox) -> list[URLPattern]:
    """Return the addresses of one stand-in."""
    pages = Pages(sandbox)
    link = "link/company/<str:company_id>/connection/<str:connection_id>"
    return [
        *(path(django_route(template), api.Endpoint(sandbox, template)) for template in api.ROUTES),
        path("_sandbox/<path:name>", Control(sandbox)),
        path("", pages.home),
        path("static/sandbox.css", pages.style),
        path("link/company/<str:company_id>", pages.closed),
        path(link, pages.link),
        path(f"{link}/quickbooks", pages.quickbooks),
        path("portal/callout", pages.callout),
        re_path("", api.unknown),
    ]


def django_route(template: str) -> str:
    """Turn ``/companies/{id}/connections/{id}`` into Django's route, naming the ids."""
    route = template.lstrip("/")
    for name in ID_NAMES:
        route = route.replace("{id}", f"<str:{name}>", 1)
    return route
