"""The benches still run. What they measure is for people to judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.own_database, pytest.mark.timeout(600)]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m tests.bench ...` on a database of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


def test_a_small_run_prints_a_table_and_writes_figures_with_their_circumstances(tmp_path: Path) -> None:
    ran = bench("limiter", "pages", "--rows", "60", "--json", str(tmp_path / "figures.json"))
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["machine"]["cores"] == os.cpu_count()
    assert report["rows"] == 60
    assert {figure["bench"] for figure in report["figures"]} == {"limiter", "pages"}
    assert all(figure["value"] > 0 for figure in report["figures"])
    assert "change history" in ran.stdout


def test_the_sweep_and_the_worklist_run_in_small_each_on_an_empty_database(tmp_path: Path) -> None:
    sizes = ("--statuses", "300", "--accounts", "200", "--cases", "80", "--json", str(tmp_path / "figures.json"))
    ran = bench("sweep", "worklist", *sizes)
    assert ran.returncode == 0, ran.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    written = {it["note"]: it["value"] for it in figures if it["figure"] == "statuses written"}
    assert written == {"300 connections, 0 % changed": 0, "300 connections, 1 % changed": 3}
    assert [it["note"] for it in figures if it["bench"] == "worklist" and "as with few" not in it["note"]] == []


def test_customers_come_to_the_door_in_small_and_codats_limits_hold(tmp_path: Path) -> None:
    ran = bench("door", "--customers", "6", "--seconds", "1", "--json", str(tmp_path / "figures.json"))
    assert ran.returncode == 0, ran.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    opened = [it["value"] for it in figures if it["figure"] == "links that opened"]
    calls = [it["value"] for it in figures if it["figure"] == "calls to Codat in the busiest minute"]
    assert len(opened) == 2
    # Links that live are handed out again; the others are fetched each time.
    assert calls[0] <= 6 <= opened[0]
    assert calls[1] == opened[1] >= 6


def test_the_invitations_run_in_small_and_each_screen_costs_as_much_as_with_few(tmp_path: Path) -> None:
    ran = bench("invitations", "--invitations", "1000", "--json", str(tmp_path / "figures.json"))
    assert ran.returncode == 0, ran.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert len(figures) == 12
    assert [it for it in figures if "as with few" not in it["note"]] == []


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    refused = bench("speed")
    assert refused.returncode == 2
    assert "no such bench: speed" in refused.stderr
