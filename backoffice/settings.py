"""One settings file; everything that differs between places comes from the environment.

Each variable is documented in `.env.example`. A secret may also come from a file named by `NAME_FILE`
(Docker and Kubernetes secrets). Bad values are refused by `feeds.checks`, each with an id and a hint.
"""

from __future__ import annotations

import secrets as token_source
from pathlib import Path
from typing import Any

import django_stubs_ext
import environ

from backoffice.logs import logging_config

# `ModelAdmin[Company]` and the like are exact types for the checker and plain classes at run time.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = environ.FileAwareEnv()
env.read_env(BASE_DIR / ".env")

# --- Where we are ----------------------------------------------------------------------------------------------------
ENVIRONMENT: str = env.str("ENVIRONMENT", default="production")
IS_PRODUCTION = ENVIRONMENT == "production"
DEBUG: bool = env.bool("DEBUG", default=False)
PORT: int = env.int("PORT", default=8000)


def _secret_key() -> str:
    """The configured key; outside production one is made once and kept in var/, so `make run` needs no setup."""
    configured: str = env.str("SECRET_KEY", default="")
    if configured or IS_PRODUCTION:
        return configured
    path = VAR_DIR / "secret_key"
    VAR_DIR.mkdir(exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(token_source.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text()


# Django refuses to start without a key, and says so; `check` must still be able to name what else is missing.
SECRET_KEY = _secret_key()
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS: list[str] = env.list(
    "ALLOWED_HOSTS", default=[] if IS_PRODUCTION else ["localhost", "127.0.0.1", "[::1]"]
)
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# --- Codat -----------------------------------------------------------------------------------------------------------
SANDBOX_PORT: int = env.int("SANDBOX_PORT", default=8100)
_SANDBOX_URL = f"http://localhost:{SANDBOX_PORT}"
_configured_base_url: str = env.str("CODAT_BASE_URL", default="")
_configured_api_key: str = env.str("CODAT_API_KEY", default="")
CODAT_SANDBOX: bool = env.bool(
    "CODAT_SANDBOX", default=not (IS_PRODUCTION or _configured_base_url or _configured_api_key)
)
CODAT_BASE_URL: str = _configured_base_url or (_SANDBOX_URL if CODAT_SANDBOX else "https://api.codat.io")
CODAT_API_KEY: str = _configured_api_key or (env.str("SANDBOX_API_KEY", default="sandbox-key") if CODAT_SANDBOX else "")
CODAT_CONNECT_TIMEOUT: float = env.float("CODAT_CONNECT_TIMEOUT", default=5.0)
CODAT_READ_TIMEOUT: float = env.float("CODAT_READ_TIMEOUT", default=20.0)
CODAT_CALLS_PER_MINUTE: int = env.int("CODAT_CALLS_PER_MINUTE", default=1000)
CODAT_LINK_LIFETIME_SECONDS: int = env.int("CODAT_LINK_LIFETIME_SECONDS", default=3600)
CODAT_ADD_ACCOUNTS_WITH: str = env.str("CODAT_ADD_ACCOUNTS_WITH", default="batch")
CODAT_ACCOUNT_SCHEMA: str = env.str("CODAT_ACCOUNT_SCHEMA", default="v2")

# --- Webhooks --------------------------------------------------------------------------------------------------------
_sandbox_webhook_secret: str = env.str("SANDBOX_WEBHOOK_SECRET", default="whsec_c3RhbmQtaW4tY29kYXQtd2ViaG9vay1rZXk=")
# Several, so that a new secret is known here before Codat signs with it.
WEBHOOK_SECRETS: list[str] = [
    # A file that holds a secret usually ends with a new line.
    secret.strip()
    for secret in env.list("WEBHOOK_SECRETS", default=[_sandbox_webhook_secret] if CODAT_SANDBOX else [])
]
WEBHOOK_MAX_BYTES: int = env.int("WEBHOOK_MAX_BYTES", default=262144)
WEBHOOK_MAX_ATTEMPTS: int = env.int("WEBHOOK_MAX_ATTEMPTS", default=12)
WEBHOOK_SILENT_HOURS: int = env.int("WEBHOOK_SILENT_HOURS", default=24)

# --- The reconciler --------------------------------------------------------------------------------------------------
# A lease outlives the longest single call (connect + read + retries of a GET), and is renewed before each call.
ONBOARDING_LEASE_SECONDS: int = env.int("ONBOARDING_LEASE_SECONDS", default=90)
# A queued task that did not start by then is taken for lost and queued again.
ONBOARDING_REQUEUE_SECONDS: int = env.int("ONBOARDING_REQUEUE_SECONDS", default=120)
ONBOARDING_RETRY_BASE_SECONDS: float = env.float("ONBOARDING_RETRY_BASE_SECONDS", default=2.0)
ONBOARDING_RETRY_MAX_SECONDS: float = env.float("ONBOARDING_RETRY_MAX_SECONDS", default=900.0)
ONBOARDING_MAX_ATTEMPTS: int = env.int("ONBOARDING_MAX_ATTEMPTS", default=100)
BULK_LIMIT: int = env.int("BULK_LIMIT", default=500)

# --- The poller ------------------------------------------------------------------------------------------------------
POLL_LINK_SECONDS: int = env.int("POLL_LINK_SECONDS", default=120)
POLL_CASE_SECONDS: int = env.int("POLL_CASE_SECONDS", default=3600)
POLL_PENDING_SECONDS: int = env.int("POLL_PENDING_SECONDS", default=3600)
POLL_PENDING_HOURLY_DAYS: int = env.int("POLL_PENDING_HOURLY_DAYS", default=2)
POLL_HEALTHY_SECONDS: int = env.int("POLL_HEALTHY_SECONDS", default=86400)
# Longest time the list of all companies waits while customers hold links, which reading it may end.
POLL_LIST_WAIT_HOURS: int = env.int("POLL_LIST_WAIT_HOURS", default=12)
POLL_RESERVE_PERCENT: int = env.int("POLL_RESERVE_PERCENT", default=20)

# --- Cases -----------------------------------------------------------------------------------------------------------
# Where mails point; no slash at the end.
SITE_URL: str = env.str("SITE_URL", default="" if IS_PRODUCTION else f"http://localhost:{PORT}").rstrip("/")
CASE_REOPEN_HOURS: int = env.int("CASE_REOPEN_HOURS", default=72)
# Hours until a case is overdue: urgent, high, normal.
CASE_DUE_HOURS: list[int] = env.list("CASE_DUE_HOURS", cast=int, default=[4, 24, 72])
# The team's addresses: mails about cases that nobody has taken, and about incidents.
CASE_NOTIFY_TO: list[str] = env.list("CASE_NOTIFY_TO", default=[])
CASE_NOTIFY_COOLDOWN_MINUTES: int = env.int("CASE_NOTIFY_COOLDOWN_MINUTES", default=60)
CASE_DIGEST_HOUR: int = env.int("CASE_DIGEST_HOUR", default=8)
INCIDENT_THRESHOLD: int = env.int("INCIDENT_THRESHOLD", default=10)
INCIDENT_WINDOW_MINUTES: int = env.int("INCIDENT_WINDOW_MINUTES", default=60)

# --- The customer's pages --------------------------------------------------------------------------------------------
INSTITUTION_NAME: str = env.str("INSTITUTION_NAME", default="" if IS_PRODUCTION else "Maple Harbour Bank")
# Address of a picture on this site or a static file of yours; empty: the name alone.
INSTITUTION_LOGO: str = env.str("INSTITUTION_LOGO", default="")
INSTITUTION_PHONE: str = env.str("INSTITUTION_PHONE", default="" if IS_PRODUCTION else "+1 555 0100")
INVITATION_DAYS: int = env.int("INVITATION_DAYS", default=14)
INVITATION_REMIND_DAYS: int = env.int("INVITATION_REMIND_DAYS", default=4)
# Where Codat's links lead: browsers follow a form's redirect only to what the page has named.
CODAT_LINK_ORIGINS: list[str] = env.list(
    "CODAT_LINK_ORIGINS",
    default=[f"http://localhost:{SANDBOX_PORT}"] if CODAT_SANDBOX else ["https://*.codat.io"],
)

# --- Four eyes: what a second person has to approve ------------------------------------------------------------------
FOUR_EYES: list[str] = env.list(
    "FOUR_EYES",
    default=[
        "revoke_credentials",
        "unlink_connection",
        "delete_account",
        "delete_connection",
        "delete_company",
        "publish_callout",
        "bulk",
        "change_roles",
    ],
)
FOUR_EYES_BULK_ROWS: int = env.int("FOUR_EYES_BULK_ROWS", default=20)
FOUR_EYES_EXPIRE_HOURS: int = env.int("FOUR_EYES_EXPIRE_HOURS", default=72)

# --- Applications ----------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "feeds.apps.FeedsConfig",
    "backoffice.apps.BackOfficeAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.forms",
    "csp",
    "auditlog",
    "django_structlog",
    "django_q",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "feeds.audit.AuditMiddleware",
]

ROOT_URLCONF = "backoffice.urls"
WSGI_APPLICATION = "backoffice.wsgi.application"
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- Database --------------------------------------------------------------------------------------------------------
_SQLITE_OPTIONS: dict[str, Any] = {
    # Measured: with DEFERRED transactions one web write in twelve met a locked database; with these, none.
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": (
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; PRAGMA cache_size=-32000;"
    ),
}


