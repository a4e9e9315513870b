"""A client without limiter and without waiting, and the wire patched under it."""

from collections.abc import Iterator

import pytest
import responses

from feeds.codat import CodatClient

from .samples import API_KEY, BASE_URL


@pytest.fixture
def client() -> CodatClient:
    return CodatClient(BASE_URL, API_KEY, backoff_base=0)


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    """Every reply registered on it must be asked for."""
    with responses.RequestsMock() as mock:
        yield mock
