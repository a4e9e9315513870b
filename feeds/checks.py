"""System checks: bad settings refuse to start, each with an id and a hint.

Errors (`feeds.E...`) stop every command, and so `make run` and a deployment; warnings (`feeds.W...`) are printed.
Checks read settings only, never the database or the network. Messages never show a secret's value.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from math import ceil
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from feeds.codat.client import TOTAL_TIMEOUT
from feeds.states import STUCK_STEPS, FrenchRule

ADD_ACCOUNTS_WITH = ("batch", "put")
ACCOUNT_SCHEMAS = ("v1", "v2")
SIGNING_PREFIX = "whsec_"
SHORTEST_SECRET_KEY = 50
"""Django's own generator makes 50 characters, and its deployment check asks for as many."""
SHORTEST_RETENTION_DAYS = 365
"""As the triggers of migration 0013 have it."""
SHORTEST_METRICS_TOKEN = 32
LONGEST_EMERGENCY_HOURS = 72
LONGEST_INVITATION_DAYS = 90
LONGEST_API_KEY_DAYS, LONGEST_OVERLAP_DAYS = 730, 90
LONGEST_API_BODY = 262_144
WORKER_OVERHEAD_SECONDS = 3
"""Measured: what a task may take beyond its timeout before its worker is replaced."""

Check = Callable[[], list[CheckMessage]]


def _error(number: int, message: str, hint: str) -> list[CheckMessage]:
    return [Error(message, hint=hint, id=f"feeds.E{number:03}")]


def _warning(number: int, message: str, hint: str) -> list[CheckMessage]:
    return [Warning(message, hint=hint, id=f"feeds.W{number:03}")]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


# --- Codat -----------------------------------------------------------------------------------------------------------
def api_key_is_set() -> list[CheckMessage]:
    """E001: without a key every call to Codat is refused."""
    if settings.CODAT_API_KEY or settings.CODAT_SANDBOX:
        return []
    return _error(
        1,
        "CODAT_API_KEY is not set.",
        "Set CODAT_API_KEY (or CODAT_API_KEY_FILE) to a key from the Codat Portal, Settings > API keys; "
        "or set CODAT_SANDBOX=true outside production.",
    )


def production_is_not_on_the_sandbox() -> list[CheckMessage]:
    """E002: the stand-in forgets, and tells everyone its key."""
    if not (settings.IS_PRODUCTION and settings.CODAT_SANDBOX):
        return []
    return _error(
        2,
        "CODAT_SANDBOX is on in production.",
        "Remove CODAT_SANDBOX and set CODAT_API_KEY; or set ENVIRONMENT to something else than production.",
    )


def base_url_is_encrypted() -> list[CheckMessage]:
    """E003: the key travels with each request. Plain HTTP is for the stand-in on this machine only."""
    url = settings.CODAT_BASE_URL
    if urlsplit(url).scheme == "https":
        return []
    if not settings.IS_PRODUCTION and urlsplit(url).scheme == "http" and (settings.CODAT_SANDBOX or _is_loopback(url)):
        return []
    return _error(3, "CODAT_BASE_URL does not start with https://.", "Codat's address is https://api.codat.io.")


def api_key_is_plain() -> list[CheckMessage]:
    """E004: the Portal also shows the whole header; pasting that makes a key that is encoded twice."""
    key = settings.CODAT_API_KEY
    if not (any(character.isspace() for character in key) or key.startswith("Basic") or _is_encoded_text(key)):
        return []
    return _error(
        4,
        "CODAT_API_KEY is not a plain API key: it has spaces, or is already encoded for the Authorization header.",
        "Set the key as the Codat Portal shows it under API keys, without quotes, spaces or the word Basic.",
    )


def _is_encoded_text(key: str) -> bool:
    """Whether `key` is the Base64 form of readable text. A random key of that length never decodes to such."""
    if len(key) < 20:
        return False
    try:
        text = base64.b64decode(key, validate=True)
    except binascii.Error:
        return False
    return all(0x20 <= byte < 0x7F for byte in text)


def add_accounts_with_is_known() -> list[CheckMessage]:
    """E005: today's batch POST, or the PUT of the guide."""
    if settings.CODAT_ADD_ACCOUNTS_WITH in ADD_ACCOUNTS_WITH:
        return []
    return _error(
        5,
        "CODAT_ADD_ACCOUNTS_WITH is neither batch nor put.",
        "Use batch (today's API); put is for integrations that Codat still serves the withdrawn PUT.",
    )


