"""Structured logs: one JSON object a line in production, readable lines elsewhere, redacted in both.

Redaction here is the last net. The first rule stands where the lines are written: ids and states only.
"""

from __future__ import annotations

import re
from typing import Any

import structlog

_SECRET_KEYS = re.compile(r"(password|secret|authorization|api_?key|otp|link_?url|account_?number|token|cookie)", re.I)
_SECRET_VALUES = re.compile(
    r"(otp=)[^&\s\"']+|(Basic |Bearer )[A-Za-z0-9+/=._\-]+|(whsec_)[A-Za-z0-9+/=]+|(/connect/)[^/\s\"'?]+"
    r"|(bfk_[a-z2-7]{8}_)[\w-]+",
    re.I,
)
_HIDDEN = "[redacted]"


def redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Structlog processor: hides values of telling keys and telling shapes inside text."""
    for key, value in event.items():
        if _SECRET_KEYS.search(key):
            event[key] = _HIDDEN
        elif isinstance(value, str):
            event[key] = hide_secrets(value)
    return event


def hide_secrets(text: str) -> str:
    """The text without values of telling shapes: one-time passwords, keys, addresses of customers' pages."""
    return _SECRET_VALUES.sub(lambda m: next(g for g in m.groups() if g) + _HIDDEN, text)


_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

structlog.configure(
    processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)


def logging_config(*, level: str, as_json: bool) -> dict[str, Any]:
    """The `LOGGING` setting. Tracebacks are rendered before redaction, so they pass through it too."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    redact,
                    renderer,
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django.server": {"handlers": [], "propagate": True, "level": level},
            "django-q": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            "axes": {"level": "WARNING"},
            # One line a request comes from django-structlog; Codat calls log their own line.
            "urllib3": {"level": "WARNING"},
        },
    }
