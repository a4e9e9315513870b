"""The day's quota: reported after each reply, and respected without asking."""

from datetime import UTC, datetime, timedelta

import pytest
import responses

from feeds.codat import CodatClient
from feeds.codat.errors import QuotaExhausted, RateLimited
from feeds.codat.schemas import Quota

from .samples import API_KEY, BASE_URL, COMPANY, COMPANY_ID, COMPANY_URL


def headers(remaining: int, reset: datetime, limit: int = 1000) -> dict[str, str]:
    return {
        "X-Rate-Limit-Limit": str(limit),
        "X-Rate-Limit-Remaining": str(remaining),
        "X-Rate-Limit-Reset": reset.isoformat(),
    }


@pytest.fixture
def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=3)


def test_it_reports_the_quota_of_every_reply(wire: responses.RequestsMock, later: datetime) -> None:
    seen: list[Quota] = []
    client = CodatClient(BASE_URL, API_KEY, on_quota=seen.append)
    wire.get(COMPANY_URL, json=COMPANY, headers=headers(7, later))
    wire.delete(COMPANY_URL, status=404, headers=headers(6, later))

    client.get_company(COMPANY_ID)
    with pytest.raises(Exception, match="404"):
        client.delete_company(COMPANY_ID)

    assert [(quota.limit, quota.remaining, quota.reset) for quota in seen] == [(1000, 7, later), (1000, 6, later)]


@pytest.mark.parametrize("reset", ["Mon, 23 Nov 2026 00:00:00 GMT", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00"])
def test_the_reset_may_be_written_in_several_ways(wire: responses.RequestsMock, reset: str) -> None:
    seen: list[Quota] = []
    sent = headers(7, datetime.now(UTC)) | {"X-Rate-Limit-Reset": reset}
    wire.get(COMPANY_URL, json=COMPANY, headers=sent)

    CodatClient(BASE_URL, API_KEY, on_quota=seen.append).get_company(COMPANY_ID)

    assert seen[0].reset == datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize("broken", [{}, {"X-Rate-Limit-Limit": "many", "X-Rate-Limit-Remaining": "1"}])
def test_senseless_headers_report_nothing(wire: responses.RequestsMock, broken: dict[str, str]) -> None:
    seen: list[Quota] = []
    wire.get(COMPANY_URL, json=COMPANY, headers=broken)

    CodatClient(BASE_URL, API_KEY, on_quota=seen.append).get_company(COMPANY_ID)

    assert seen == []


def test_an_observer_that_fails_does_not_hide_the_outcome(wire: responses.RequestsMock, later: datetime) -> None:
    def fail(_quota: Quota) -> None:
        raise RuntimeError("the database is away")

    wire.get(COMPANY_URL, json=COMPANY, headers=headers(7, later))

    assert CodatClient(BASE_URL, API_KEY, on_quota=fail).get_company(COMPANY_ID).id == COMPANY_ID


def test_nothing_is_sent_while_no_quota_is_left(
    client: CodatClient, wire: responses.RequestsMock, later: datetime
) -> None:
    wire.get(COMPANY_URL, json=COMPANY, headers=headers(0, later))
    client.get_company(COMPANY_ID)

    with pytest.raises(QuotaExhausted) as caught:
        client.delete_company(COMPANY_ID)

    assert len(wire.calls) == 1
    assert not caught.value.outcome_unknown
    assert caught.value.retry_after == pytest.approx(3 * 3600, abs=5)


def test_it_sends_again_once_the_reset_has_passed(client: CodatClient, wire: responses.RequestsMock) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    wire.get(COMPANY_URL, json=COMPANY, headers=headers(0, past))
    wire.delete(COMPANY_URL, status=204, headers=headers(999, past + timedelta(days=1)))

    client.get_company(COMPANY_ID)
    client.delete_company(COMPANY_ID)

    assert len(wire.calls) == 2


def test_a_429_without_quota_waits_for_the_reset(
    client: CodatClient, wire: responses.RequestsMock, later: datetime
) -> None:
    wire.get(COMPANY_URL, status=429, headers=headers(0, later) | {"Retry-After": "1"})

    with pytest.raises(QuotaExhausted) as caught:
        client.get_company(COMPANY_ID)

    assert caught.value.retry_after == pytest.approx(3 * 3600, abs=5)
    assert len(wire.calls) == 1


def test_a_429_with_quota_is_only_haste(client: CodatClient, wire: responses.RequestsMock, later: datetime) -> None:
    wire.delete(COMPANY_URL, status=429, headers=headers(5, later) | {"Retry-After": "2"})

    with pytest.raises(RateLimited) as caught:
        client.delete_company(COMPANY_ID)

    assert type(caught.value) is RateLimited
    assert caught.value.retry_after == 2