def account_schema_is_known() -> list[CheckMessage]:
    """E006: the shape of a source account's body."""
    if settings.CODAT_ACCOUNT_SCHEMA in ACCOUNT_SCHEMAS:
        return []
    return _error(
        6,
        "CODAT_ACCOUNT_SCHEMA is neither v1 nor v2.",
        "Use v2; v1 is for integrations made before 1 August 2024.",
    )


# --- Webhooks --------------------------------------------------------------------------------------------------------
def webhook_secrets_are_signing_secrets() -> list[CheckMessage]:
    """E018: with a secret that cannot be read, every webhook would be refused."""
    if all(map(_is_signing_secret, settings.WEBHOOK_SECRETS)):
        return []
    return _error(
        18,
        "WEBHOOK_SECRETS holds something that is no signing secret.",
        "Set the signing secret as the Codat Portal shows it, starting with whsec_; several are separated by commas.",
    )


def _is_signing_secret(secret: str) -> bool:
    try:
        return secret.startswith(SIGNING_PREFIX) and bool(
            base64.b64decode(secret.removeprefix(SIGNING_PREFIX), validate=True)
        )
    except binascii.Error:
        return False


def webhooks_can_be_received() -> list[CheckMessage]:
    """W003: without a secret no webhook can be told from a forged one, so all are refused."""
    if settings.WEBHOOK_SECRETS or settings.CODAT_SANDBOX:
        return []
    return _warning(
        3,
        "WEBHOOK_SECRETS is not set: webhooks are refused, and statuses are learned by polling only.",
        "Set WEBHOOK_SECRETS (or WEBHOOK_SECRETS_FILE) to the signing secret of the endpoint in the Codat Portal.",
    )


# --- Four eyes -------------------------------------------------------------------------------------------------------
FOUR_EYES_NAMES = (
    "revoke_credentials",
    "unlink_connection",
    "delete_account",
    "delete_connection",
    "delete_company",
    "publish_callout",
    "bulk",
    "change_roles",
    "reset_second_factors",
)


def four_eyes_are_known() -> list[CheckMessage]:
    """E030: a misspelt name would leave an action to one person."""
    unknown = sorted(set(settings.FOUR_EYES) - set(FOUR_EYES_NAMES))
    if not unknown:
        return []
    return _error(
        30,
        f"FOUR_EYES names what this product does not know: {', '.join(unknown)}.",
        f"Known are: {', '.join(FOUR_EYES_NAMES)}. An empty value switches the rule off.",
    )


def four_eyes_numbers_make_sense() -> list[CheckMessage]:
    """E031: nobody could decide within no time, and a limit below one row would stop every list action."""
    if settings.FOUR_EYES_BULK_ROWS >= 1 and settings.FOUR_EYES_EXPIRE_HOURS >= 1:
        return []
    return _error(
        31,
        "FOUR_EYES_BULK_ROWS or FOUR_EYES_EXPIRE_HOURS is not a positive number.",
        "Use 1 or more; to let one person do things alone, take their names out of FOUR_EYES.",
    )


# --- Timeouts --------------------------------------------------------------------------------------------------------
def http_timeouts_fit_the_task() -> list[CheckMessage]:
    """E007: a task stopped in the middle of a call leaves its outcome unknown, so a call must end long before that."""
    exchange = settings.CODAT_CONNECT_TIMEOUT + settings.CODAT_READ_TIMEOUT
    needed = ceil(max(2 * exchange, TOTAL_TIMEOUT + WORKER_OVERHEAD_SECONDS))
    if needed <= settings.Q_CLUSTER["timeout"]:
        return []
    return _error(
        7,
        f"Q_TIMEOUT is {settings.Q_CLUSTER['timeout']} s; a call to Codat could be cut off by it.",
        f"Set Q_TIMEOUT to {needed} or more (and Q_RETRY with it), or lower CODAT_CONNECT_TIMEOUT and "
        "CODAT_READ_TIMEOUT.",
    )


def lease_outlives_a_call() -> list[CheckMessage]:
    """E008: if the lease ended during a call, a second worker would start on the same company."""
    needed = ceil(TOTAL_TIMEOUT + settings.CODAT_CONNECT_TIMEOUT + settings.CODAT_READ_TIMEOUT)
    if needed <= settings.ONBOARDING_LEASE_SECONDS:
        return []
    return _error(
        8,
        f"ONBOARDING_LEASE_SECONDS is {settings.ONBOARDING_LEASE_SECONDS}; a call to Codat may outlast it.",
        f"Set ONBOARDING_LEASE_SECONDS to {needed} or more, or lower CODAT_READ_TIMEOUT.",
    )


