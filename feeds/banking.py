"""What can be said about bank data before it is sent: routing numbers, currencies, countries. Pure.

Codat accepts almost anything here; QuickBooks and the customer do not. Findings on routing are warnings: a bank knows
its own codes better than a checksum does.
"""

import re
from dataclasses import dataclass
from typing import Literal

from django.utils.translation import gettext as _
from stdnum.exceptions import InvalidChecksum, ValidationError
from stdnum.us import rtn

from feeds.codat.redaction import mask

__all__ = [
    "USUAL_ROUTING_TYPE",
    "Finding",
    "account_findings",
    "canadian_routing_problem",
    "country_findings",
    "currency_findings",
    "mask",
    "routing_findings",
    "us_routing_problem",
]

LOCAL_CURRENCY = {"US": "USD", "CA": "CAD"}
"""The countries where bank feeds are offered, and the currency expected there."""

USUAL_ROUTING_TYPE = {"US": "aba", "CA": "bankcode"}
"""What Codat calls the routing numbers of these countries (`routingInfo.type`)."""

# ISO 4217, list one, as amended to January 2026: currencies in use, without funds, metals and testing codes.
_ISO_4217_LIST = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP
CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR
IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU
MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG
SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV
WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
ISO_4217 = frozenset(_ISO_4217_LIST.split())

# The Federal Reserve's districts (01-12), thrift institutions (21-32), electronic (61-72) and traveller's cheques (80).
_US_PREFIXES = frozenset([*range(1, 13), *range(21, 33), *range(61, 73), 80])

_CANADIAN_PAPER = re.compile(r"(?P<transit>\d{5})-(?P<institution>\d{3})")
_CANADIAN_ELECTRONIC = re.compile(r"0(?P<institution>\d{3})(?P<transit>\d{5})")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to correct (`error`) or to look at (`warning`) before sending.

    `field` is the column it is about, `code` a stable name for programs, `message` what is wrong and what to do.
    """

    level: Literal["error", "warning"]
    field: str
    code: str
    message: str


def us_routing_problem(code: str) -> str | None:
    """What is wrong with a US routing number (ABA RTN), or None.

    Nine digits, the last a check digit over the others; the first two name a Federal Reserve district or a kind of
    institution.
    """
    try:
        number = rtn.validate(code)
    except InvalidChecksum:
        return _("The check digit of this US routing number is wrong. Compare it digit by digit with the bank's.")
    except ValidationError:
        return _("A US routing number has nine digits. Copy it from a cheque or from the bank's website.")
    if int(number[:2]) not in _US_PREFIXES:
        return _("No US bank has a routing number that begins like this. Compare it with the bank's.")
    return None


def canadian_routing_problem(code: str) -> str | None:
    """What is wrong with a Canadian routing number, or None.

    As on paper, transit and institution (``00011-001``), or as sent electronically, a zero, institution and transit
    (``000100011``).
    """
    match = _CANADIAN_PAPER.fullmatch(code) or _CANADIAN_ELECTRONIC.fullmatch(code)
    if match is None:
        return _(
            "A Canadian routing number has five digits for the transit (branch) and three for the institution (bank). "
            "Write it as on a cheque, 00011-001, or as nine digits that begin with 0, 000100011."
        )
    if int(match["institution"]) == 0:
        return _("No Canadian institution has the number 000. Compare the three institution digits with the bank's.")
    return None


def routing_findings(bank_code: str, country: str) -> list[Finding]:
    """Warnings about a routing number of the country (`US` or `CA`); an empty number is fine: it is optional."""
    problem_of = {"US": us_routing_problem, "CA": canadian_routing_problem}.get(country)
    problem = problem_of(bank_code) if problem_of is not None and bank_code else None
    return [Finding("warning", "bank_code", "routing_number", problem)] if problem else []


def currency_findings(currency: str, country: str) -> list[Finding]:
    """An error for what is no currency of ISO 4217; a warning for one that is unusual in the country."""
    if currency not in ISO_4217:
        message = _("“%(code)s” is not a currency. Use the three letters of ISO 4217, such as USD or CAD.")
        return [Finding("error", "currency", "unknown_currency", message % {"code": currency})]
    expected = LOCAL_CURRENCY.get(country)
    if expected is None or currency == expected:
        return []
    message = _("Accounts in this country are usually in %(expected)s, not %(code)s. Check it with the customer.")
    return [Finding("warning", "currency", "foreign_currency", message % {"expected": expected, "code": currency})]


def country_findings(country: str) -> list[Finding]:
    """An error for a country where QuickBooks Online bank feeds are not offered."""
    if country in LOCAL_CURRENCY:
        return []
    message = _("Bank feeds are offered to customers in the United States and Canada only. Choose US or CA.")
    return [Finding("error", "country", "unsupported_country", message)]


def account_findings(*, country: str, currency: str, bank_code: str) -> list[Finding]:
    """All findings on one account of a customer in `country`."""
    return [*routing_findings(bank_code, country), *currency_findings(currency, country)]
