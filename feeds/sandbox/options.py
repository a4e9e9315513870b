"""Command-line options of the stand-in, with defaults from the environment."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO_API_KEY = "sandbox-key"
DEMO_WEBHOOK_KEY = "whsec_c3RhbmQtaW4tY29kYXQtd2ViaG9vay1rZXk="
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True)
class Options:
    """How one stand-in behaves.

    ``daily_quota`` None means Codat's rule (1,000 x (1 + linked companies)); ``per_minute`` 0 means no limit per
    minute, ``per_company`` 0 none of requests at once; ``public_url`` None means links are built from the Host header
    of the request; ``callout`` is a JSON file of the texts that the Portal's form begins with, None means empty;
    ``webhook_url`` None means that events go nowhere until a control request names a target.
    """

    host: str
    port: int
    data: Path
    latency_ms: int
    strict_otp: bool
    allow_put: bool
    api_key: str
    webhook_secret: str
    webhook_url: str | None
    daily_quota: int | None
    per_minute: int
    per_company: int
    public_url: str | None
    callout: Path | None


def parse_options(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Read the options.

    Args:
        arguments: The command line without the program name.
        environment: Where SANDBOX_PORT, SANDBOX_API_KEY, SANDBOX_STRICT_OTP, SANDBOX_WEBHOOK_SECRET,
            SANDBOX_WEBHOOK_URL and SANDBOX_DAILY_QUOTA are looked up; the command line wins.

    Raises:
        SystemExit: An option is unknown or malformed (argparse prints which).
    """
    namespace = _parser(environment).parse_args(arguments)
    if namespace.public_url:
        namespace.public_url = namespace.public_url.rstrip("/")
    return Options(**vars(namespace))


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m feeds.sandbox", description="The stand-in Codat.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=environment.get("SANDBOX_PORT") or "8100", help="port to listen on")
    add("--data", type=Path, default=ROOT / "var" / "sandbox.sqlite3", help="SQLite file that holds the state")
    add("--latency-ms", type=int, default=0, help="time added to every API reply, in milliseconds")
    add("--strict-otp", action=argparse.BooleanOptionalAction, default=_is_true(environment.get("SANDBOX_STRICT_OTP")))
    add(
        "--allow-put",
        action="store_true",
        help="accept the PUT of source accounts that Codat withdrew in November 2023",
    )
    add("--api-key", default=environment.get("SANDBOX_API_KEY") or DEMO_API_KEY, help="API key that callers must send")
    add("--webhook-secret", default=environment.get("SANDBOX_WEBHOOK_SECRET") or DEMO_WEBHOOK_KEY, help="whsec_... key")
    add("--webhook-url", default=environment.get("SANDBOX_WEBHOOK_URL") or None, help="address that events are sent to")
    add("--daily-quota", type=int, default=environment.get("SANDBOX_DAILY_QUOTA") or None, help="requests per UTC day")
    add("--per-minute", type=int, default=1000, help="requests per minute and client address; 0 for no limit")
    add("--per-company", type=int, default=10, help="requests at once for one company; 0 for no limit")
    add("--public-url", default=None, help="address that browsers reach this program at")
    add("--callout", type=Path, default=None, help="JSON file of the texts that the Portal's form begins with")
    return parser


def _is_true(word: str | None) -> bool:
    return (word or "").strip().lower() in TRUE_WORDS
