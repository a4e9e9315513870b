"""A real chromium against the real site."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from tests.chromium import PATIENCE
from tests.factories import PASSWORD

# Every rule is run; what they found right is not described and carried over, which took longer than the rules.
VIOLATIONS_ONLY = {"resultTypes": ["violations"]}
SCREENSHOTS = Path(__file__).resolve().parents[2] / "docs" / "screenshots"


class Screens:
    """One person's browser window on the site."""

    def __init__(self, context: BrowserContext, base_url: str) -> None:
        self.page: Page = context.new_page()
        self.base_url = base_url
        self.problems: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def open(self, path: str) -> None:
        """Go to `path` of the site."""
        self.page.goto(f"{self.base_url}{path}")

    def sign_in(self, username: str) -> None:
        """Sign in with the tests' password."""
        self.open("/admin/login/")
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(f"{self.base_url}/admin/")

    def check(self, name: str, *, picture: bool = False) -> None:
        """What must hold on every screen: axe finds nothing, nothing scrolls sideways, the console is silent.

        With `picture`, and UPDATE_SCREENSHOTS=1 in the environment, a picture of it is kept in docs/screenshots.
        """
        # A click returns as soon as the next page begins to come.
        self.page.wait_for_load_state()
        assert self.problems == [], f"{name}: {self.problems}"
        found = Axe().run(self.page, options=VIOLATIONS_ONLY)
        # axe itself trips over the content security policy while it measures.
        self.problems.clear()
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        self.check_width(name)
        if picture and os.environ.get("UPDATE_SCREENSHOTS") == "1":
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            self.page.evaluate("window.scrollTo(0, 0)")
            self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def check_width(self, name: str) -> None:
        """Nothing scrolls sideways."""
        width = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width <= 0, f"{name}: {width} pixels wider than the window"


def is_cut_off(screens: Screens, element: str) -> bool:
    """Whether what is in `element` (a CSS selector) is wider than it, so that the rest has to be scrolled to."""
    return bool(screens.page.locator(element).first.evaluate("it => it.scrollWidth > it.clientWidth"))


@pytest.fixture
def window(chromium: Browser, live_server: object) -> Iterator[Callable[..., Screens]]:
    """Opens windows: `window()`, `window(width=400)`, `window(color_scheme="dark")`, `window(locale="fr-CA")`.

    Each is signed in apart."""
    contexts: list[BrowserContext] = []

    def open_window(
        *,
        width: int = 1280,
        color_scheme: str = "light",
        base_url: str = str(live_server),
        locale: str | None = None,
    ) -> Screens:
        context = chromium.new_context(
            locale=locale,
            viewport={"width": width, "height": 900},
            color_scheme=color_scheme,  # type: ignore[arg-type]
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        return Screens(context, base_url)

    yield open_window
    for context in contexts:
        context.close()
