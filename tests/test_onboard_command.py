"""`manage.py onboard`, over real HTTP to the stand-in and through the real queue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django_q.models import OrmQ

from feeds.management.commands import onboard
from feeds.models import AuditEntry, Batch, Company, Operation, SourceAccount
from tests.factories import SourceAccountFactory, UserFactory
from tests.sandbox_process import SandboxProcess

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "docs/sample/companies.csv"
HEADER = (
    "customer_number,legal_name,contact_name,contact_email,country,account_name,account_type,account_number,currency"
)
Drain = Callable[[], int]


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


class Ended:
    """How one run ended. `status` is the exit status; `error` is the last line on stderr when it is not 0."""

    def __init__(self, *arguments: object, err: StringIO | None = None) -> None:
        out, err = StringIO(), err or StringIO()
        self.status, self.error = 0, ""
        try:
            call_command("onboard", *(str(argument) for argument in arguments), stdout=out, stderr=err)
        except CommandError as error:
            self.status, self.error = error.returncode, str(error)
        self.out, self.err = out.getvalue(), err.getvalue()

    @property
    def json(self) -> Any:
        """What --json printed."""
        return json.loads(self.out)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file with these rows."""

    def write(*rows: str, name: str = "customers.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
        return path

    return write


def row(number: int, **changes: str) -> str:
    """One sound row."""
    values = {
        "customer": f"SB-{number}", "legal": f"Bakery {number}", "contact": "Alex Doe", "email": "alex@example.com",
        "country": "US", "name": "Operating", "type": "checking", "account": f"40001000{number:02}", "currency": "USD",
    }  # fmt: skip
    return ",".join((values | changes).values())


@pytest.fixture
def at_work(
    transactional_db: None, codat: SandboxProcess, drain_queue: Drain, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Beside the command a worker works: another thread, with a database connection of its own, drains the queue."""
    monkeypatch.setattr(onboard, "POLL_SECONDS", 0.05)
    done, failures = threading.Event(), []

    def work() -> None:
        try:
            while not done.wait(0.02):
                drain_queue()
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    yield
    done.set()
    worker.join()
    assert not failures


# --- The whole way ---------------------------------------------------------------------------------------------------
def test_the_sample_ends_with_every_row_link_ready_and_a_second_run_sends_nothing(
    at_work: None, codat: SandboxProcess
) -> None:
    first = Ended(SAMPLE, "--wait", 60)

    assert (first.status, first.error) == (0, "")
    assert first.out.count("Link ready") == 12
    assert "Cafe Quebec" in first.out
    stats = codat.stats()
    assert stats["objects"] == {"companies": 12, "connections": 12, "source_accounts": 24, "credentials": 0}
    writes = {request: count for request, count in stats["requests"].items() if not request.startswith("GET")}
    assert set(writes.values()) == {12}
    assert len(writes) == 3
    history = AuditEntry.objects.count()

    second = Ended(SAMPLE, "--wait", 60)

    assert second.status == 0
    assert second.out == first.out
    assert codat.stats()["requests"] == stats["requests"]
    assert (Batch.objects.count(), AuditEntry.objects.count()) == (1, history)


def test_the_batch_bears_the_name_of_the_file_and_of_the_person(at_work: None, file: Callable[..., Path]) -> None:
    UserFactory(username="rita", first_name="Rita", last_name="Moreau", role="Relationship managers")
    assert Ended(file(row(1), name="may.csv"), "--wait", 30, "--as", "rita").status == 0
    batch = Batch.objects.get()
    assert (batch.label, batch.requested_by_name, batch.source) == ("may.csv", "Rita Moreau", "command line")
    assert set(Operation.objects.values_list("requested_by_name", flat=True)) == {"Rita Moreau"}
    assert Company.objects.get().manager == batch.requested_by


def test_json_on_stdout_is_for_programs(at_work: None, file: Callable[..., Path]) -> None:
    (company,) = Ended(file(row(1)), "--wait", 30, "--json").json["companies"]
    account = SourceAccount.objects.get()
    assert company == {
        "customer_number": "SB-1",
        "codat_name": "Bakery 1",
        "state": "link_ready",
        "ready": True,
        "accounts": [{"account_id": account.account_id, "name": "Operating", "in_codat": True}],
        "error": "",
    }


def test_an_account_that_is_added_to_the_file_later_is_sent_alone(
    at_work: None, codat: SandboxProcess, file: Callable[..., Path]
) -> None:
    Ended(file(row(1)), "--wait", 30)
    again = Ended(file(row(1), row(1, name="Savings", type="savings", account="4000100099")), "--wait", 30)
    assert again.status == 0
    assert codat.stats()["objects"] == {"companies": 1, "connections": 1, "source_accounts": 2, "credentials": 0}


def test_one_company_that_codat_refuses_does_not_stop_the_others(
    at_work: None, codat: SandboxProcess, file: Callable[..., Path]
) -> None:
    codat.post_fault("status", "POST", "/companies", status=400, times=1)
    ended = Ended(file(row(1), row(2), row(3)), "--wait", 30)
    assert (ended.status, ended.error) == (1, "1 of 3 companies are not ready.")
    assert (ended.out.count("Link ready"), ended.out.count("Needs attention")) == (2, 1)
    assert "[1] 1 company: Codat refused" in ended.err

    assert Ended(file(row(1), row(2), row(3)), "--wait", 30).status == 0  # the failed one is continued
    assert codat.stats()["objects"]["companies"] == 3


def test_a_wrong_key_is_one_clear_message_for_all_rows(
    at_work: None, codat: SandboxProcess, file: Callable[..., Path], settings: Any
) -> None:
    settings.CODAT_API_KEY = "another-key"
    ended = Ended(file(row(1), row(2), row(3)), "--wait", 30)
    assert ended.status == 1
    assert ended.err.count("Codat refused our API key") == 1
    assert "[1] 3 companies: " in ended.err
    assert ended.out.count("[1]") == 3
    assert "another-key" not in ended.out + ended.err


# --- Waiting ---------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_without_wait_it_says_how_to_follow(file: Callable[..., Path]) -> None:
    ended = Ended(file(row(1), row(2)))
    assert ended.status == 0
    assert "--wait" in ended.err
    assert OrmQ.objects.count() == 2
    assert ended.out.count("Queued") == 2


@pytest.mark.django_db
def test_a_missing_worker_is_mentioned_and_what_is_not_ready_in_time_is_a_failure(file: Callable[..., Path]) -> None:
    ended = Ended(file(row(1)), "--wait", 1)
    assert ended.status == 1
    assert ended.err.count("No worker has shown itself") == 1


@pytest.mark.django_db
def test_companies_that_are_on_their_way_are_not_asked_for_again(file: Callable[..., Path]) -> None:
    path = file(row(1))
    Ended(path)
    assert Ended(path).status == 0
    assert (OrmQ.objects.count(), Batch.objects.count()) == (1, 1)


@pytest.mark.django_db
def test_a_company_that_is_refused_is_named_and_the_others_go_on(file: Callable[..., Path]) -> None:
    path = file(row(1), row(2))
    Ended(path)
    OrmQ.objects.all().delete()
    # Somebody spoils one of them between two runs, where a file that is unchanged does not look.
    Company.objects.update(onboarding_state="draft")
    refused = Company.objects.get(customer_number="SB-1")
    SourceAccountFactory(company=refused, currency="XXX")

    ended = Ended(path)

    assert (ended.status, ended.error) == (1, "1 of 2 companies were not accepted.")
    assert "[1] 1 company: “XXX” is not a currency." in ended.err
    assert OrmQ.objects.count() == 1


@pytest.mark.django_db
def test_control_c_stops_the_waiting_and_nothing_else(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(onboard.time, "sleep", interrupt)
    ended = Ended(file(row(1)), "--wait", 30)
    assert (ended.status, ended.error) == (130, "Stopped waiting. What was accepted goes on by itself.")
    assert OrmQ.objects.count() == 1


def test_a_progress_bar_is_for_terminals_only(
    at_work: None, file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Ended(file(row(1)), "--wait", 30)
    assert "Onboarding" not in capsys.readouterr().err

    Ended(file(row(2)), "--wait", 30, err=Terminal())
    assert "Onboarding" in capsys.readouterr().err


# --- Bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_every_problem_is_a_line_and_nothing_is_stored(file: Callable[..., Path]) -> None:
    ended = Ended(file(row(1, country="MX"), row(2), row(3, currency="usd")))
    assert (ended.status, ended.error) == (2, "2 problems; nothing was stored.")
    assert ended.err.splitlines() == [
        "row 2, country: “MX” is not one of: US, CA.",
        "row 4, currency: Use the three capital letters of ISO 4217, such as USD or CAD.",
    ]
    assert not Company.objects.exists()
    assert not OrmQ.objects.exists()


@pytest.mark.django_db
def test_one_problem_is_one_line(file: Callable[..., Path]) -> None:
    ended = Ended(file(row(1, country="MX")))
    assert (ended.status, ended.err) == (2, "")
    assert ended.error == "row 2, country: “MX” is not one of: US, CA. Nothing was stored."


@pytest.mark.django_db
def test_problems_can_be_had_as_json(file: Callable[..., Path]) -> None:
    ended = Ended(file(row(1, country="MX")), "--json")
    assert ended.status == 2
    assert ended.json == {
        "problems": [{"level": "error", "row": "row 2", "column": "country", "reason": "“MX” is not one of: US, CA."}]
    }


@pytest.mark.django_db
def test_a_long_list_of_problems_is_cut(file: Callable[..., Path]) -> None:
    ended = Ended(file(*(row(n, country="MX") for n in range(60))))
    assert len(ended.err.splitlines()) == onboard.MOST_PROBLEMS_SHOWN + 1
    assert "... and 10 more." in ended.err


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", [["missing.csv"], [str(SAMPLE), "--as", "nobody"]])
def test_what_is_not_there_is_one_line(arguments: list[str]) -> None:
    ended = Ended(*arguments)
    assert ended.status == 2
    assert "\n" not in ended.error


@pytest.mark.django_db
def test_it_is_not_done_in_the_name_of_somebody_who_may_not() -> None:
    UserFactory(username="ada", role="Compliance auditors")
    ended = Ended(SAMPLE, "--as", "ada")
    assert (ended.status, ended.error) == (2, "“ada” may not import and onboard companies.")
    assert not Company.objects.exists()


@pytest.mark.django_db
def test_a_dry_run_checks_and_stores_nothing() -> None:
    ended = Ended(SAMPLE, "--dry-run", "--json")
    assert ended.status == 0
    assert ended.json["rows"] == {"created": 36, "changed": 0, "unchanged": 0}
    assert "36 new" in ended.err
    assert not Company.objects.exists()


@pytest.mark.django_db
def test_a_dry_run_of_a_bad_file_fails_as_the_real_one(file: Callable[..., Path]) -> None:
    assert Ended(file(row(1, country="MX")), "--dry-run").status == 2


@pytest.mark.django_db
def test_a_database_that_fails_is_one_line(file: Callable[..., Path]) -> None:
    def fail(*_arguments: object) -> None:
        raise OperationalError("no such table: feeds_company\nLINE 1")

    with connection.execute_wrapper(fail):
        ended = Ended(file(row(1)))
    assert ended.status == 1
    assert ended.error == "The database cannot be used (no such table: feeds_company). Has `migrate` been run?"


def test_a_process_ends_with_the_status_and_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "latin.csv"
    bad.write_bytes(f"{HEADER}\n{row(1, legal='Caf')}".encode() + b"\xe9")
    command = [sys.executable, "manage.py", "onboard", str(bad)]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("CommandError: row 2: The file is not in UTF-8.")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""