# --- Queue -----------------------------------------------------------------------------------------------------------
def shortest_retry(cluster: Mapping[str, Any]) -> int:
    """Seconds before which a task that is merely waiting its turn would be given out a second time.

    `retry` runs from the moment a task is fetched from the broker, not from its start, so it has to cover everything
    fetched before it.
    """
    waiting = cluster["queue_limit"] + cluster["bulk"]
    rounds = ceil(waiting / cluster["workers"]) + 1
    return int(rounds * (cluster["timeout"] + WORKER_OVERHEAD_SECONDS))


def queue_times_are_whole_seconds() -> list[CheckMessage]:
    """E009: the queue compares and adds them as integers."""
    wrong = [name for name in ("timeout", "retry") if type(settings.Q_CLUSTER.get(name)) is not int]
    if not wrong:
        return []
    return _error(
        9, f"Q_CLUSTER: {' and '.join(wrong)} must be whole seconds.", "Set Q_TIMEOUT and Q_RETRY to whole numbers."
    )


def queue_retry_is_long_enough() -> list[CheckMessage]:
    """E010: see `shortest_retry`."""
    cluster = settings.Q_CLUSTER
    if cluster["retry"] >= shortest_retry(cluster):
        return []
    return _error(
        10,
        f"Q_CLUSTER: retry is {cluster['retry']} s; tasks would run twice while they wait for a worker.",
        f"Set Q_RETRY to {shortest_retry(cluster)} or more, or lower Q_TIMEOUT.",
    )


def queue_lives_in_the_default_database() -> list[CheckMessage]:
    """E011: a task must be committed together with the change it follows from."""
    if settings.Q_CLUSTER.get("orm") == "default":
        return []
    return _error(11, "Q_CLUSTER: the broker is not the default database.", 'Set "orm": "default" and no other broker.')


def queue_acknowledges_at_once() -> list[CheckMessage]:
    """E012: measured: pruning on each task made acknowledgements late, and a third of the tasks ran twice."""
    needed = {"save_limit": 0, "ack_failures": True, "max_attempts": 1}
    wrong = [name for name, value in needed.items() if settings.Q_CLUSTER.get(name) != value]
    if not wrong:
        return []
    return _error(
        12,
        f"Q_CLUSTER: {', '.join(wrong)} would make tasks run twice or for ever.",
        "Set " + ", ".join(f'"{name}": {needed[name]}' for name in wrong) + ".",
    )


def webhooks_are_kept_for_a_while() -> list[CheckMessage]:
    """E038: one that is deleted at once can answer no question, and Codat may still deliver it again."""
    if settings.WEBHOOK_KEEP_DAYS >= 7:
        return []
    return _error(
        38,
        f"WEBHOOK_KEEP_DAYS is {settings.WEBHOOK_KEEP_DAYS}.",
        "Set it to 7 or more: Codat repeats a webhook for over a day, and must find that it came before.",
    )


def poll_settings_make_sense() -> list[CheckMessage]:
    """E024: an interval of nothing would poll without end, and a reserve of everything not at all."""
    seconds = ("POLL_LINK_SECONDS", "POLL_CASE_SECONDS", "POLL_PENDING_SECONDS", "POLL_HEALTHY_SECONDS")
    wrong = [name for name in seconds if getattr(settings, name) < 1]
    if not 0 <= settings.POLL_RESERVE_PERCENT < 100:
        wrong.append("POLL_RESERVE_PERCENT")
    if not 0 <= settings.POLL_LIST_WAIT_HOURS <= 72:
        wrong.append("POLL_LIST_WAIT_HOURS")
    if not wrong:
        return []
    return _error(
        24,
        f"{', '.join(wrong)}: not in range.",
        "Intervals are seconds, at least 1; the reserve is a share of the quota, from 0 to 99 percent; the list waits"
        " from 0 to 72 hours.",
    )


