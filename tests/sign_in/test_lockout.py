"""Failed tries lock a name at an address; an administrator opens it sooner."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feeds import tasks
from feeds.models import AuditEntry, SignInLock
from feeds.services import guesses
from tests.factories import PASSWORD, UserFactory
from tests.sign_in.people import events_of, is_in, log_in

pytestmark = pytest.mark.django_db

LIST = "admin:feeds_signinlock_changelist"


def fail(username: str = "robin", times: int = 5, **options: Any) -> Any:
    """That many wrong passwords; the last answer."""
    for _ in range(times):
        answer = log_in(Client(), username, "not the password", **options)
    return answer


@pytest.fixture
def robin() -> User:
    """Somebody to guess at."""
    user: User = UserFactory(username="robin")
    return user


class TestTheLock:
    """Of one name at one address."""

    def test_the_fifth_failure_locks_even_the_right_password_out(self, robin: User) -> None:
        assert fail(times=4).status_code == 200
        locked = fail(times=1)
        assert locked.status_code == 429
        assert "This sign-in is locked for now" in locked.content.decode()
        assert log_in(Client(), "robin").status_code == 429

    def test_fewer_failures_are_forgotten_by_signing_in(self, robin: User) -> None:
        fail(times=4)
        assert log_in(Client(), "robin").status_code == 302
        assert fail(times=4).status_code == 200

    def test_a_name_that_nobody_has_is_locked_in_the_same_words(self, robin: User) -> None:
        assert fail("robin").content == fail("nobody").content

    def test_the_way_a_name_is_written_gives_no_further_tries(self, robin: User) -> None:
        for name in ("robin", "ROBIN", " Robin ", "rObIn"):
            fail(name, times=1)
        assert fail("robi\uff4e", times=1).status_code == 429

    def test_another_browser_gives_no_further_tries(self, robin: User) -> None:
        for number in range(4):
            fail(times=1, HTTP_USER_AGENT=f"Browser {number}")
        assert fail(times=1, HTTP_USER_AGENT="Browser 5").status_code == 429

    def test_other_addresses_and_other_names_are_not_locked(self, robin: User) -> None:
        UserFactory(username="rosa")
        fail()
        assert log_in(Client(), "rosa").status_code == 302
        assert log_in(Client(), "robin", REMOTE_ADDR="10.1.1.1").status_code == 302

    def test_it_opens_by_itself_and_tries_meanwhile_do_not_keep_it_shut(self, robin: User) -> None:
        fail()
        last = AccessAttempt.objects.get().attempt_time
        fail(times=2)
        assert AccessAttempt.objects.get().attempt_time == last
        AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
        assert log_in(Client(), "robin").status_code == 302

    def test_who_is_signed_in_already_stays(self, robin: User) -> None:
        client = Client()
        log_in(client, "robin")
        fail()
        assert is_in(client)

    def test_the_history_has_it_once(self, robin: User) -> None:
        fail(times=7)
        assert events_of(robin) == ["sign_in_locked"]
        entry = AuditEntry.objects.get(event="sign_in_locked")
        assert entry.additional_data == {"name": "robin", "address": "127.0.0.1", "failures": 5}
        assert (entry.actor_name, entry.source, entry.remote_addr) == ("anonymous", "sign-in", "127.0.0.1")

    def test_of_a_name_that_nobody_has_the_history_keeps_a_hash_for_it_may_be_a_password(self) -> None:
        fail("correct horse")
        told = AuditEntry.objects.get(event="sign_in_locked").object_repr
        assert re.fullmatch(r"\(nobody\) [0-9a-f]{16} @ 127\.0\.0\.1", told)
        assert "correct" not in str(list(AuditEntry.objects.values()) + list(SignInLock.objects.values()))

    def test_nothing_that_was_typed_as_password_is_stored(self, robin: User) -> None:
        fail(times=6)
        assert "not the password" not in str(list(AccessAttempt.objects.values()))

    def test_a_page_costs_nothing_for_it(self, robin: User) -> None:
        client = Client()
        client.force_login(robin)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get(reverse("admin:index"))
        assert not [query for query in queries if "axes_" in query["sql"] or "mfa_" in query["sql"]]

    def test_its_tables_stay_short(self, robin: User) -> None:
        log_in(Client(), "robin")
        fail()
        AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
        assert tasks.tidy_sign_in().startswith("1 deleted")
        assert not AccessAttempt.objects.exists()
        assert not AccessLog.objects.exists()
        assert not AccessFailureLog.objects.exists()


HOME = "192.0.2.7"


def told(username: str, address: str, *, is_right: bool = False) -> tuple[int, list[str]]:
    """What one try at the door is answered."""
    password = PASSWORD if is_right else "not the password"
    answer = log_in(Client(), username, password, REMOTE_ADDR=address)
    return answer.status_code, re.findall(r'<p class="errornote" role="alert">(.+?)</p>', answer.content.decode())


class TestGuessesFromManyAddresses:
    """At one name: so many an hour, and beyond that only from where its person has signed in."""

    @pytest.fixture(autouse=True)
    def _three(self, settings: Any) -> None:
        settings.ACCOUNT_RATE_LIMITS = {**settings.ACCOUNT_RATE_LIMITS, "password_failed": "3/h/key"}

    @staticmethod
    def use_up(username: str = "robin") -> None:
        """Strangers try, each from an address of their own."""
        for number in range(3):
            told(username, f"10.0.0.{number}")

    def test_they_shut_nobody_out_of_where_one_usually_works(self, robin: User) -> None:
        assert log_in(Client(), "Robin", REMOTE_ADDR=HOME).status_code == 302
        self.use_up()
        assert "Too many tries" in told("robin", "192.0.2.8", is_right=True)[1][0]
        client = Client()
        assert log_in(client, "robin", REMOTE_ADDR=HOME).status_code == 302
        assert is_in(client)

    def test_an_address_of_a_colleague_is_not_ones_own(self, robin: User) -> None:
        UserFactory(username="rosa")
        log_in(Client(), "rosa", REMOTE_ADDR=HOME)
        self.use_up()
        assert told("robin", HOME, is_right=True)[0] == 200

    def test_failures_make_no_address_known_and_neither_does_what_is_long_ago(
        self, robin: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log_in(Client(), "robin", REMOTE_ADDR=HOME)
        self.use_up()
        assert told("robin", "10.0.0.1", is_right=True)[0] == 200
        monkeypatch.setattr(guesses, "USUAL", timedelta(0))
        assert told("robin", HOME, is_right=True)[0] == 200

    def test_from_there_tries_are_limited_too(self, robin: User) -> None:
        log_in(Client(), "robin", REMOTE_ADDR=HOME)
        self.use_up()
        for _ in range(3):
            told("robin", HOME)
        assert told("robin", HOME, is_right=True)[0] == 200

    @pytest.mark.parametrize("strangers", [0, 3])
    def test_no_answer_tells_whether_a_name_exists_or_an_address_is_known(self, robin: User, strangers: int) -> None:
        log_in(Client(), "robin", REMOTE_ADDR=HOME)
        answers = []
        for name, address in (("robin", HOME), ("robin", "192.0.2.8"), ("nobody", HOME)):
            cache.clear()
            AccessAttempt.objects.all().delete()
            begun = [told(name, f"10.0.0.{number}") for number in range(strangers)]
            answers.append([*begun, *(told(name, address) for _ in range(7)), told(name, "10.0.0.9")])
        assert answers[0] == answers[1] == answers[2]
        assert answers[0][-2][0] == 429

    def test_the_right_password_is_answered_like_a_wrong_one_and_both_are_in_the_history(self, robin: User) -> None:
        self.use_up()
        assert told("robin", HOME, is_right=True) == told("robin", HOME)
        assert AuditEntry.objects.filter(event="sign_in_failed", object_pk=str(robin.pk)).count() == 5

    def test_the_history_has_it_once_an_hour(self, robin: User) -> None:
        log_in(Client(), "robin", REMOTE_ADDR=HOME)
        self.use_up()
        told("robin", "10.0.0.7")
        told("robin", HOME)
        assert events_of(robin) == ["passwords_guessed"]
        entry = AuditEntry.objects.get(event="passwords_guessed")
        assert (entry.actor_name, entry.source, entry.additional_data) == ("anonymous", "sign-in", {"name": "robin"})
        self.use_up("nobody")
        assert AuditEntry.objects.filter(event="passwords_guessed").count() == 1

    def test_what_the_lock_refuses_is_no_guess(self, robin: User, settings: Any) -> None:
        settings.ACCOUNT_RATE_LIMITS = {**settings.ACCOUNT_RATE_LIMITS, "password_failed": "6/h/key"}
        fail(times=9)
        assert log_in(Client(), "robin", REMOTE_ADDR=HOME).status_code == 302

    def test_unlock_lets_the_person_in_from_everywhere_though_no_row_is_locked(self, robin: User) -> None:
        self.use_up()
        AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
        told("robin", HOME, is_right=True)
        chief = staff("feeds.unlock_signinlock")
        page = chief.get(reverse(LIST)).content.decode()
        assert (page.count("pill-bad"), page.count("pill-waiting")) == (0, 1)
        lock = AccessAttempt.objects.get(ip_address=HOME)
        assert "from other addresses is counted from nothing again" in chief.get(url(lock)).content.decode()
        chief.post(url(lock))
        assert log_in(Client(), "robin", REMOTE_ADDR="192.0.2.8").status_code == 302
        self.use_up()
        assert events_of(robin) == ["passwords_guessed", "sign_in_unlocked", "passwords_guessed"]

    @pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL reads small tables whole")
    def test_where_somebody_has_signed_in_is_found_by_an_index(self, robin: User) -> None:
        plan = guesses.sign_ins("robin").filter(remote_addr=HOME).explain()
        assert "USING INDEX audit_actor" in plan


SEE = ["feeds.view_signinlock"]


def staff(*permissions: str) -> Client:
    """Somebody who sees the list, with further rights."""
    client = Client()
    client.force_login(UserFactory(username="chief", permissions=[*SEE, *permissions]))
    return client


def url(lock: AccessAttempt) -> str:
    """The unlock action of this row."""
    return reverse("admin:feeds_signinlock_action", args=[lock.pk, "unlock"])


class TestTheList:
    """Failed sign-ins in the admin."""

    def test_it_says_which_are_locked(self, robin: User) -> None:
        fail(times=3, HTTP_USER_AGENT="One")
        fail(times=2, HTTP_USER_AGENT="Two")
        fail("rosa", times=1)
        page = staff().get(reverse(LIST)).content.decode()
        assert page.count('class="pill pill-bad"') == 2
        assert page.count('class="pill pill-waiting"') == 1

    @pytest.mark.parametrize("rows", [3, 30])
    def test_it_costs_the_same_however_long_it_is(self, rows: int) -> None:
        for number in range(rows):
            SignInLock.objects.create(username=f"n{number}", ip_address="10.0.0.1", failures_since_start=1)
        client = staff()
        client.get(reverse(LIST))
        with CaptureQueriesContext(connection) as queries:
            client.get(reverse(LIST))
        assert len(queries) == 6

    def test_the_libraries_own_screens_are_gone(self) -> None:
        client = Client()
        client.force_login(UserFactory(is_superuser=True))
        for address in ("axes/accessattempt", "mfa/authenticator", "socialaccount/socialapp", "account/emailaddress"):
            assert client.get(f"/admin/{address}/").status_code == 404


class TestUnlock:
    """The action that forgets the tries."""

    def test_it_works(self, robin: User) -> None:
        fail(times=3, HTTP_USER_AGENT="One")
        fail(times=2, HTTP_USER_AGENT="Two")
        client = staff("feeds.unlock_signinlock")
        lock = AccessAttempt.objects.first()
        assert "the next try is allowed at once" in client.get(url(lock)).content.decode()
        assert "Unlocked: robin may sign in again." in client.post(url(lock), follow=True).content.decode()
        assert log_in(Client(), "robin").status_code == 302

    def test_without_the_right_it_is_hidden_and_refused(self, robin: User) -> None:
        fail()
        lock = AccessAttempt.objects.get()
        client = staff()
        page = client.get(reverse("admin:feeds_signinlock_change", args=[lock.pk])).content.decode()
        assert "Locked" in page
        assert url(lock) not in page
        assert client.get(url(lock)).status_code == client.post(url(lock)).status_code == 403
        assert log_in(Client(), "robin").status_code == 429

    def test_one_that_opened_meanwhile_is_not_found(self, robin: User) -> None:
        fail()
        lock = AccessAttempt.objects.get()
        AccessAttempt.objects.all().delete()
        assert staff("feeds.unlock_signinlock").post(url(lock)).status_code == 404

    def test_the_history_has_who_unlocked_whom(self, robin: User) -> None:
        fail()
        staff("feeds.unlock_signinlock").post(url(AccessAttempt.objects.get()))
        entry = AuditEntry.objects.get(event="sign_in_unlocked")
        assert (entry.object_pk, entry.actor.username) == (str(robin.pk), "chief")
        assert PASSWORD not in str(entry.additional_data)
