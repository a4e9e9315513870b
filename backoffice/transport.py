"""What holds for every request, whoever sends it: where it comes from, how long it may be, what browsers may do."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

Handler = Callable[[HttpRequest], HttpResponse]

PERMISSIONS_POLICY = ", ".join(
    [
        *(
            f"{feature}=()"
            for feature in (
                "accelerometer", "browsing-topics", "camera", "display-capture", "geolocation", "gyroscope",
                "magnetometer", "microphone", "midi", "payment", "usb",
            )
        ),
        # Copying a link, and passkeys.
        *(
            f"{feature}=(self)"
            for feature in ("clipboard-write", "publickey-credentials-create", "publickey-credentials-get")
        ),
    ]
)  # fmt: skip


class ClientAddressMiddleware:
    """Makes REMOTE_ADDR the person's address behind `TRUSTED_PROXY_COUNT` proxies.

    The history, the lock-out and the rate limits all read it. Of X-Forwarded-For only what our own proxies wrote is
    believed: the entry that many from the end. What came before it was sent by the browser.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Correct the address, then go on."""
        count: int = settings.TRUSTED_PROXY_COUNT
        if count:
            hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
            if len(hops) >= count and _is_address(hops[-count]):
                request.META["REMOTE_ADDR"] = hops[-count]
        return self.get_response(request)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class BrowserPolicyMiddleware:
    """Headers that Django does not know: which devices pages may use, and that no other site may embed what is here."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, with the headers."""
        response = self.get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return response


class BodyLimitMiddleware:
    """Refuses a body longer than `MAX_REQUEST_BYTES` before a byte of it is read; Django's own limit spares files.

    Without an announced length the server hands over no body at all, so what is announced is what there is.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """413 with a page that says so, or go on."""
        announced = request.META.get("CONTENT_LENGTH") or "0"
        if announced.isdecimal() and int(announced) > settings.MAX_REQUEST_BYTES:
            return HttpResponse(render_to_string("413.html", request=request), status=413)
        return self.get_response(request)
