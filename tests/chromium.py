"""One real chromium for the whole session: Playwright's synchronous interface runs only once in a thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

# Its event loop stays in this thread; Django would refuse the ORM there.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 10_000
"""Milliseconds until something that should be on the page is missed."""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser; tests that ask for it are skipped, and say so, where there is none."""
    if not CHROMIUM:
        pytest.skip("no chromium on this machine: install one, or name it in CHROMIUM")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()