def _database() -> dict[str, Any]:
    config: dict[str, Any] = env.db_url("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'backoffice.sqlite3'}")
    if config["ENGINE"].endswith("sqlite3"):
        Path(config["NAME"]).parent.mkdir(parents=True, exist_ok=True)
        config["OPTIONS"] = {**_SQLITE_OPTIONS, **config.get("OPTIONS", {})}
    # Measured: CONN_MAX_AGE=0 makes every enqueue reconnect. Never the "pool" option: it breaks the worker.
    return config | {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}


DATABASES = {"default": _database()}
# The library's own table is swapped for ours; its migrations would leave an empty one behind, tied to our users.
MIGRATION_MODULES = {"auditlog": None}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Queue (each value was measured: see docs/decisions) -------------------------------------------------------------
Q_CLUSTER: dict[str, Any] = {
    "name": "backoffice",
    "orm": "default",
    "workers": env.int("Q_WORKERS", default=4),
    "queue_limit": env.int("Q_WORKERS", default=4),
    "bulk": 1,
    "timeout": env.int("Q_TIMEOUT", default=60),
    "retry": env.int("Q_RETRY", default=300),
    "ack_failures": True,
    "max_attempts": 1,
    "save_limit": 0,
    "catch_up": False,
    "guard_cycle": 0.5,
    "poll": 0.5,
    "recycle": 500,
    "log_level": "WARNING",
}
WORKER_HEARTBEAT_SECONDS: int = env.int("WORKER_HEARTBEAT_SECONDS", default=20)
WORKER_FROZEN_SECONDS: int = env.int("WORKER_FROZEN_SECONDS", default=180)
WORKER_SWEEP_SECONDS: int = env.int("WORKER_SWEEP_SECONDS", default=10)
WORKER_GRACE_SECONDS: int = env.int("WORKER_GRACE_SECONDS", default=75)