def watchdog_is_patient() -> list[CheckMessage]:
    """E013: with every worker on a long call the heartbeat waits its turn; that is not a frozen cluster."""
    needed = settings.Q_CLUSTER["timeout"] + WORKER_OVERHEAD_SECONDS + settings.WORKER_HEARTBEAT_SECONDS
    if needed <= settings.WORKER_FROZEN_SECONDS:
        return []
    return _error(
        13,
        f"WORKER_FROZEN_SECONDS is {settings.WORKER_FROZEN_SECONDS}; a busy worker would be ended as frozen.",
        f"Set WORKER_FROZEN_SECONDS to {needed} or more.",
    )


def metrics_token_is_strong() -> list[CheckMessage]:
    """E025: whoever guesses it reads how the bank's feeds are doing."""
    token = settings.METRICS_TOKEN
    if not token or len(token) >= SHORTEST_METRICS_TOKEN:
        return []
    return _error(
        25,
        f"METRICS_TOKEN is shorter than {SHORTEST_METRICS_TOKEN} characters.",
        "Set METRICS_TOKEN (or METRICS_TOKEN_FILE) to the output of: "
        'python -c "import secrets; print(secrets.token_urlsafe(32))"; or leave it empty to have no /metrics.',
    )


# --- Cases -----------------------------------------------------------------------------------------------------------
def due_hours_are_three() -> list[CheckMessage]:
    """E026: urgent cases are due first."""
    hours = settings.CASE_DUE_HOURS
    if len(hours) == 3 and sorted(hours) == hours and hours[0] > 0:
        return []
    return _error(
        26,
        "CASE_DUE_HOURS is not three rising numbers of hours.",
        "Set it to the hours for urgent, high and normal cases, such as 4,24,72.",
    )


def digest_hour_is_an_hour() -> list[CheckMessage]:
    """E027: at another hour no digest would ever be sent."""
    if 0 <= settings.CASE_DIGEST_HOUR <= 23:
        return []
    return _error(27, "CASE_DIGEST_HOUR is not an hour of the day.", "Set it to a whole number from 0 to 23.")


def mails_can_link() -> list[CheckMessage]:
    """W004: mails about cases point to their pages."""
    if not settings.IS_PRODUCTION or urlsplit(settings.SITE_URL).scheme == "https":
        return []
    return _warning(4, "SITE_URL does not start with https://.", "Set it to where staff reach this site.")


def somebody_hears_of_cases() -> list[CheckMessage]:
    """W005: a case that nobody has taken has no owner to write to."""
    if not settings.IS_PRODUCTION or settings.CASE_NOTIFY_TO:
        return []
    return _warning(
        5, "CASE_NOTIFY_TO is empty: nobody is told of a new broken feed.", "Set it to the support team's address."
    )


# --- The callout -----------------------------------------------------------------------------------------------------
def callout_french_is_known() -> list[CheckMessage]:
    """E096: a rule that nobody knows would be no rule."""
    if settings.CALLOUT_FRENCH in FrenchRule.values:
        return []
    return _error(96, "CALLOUT_FRENCH is not known.", f"Set it to one of: {', '.join(FrenchRule.values)}.")


def portal_url_is_encrypted() -> list[CheckMessage]:
    """E041: staff sign in there."""
    url = settings.CODAT_PORTAL_URL
    if urlsplit(url).scheme == "https":
        return []
    if not settings.IS_PRODUCTION and urlsplit(url).scheme == "http" and (settings.CODAT_SANDBOX or _is_loopback(url)):
        return []
    return _error(41, "CODAT_PORTAL_URL does not start with https://.", "Codat's Portal is at https://app.codat.io.")


def callout_reminder_is_in_days() -> list[CheckMessage]:
    """E042: fewer than no days make no sense."""
    if settings.CALLOUT_REMIND_DAYS >= 0:
        return []
    return _error(42, "CALLOUT_REMIND_DAYS is below 0.", "Set it to a whole number of days; 0 means no reminder.")


# --- Sign-in ---------------------------------------------------------------------------------------------------------
def lock_out_makes_sense() -> list[CheckMessage]:
    """E060: a limit of nothing locks everybody out, a large one nobody; without minutes a lock never holds."""
    if 3 <= settings.LOGIN_FAILURE_LIMIT <= 20 and 1 <= settings.LOGIN_LOCK_MINUTES <= 24 * 60:
        return []
    return _error(
        60,
        "LOGIN_FAILURE_LIMIT or LOGIN_LOCK_MINUTES is not in range.",
        "Lock after 3 to 20 failed tries, for 1 to 1440 minutes.",
    )


