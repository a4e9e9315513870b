"""Every way a call to Codat can fail, in one tree. The error carries the decision: callers ask it, not the status code.

====================  ==============================================================================
`retryable`           trying again later can succeed without a person changing anything
`outcome_unknown`     a write was sent and Codat may have carried it out: look for the object before trying again
`new_key_needed`      Codat stored this failure under the idempotency key and would replay it: look, then use a new key
`retry_after`         seconds to wait before the next try, when Codat or our limiter said so
====================  ==============================================================================
"""

from collections.abc import Mapping
from types import MappingProxyType

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy


class CodatError(Exception):
    """A call to Codat did not do what was asked.

    `message` is for logs; `staff_message` is for people. Neither holds a link, a password, our API key or a whole
    account number: `details`, the text Codat sent, must have passed ``redaction.scrub``.
    """

    retryable = False
    advice = gettext_lazy(
        "Codat answered in a way this product does not know. Ask an administrator to look at the log, then try again."
    )

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        correlation_id: str | None = None,
        retry_after: float | None = None,
        details: str = "",
        refused_name: str = "",
        outcome_unknown: bool = False,
        new_key_needed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.correlation_id = correlation_id
        self.retry_after = retry_after
        self.details = details
        self.refused_name = refused_name
        self.outcome_unknown = outcome_unknown
        self.new_key_needed = new_key_needed

    @property
    def staff_message(self) -> str:
        """What happened and what to do, in the language active now.

        Ends with the correlation id, which Codat's support asks for.
        """
        sentences = [self.headline()]
        if self.details:
            sentences.append(_("Codat said: “%(details)s”.") % {"details": self.details.rstrip(".")})
        if self.outcome_unknown:
            sentences.append(
                _("Codat may have carried out the request: it is looked up there before anything is sent again.")
            )
        if self.correlation_id:
            sentences.append(_("Correlation id for Codat's support: %(id)s.") % {"id": self.correlation_id})
        return " ".join(sentences)

    def headline(self) -> str:
        """The first sentences of `staff_message`: what happened and what to do."""
        return str(self.advice)


class Unreachable(CodatError):
    """No connection could be made (refused, name not found, certificate not trusted): nothing was sent."""

    retryable = True
    advice = gettext_lazy(
        "Codat could not be reached; nothing was sent. The system tries again by itself. If this lasts, ask an "
        "administrator to check the network and CODAT_BASE_URL."
    )


class Timeout(CodatError):
    """Codat did not answer in time. `outcome_unknown` unless the connection itself was never made."""

    retryable = True
    advice = gettext_lazy(
        "Codat did not answer in time. The system tries again by itself. If this lasts, ask an administrator to check "
        "Codat's status page."
    )


class ConnectionLost(CodatError):
    """The connection broke after the request was sent and before the whole reply was read."""

    retryable = True
    advice = gettext_lazy(
        "The connection to Codat broke before its answer arrived. The system tries again by itself. If this lasts, ask "
        "an administrator to check the network."
    )


class ServerError(CodatError):
    """5xx: Codat failed. It replays this reply for the same idempotency key."""

    retryable = True
    advice = gettext_lazy(
        "Codat had a fault of its own. The system tries again by itself. If this lasts, ask an administrator to "
        "contact Codat's support."
    )


class MalformedReply(CodatError):
    """A success whose body cannot be read as what was asked for."""

    retryable = True
    advice = gettext_lazy(
        "Codat's answer could not be read. The system tries again by itself. If this lasts, ask an administrator to "
        "check CODAT_BASE_URL and any proxy in between."
    )


class IncompleteListing(CodatError):
    """The pages of a listing do not add up, so nothing may be concluded from what is missing in it."""

    retryable = True
    advice = gettext_lazy(
        "Codat's list was incomplete, so nothing was concluded from it. The system reads it again by itself. If this "
        "lasts, ask an administrator to contact Codat's support."
    )


