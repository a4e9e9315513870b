"""``python -m feeds.sandbox``: run the stand-in Codat until SIGTERM or Ctrl-C."""

import logging
import signal
import sys
from types import FrameType

from feeds.sandbox.options import parse_options
from feeds.sandbox.program import Sandbox
from feeds.sandbox.server import configure, listen
from feeds.sandbox.urls import url_patterns


def main(arguments: list[str]) -> None:
    """Serve until told to stop.

    Raises:
        SystemExit: 0 when told to stop, 2 for a bad option or a port that is taken.
    """
    logging.basicConfig(level=logging.WARNING, format="sandbox: %(levelname)s %(message)s")
    # Django warns of every 4xx; here a refusal is an answer like any other.
    logging.getLogger("django.request").setLevel(logging.CRITICAL)
    options = parse_options(arguments)
    sandbox = Sandbox(options)
    configure(url_patterns(sandbox))
    try:
        server = listen(options.host, options.port)
    except OSError as error:
        sys.exit(f"sandbox: cannot listen on {options.host}:{options.port}: {error}")
    signal.signal(signal.SIGTERM, _stop)
    sandbox.sender.start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        sandbox.store.close()


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(sys.argv[1:])