def session_limits_make_sense() -> list[CheckMessage]:
    """E061: the shorter of the two ends a session, so the idle limit must be the shorter one to mean anything."""
    idle, absolute = settings.SESSION_IDLE_MINUTES, settings.SESSION_ABSOLUTE_HOURS
    if 5 <= idle <= absolute * 60 and absolute <= 24:
        return []
    return _error(
        61,
        "SESSION_IDLE_MINUTES or SESSION_ABSOLUTE_HOURS is not in range.",
        "Allow at least 5 idle minutes (a page warns two before the end), and at most 24 hours in all; "
        "the first must not be longer than the second.",
    )


def identity_provider_is_whole() -> list[CheckMessage]:
    """E062: with a part missing every sign-in through it fails; over plain HTTP anybody on the way could be anybody."""
    parts = (settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET)
    encrypted = urlsplit(settings.OIDC_ISSUER).scheme == "https" or (
        not settings.IS_PRODUCTION and _is_loopback(settings.OIDC_ISSUER)
    )
    if not any(parts) or (all(parts) and encrypted):
        return []
    return _error(
        62,
        "OpenID Connect is set up in part, or not over https://.",
        "Set OIDC_ISSUER (https://...), OIDC_CLIENT_ID and OIDC_CLIENT_SECRET (or OIDC_CLIENT_SECRET_FILE), or none.",
    )


def there_is_a_way_in() -> list[CheckMessage]:
    """E063: without passwords and without a provider nobody could sign in."""
    if settings.PASSWORD_SIGN_IN or settings.OIDC_ISSUER:
        return []
    return _error(
        63,
        "PASSWORD_SIGN_IN is off and there is no identity provider.",
        "Set OIDC_ISSUER and the other OIDC_ variables, or PASSWORD_SIGN_IN=true.",
    )


def second_factor_is_required() -> list[CheckMessage]:
    """W060: a password that was guessed, read over a shoulder or typed into a forged page would be enough."""
    if not settings.IS_PRODUCTION or settings.REQUIRE_SECOND_FACTOR:
        return []
    return _warning(60, "REQUIRE_SECOND_FACTOR is off in production.", "Remove it: it is on by itself.")


def proxies_are_counted() -> list[CheckMessage]:
    """E064 and W061: a wrong count makes everybody one address, or lets anybody choose theirs."""
    count = settings.TRUSTED_PROXY_COUNT
    if not 0 <= count <= 10:
        return _error(64, "TRUSTED_PROXY_COUNT is not in range.", "Set the number of proxies in front, from 0 to 10.")
    if settings.IS_PRODUCTION and getattr(settings, "SECURE_PROXY_SSL_HEADER", None) and not count:
        return _warning(
            61,
            "BEHIND_TLS_PROXY is on and TRUSTED_PROXY_COUNT is 0: everybody seems to come from the proxy's address.",
            "Set TRUSTED_PROXY_COUNT to the number of proxies that add to X-Forwarded-For, usually 1.",
        )
    return []


def body_limit_makes_sense() -> list[CheckMessage]:
    """E065: a limit below what webhooks and bulk actions send would refuse them."""
    needed = max(settings.WEBHOOK_MAX_BYTES, 65536)
    if needed <= settings.MAX_REQUEST_BYTES and settings.DATA_UPLOAD_MAX_NUMBER_FIELDS >= settings.BULK_LIMIT + 100:
        return []
    return _error(
        65,
        "MAX_REQUEST_BYTES is too small, or BULK_LIMIT too large for one form.",
        f"Set MAX_REQUEST_BYTES to {needed} or more, and BULK_LIMIT to at most "
        f"{settings.DATA_UPLOAD_MAX_NUMBER_FIELDS - 100}.",
    )


def session_cookie_is_bound_to_the_host() -> list[CheckMessage]:
    """E066: another host of the bank's domain could set a session of its own here, or read ours."""
    wrong = [
        name
        for name in ("SESSION_COOKIE", "CSRF_COOKIE")
        if getattr(settings, f"{name}_NAME").startswith("__Host-")
        and (not getattr(settings, f"{name}_SECURE") or getattr(settings, f"{name}_DOMAIN"))
    ]
    if not wrong:
        return []
    return _error(
        66,
        f"{' and '.join(wrong)}: a __Host- cookie needs TLS and no domain; browsers would drop it.",
        "Leave the cookie's SECURE and DOMAIN settings as they are shipped.",
    )


