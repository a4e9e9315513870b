"""`make run` as a newcomer meets it: in a fresh checkout, with nothing set but the two ports."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.sandbox_process import SandboxProcess, free_port
from tests.worker_process import kill_if_alive, wait_until

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = "docs/sample/companies.csv"
WRITES = ("POST", "PUT", "PATCH", "DELETE")

pytestmark = [
    pytest.mark.worker,
    pytest.mark.own_database,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout: there is nothing to copy"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see who was left behind"),
]


class Checkout:
    """A copy of this checkout with the packages installed, and an environment as bare as a new user's."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.home = folder / "home"
        self.temporary = folder / "temporary"
        self.log = folder / "make-run.log"
        self.port, self.sandbox_port = free_port(), free_port()
        self.url = f"http://localhost:{self.port}"
        self.variables: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        for made in (self.root, self.home, self.temporary):
            made.mkdir()
        self._copy_files()
        self._borrow_virtualenv()

    @property
    def environment(self) -> dict[str, str]:
        """Neither DATABASE_URL nor a key: whatever the suite runs under must not help here."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PORT": str(self.port),
            "SANDBOX_PORT": str(self.sandbox_port),
            **self.variables,
        }

    def start(self, **variables: str) -> None:
        """`make run` with these variables set, and wait until it answers."""
        self.variables = variables
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["make", "run"],
                cwd=self.root,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # as a terminal does, so that Ctrl-C reaches this family and not ours
            )
        wait_until(lambda: self.process_ended() or self.answers("/healthz"), seconds=90, what="/healthz")
        assert not self.process_ended(), self.log.read_text()

    def process_ended(self) -> bool:
        """Whether `make run` is over."""
        return self.process is None or self.process.poll() is not None

    def answers(self, path: str) -> bool:
        """Whether this page answers 200 now."""
        try:
            return requests.get(f"{self.url}{path}", timeout=30).status_code == 200
        except requests.ConnectionError:
            return False

    def stop(self, *, ctrl_c: bool) -> None:
        """As a terminal stops it (SIGINT to everybody in the foreground), or as a supervisor does (SIGTERM to one)."""
        assert self.process is not None
        if ctrl_c:
            os.killpg(self.process.pid, signal.SIGINT)
        else:
            self.process.terminate()
        self.process.wait(timeout=30)

    def kill(self) -> None:
        """Whatever is left of it."""
        for pid in self.processes():
            kill_if_alive(pid)

    def processes(self) -> list[int]:
        """Every process that was started from here: nobody else has this home."""
        mark = f"HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in entry.read_bytes().split(b"\0"):
                    found.append(int(entry.parent.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def leftovers(self) -> list[Path]:
        """What was written where a program may think nobody looks."""
        return [*self.home.iterdir(), *self.temporary.iterdir()]

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python3 manage.py ...` as the README says it: in another shell, with no virtualenv activated."""
        return subprocess.run(
            [Path(sys.base_prefix) / "bin/python3", "manage.py", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def sandbox_stats(self) -> dict[str, dict[str, int]]:
        """What the stand-in holds, and the requests it received."""
        answer = requests.get(f"http://localhost:{self.sandbox_port}/_sandbox/stats", timeout=10)
        stats: dict[str, dict[str, int]] = answer.json()
        return stats

    def writes(self) -> int:
        """How many requests that change something Codat has received."""
        return sum(count for key, count in self.sandbox_stats()["requests"].items() if key.startswith(WRITES))

    def _copy_files(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                target = self.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)

    def _borrow_virtualenv(self) -> None:
        """The installed packages of the suite itself; the stamp tells make that nothing has to be installed."""
        borrowed = self.root / ".venv"
        borrowed.mkdir()
        for entry in Path(sys.prefix).iterdir():
            (borrowed / entry.name).symlink_to(entry)
        (borrowed / ".installed").unlink(missing_ok=True)
        (borrowed / ".installed").touch()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """One copy for all tests of this module; nothing of it is left running."""
    made = Checkout(tmp_path_factory.mktemp("make_run"))
    yield made
    made.kill()


@pytest.fixture
def running(checkout: Checkout) -> Checkout:
    """The product, running."""
    if checkout.process_ended():
        checkout.start()
    return checkout


def test_whoever_writes_a_mail_knows_where_the_site_is(running: Checkout) -> None:
    """Each program under honcho has a PORT of its own, and links in mails are written by the worker."""
    told = set()
    for pid in running.processes():
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if (
            any(b"PORT=" in it for it in variables)
            and b"manage.py\0worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ):
            told |= {it.decode() for it in variables if it.startswith(b"SITE_URL=")}
    assert told == {f"SITE_URL={running.url}"}


def sign_in(url: str, username: str, password: str) -> requests.Response:
    """The home page of the person, through the login form."""
    with requests.Session() as browser:
        browser.get(f"{url}/admin/login/", timeout=20).raise_for_status()
        form = {
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
            "username": username,
            "password": password,
            "next": "/admin/",
        }
        return browser.post(f"{url}/admin/login/", data=form, timeout=20)


def test_every_login_it_prints_opens_the_home_page_under_the_sandbox_banner(running: Checkout) -> None:
    printed = running.log.read_text()
    assert f"Bank Feeds Back Office: {running.url}/\n" in printed
    (password,) = re.findall(r"^Demo logins, all with the password (\S+):$", printed, re.MULTILINE)
    logins = re.findall(r"^  (\w+) +(?:Relationship|Support|Compliance|Admin)", printed, re.MULTILINE)
    assert len(logins) == 7
    for username in logins:
        home = sign_in(running.url, username, password)
        assert (home.status_code, home.url) == (200, f"{running.url}/admin/"), username
        assert "SANDBOX" in home.text
    assert sign_in(running.url, logins[0], "not the password").url.endswith("/admin/login/")


def test_the_sample_file_is_onboarded_and_a_second_run_sends_nothing(running: Checkout) -> None:
    first = running.manage("onboard", SAMPLE, "--wait", "90", "--json")
    assert first.returncode == 0, first.stderr
    companies: list[dict[str, Any]] = json.loads(first.stdout)["companies"]
    assert {company["state"] for company in companies} == {"link_ready"}
    objects = running.sandbox_stats()["objects"]
    assert objects["companies"] == objects["connections"] == len(companies)
    assert objects["source_accounts"] == sum(len(company["accounts"]) for company in companies)
    assert running.writes() == 3 * len(companies)

    second = running.manage("onboard", SAMPLE, "--wait", "90", "--json")
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr
    assert running.writes() == 3 * len(companies)


def test_it_becomes_ready_once_the_worker_has_shown_itself_and_polled(running: Checkout) -> None:
    wait_until(lambda: running.answers("/readyz"), seconds=70, what="/readyz")


def test_it_stops_without_leaving_a_process_or_a_file_elsewhere(running: Checkout) -> None:
    assert len(running.processes()) > 5  # make, honcho, web, worker, stand-in: the search does find them
    running.stop(ctrl_c=False)
    assert_nothing_is_left(running)


def test_two_variables_lead_to_another_codat_and_ctrl_c_ends_even_a_slow_call(
    checkout: Checkout, tmp_path: Path
) -> None:
    if not checkout.process_ended():
        checkout.stop(ctrl_c=False)
    elsewhere = SandboxProcess(tmp_path / "elsewhere.sqlite3").start()
    try:
        database = f"sqlite:///{checkout.root / 'var/other.sqlite3'}"
        checkout.start(CODAT_API_KEY=elsewhere.api_key, CODAT_BASE_URL=elsewhere.url, DATABASE_URL=database)
        assert "Demo logins" not in checkout.log.read_text()
        assert "SANDBOX" not in requests.get(f"{checkout.url}/admin/login/", timeout=20).text
        elsewhere.post_fault("delay", "POST", "/companies", delay_ms=30_000, times=None)
        asked = checkout.manage("onboard", SAMPLE)
        assert asked.returncode == 0, asked.stderr
        elsewhere.wait_until_hit(within=30)
        checkout.stop(ctrl_c=True)
        assert_nothing_is_left(checkout)
    finally:
        elsewhere.kill()


def assert_nothing_is_left(checkout: Checkout) -> None:
    """No process a few seconds later, and no file outside the checkout."""
    wait_until(lambda: not checkout.processes(), seconds=10, what="the end of every process")
    assert checkout.leftovers() == []
