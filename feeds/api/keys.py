"""The key of a call: `Authorization: Bearer bfk_...`."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_variables
from ninja.security import HttpBearer

from feeds.api.problems import Problem
from feeds.models import ApiKey
from feeds.services import api_keys
from feeds.services.api_keys import MissingScope, TooManyCalls, WrongKey
from feeds.services.knocks import TooManyKnocks
from feeds.states import ApiScope

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="bank feeds"'}


class BearerKey(HttpBearer):
    """Lets a call through whose key may do `scope`; what is sent is looked at only after that."""

    openapi_bearerFormat = "bfk_..."  # noqa: N815  # the library makes the description from such names
    openapi_description = "A key that an administrator makes in the back office, under API keys."

    def __init__(self, scope: ApiScope) -> None:
        self.scope = scope
        super().__init__()

    @method_decorator(sensitive_variables("token"))
    def __call__(self, request: HttpRequest) -> ApiKey:
        """The key. Raises Problem."""
        scheme, _space, token = request.headers.get(self.header, "").partition(" ")
        return self.authenticate(request, token.strip() if scheme.lower() == self.openapi_scheme else "")

    @method_decorator(sensitive_variables("token"))
    def authenticate(self, request: HttpRequest, token: str) -> ApiKey:
        """As the call. Raises Problem."""
        try:
            key = api_keys.authenticate(token, scope=self.scope, address=address_of(request))
        except WrongKey:
            raise Problem("key-refused", headers=CHALLENGE) from None
        except MissingScope:
            raise Problem("scope-missing") from None
        except (TooManyCalls, TooManyKnocks) as error:
            raise Problem("too-many-requests", headers={"Retry-After": str(error.retry_after)}) from None
        if request.method == "POST" and request.content_type != "application/json":
            raise Problem("wrong-content-type")
        return key


def address_of(request: HttpRequest) -> str:
    """Where the call came from."""
    return str(request.META.get("REMOTE_ADDR", ""))
