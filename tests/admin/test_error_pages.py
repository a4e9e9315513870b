"""Who meets a closed door reads why, in words and with a way back."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from feeds.admin.companies import CompanyAdmin
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db


def staff(**options: bool) -> Client:
    """The browser of someone in the role Support."""
    client = Client(**options)  # type: ignore[arg-type]
    client.force_login(UserFactory(role="Support"))
    return client


def read(client: Client, url: str, status: int) -> str:
    """The page at `url`, which must be answered with `status` and lead home."""
    answer = client.get(url)
    assert answer.status_code == status
    page = answer.content.decode()
    assert f'href="{reverse("admin:index")}"' in page
    return page


def test_a_role_that_may_not_is_told_whom_to_ask() -> None:
    assert "ask an administrator" in read(staff(), reverse("admin:feeds_auditentry_changelist"), 403)


def test_a_wrong_address_is_told_from_a_fault() -> None:
    assert "There is nothing here" in read(staff(), "/admin/feeds/company/999/actions/onboard/", 404)
    assert "There is nothing here" in read(Client(), "/no-such-page/", 404)


def test_a_page_from_before_signing_in_again_is_out_of_date() -> None:
    answer = staff(enforce_csrf_checks=True).post(reverse("admin:feeds_company_changelist"))
    assert answer.status_code == 403
    assert "Nothing was done." in answer.content.decode()


def test_a_fault_of_ours_shows_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_args: object, **_options: object) -> None:
        raise RuntimeError("otp=should-not-be-seen")

    monkeypatch.setattr(CompanyAdmin, "get_queryset", break_down)
    client = staff(raise_request_exception=False)
    page = read(client, reverse("admin:feeds_company_changelist"), 500)
    assert "should-not-be-seen" not in page
    assert "look before you try again" in page
