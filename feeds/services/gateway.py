"""The one Codat client of this process, built from the settings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache

from django.conf import settings
from django.db import connection as database
from django.utils import timezone

from feeds.codat.client import CodatClient
from feeds.codat.limiter import SharedLimiter, make_limiter
from feeds.codat.schemas import Quota
from feeds.models import CodatQuota

HEADROOM = 0.5
"""Share of the limiter's burst that the background leaves to people."""
WAITS = 10.0
"""Seconds that a call waits for a slot of the limiter."""
CUSTOMER_WAITS = 1.0
"""Seconds that a customer's press waits for a slot of the limiter, or because Codat says so."""
CUSTOMER_READS = 6.0
"""Seconds that it waits for an answer. The page asks the customer to wait, and tries again by itself."""
_QUOTA_EVERY = timedelta(seconds=1)


def client() -> CodatClient:
    """The pooled client for the configured Codat; bad settings are refused at start by `feeds.checks`."""
    return _client(*_configured(), headroom=0.0, on_quota=remember_quota)


def background_client() -> CodatClient:
    """The client of the poller: of the requests a minute it leaves some free, so that nobody waits behind it."""
    return _client(*_configured(), headroom=HEADROOM, on_quota=remember_quota)


def customer_client() -> CodatClient:
    """The client for a customer's press: whatever is slow, the web server's thread is soon free for somebody else."""
    return _customer_client(*_configured())


def listing_client(on_quota: Callable[[Quota], None]) -> CodatClient:
    """A background client for a thread of its own, which must not touch the database: `on_quota` is called there."""
    return _new_client(*_configured(), headroom=HEADROOM, on_quota=on_quota)


def _configured() -> tuple[str, str, float, float, int]:
    return (
        settings.CODAT_BASE_URL,
        settings.CODAT_API_KEY,
        settings.CODAT_CONNECT_TIMEOUT,
        settings.CODAT_READ_TIMEOUT,
        settings.CODAT_CALLS_PER_MINUTE,
    )


def _new_client(
    base_url: str,
    api_key: str,
    connect: float,
    read: float,
    per_minute: int,
    *,
    headroom: float,
    on_quota: Callable[[Quota], None],
) -> CodatClient:
    return CodatClient(
        base_url,
        api_key,
        limiter=_limiter(per_minute, headroom),
        connect_timeout=connect,
        read_timeout=read,
        on_quota=on_quota,
    )


_client = cache(_new_client)


@cache
def _customer_client(base_url: str, api_key: str, connect: float, read: float, per_minute: int) -> CodatClient:
    return CodatClient(
        base_url,
        api_key,
        limiter=_limiter(per_minute, 0.0, max_wait=CUSTOMER_WAITS),
        connect_timeout=min(connect, CUSTOMER_READS),
        read_timeout=min(read, CUSTOMER_READS),
        get_retries=1,
        on_quota=remember_quota,
        longest_wait=CUSTOMER_WAITS,
    )


@cache
def _limiter(per_minute: int, headroom: float, *, max_wait: float = WAITS) -> SharedLimiter:
    limiter = _make_limiter(per_minute, headroom, max_wait)
    _limiters.append(limiter)
    return limiter


_limiters: list[SharedLimiter] = []


def close() -> None:
    """Close the connections of this process's limiters and forget its clients; the next call makes new ones."""
    while _limiters:
        _limiters.pop().close()
    _limiter.cache_clear()
    _client.cache_clear()
    _customer_client.cache_clear()


def _make_limiter(per_minute: int, headroom: float, max_wait: float) -> SharedLimiter:
    """Shared by all processes: through PostgreSQL where that is the database, else through a file beside SQLite's."""
    path, dsn = None, None
    if database.vendor == "postgresql":
        params = database.get_connection_params()
        wanted = ("host", "port", "user", "password", "dbname", "sslmode")
        dsn = " ".join(f"{key}={_quoted(params[key])}" for key in wanted if params.get(key))
    else:
        path = settings.VAR_DIR / "limiter.sqlite3"
    return make_limiter(sqlite_path=path, postgres_dsn=dsn, per_minute=per_minute, max_wait=max_wait, headroom=headroom)


def _quoted(value: object) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def remember_quota(quota: Quota) -> None:
    """Keep the quota of the last reply for screens and budget; at most once a second, unless much of it went."""
    now = timezone.now()
    values = {"limit": quota.limit, "remaining": quota.remaining, "resets_at": quota.reset, "read_at": quota.read_at}
    about_the_same = quota.remaining + quota.limit // 100
    recent = CodatQuota.objects.filter(pk=1, read_at__gt=now - _QUOTA_EVERY, remaining__lte=about_the_same)
    if not recent.exists():
        CodatQuota.objects.update_or_create(pk=1, defaults=values)