# --- People ----------------------------------------------------------------------------------------------------------
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "admin:login"
# Of the demo users, which exist only beside the stand-in Codat.
DEMO_PASSWORD: str = env.str("DEMO_PASSWORD", default="demo-bank-feeds")
AUDITLOG_LOGENTRY_MODEL = "feeds.AuditEntry"

# --- Language and time -----------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("fr", "Français")]
LOCALE_PATHS = [BASE_DIR / "feeds" / "locale"]
TIME_ZONE: str = env.str("TIME_ZONE", default="America/New_York")
USE_TZ = True

# --- Static files ----------------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if IS_PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
# Outside production nothing needs collecting: files are served from where they are.
WHITENOISE_USE_FINDERS = not IS_PRODUCTION

# --- Transport -------------------------------------------------------------------------------------------------------
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_PRODUCTION
SECURE_SSL_REDIRECT: bool = env.bool("SECURE_SSL_REDIRECT", default=IS_PRODUCTION)
# Probes come from inside, over plain HTTP; a webhook that is redirected is lost, and its signature needs no TLS.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$", r"^webhooks/codat$"]
SECURE_HSTS_SECONDS: int = env.int("SECURE_HSTS_SECONDS", default=31_536_000 if IS_PRODUCTION else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = IS_PRODUCTION
if env.bool("BEHIND_TLS_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

EMAIL_CONFIG: dict[str, Any] = env.email_url("EMAIL_URL", default="consolemail://")
vars().update(EMAIL_CONFIG)
EMAIL_TIMEOUT = 15
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="bank-feeds@localhost")

# --- Metrics ---------------------------------------------------------------------------------------------------------
# Without a token there is no /metrics at all. A file that holds a secret usually ends with a new line.
METRICS_TOKEN: str = env.str("METRICS_TOKEN", default="").strip()

# --- Logs ------------------------------------------------------------------------------------------------------------
LOGGING = logging_config(
    level=env.str("LOG_LEVEL", default="INFO"), as_json=env.bool("LOG_JSON", default=IS_PRODUCTION)
)
DJANGO_STRUCTLOG_CELERY_ENABLED = False
