"""`POST /webhooks/codat`: who is let in, what is stored, and what the sender is told."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django_q.models import OrmQ
from pytest_django.fixtures import Settings

from feeds.models import DailyFigure, WebhookEvent
from feeds.services import inbox
from feeds.states import WebhookState
from tests.webhooks import OTHER_SECRET, PATH, SECRET, envelope, post, post_raw, signed

pytestmark = pytest.mark.django_db

EVENT = envelope("connection.connected", "company-1")
BODY = json.dumps(EVENT).encode()


@pytest.fixture(autouse=True)
def _secret(settings: Settings) -> None:
    settings.WEBHOOK_SECRETS = [SECRET]


@pytest.fixture
def codat() -> Client:
    """The sender: not signed in, and no browser that could hold a CSRF token."""
    return Client(enforce_csrf_checks=True)


def bad_signatures() -> int:
    """How many were counted today."""
    return inbox.lag().bad_signatures_today


def nothing_is_stored() -> bool:
    """Neither a webhook nor a task."""
    return not (WebhookEvent.objects.exists() or OrmQ.objects.exists())


class TestLetIn:
    def test_a_signed_webhook_is_stored_with_its_task_and_answered(self, codat: Client) -> None:
        answer = post(codat, EVENT)
        assert (answer.status_code, answer.content) == (204, b"")
        stored = WebhookEvent.objects.get()
        assert (stored.webhook_id, stored.event_type) == (EVENT["id"], "connection.connected")
        assert (stored.codat_company_id, stored.state) == ("company-1", WebhookState.RECEIVED)
        assert stored.received_at is not None
        assert stored.applied_at is None
        assert OrmQ.objects.count() == 1

    def test_the_header_names_of_svix_do_too(self, codat: Client) -> None:
        assert post(codat, EVENT, prefix="svix-").status_code == 204
        assert WebhookEvent.objects.count() == 1

    @pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
    def test_while_secrets_are_rotated_both_are_accepted(self, secret: str, codat: Client, settings: Settings) -> None:
        settings.WEBHOOK_SECRETS = [OTHER_SECRET, SECRET]
        assert post(codat, EVENT, secret=secret).status_code == 204

    def test_a_sender_that_rotates_may_sign_twice(self, codat: Client) -> None:
        headers = signed(BODY, EVENT["id"])
        other = signed(BODY, EVENT["id"], secret=OTHER_SECRET)["webhook-signature"]
        headers["webhook-signature"] = f"v2,future {other} {headers['webhook-signature']}"
        assert post_raw(codat, BODY, headers).status_code == 204

    @pytest.mark.parametrize("minutes", [-4.9, 4.9])
    def test_clocks_may_differ_by_five_minutes(self, minutes: float, codat: Client) -> None:
        assert post(codat, EVENT, at=datetime.now(UTC) + timedelta(minutes=minutes)).status_code == 204

    def test_the_signature_is_over_the_bytes_as_they_came(self, codat: Client) -> None:
        oddly_spaced = b'{ "eventType":"company.created",\n "payload" : {} }'
        assert post_raw(codat, oddly_spaced, signed(oddly_spaced, "msg-1")).status_code == 204


def tampered() -> dict[str, tuple[bytes, dict[str, str]]]:
    """Name -> body and headers of a delivery that is not to be believed."""
    good = signed(BODY, EVENT["id"])
    now = datetime.now(UTC)
    other_id = good | {"webhook-id": "another"}
    other_time = good | {"webhook-timestamp": str(int(now.timestamp()) + 1)}
    other_signature = signed(BODY, EVENT["id"], secret=OTHER_SECRET)
    return {
        "another secret": (BODY, other_signature),
        "another body": (BODY + b" ", good),
        "another id": (BODY, other_id),
        "another time": (BODY, other_time),
        "old": (BODY, signed(BODY, EVENT["id"], at=now - timedelta(minutes=5, seconds=2))),
        "of the future": (BODY, signed(BODY, EVENT["id"], at=now + timedelta(minutes=5, seconds=2))),
        "no headers": (BODY, {}),
        "an empty signature": (BODY, good | {"webhook-signature": ""}),
        "half of the headers each": (BODY, {"webhook-id": "x", "svix-timestamp": "1", "svix-signature": "v1,x"}),
        "a signature without version": (BODY, good | {"webhook-signature": good["webhook-signature"][3:]}),
        "a signature with commas": (BODY, good | {"webhook-signature": "v1,a,b"}),
        "a signature that is no base64": (BODY, good | {"webhook-signature": "v1,!"}),
        "an unknown version": (BODY, good | {"webhook-signature": good["webhook-signature"].replace("v1", "v9")}),
        "a time that is no number": (BODY, good | {"webhook-timestamp": "today"}),
        "a time out of range": (BODY, good | {"webhook-timestamp": "9" * 30}),
        "a time that is not a number": (BODY, good | {"webhook-timestamp": "nan"}),
        "a body that is no text": (b"\xff\xfe\x00", good),
        "no body": (b"", good),
    }


@pytest.mark.parametrize("how", tampered())
def test_what_codat_has_not_signed_lately_is_refused_counted_and_not_stored(how: str, codat: Client) -> None:
    answer = post_raw(codat, *tampered()[how])
    assert answer.status_code == 401
    assert bad_signatures() == 1
    assert nothing_is_stored()


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'"text"',
        b"{}",
        b'{"eventType": ""}',
        b'{"eventType": 5}',
        b'{"eventType": NaN}',
        b"[" * 9999,
    ],
    ids=lambda body: body[:20].decode(),
)
def test_what_is_signed_and_no_webhook_is_refused_and_not_stored(body: bytes, codat: Client) -> None:
    assert post_raw(codat, body, signed(body, "msg-1")).status_code == 400
    assert bad_signatures() == 0
    assert nothing_is_stored()


@pytest.mark.parametrize(
    "payload", [None, [], "text", {"referenceCompany": None}, {"referenceCompany": {"id": 5}}, {"connection": [1]}]
)
def test_a_payload_of_an_unknown_shape_is_stored_without_a_company(payload: object, codat: Client) -> None:
    assert post(codat, EVENT | {"payload": payload}).status_code == 204
    assert WebhookEvent.objects.get().codat_company_id == ""


class TestLimits:
    def test_a_body_that_is_too_long_is_refused_before_it_is_read(self, codat: Client, settings: Settings) -> None:
        settings.WEBHOOK_MAX_BYTES = len(BODY) - 1
        assert post(codat, EVENT).status_code == 413
        # Were it read, its signature would be found wrong.
        assert post_raw(codat, BODY, {}).status_code == 413
        assert bad_signatures() == 0
        assert nothing_is_stored()

    def test_a_body_of_just_that_length_is_read(self, codat: Client, settings: Settings) -> None:
        settings.WEBHOOK_MAX_BYTES = len(BODY)
        assert post(codat, EVENT).status_code == 204

    def test_a_quarter_of_a_megabyte_is_accepted_by_default(self, codat: Client) -> None:
        event = EVENT | {"padding": "x" * 260_000}
        assert post(codat, event).status_code == 204
        assert "padding" not in WebhookEvent.objects.get().body

    def test_an_id_longer_than_its_column_is_refused(self, codat: Client) -> None:
        assert post_raw(codat, BODY, signed(BODY, "m" * 101)).status_code == 400
        assert nothing_is_stored()

    def test_a_type_longer_than_its_column_is_cut(self, codat: Client) -> None:
        assert post(codat, EVENT | {"eventType": "t" * 200}).status_code == 204
        assert WebhookEvent.objects.get().event_type == "t" * 80

    @pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
    def test_only_post_is_allowed(self, method: str, codat: Client) -> None:
        assert getattr(codat, method)(PATH).status_code == 405

    def test_it_is_never_redirected_to_https(self, codat: Client, settings: Settings) -> None:
        settings.SECURE_SSL_REDIRECT = True
        assert codat.get("/admin/login/").status_code == 301
        assert post(codat, EVENT).status_code == 204

    def test_without_a_secret_the_sender_is_told_to_come_back(
        self, codat: Client, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.WEBHOOK_SECRETS = []
        assert post(codat, EVENT).status_code == 503
        assert "webhook_refused_without_secret" in caplog.text
        assert bad_signatures() == 0
        assert nothing_is_stored()


class TestOnce:
    def test_a_webhook_that_comes_again_is_answered_and_neither_stored_nor_queued_again(self, codat: Client) -> None:
        assert [post(codat, EVENT).status_code for _ in range(3)] == [204] * 3
        assert WebhookEvent.objects.count() == 1
        assert OrmQ.objects.count() == 1

    def test_it_stays_applied_when_it_comes_again_later(self, codat: Client) -> None:
        post(codat, EVENT)
        WebhookEvent.objects.update(state=WebhookState.APPLIED)
        OrmQ.objects.all().delete()
        assert post(codat, EVENT).status_code == 204
        assert WebhookEvent.objects.get().state == WebhookState.APPLIED
        assert not OrmQ.objects.exists()

    def test_the_id_is_the_header_not_the_body(self, codat: Client) -> None:
        for webhook_id in ("msg-1", "msg-2"):
            assert post_raw(codat, BODY, signed(BODY, webhook_id)).status_code == 204
        assert set(WebhookEvent.objects.values_list("webhook_id", flat=True)) == {"msg-1", "msg-2"}

    def test_without_its_task_it_is_not_stored_so_that_codat_sends_it_again(
        self, codat: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*args: object) -> None:
            raise RuntimeError("the queue is full")

        monkeypatch.setattr(inbox.queue, "enqueue", fails)
        codat.raise_request_exception = False
        assert post(codat, EVENT).status_code == 500
        assert nothing_is_stored()


@pytest.mark.django_db(transaction=True)
class TestAtTheSameMoment:
    """Real threads with connections of their own."""

    @staticmethod
    def at_once(count: int, call: Any) -> list[int]:
        statuses: list[int] = []
        barrier = threading.Barrier(count)

        def run() -> None:
            barrier.wait()
            statuses.append(call(Client()).status_code)
            connection.close()

        threads = [threading.Thread(target=run) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statuses

    def test_the_same_webhook_is_stored_once(self) -> None:
        assert self.at_once(8, lambda client: post(client, EVENT)) == [204] * 8
        assert (WebhookEvent.objects.count(), OrmQ.objects.count()) == (1, 1)

    def test_every_bad_signature_is_counted(self) -> None:
        assert self.at_once(8, lambda client: post(client, EVENT, secret=OTHER_SECRET)) == [401] * 8
        assert DailyFigure.objects.get().value == 8


class TestRedaction:
    SECRETS = ("112233", "https://link.codat.example", "000123456789", "hunter2", "bankfeeds-1")
    FULL: dict[str, Any] = {
        "connection": {
            "id": "c-1",
            "status": "Linked",
            "linkUrl": "https://link.codat.example/start?otp=112233",
            "connectionInfo": {"password": "hunter2"},
            "dataConnectionErrors": [{"errorMessage": "see https://link.codat.example?otp=112233 for 000123456789"}],
            "platformName": "otp=112233",
        },
        "sourceAccount": {
            "id": "a-1",
            "accountName": "Operating",
            "accountNumber": "000123456789",
            "routingInfo": {"bankCode": "021000021"},
            "status": "pending",
        },
        "credentials": {"username": "bankfeeds-1", "password": "hunter2"},
        "somethingNew": {"linkUrl": "https://link.codat.example/start?otp=112233"},
    }

    def test_links_passwords_and_account_numbers_are_not_stored(self, codat: Client) -> None:
        post(codat, envelope("connection.connected", "company-1", **self.FULL) | {"otp": "112233"})
        body = WebhookEvent.objects.get().body
        assert [secret for secret in self.SECRETS if secret in json.dumps(body)] == []
        assert body["payload"]["connection"]["status"] == "Linked"
        assert body["payload"]["sourceAccount"] == {"id": "a-1", "accountName": "Operating", "status": "pending"}
        assert set(body["payload"]) == {"referenceCompany", "connection", "sourceAccount"}

    def test_nor_are_they_logged_or_queued(self, codat: Client, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        event = envelope("connection.connected", "company-1", **self.FULL)
        post(codat, event)
        post(codat, event, secret=OTHER_SECRET)
        post_raw(codat, b"112233", signed(b"112233", "msg-1"))
        assert "webhook_received" in caplog.text
        written = caplog.text + " ".join(OrmQ.objects.values_list("payload", flat=True))
        assert [secret for secret in self.SECRETS if secret in written] == []
