"""A listing is complete or it raises."""

from typing import Any

import pytest
import responses
from responses import matchers

from feeds.codat import CodatClient
from feeds.codat.errors import IncompleteListing, MalformedReply

from .samples import BASE_URL, COMPANY, COMPANY_ID, CONNECTION, page

URL = f"{BASE_URL}/companies"


def companies(*numbers: int) -> list[dict[str, Any]]:
    return [COMPANY | {"id": str(number)} for number in numbers]


def serve(wire: responses.RequestsMock, *pages: dict[str, Any]) -> None:
    for number, body in enumerate(pages, start=1):
        asked = {"page": str(number), "pageSize": "2"}
        wire.get(URL, json=body, match=[matchers.query_param_matcher(asked)])


def ids(client: CodatClient) -> list[str]:
    return [company.id for company in client.iter_companies(page_size=2)]


def test_it_reads_all_pages_in_order(client: CodatClient, wire: responses.RequestsMock) -> None:
    serve(
        wire,
        page(*companies(1, 2), total=5, more=True),
        page(*companies(3, 4), total=5, more=True),
        page(*companies(5), total=5),
    )

    assert ids(client) == ["1", "2", "3", "4", "5"]


def test_an_empty_listing_is_complete(client: CodatClient, wire: responses.RequestsMock) -> None:
    serve(wire, page())
    assert ids(client) == []


def test_a_full_last_page_is_the_last(client: CodatClient, wire: responses.RequestsMock) -> None:
    serve(wire, page(*companies(1, 2), total=2, more=True))
    assert ids(client) == ["1", "2"]


def test_an_object_added_while_we_read_is_read_too(client: CodatClient, wire: responses.RequestsMock) -> None:
    serve(wire, page(*companies(1, 2), total=3, more=True), page(*companies(3, 4), total=4))
    assert ids(client) == ["1", "2", "3", "4"]


def test_an_object_that_slid_to_the_next_page_is_read_once(client: CodatClient, wire: responses.RequestsMock) -> None:
    serve(wire, page(*companies(1, 2), total=3, more=True), page(*companies(2, 3), total=3))
    assert ids(client) == ["1", "2", "3"]


INCOMPLETE = {
    "the next page is not named": [page(*companies(1, 2), total=3)],
    "fewer objects than the total": [page(*companies(1, 2), total=4, more=True), page(*companies(3), total=4)],
    "more objects than the total": [page(*companies(1, 2), total=1)],
    "a page that repeats": [page(*companies(1, 2), total=4, more=True), page(*companies(1, 2), total=4, more=True)],
    "an empty page in between": [page(*companies(1, 2), total=3, more=True), page(total=3, more=True)],
    "a list that shrank": [page(*companies(1, 2), total=4, more=True), page(*companies(4), total=3)],
    "an object added before what we read": [
        page(*companies(1, 2), total=3, more=True),
        page(*companies(2, 3), total=4),
    ],
}


@pytest.mark.parametrize("pages", INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_pages_that_do_not_add_up_raise(
    client: CodatClient, wire: responses.RequestsMock, pages: list[dict[str, Any]]
) -> None:
    serve(wire, *pages)

    with pytest.raises(IncompleteListing) as caught:
        ids(client)

    assert caught.value.retryable
    assert not caught.value.outcome_unknown


def test_a_page_without_its_links_is_complete_only_if_it_is_all(
    client: CodatClient, wire: responses.RequestsMock
) -> None:
    body = page(*companies(1), total=2)
    del body["_links"]
    serve(wire, body)

    with pytest.raises(IncompleteListing):
        ids(client)


@pytest.mark.parametrize(
    "body", [[], {}, {"results": []}, {"results": {}, "totalResults": 0}, {"results": [{}], "totalResults": 1}]
)
def test_a_page_of_another_shape_is_malformed(wire: responses.RequestsMock, body: Any) -> None:
    serve(wire, body)

    with pytest.raises(MalformedReply):
        ids(CodatClient(BASE_URL, "k", get_retries=0))


def test_connections_are_read_page_by_page_too(client: CodatClient, wire: responses.RequestsMock) -> None:
    url = f"{BASE_URL}/companies/{COMPANY_ID}/connections"
    for number, more in ((1, True), (2, False)):
        asked = {"page": str(number), "pageSize": "5000"}
        body = page(CONNECTION | {"id": str(number)}, total=2, more=more)
        wire.get(url, json=body, match=[matchers.query_param_matcher(asked)])

    assert [connection.id for connection in client.list_connections(COMPANY_ID)] == ["1", "2"]
