"""What may be kept or shown of Codat's replies: an allow-list, never a list of things to hide."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

MASK = "••••"
SHOWN_AT_MOST = 4
HIDDEN_AT_LEAST = 4
"""Characters of a number: whoever sees the rest still has ten thousand to choose from."""

# Four digits or fewer identify nobody; longer runs may be an account number, also when written "1234-5678".
_LONG_NUMBER = re.compile(r"\d(?:[ -]?\d){4,}")
_URL = re.compile(r"https?://\S+", re.IGNORECASE)
# The word alone is no secret: there is a bank of that name.
_OTP = re.compile(r"\botp(?:\s*[=:]\s*|\s+(?=\S*\d))\S+", re.IGNORECASE)

Json: TypeAlias = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


def mask(number: str) -> str:
    """Hide an account number: ``"000123456789"`` -> ``"••••6789"``.

    Shows the last four characters, by which its owner knows it; of a number with fewer than eight only those before
    which four stay hidden. An empty number stays empty.
    """
    number = number.strip()
    shown = max(0, min(SHOWN_AT_MOST, len(number) - HIDDEN_AT_LEAST))
    return f"{MASK}{number[len(number) - shown :]}" if number else ""


def scrub(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Make a free text written by Codat fit to show and store.

    It loses URLs, one-time passwords and `secrets`; of a long number its end stays.
    """
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = _URL.sub(MASK, text)
    text = _OTP.sub(MASK, text)
    return _LONG_NUMBER.sub(lambda match: mask(re.sub(r"\D", "", match[0])), text)


@dataclass(frozen=True, slots=True)
class AllowList:
    """The fields of one Codat schema that may be stored, each kind with its own treatment.

    `plain` fields are copied; `masked` ones pass :func:`mask`; `texts` pass :func:`scrub`; `nested` ones are objects,
    or arrays of objects, with an allow-list of their own; `pairs` are objects of our own making whose values are
    strings (the tags). Everything else is dropped.
    """

    plain: frozenset[str]
    masked: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    pairs: frozenset[str] = frozenset()
    nested: Mapping[str, "AllowList"] = field(default_factory=dict)

    def apply(self, data: Mapping[str, Any]) -> dict[str, Json]:
        """Return what may be kept of `data`, ready for a JSON column.

        Decimals become strings, so that no cent is lost.
        """
        known = self.plain.union(self.masked, self.texts, self.pairs, self.nested)
        return {key: self._kept(key, value) for key, value in data.items() if key in known}

    def _kept(self, key: str, value: Any) -> Json:
        if key in self.nested:
            return self._kept_objects(self.nested[key], value)
        if key in self.pairs:
            return {str(k): _scalar(v) for k, v in value.items()} if isinstance(value, Mapping) else None
        if isinstance(value, str) and key in self.masked:
            return mask(value)
        if isinstance(value, str) and key in self.texts:
            return scrub(value)
        return _scalar(value) if key in self.plain else None

    @staticmethod
    def _kept_objects(allowed: "AllowList", value: Any) -> Json:
        if isinstance(value, Mapping):
            return allowed.apply(value)
        if isinstance(value, list):
            return [allowed.apply(item) for item in value if isinstance(item, Mapping)]
        return None


def _scalar(value: Any) -> Json:
    """Keep a single JSON value; an object or array where none belongs could carry anything, so it is dropped."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, str):
        # A link in an unexpected place must not bring a password along.
        return None if _OTP.search(value) else value
    return value if isinstance(value, bool | int | float) else None


_CONNECTION_ERROR = AllowList(
    plain=frozenset({"statusCode", "statusText", "erroredOnUtc", "resolvedOnUtc"}),
    texts=frozenset({"errorMessage"}),
)
CONNECTION = AllowList(
    plain=frozenset(
        {
            "id",
            "integrationId",
            "integrationKey",
            "sourceId",
            "sourceType",
            "platformName",
            "status",
            "created",
            "lastSync",
        }
    ),
    nested={"dataConnectionErrors": _CONNECTION_ERROR},
)
COMPANY = AllowList(
    plain=frozenset({"id", "name", "description", "redirect", "created", "lastSync"}),
    pairs=frozenset({"tags"}),
    nested={"dataConnections": CONNECTION},
)
SOURCE_ACCOUNT = AllowList(
    plain=frozenset(
        {
            "id",
            "accountName",
            "accountType",
            "currency",
            "balance",
            "sortCode",
            "status",
            "feedStartDate",
            "modifiedDate",
        }
    ),
    masked=frozenset({"accountNumber"}),
    nested={
        "routingInfo": AllowList(plain=frozenset({"bankCode", "type"})),
        "accountInfo": AllowList(plain=frozenset({"description", "nickname", "accountOpenDate", "availableBalance"})),
    },
)
WEBHOOK = AllowList(
    plain=frozenset({"id", "eventType", "generatedDate"}),
    nested={
        "payload": AllowList(
            plain=frozenset({"connectionId", "dailyQuota", "quotaRemaining", "expiryDate"}),
            nested={
                "referenceCompany": AllowList(plain=frozenset({"id", "name"})),
                "connection": CONNECTION,
                "sourceAccount": AllowList(plain=frozenset({"id", "accountName", "status", "modifiedDate"})),
            },
        )
    },
)
"""The envelope of every webhook. It only says where to look, so little of it is worth keeping."""