# --- Who sees which customer ------------------------------------------------------------------------------------------
def emergency_access_ends_soon() -> list[CheckMessage]:
    """E050: an access of no hours opens nothing, and one of weeks is no emergency."""
    if 1 <= settings.EMERGENCY_ACCESS_HOURS <= LONGEST_EMERGENCY_HOURS:
        return []
    return _error(
        50,
        f"EMERGENCY_ACCESS_HOURS is {settings.EMERGENCY_ACCESS_HOURS}.",
        f"Set it to whole hours from 1 to {LONGEST_EMERGENCY_HOURS}; a working day is 8.",
    )


# --- Database and site -----------------------------------------------------------------------------------------------
def database_has_no_pool() -> list[CheckMessage]:
    """E014: the pool's threads do not survive the worker's fork: most tasks were lost."""
    if "pool" not in settings.DATABASES["default"].get("OPTIONS", {}):
        return []
    return _error(
        14,
        'DATABASES: the "pool" option breaks the worker.',
        "Remove pool from DATABASE_URL; CONN_MAX_AGE keeps connections.",
    )


def secret_key_is_strong() -> list[CheckMessage]:
    """E015: sessions and the queue are signed with it."""
    try:
        key = settings.SECRET_KEY
    except ImproperlyConfigured:
        key = ""
    if not settings.IS_PRODUCTION or len(key) >= SHORTEST_SECRET_KEY:
        return []
    return _error(
        15,
        f"SECRET_KEY is {'shorter than ' + str(SHORTEST_SECRET_KEY) + ' characters' if key else 'not set'}.",
        "Set SECRET_KEY (or SECRET_KEY_FILE) to the output of: "
        'python -c "import secrets; print(secrets.token_urlsafe(50))"',
    )


def hosts_are_named() -> list[CheckMessage]:
    """E016: without them every request is refused."""
    if not settings.IS_PRODUCTION or settings.ALLOWED_HOSTS:
        return []
    return _error(16, "ALLOWED_HOSTS is empty.", "Set ALLOWED_HOSTS to the names this site is reached by.")


def debug_is_off() -> list[CheckMessage]:
    """E017: Django's debug pages show settings and local variables to anyone."""
    if not (settings.IS_PRODUCTION and settings.DEBUG):
        return []
    return _error(17, "DEBUG is on in production.", "Remove DEBUG.")


def production_database_is_a_server() -> list[CheckMessage]:
    """W001: one file serves one machine."""
    if not settings.IS_PRODUCTION or not settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        return []
    return _warning(
        1,
        "SQLite is used in production.",
        "It serves one machine well; set DATABASE_URL to PostgreSQL to run workers on several.",
    )


def mail_leaves_the_machine() -> list[CheckMessage]:
    """W002: mail printed to a console reaches nobody."""
    if not settings.IS_PRODUCTION or settings.EMAIL_BACKEND.rpartition(".")[0] not in _UNSENT_MAIL:
        return []
    return _warning(
        2, "E-mail is not sent: EMAIL_URL is not set.", "Set EMAIL_URL, such as smtp+tls://user:password@host:587."
    )


def seals_have_destinations_we_know() -> list[CheckMessage]:
    """E040: a seal that cannot be sent proves nothing to anybody else."""
    hint = "Set AUDIT_SEAL_TO to file:///path, mailto:name@host or https://host/path, separated by commas."
    messages = []
    for destination in settings.AUDIT_SEAL_TO:
        try:
            parts = urlsplit(destination)
        except ValueError:
            messages += _error(40, "AUDIT_SEAL_TO names a destination that is no address.", hint)
            continue
        name = f"{parts.scheme}:{parts.hostname or parts.path}"
        if parts.scheme == "http" and settings.IS_PRODUCTION:
            messages += _error(40, f"AUDIT_SEAL_TO would send seals unencrypted to {parts.hostname}.", "Use https.")
        elif not _is_complete(parts):
            messages += _error(40, f"AUDIT_SEAL_TO names {name}, which is no destination for seals.", hint)
    return messages or _destinations_are_told_apart()


def _destinations_are_told_apart() -> list[CheckMessage]:
    # Neither user, password nor query is stored with what was sent, so they tell no two destinations apart.
    split = map(urlsplit, settings.AUDIT_SEAL_TO)
    told_by = {(parts.scheme, parts.netloc.rpartition("@")[2], parts.path) for parts in split}
    if len(told_by) == len(settings.AUDIT_SEAL_TO):
        return []
    return _error(
        40,
        "AUDIT_SEAL_TO names two destinations that differ only in user, password or query.",
        "Give each a path of its own, or name one only once.",
    )


