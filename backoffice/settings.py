"""One settings file; everything that differs between places comes from the environment.

Each variable is documented in `.env.example`. A secret may also come from a file named by `NAME_FILE`
(Docker and Kubernetes secrets). What cannot be meant is refused by `backoffice.environment`, bad values by
`feeds.checks`, each with an id and a hint.
"""

from __future__ import annotations

import secrets as token_source
from datetime import timedelta
from pathlib import Path
from typing import Any

import django_stubs_ext

from backoffice.environment import Environment
from backoffice.logs import logging_config

# `ModelAdmin[Company]` and the like are exact types for the checker and plain classes at run time.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = Environment()
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
CSRF_FAILURE_VIEW = "feeds.views.errors.forged"
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
WEBHOOK_KEEP_DAYS: int = env.int("WEBHOOK_KEEP_DAYS", default=90)
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

# --- The callout: the text above "Get credentials" on Codat's Link page ----------------------------------------------
# Where it is pasted: the Portal has no API for it.
CODAT_PORTAL_URL: str = env.str(
    "CODAT_PORTAL_URL", default=f"{_SANDBOX_URL}/portal/callout" if CODAT_SANDBOX else "https://app.codat.io"
)
CALLOUT_FRENCH: str = env.str("CALLOUT_FRENCH", default="both")
CALLOUT_REMIND_DAYS: int = env.int("CALLOUT_REMIND_DAYS", default=2)
CALLOUT_NOTIFY_TO: list[str] = env.list("CALLOUT_NOTIFY_TO", default=[])

# --- Who sees which customer -----------------------------------------------------------------------------------------
# Off: a relationship manager sees their own customers, and those of nobody.
RM_SEES_ALL_CUSTOMERS: bool = env.bool("RM_SEES_ALL_CUSTOMERS", default=False)
EMERGENCY_ACCESS_HOURS: int = env.int("EMERGENCY_ACCESS_HOURS", default=8)

# --- Change history --------------------------------------------------------------------------------------------------
# Where seals go off this host: file:///path, mailto:somebody@bank.example, https://user:secret@host/path.
AUDIT_SEAL_TO: list[str] = env.list("AUDIT_SEAL_TO", default=[])
AUDIT_RETENTION_DAYS: int = env.int("AUDIT_RETENTION_DAYS", default=2557)

# --- The customer's pages --------------------------------------------------------------------------------------------
INSTITUTION_NAME: str = env.str("INSTITUTION_NAME", default="" if IS_PRODUCTION else "Maple Harbour Bank")
# Address of a picture on this site or a static file of yours; empty: the name alone.
INSTITUTION_LOGO: str = env.str("INSTITUTION_LOGO", default="")
INSTITUTION_PHONE: str = env.str("INSTITUTION_PHONE", default="" if IS_PRODUCTION else "+1 555 0100")
INVITATION_DAYS: int = env.int("INVITATION_DAYS", default=14)
INVITATION_REMIND_DAYS: int = env.int("INVITATION_REMIND_DAYS", default=4)
# Customers' presses that one web process lets wait for Codat at the same time: half of its threads.
PRESSES_AT_ONCE: int = env.int("PRESSES_AT_ONCE", default=4)
# Days on a step after which an invitation is stuck: made, sent, opened, started, linked.
INVITATION_STUCK_DAYS: list[int] = env.list("INVITATION_STUCK_DAYS", cast=int, default=[1, 5, 2, 1, 3])
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
        "reset_second_factors",
    ],
)
FOUR_EYES_BULK_ROWS: int = env.int("FOUR_EYES_BULK_ROWS", default=20)
FOUR_EYES_EXPIRE_HOURS: int = env.int("FOUR_EYES_EXPIRE_HOURS", default=72)

