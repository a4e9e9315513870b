"""What a browser would post of a page as it stands: every field with its value, the hidden ones too."""

from __future__ import annotations

from html.parser import HTMLParser

from django.test import Client


def as_it_stands(client: Client, url: str) -> dict[str, list[str]]:
    """The fields of the page's forms; a test changes what its person types and posts the rest."""
    answer = client.get(url)
    assert answer.status_code == 200, url
    return fields_of(answer.content.decode())


def fields_of(html: str) -> dict[str, list[str]]:
    """Name -> values, in the order of the page."""
    page = _Fields()
    page.feed(html)
    return page.found


class _Fields(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self._select = ""
        self._textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a field in, as far as a browser would send it."""
        given = dict(attrs)
        name = given.get("name") or ""
        if tag == "input" and name and given.get("type") not in ("submit", "button", "image", "reset"):
            if given.get("type") not in ("checkbox", "radio"):
                self._add(name, given.get("value") or "")
            elif "checked" in given:
                self._add(name, given.get("value", "on") or "")
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in given:
            self._add(self._select, given.get("value") or "")
        elif tag == "textarea":
            self._textarea = name
            self._add(name, "")

    def handle_data(self, data: str) -> None:
        """The text of a text area; a browser leaves its first line end out, and sends both signs of the others."""
        if self._textarea:
            held = (self.found[self._textarea].pop() + data).removeprefix("\r").removeprefix("\n")
            self._add(self._textarea, held.replace("\r\n", "\n").replace("\n", "\r\n"))

    def handle_endtag(self, tag: str) -> None:
        """Leave a list or a text area."""
        if tag == "select":
            if self._select:
                self.found.setdefault(self._select, [""])
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""

    def _add(self, name: str, value: str) -> None:
        self.found.setdefault(name, []).append(value)