def _is_complete(parts: SplitResult) -> bool:
    if parts.scheme in ("http", "https"):
        return bool(parts.hostname)
    if parts.scheme == "mailto":
        return "@" in parts.path
    return parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")


def history_is_kept_for_a_year() -> list[CheckMessage]:
    """E041: the database lets no younger entry go, so a shorter retention would fail every night."""
    if settings.AUDIT_RETENTION_DAYS >= SHORTEST_RETENTION_DAYS:
        return []
    return _error(
        41,
        f"AUDIT_RETENTION_DAYS is shorter than {SHORTEST_RETENTION_DAYS} days.",
        "Set it to what your rules ask for; seven years is 2557.",
    )


def seals_leave_the_host() -> list[CheckMessage]:
    """W040: whoever owns the database could write the history and its seals anew."""
    if not settings.IS_PRODUCTION or settings.AUDIT_SEAL_TO:
        return []
    return _warning(
        40, "Seals of the change history stay on this host.", "Set AUDIT_SEAL_TO to somewhere its owner cannot change."
    )


# --- The customer's pages --------------------------------------------------------------------------------------------
def institution_is_named() -> list[CheckMessage]:
    """E070: customers have to see from whom the page and the mail are."""
    if not settings.IS_PRODUCTION or settings.INSTITUTION_NAME.strip():
        return []
    return _error(70, "INSTITUTION_NAME is not set.", "Set it to the name by which customers know the bank.")


def institution_has_a_phone() -> list[CheckMessage]:
    """E071: every page for customers says whom to call."""
    if not settings.IS_PRODUCTION or settings.INSTITUTION_PHONE.strip():
        return []
    return _error(71, "INSTITUTION_PHONE is not set.", "Set it to the number that customers call when they are stuck.")


def invitations_live_for_days() -> list[CheckMessage]:
    """E072: a link in a mail lives long enough to be read, and not for ever."""
    if 1 <= settings.INVITATION_DAYS <= LONGEST_INVITATION_DAYS:
        return []
    return _error(
        72,
        f"INVITATION_DAYS is not between 1 and {LONGEST_INVITATION_DAYS}.",
        "Set INVITATION_DAYS to how many days an invitation may be used; 14 is usual.",
    )


def reminder_comes_before_the_end() -> list[CheckMessage]:
    """E073: a reminder of an invitation that has run out helps nobody."""
    if 1 <= settings.INVITATION_REMIND_DAYS < max(settings.INVITATION_DAYS, 2):
        return []
    return _error(
        73,
        "INVITATION_REMIND_DAYS is not between 1 and the days an invitation lives.",
        "Set INVITATION_REMIND_DAYS to less than INVITATION_DAYS; 4 is usual.",
    )


def stuck_invitations_have_limits() -> list[CheckMessage]:
    """E095: a step without a number of days has no limit, and one of no days would call every invitation stuck."""
    days = settings.INVITATION_STUCK_DAYS
    if len(days) == len(STUCK_STEPS) and all(1 <= it <= LONGEST_INVITATION_DAYS for it in days):
        return []
    return _error(
        95,
        f"INVITATION_STUCK_DAYS is not five numbers of days between 1 and {LONGEST_INVITATION_DAYS}.",
        "Set it to the days for made, sent, opened, started and linked, such as 1,5,2,1,3.",
    )


def link_origins_are_origins() -> list[CheckMessage]:
    """E074: they stand in the content security policy; a wrong one keeps every customer from leaving our page."""
    origins = settings.CODAT_LINK_ORIGINS
    wrong = [it for it in origins if not _is_origin(it)]
    if origins and not wrong:
        return []
    return _error(
        74,
        f"CODAT_LINK_ORIGINS names {', '.join(wrong)}, which is no https:// origin."
        if wrong
        else "CODAT_LINK_ORIGINS is empty: the button on the customer's page would lead nowhere.",
        "Set CODAT_LINK_ORIGINS to where Codat's links lead, such as https://*.codat.io, without a path.",
    )


