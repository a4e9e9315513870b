"""Serves one stand-in over HTTP: Django's request handling, a thread per kept-alive connection, one process.

One process so that killing it kills all of it, and no server that needs a supervisor of its own.
"""

import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

import django
from django.conf import settings
from django.core.servers.basehttp import WSGIRequestHandler, WSGIServer
from django.core.wsgi import get_wsgi_application
from django.urls import URLPattern

from feeds.sandbox.options import ROOT

TEMPLATES = ROOT / "templates" / "sandbox"


class Server(ThreadingMixIn, WSGIServer):
    """A threaded HTTP/1.1 server; a held request keeps no other waiting."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of callers that hang up; log the rest."""
        logging.getLogger(__name__).debug("connection of %s broke", client_address, exc_info=True)


class Handler(WSGIRequestHandler):
    """Handles one connection."""

    # Headers and body leave in one piece, and large bodies wait for no acknowledgement: otherwise replies take 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1

    def get_environ(self) -> dict[str, Any]:
        """Add the means to close the connection without an answer."""
        environ: dict[str, Any] = super().get_environ()
        environ["sandbox.hang_up"] = self._hang_up
        return environ

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing per request; the statistics count them."""

    def _hang_up(self) -> None:
        self.close_connection = True
        connection: socket.socket = self.connection  # type: ignore[assignment] # typeshed has no type for it here
        connection.shutdown(socket.SHUT_RDWR)


def configure(urls: Sequence[URLPattern]) -> None:
    """Set up the little Django that the stand-in uses: no apps, no middleware, no database."""
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=tuple(urls),
        SECRET_KEY="unused: nothing is signed",  # noqa: S106 - no session, cookie or token exists here
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [TEMPLATES]}],
        DATA_UPLOAD_MAX_MEMORY_SIZE=32 * 2**20,
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup(set_prefix=False)


def listen(host: str, port: int) -> Server:
    """Open the port.

    Raises:
        OSError: It is taken.
    """
    server = Server((host, port), Handler)
    server.set_app(get_wsgi_application())
    return server


def style_sheet() -> bytes:
    """Return the style sheet of the pages."""
    return Path(TEMPLATES / "sandbox.css").read_bytes()