class RateLimited(CodatError):
    """429: too many requests now. Not stored under the idempotency key: the same key may be sent again."""

    retryable = True
    advice = gettext_lazy(
        "Codat asks us to slow down; nothing was done. The system waits and tries again by itself. You need not do "
        "anything."
    )


class QuotaExhausted(RateLimited):
    """The day's quota is used up (429 with nothing remaining, or known beforehand): wait until it is reset."""

    advice = gettext_lazy(
        "Today's quota of requests to Codat is used up. Work goes on by itself after the quota is reset. If it cannot "
        "wait, ask an administrator to ask Codat for more quota."
    )


class LimiterBusy(CodatError):
    """Our own limiter gave no slot in time: nothing was sent."""

    retryable = True
    advice = gettext_lazy(
        "Too much work for Codat is waiting in this system; nothing was sent. It is tried again by itself. If this "
        "lasts, ask an administrator to look at the queue."
    )


class InProgress(CodatError):
    """409 because a request with the same idempotency key is still being worked on."""

    retryable = True
    advice = gettext_lazy(
        "Codat is still working on the same request. The system looks again by itself. You need not do anything."
    )


class BadRequest(CodatError):
    """400: Codat refused the content of the request."""

    advice = gettext_lazy("Codat refused the data. Correct what it names below, then try again.")

    def headline(self) -> str:
        """Names the refused name, where the refusal is about it."""
        if self.refused_name and (not self.details or "name" in self.details.lower()):
            return _("Codat refused the name “%(name)s”. Correct it, then try again.") % {"name": self.refused_name}
        return super().headline()


class Unauthorized(CodatError):
    """401: the API key is wrong or revoked."""

    advice = gettext_lazy("Codat refused our API key. Ask an administrator to check CODAT_API_KEY, then try again.")


class PaymentRequired(CodatError):
    """402: the plan or trial does not cover this."""

    advice = gettext_lazy(
        "Codat refused the request because of our plan or an unpaid bill. Ask an administrator to settle this with "
        "Codat, then try again."
    )


class Forbidden(CodatError):
    """403: the key is right but may not do this."""

    advice = gettext_lazy(
        "Codat does not allow our account to do this. Ask an administrator to check in the Codat Portal that "
        "QuickBooks Online Bank Feeds is switched on, then try again."
    )


class NotFound(CodatError):
    """404: the company, connection or account does not exist in Codat."""

    advice = gettext_lazy(
        "Codat does not know this record: it may have been deleted there. Press Refresh status on the company to "
        "compare with Codat, then decide whether to create it again."
    )


class Conflict(CodatError):
    """409: such an object exists already."""

    advice = gettext_lazy(
        "Codat already has a record with this id. Press Refresh status on the company to compare with Codat; give the "
        "new record another id if they differ."
    )


class Unprocessable(CodatError):
    """422: understood and refused; also an idempotency key used again with another body."""

    advice = gettext_lazy(
        "Codat understood the request and refused it. Correct what it names below, then try again; if nothing is "
        "wrong with the data, ask an administrator to contact Codat's support."
    )


class UnexpectedStatus(CodatError):
    """Any other status, redirects included: they are not followed, because they would carry our key elsewhere."""

    advice = gettext_lazy(
        "Codat answered with a status this product does not know. Ask an administrator to check CODAT_BASE_URL and any "
        "proxy in between, then try again."
    )


STATUS_ERRORS: Mapping[int, type[CodatError]] = MappingProxyType(
    {
        400: BadRequest,
        401: Unauthorized,
        402: PaymentRequired,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        422: Unprocessable,
        429: RateLimited,
    }
)


def error_class(status: int) -> type[CodatError]:
    """The one table from an HTTP status to the error; the client refines 409 and 429 by what else the reply says."""
    if 500 <= status <= 599:
        return ServerError
    return STATUS_ERRORS.get(status, UnexpectedStatus)