# --- Applications ----------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "feeds.apps.FeedsConfig",
    "backoffice.apps.BackOfficeAdminConfig",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "axes",
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
    "backoffice.transport.ClientAddressMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    # Before static files: a drawing opened by its own address is a page too.
    "csp.middleware.CSPMiddleware",
    "backoffice.transport.BrowserPolicyMiddleware",
    "feeds.api.middleware.ApiMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "backoffice.transport.BodyLimitMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "feeds.languages.PersonsLanguageMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "backoffice.request_lines.RequestLines",
    "feeds.audit.AuditMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "feeds.sign_in.sessions.SessionLimitsMiddleware",
    "feeds.sign_in.second_factors.SecondFactorMiddleware",
    # Last: it turns the answer to a locked-out sign-in into the page that says so.
    "axes.middleware.AxesMiddleware",
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
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "admin:index"
AUTHENTICATION_BACKENDS = ["feeds.sign_in.accounts.StaffBackend"]
# Of the demo users, which exist only beside the stand-in Codat.
DEMO_PASSWORD: str = env.str("DEMO_PASSWORD", default="demo-bank-feeds")
AUDITLOG_LOGENTRY_MODEL = "feeds.AuditEntry"

# --- Sign-in (see docs/decisions/0015-sign-in.md) --------------------------------------------------------------------
PASSWORD_SIGN_IN: bool = env.bool("PASSWORD_SIGN_IN", default=True)
REQUIRE_SECOND_FACTOR: bool = env.bool("REQUIRE_SECOND_FACTOR", default=IS_PRODUCTION)
OIDC_ISSUER: str = env.str("OIDC_ISSUER", default="").rstrip("/")
OIDC_CLIENT_ID: str = env.str("OIDC_CLIENT_ID", default="")
OIDC_CLIENT_SECRET: str = env.str("OIDC_CLIENT_SECRET", default="").strip()
OIDC_NAME: str = env.str("OIDC_NAME", default="single sign-on")
OIDC_IS_SECOND_FACTOR: bool = env.bool("OIDC_IS_SECOND_FACTOR", default=False)

ACCOUNT_ADAPTER = "feeds.sign_in.accounts.AccountAdapter"
ACCOUNT_FORMS = {"login": "feeds.sign_in.forms.LoginForm"}
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_SIGNUP_ENABLED = False
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_REDIRECT_URL = LOGIN_URL
# No "remember me": the cookie goes with the browser, and the limits below come sooner.
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_REAUTHENTICATION_TIMEOUT = 300
ACCOUNT_REAUTHENTICATION_METHODS = {"mfa", "password"} if PASSWORD_SIGN_IN else {"mfa"}
ACCOUNT_RATE_LIMITS = {
    # One address may be a whole office.
    "login": "60/m/ip",
    # Wrong codes of one person's second factor.
    "login_failed": "5/5m/key",
    # Wrong passwords for one name from any number of addresses (and beyond them, from one that its person uses); from
    # one address the lock-out below comes first. See feeds/services/guesses.py.
    "password_failed": "30/h/key",
}
MFA_ADAPTER = "feeds.sign_in.second_factors.SecondFactorAdapter"
MFA_FORMS = {
    "add_webauthn": "feeds.sign_in.forms.AddPasskeyForm",
    "authenticate": "feeds.sign_in.forms.CodeForm",
    "edit_webauthn": "feeds.sign_in.forms.RenamePasskeyForm",
}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = PASSWORD_SIGN_IN
MFA_RECOVERY_CODES_SHOW_ONCE = True
# Phones are seldom right to the second: one code before and after counts too, each once.
MFA_TOTP_TOLERANCE = 1
MFA_TOTP_ISSUER = "Bank Feeds Back Office"
# Addresses here were typed by administrators; there is no mail to verify them by.
MFA_ALLOW_UNVERIFIED_EMAIL = True
SOCIALACCOUNT_ADAPTER = "feeds.sign_in.identity_provider.IdentityProviderAdapter"
SOCIALACCOUNT_EMAIL_AUTHENTICATION = True
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
SOCIALACCOUNT_AUTO_SIGNUP = False
SOCIALACCOUNT_STORE_TOKENS = False
# A form that posts here and is redirected there would need the provider's address in the content security policy.
SOCIALACCOUNT_LOGIN_ON_GET = True
SOCIALACCOUNT_REQUESTS_TIMEOUT = 10