def presses_may_wait() -> list[CheckMessage]:
    """E090: without a place to wait in, no customer would ever get a fresh link."""
    if settings.PRESSES_AT_ONCE >= 1:
        return []
    return _error(
        90, "PRESSES_AT_ONCE is less than 1.", "Set PRESSES_AT_ONCE to half of gunicorn's --threads; 4 is usual."
    )


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _port = parts.port
    except ValueError:
        return False
    is_bare = bool(parts.hostname) and text == f"{parts.scheme}://{parts.netloc}" and "@" not in parts.netloc
    on_this_machine = settings.CODAT_SANDBOX or _is_loopback(text)
    beside_the_stand_in = on_this_machine and parts.scheme == "http" and not settings.IS_PRODUCTION
    is_one = not any(character in text for character in " ;,")
    return is_bare and is_one and (parts.scheme == "https" or beside_the_stand_in)


# --- The API ---------------------------------------------------------------------------------------------------------
def api_limits_make_sense() -> list[CheckMessage]:
    """E080: a limit of nothing refuses every program; a customer with fifty accounts fits into 64 KiB."""
    if settings.API_CALLS_PER_MINUTE >= 1 and 1024 <= settings.API_MAX_BYTES <= LONGEST_API_BODY:
        return []
    return _error(
        80,
        f"API_CALLS_PER_MINUTE is less than 1, or API_MAX_BYTES is not between 1024 and {LONGEST_API_BODY}.",
        "300 calls and 65536 bytes are usual.",
    )


def api_keys_live_for_days() -> list[CheckMessage]:
    """E081: a key that lives for ever is never replaced; one that dies at once serves nobody."""
    if (
        1 <= settings.API_KEY_DAYS <= LONGEST_API_KEY_DAYS
        and 0 <= settings.API_KEY_OVERLAP_DAYS <= LONGEST_OVERLAP_DAYS
    ):
        return []
    return _error(
        81,
        f"API_KEY_DAYS is not between 1 and {LONGEST_API_KEY_DAYS}, or API_KEY_OVERLAP_DAYS not between 0 and "
        f"{LONGEST_OVERLAP_DAYS}.",
        "365 days, and 14 in which both keys work, are usual.",
    )


_UNSENT_MAIL = frozenset(f"django.core.mail.backends.{name}" for name in ("console", "dummy", "filebased", "locmem"))

CHECKS: Sequence[Check] = (
    api_key_is_set,
    production_is_not_on_the_sandbox,
    base_url_is_encrypted,
    api_key_is_plain,
    add_accounts_with_is_known,
    account_schema_is_known,
    webhook_secrets_are_signing_secrets,
    webhooks_can_be_received,
    four_eyes_are_known,
    four_eyes_numbers_make_sense,
    queue_times_are_whole_seconds,
    queue_lives_in_the_default_database,
    queue_acknowledges_at_once,
    metrics_token_is_strong,
    due_hours_are_three,
    digest_hour_is_an_hour,
    webhooks_are_kept_for_a_while,
    emergency_access_ends_soon,
    poll_settings_make_sense,
    callout_french_is_known,
    portal_url_is_encrypted,
    callout_reminder_is_in_days,
    database_has_no_pool,
    secret_key_is_strong,
    hosts_are_named,
    debug_is_off,
    production_database_is_a_server,
    mail_leaves_the_machine,
    seals_have_destinations_we_know,
    history_is_kept_for_a_year,
    seals_leave_the_host,
    mails_can_link,
    somebody_hears_of_cases,
    lock_out_makes_sense,
    session_limits_make_sense,
    identity_provider_is_whole,
    there_is_a_way_in,
    second_factor_is_required,
    proxies_are_counted,
    body_limit_makes_sense,
    session_cookie_is_bound_to_the_host,
    institution_is_named,
    institution_has_a_phone,
    invitations_live_for_days,
    reminder_comes_before_the_end,
    stuck_invitations_have_limits,
    link_origins_are_origins,
    presses_may_wait,
    api_limits_make_sense,
    api_keys_live_for_days,
)
ARITHMETIC: Sequence[Check] = (
    http_timeouts_fit_the_task,
    lease_outlives_a_call,
    queue_retry_is_long_enough,
    watchdog_is_patient,
)
"""Checks that compute with the queue's times: only worth asking when those are numbers (E009)."""


@register()
def settings_are_sound(*, app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Everything that is wrong with the settings of this deployment."""
    found = [message for check in CHECKS for message in check()]
    if not queue_times_are_whole_seconds():
        found += [message for check in ARITHMETIC for message in check()]
    return found
