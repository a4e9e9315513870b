"""What `make lint` makes of pip-audit's answers."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
judge = runpy.run_path(str(ROOT / "requirements/audit.py"))["judge"]

GOOD = {"name": "django", "version": "5.2.19", "vulns": []}
UNKNOWN = {"name": "rich", "skip_reason": "not found"}
BAD = {"name": "requests", "version": "2.0.0", "vulns": [{"id": "PYSEC-2014-13", "fix_versions": ["2.3.0"]}]}


@pytest.mark.parametrize(
    ("code", "packages", "expected", "said"),
    [
        (0, [GOOD], 0, "1 packages, no known vulnerability"),
        (0, [GOOD, UNKNOWN], 0, "SKIPPED, not known to the service: rich"),
        (
            0,
            [UNKNOWN],
            0,
            "SKIPPED, the index here knows no advisories: nothing was audited. Where osv",
        ),
        (1, [GOOD, BAD, UNKNOWN], 1, "requests 2.0.0: PYSEC-2014-13, fixed in 2.3.0"),
        (1, None, 0, "SKIPPED, the advisory service cannot be reached: nothing was audited"),
    ],
)
def test_a_finding_fails_and_what_could_not_be_asked_is_said(
    code: int, packages: list[dict[str, Any]] | None, expected: int, said: str
) -> None:
    report = "" if packages is None else json.dumps({"dependencies": packages})
    result, lines = judge(code, report)
    assert result == expected
    assert said in "\n".join(lines)


def test_a_lock_file_that_cannot_be_read_fails(tmp_path: Path) -> None:
    lock = tmp_path / "prod.txt"
    lock.write_text("django\n")  # neither version nor hash
    done = subprocess.run(
        [sys.executable, "requirements/audit.py", str(lock)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "could not read the lock file" in done.stdout
