"""The stand-in Codat as a real process, for any test that speaks HTTP to it."""

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).resolve().parents[1]
API_KEY = "test-sandbox-key"
WEBHOOK_SECRET = "whsec_dGVzdC13ZWJob29rLWtleS1mb3ItdGhlLXN1aXRl"
NO_LIMITS = ("--per-minute", "0", "--per-company", "0", "--daily-quota", "1000000")
CODATS_LIMITS = ("--daily-quota", "1000000")
"""The limits of the minute and of one company as Codat has them; only the day's quota is lifted."""
READY_WITHIN = 20.0


class SandboxProcess:
    """One stand-in on a port of its own.

    Args:
        data: Its SQLite file; kept across :meth:`stop`, :meth:`kill` and :meth:`start`, as is the port.
        arguments: Further options, e.g. ``"--strict-otp"``; they win over ``limits``.
        limits: Options for Codat's limits; lifted unless given.
    """

    def __init__(self, data: Path, *arguments: str, limits: Sequence[str] = NO_LIMITS) -> None:
        self.data = data
        self.arguments = (*limits, *arguments)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api_key = API_KEY
        self.webhook_secret = WEBHOOK_SECRET
        self.authorization = {"Authorization": "Basic " + base64.b64encode(API_KEY.encode()).decode()}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "SandboxProcess":
        """Start it and wait until it answers.

        Raises:
            RuntimeError: It ended, or did not answer in time.
        """
        options = ["--port", str(self.port), "--data", str(self.data), "--api-key", self.api_key]
        options += ["--webhook-secret", self.webhook_secret, *self.arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}
        command = [sys.executable, "-m", "feeds.sandbox", *options]
        return self.attach(subprocess.Popen(command, cwd=ROOT, env=environment), self.port)

    def attach(self, process: subprocess.Popen[bytes], port: int) -> "SandboxProcess":
        """Take over a stand-in that was started some other way, and wait until it answers.

        Raises:
            RuntimeError: It ended, or did not answer in time.
        """
        self._process, self.port, self.url = process, port, f"http://127.0.0.1:{port}"
        self._wait_until_ready(process)
        return self

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does; nothing is tidied up."""
        self._end(signal.SIGKILL)

    def control(self, method: str, name: str, body: Any = None) -> Any:
        """Call a control endpoint, e.g. ``control("POST", "connect", {...})``, and return its JSON.

        Raises:
            requests.HTTPError: It refused.
        """
        answer = requests.request(method, f"{self.url}/_sandbox/{name}", json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post_fault(self, action: str, method: str = "*", path: str = "*", **fields: Any) -> None:
        """Order a fault; the actions and fields are those of ``feeds/sandbox/faults.py``."""
        self.control("POST", "faults", {"action": action, "method": method, "path": path, **fields})

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults ordered, with their hits."""
        listed: list[dict[str, Any]] = self.control("GET", "faults")
        return listed

    def clear_faults(self) -> None:
        """Take every fault back."""
        self.control("DELETE", "faults")

    def wait_until_hit(self, within: float = 10.0) -> None:
        """Wait until some fault has struck, e.g. until a delayed request is being held.

        Raises:
            TimeoutError: None did in that many seconds.
        """
        deadline = time.monotonic() + within
        while not any(fault["hits"] for fault in self.faults()):
            if time.monotonic() > deadline:
                raise TimeoutError("no fault was hit")
            time.sleep(0.02)

    def stats(self) -> dict[str, dict[str, int]]:
        """Return ``{"objects": {...}, "requests": {"POST /companies": n, ...}}``."""
        counted: dict[str, dict[str, int]] = self.control("GET", "stats")
        return counted

    def requests_made(self, key: str) -> int:
        """Return how many requests of a kind were received, e.g. ``"POST /companies"``."""
        return self.stats()["requests"].get(key, 0)

    def pressure(self) -> dict[str, int]:
        """Return the most that was asked of its limits: see ``feeds.sandbox.quota.Pressure``."""
        asked: dict[str, int] = self.control("GET", "pressure")
        return asked

    def advance(self, seconds: float) -> None:
        """Move its clock forward."""
        self.control("POST", "clock", {"advance_seconds": seconds})

    def reset(self) -> None:
        """Make it forget everything."""
        self.control("POST", "reset")

    def connect(self, company_id: str, connection_id: str, **fields: Any) -> None:
        """Do the customer's part: every account connected, the connection Linked."""
        self.control("POST", "connect", {"companyId": company_id, "connectionId": connection_id, **fields})

    def disconnect(self, company_id: str, connection_id: str, **fields: Any) -> None:
        """Let QuickBooks fall silent; with ``now=True`` the ten days are skipped."""
        self.control("POST", "disconnect", {"companyId": company_id, "connectionId": connection_id, **fields})

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the stand-in ended with {process.returncode}")
            try:
                requests.get(f"{self.url}/_sandbox/clock", timeout=1)
            except requests.RequestException:
                time.sleep(0.02)
            else:
                return
        self.kill()
        raise RuntimeError("the stand-in did not answer")

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(how)
        code = self._process.wait(timeout=10)
        self._process = None
        return code


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def sandbox_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """One stand-in for the whole session; use ``sandbox`` to have it empty."""
    server = SandboxProcess(tmp_path_factory.mktemp("sandbox") / "sandbox.sqlite3").start()
    yield server
    server.stop()


@pytest.fixture
def sandbox(sandbox_server: SandboxProcess) -> SandboxProcess:
    """The session's stand-in, emptied."""
    sandbox_server.reset()
    return sandbox_server
