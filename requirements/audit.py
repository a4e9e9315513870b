"""Known vulnerabilities of what is pinned: `python requirements/audit.py requirements/prod.txt`.

Runs pip-audit and reads its report. A finding fails. When the advisory service does not answer, nothing was audited:
that is said, and fails nothing, because a build without a network must not depend on it. pip-audit itself passes
silently over a package that the service does not know; here it is named.

Advisories come from the package index. A mirror often has none: `PIP_AUDIT_VULNERABILITY_SERVICE=osv` asks osv.dev
instead (`PIP_AUDIT_OSV_URL`: a copy of it).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

PATIENCE = 300
"""Seconds."""
NOTHING = "nothing was audited. Where osv.dev can be reached: PIP_AUDIT_VULNERABILITY_SERVICE=osv make lint"


def run(file: str) -> tuple[int, str]:
    """Ask pip-audit about a lock file: exit code and report as JSON, which is empty when it could not ask."""
    command = ["pip-audit", "--require-hashes", "--disable-pip", "--requirement", file, "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)  # noqa: S603
    except subprocess.TimeoutExpired:
        return 1, ""
    if not done.stdout and "requirement" in done.stderr.lower() and "Connection" not in done.stderr:
        return 2, done.stderr
    return done.returncode, done.stdout


def judge(code: int, report: str) -> tuple[int, list[str]]:
    """Exit code and lines to print for what pip-audit answered."""
    if code == 2:
        return 1, ["pip-audit: could not read the lock file", report.strip()]
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        return 0, [f"pip-audit: SKIPPED, the advisory service cannot be reached: {NOTHING}"]
    found = [_line(package, flaw) for package in packages for flaw in package.get("vulns", [])]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if found:
        return 1, ["pip-audit: known vulnerabilities", *found]
    if packages and len(skipped) == len(packages):
        return 0, [f"pip-audit: SKIPPED, the index here knows no advisories: {NOTHING}"]
    lines = [f"pip-audit: {len(packages) - len(skipped)} packages, no known vulnerability"]
    return 0, lines + ([f"pip-audit: SKIPPED, not known to the service: {', '.join(skipped)}"] if skipped else [])


def _line(package: dict[str, Any], flaw: dict[str, Any]) -> str:
    fixed = ", ".join(flaw.get("fix_versions", [])) or "no version yet"
    return f"  {package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}"


def main(arguments: Sequence[str]) -> int:
    """Audit the named lock file; the exit code for make."""
    code, lines = judge(*run(arguments[0]))
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