LOGIN_FAILURE_LIMIT: int = env.int("LOGIN_FAILURE_LIMIT", default=5)
LOGIN_LOCK_MINUTES: int = env.int("LOGIN_LOCK_MINUTES", default=15)
AXES_FAILURE_LIMIT = LOGIN_FAILURE_LIMIT
AXES_COOLOFF_TIME = timedelta(minutes=LOGIN_LOCK_MINUTES)
# Of name and address together: neither can a stranger lock a colleague out, nor one typist an office.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_USERNAME_CALLABLE = "feeds.sign_in.lockout.name_of"
AXES_LOCKOUT_CALLABLE = "feeds.sign_in.lockout.page"
AXES_RESET_ON_SUCCESS = True
# A lock that every further try made longer could be held shut by anybody.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
# Who signed in when stands in our own change history.
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "csrfmiddlewaretoken", "next"]

SESSION_IDLE_MINUTES: int = env.int("SESSION_IDLE_MINUTES", default=30)
SESSION_ABSOLUTE_HOURS: int = env.int("SESSION_ABSOLUTE_HOURS", default=12)
SESSION_COOKIE_AGE = SESSION_ABSOLUTE_HOURS * 3600
SESSION_EXPIRE_AT_BROWSER_CLOSE = True

# Rate limits and used codes are shared by all web processes and machines; nothing else is cached.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "feeds_cache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
}

# --- Language and time -----------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("fr", "Français")]
LOCALE_PATHS = [BASE_DIR / "feeds" / "locale"]
# Dates and numbers in French as Canada writes them.
FORMAT_MODULE_PATH = ["backoffice.formats"]
# What this browser chose: for the sign-in page, and for who never chose while signed in.
LANGUAGE_COOKIE_AGE = 365 * 24 * 60 * 60
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SECURE = IS_PRODUCTION
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
CSP_REPORT_URL: str = env.str("CSP_REPORT_URL", default="")
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
        "object-src": ["'none'"],
        **({"report-uri": [CSP_REPORT_URL]} if CSP_REPORT_URL else {}),
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"  # Strict would lose the session on the way back from OpenID
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_PRODUCTION
if IS_PRODUCTION:
    # Browsers take such a cookie only over TLS, for the whole site, and from no other host of the domain.
    SESSION_COOKIE_NAME = "__Host-sessionid"
    CSRF_COOKIE_NAME = "__Host-csrftoken"
# How many proxies in front add to X-Forwarded-For; the address of the person is that many from its end.
TRUSTED_PROXY_COUNT: int = env.int("TRUSTED_PROXY_COUNT", default=0)
# No form needs more; the limits of Django's own would not stop a file.
MAX_REQUEST_BYTES: int = env.int("MAX_REQUEST_BYTES", default=2621440)
DATA_UPLOAD_MAX_MEMORY_SIZE = FILE_UPLOAD_MAX_MEMORY_SIZE = MAX_REQUEST_BYTES
# An account that is not in Codat yet takes 22 fields of its company's form, with the copies of what was on the screen.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2500
DATA_UPLOAD_MAX_NUMBER_FILES = 5
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

# --- The API for the bank's own application --------------------------------------------------------------------------
# It answers to keys, which administrators make in the admin: without any it refuses every call.
API_CALLS_PER_MINUTE: int = env.int("API_CALLS_PER_MINUTE", default=300)
API_MAX_BYTES: int = env.int("API_MAX_BYTES", default=65536)
API_KEY_DAYS: int = env.int("API_KEY_DAYS", default=365)
API_KEY_OVERLAP_DAYS: int = env.int("API_KEY_OVERLAP_DAYS", default=14)

# --- Logs ------------------------------------------------------------------------------------------------------------
LOGGING = logging_config(
    level=env.str("LOG_LEVEL", default="INFO"), as_json=env.bool("LOG_JSON", default=IS_PRODUCTION)
)
DJANGO_STRUCTLOG_CELERY_ENABLED = False
