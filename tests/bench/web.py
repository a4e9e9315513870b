"""One gunicorn, as the Procfile starts it, on a port of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import requests

from tests.sandbox_process import ROOT, free_port

READY_WITHIN = 30.0


class Web:
    """The product's web server in processes of its own. `environment`: its settings; `log`: where it writes."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError when it does not."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *procfile_command(self.port)],
                cwd=ROOT,
                env=dict(self._environment),
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + READY_WITHIN
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"gunicorn did not start:\n{self._log.read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthz", timeout=1).ok
        except requests.RequestException:
            return False


def procfile_command(port: int) -> list[str]:
    """The web server's command with that port: what is measured is what runs."""
    (line,) = [line for line in (ROOT / "Procfile").read_text().splitlines() if line.startswith("web: ")]
    return shlex.split(line.removeprefix("web: ").replace("$PORT", str(port)))
