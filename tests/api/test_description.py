"""The API does what openapi.json says of it: schemathesis attacks it over HTTP, as anybody may do by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from tests.api.conftest import MakeKey

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_schemathesis_finds_no_failure(
    live_server: LiveServer, make_key: MakeKey, settings: Settings, tmp_path: Path
) -> None:
    settings.API_CALLS_PER_MINUTE = 1_000_000
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file",
            CONFIG,
            "run",
            f"{live_server.url}/api/v1/openapi.json",
            "--no-color",
        ],
        env={**os.environ, "BANK_FEEDS_KEY": make_key().token},
        capture_output=True,
        text=True,
        cwd=tmp_path,  # it leaves what it has learned there
        timeout=170,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
