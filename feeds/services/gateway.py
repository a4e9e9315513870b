"""The one Codat client of this process, built from the settings."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

from django.conf import settings
from django.db import connection as database
from django.utils import timezone

from feeds.codat.client import CodatClient
from feeds.codat.limiter import SharedLimiter, make_limiter
from feeds.codat.schemas import Quota
from feeds.models import CodatQuota

_QUOTA_EVERY = timedelta(seconds=1)


def client() -> CodatClient:
    """The pooled client for the configured Codat; bad settings are refused at start by `feeds.checks`."""
    return _client(
        settings.CODAT_BASE_URL,
        settings.CODAT_API_KEY,
        settings.CODAT_CONNECT_TIMEOUT,
        settings.CODAT_READ_TIMEOUT,
        settings.CODAT_CALLS_PER_MINUTE,
    )


@cache
def _client(base_url: str, api_key: str, connect: float, read: float, per_minute: int) -> CodatClient:
    return CodatClient(
        base_url,
        api_key,
        limiter=_limiter(per_minute),
        connect_timeout=connect,
        read_timeout=read,
        on_quota=remember_quota,
    )


@cache
def _limiter(per_minute: int) -> SharedLimiter:
    limiter = _make_limiter(per_minute)
    _limiters.append(limiter)
    return limiter


_limiters: list[SharedLimiter] = []


def close() -> None:
    """Close the connections of this process's limiters and forget its clients; the next call makes new ones."""
    while _limiters:
        _limiters.pop().close()
    _limiter.cache_clear()
    _client.cache_clear()


def _make_limiter(per_minute: int) -> SharedLimiter:
    """Shared by all processes: through PostgreSQL where that is the database, else through a file beside SQLite's."""
    if database.vendor == "postgresql":
        params = database.get_connection_params()
        wanted = ("host", "port", "user", "password", "dbname", "sslmode")
        dsn = " ".join(f"{key}={_quoted(params[key])}" for key in wanted if params.get(key))
        return make_limiter(sqlite_path=None, postgres_dsn=dsn, per_minute=per_minute)
    return make_limiter(sqlite_path=settings.VAR_DIR / "limiter.sqlite3", postgres_dsn=None, per_minute=per_minute)


def _quoted(value: object) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def remember_quota(quota: Quota) -> None:
    """Keep the quota of the last reply for the screens; written at most once a second."""
    now = timezone.now()
    values = {"limit": quota.limit, "remaining": quota.remaining, "resets_at": quota.reset, "read_at": quota.read_at}
    recent = CodatQuota.objects.filter(pk=1, read_at__gt=now - _QUOTA_EVERY)
    if not recent.exists():
        CodatQuota.objects.update_or_create(pk=1, defaults=values)
