"""The program itself: options, restarts, signals, and its distance from the product."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from feeds.sandbox.options import ROOT, parse_options
from tests.sandbox.customer import Customer, call
from tests.sandbox_process import SandboxProcess, free_port


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_its_state_survives_a_restart(tmp_path: Path, end: str) -> None:
    sandbox = SandboxProcess(tmp_path / "sandbox.sqlite3", "--strict-otp").start()
    customer, key = Customer(sandbox, "a"), "5f0c1c52-8d0d-4f53-9d7c-2f1f3c1a9e11"
    kept = customer.call("POST", "/companies", {"name": "Oak"}, Idempotency_Key=key).json()
    link = customer.link()
    customer.connect()
    sandbox.advance(600)
    before = (sandbox.stats(), sandbox.control("GET", "webhooks"))

    getattr(sandbox, end)()
    sandbox.start()
    try:
        assert (sandbox.stats(), sandbox.control("GET", "webhooks")) == before
        assert customer.statuses() == ("Linked", ["connected"])
        assert customer.call("POST", "/companies", {"name": "Oak"}, Idempotency_Key=key).json() == kept
        assert sandbox.control("GET", "clock")["offsetSeconds"] == 600
        assert customer.link() != link
    finally:
        sandbox.stop()


def test_it_stops_promptly_and_cleanly_even_while_a_connection_is_open(tmp_path: Path) -> None:
    sandbox = SandboxProcess(tmp_path / "sandbox.sqlite3").start()
    with requests.Session() as session:
        session.get(f"{sandbox.url}/_sandbox/clock", timeout=5)
        started = time.monotonic()
        assert sandbox.stop() == 0
    assert time.monotonic() - started < 5


def test_a_taken_port_ends_it_with_a_message(sandbox: SandboxProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "feeds.sandbox", "--port", str(sandbox.port), "--data", str(tmp_path / "x")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode != 0
    assert f"cannot listen on 127.0.0.1:{sandbox.port}" in ended.stderr


def test_the_command_becomes_the_program(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "manage.py", "codat_sandbox", "--port", str(port), "--data", str(tmp_path / "x")]
    process = subprocess.Popen(command, cwd=ROOT)
    sandbox = SandboxProcess(tmp_path / "x")
    try:
        sandbox.attach(process, port)
        # The process was replaced, not left waiting for a child: the one that was started serves.
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        assert b"feeds.sandbox" in arguments
    finally:
        assert sandbox.stop() == 0


def test_options_come_from_the_environment_and_the_command_line_wins() -> None:
    environment = {
        "SANDBOX_PORT": "8200",
        "SANDBOX_API_KEY": "k",
        "SANDBOX_STRICT_OTP": "true",
        "SANDBOX_WEBHOOK_SECRET": "whsec_eA==",
        "SANDBOX_DAILY_QUOTA": "7",
    }
    options = parse_options([], environment)
    assert (options.port, options.api_key, options.strict_otp) == (8200, "k", True)
    assert (options.webhook_secret, options.daily_quota) == ("whsec_eA==", 7)
    told = parse_options(["--port", "8300", "--no-strict-otp", "--daily-quota", "9"], environment)
    assert (told.port, told.strict_otp, told.daily_quota) == (8300, False, 9)


def test_without_options_it_is_the_demo() -> None:
    options = parse_options([], {})
    assert (options.host, options.port, options.api_key) == ("127.0.0.1", 8100, "sandbox-key")
    assert options.data == ROOT / "var" / "sandbox.sqlite3"
    assert (options.strict_otp, options.allow_put, options.daily_quota, options.per_minute) == (
        False,
        False,
        None,
        1000,
    )


def test_links_lead_to_the_public_address(tmp_path: Path) -> None:
    sandbox = SandboxProcess(tmp_path / "x", "--public-url", "https://codat.example/").start()
    try:
        assert Customer(sandbox).link().startswith("https://codat.example/link/company/")
    finally:
        sandbox.stop()


def test_without_a_public_address_links_lead_where_the_caller_came(sandbox: SandboxProcess) -> None:
    assert Customer(sandbox).link().startswith(f"{sandbox.url}/link/company/")


def test_latency_is_added_to_every_reply(tmp_path: Path) -> None:
    sandbox = SandboxProcess(tmp_path / "x", "--latency-ms", "120").start()
    try:
        assert call(sandbox, "GET", "/companies").elapsed.total_seconds() >= 0.12
    finally:
        sandbox.stop()


def test_it_imports_nothing_of_the_product() -> None:
    ours = [name for path in (ROOT / "feeds" / "sandbox").glob("*.py") for name in imported(path)]
    product = [name for name in ours if name.startswith(("feeds", "backoffice")) and not is_sandbox(name)]
    assert "feeds.sandbox" in {name[:13] for name in ours}
    assert product == []


def test_the_product_imports_nothing_of_it() -> None:
    paths = [path for room in ("feeds", "backoffice") for path in (ROOT / room).rglob("*.py")]
    product = [path for path in paths if "sandbox" not in path.relative_to(ROOT).parts]
    assert len(product) > 5
    assert [path for path in product if any(is_sandbox(name) for name in imported(path))] == []


def imported(path: Path) -> list[str]:
    """Return the names a module imports, ``from a import b`` as ``a.b``."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def is_sandbox(name: str) -> bool:
    return name == "feeds.sandbox" or name.startswith("feeds.sandbox.")
