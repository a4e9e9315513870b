"""The same limits everywhere: in the form, the model, the database and the form of the stand-in's Portal."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
import requests
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds.admin.callouts import CalloutForm
from feeds.callout_text import normalise, refusals
from feeds.models import CalloutVersion
from feeds.models.callout import CALLOUT_TEXTS
from tests.factories import CalloutVersionFactory
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db

EMPTY = dict.fromkeys(CALLOUT_TEXTS, "")
LETTERS = {
    "ASCII": "x",
    "composed accents": "\u00e9",
    "decomposed accents": "e\u0301",
    "emoji": "🍁",
}
every_place = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=60
)


def counted(text: str) -> int:
    """The length as the Portal's form has it; written down a second time on purpose."""
    return len(unicodedata.normalize("NFC", text.strip()).encode("utf-16-le")) // 2


def of_length(letter: str, wanted: int) -> str:
    """A text of one kind of letter, filled up to the exact length."""
    text = letter * (wanted // counted(letter))
    return text + "x" * (wanted - counted(text))


# --- The places ------------------------------------------------------------------------------------------------------
def form_takes(name: str, text: str) -> bool:
    """As staff type it."""
    return CalloutForm({**EMPTY, "note": "", name: text}).is_valid()


def model_takes(name: str, text: str) -> bool:
    """As code that asks first."""
    version = CalloutVersion(**{**EMPTY, name: text}, state_since=timezone.now(), state_by_name="Robin Staff")
    try:
        version.full_clean()
    except ValidationError:
        return False
    return True


def database_takes(name: str, text: str) -> bool:
    """As code that does not ask."""
    return _is_written(lambda: CalloutVersionFactory(**{**EMPTY, name: text}))


def raw_sql_takes(name: str, text: str) -> bool:
    """As somebody who passes by every line of ours."""
    version = CalloutVersionFactory(**EMPTY)

    def write() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE feeds_calloutversion SET {name} = %s WHERE id = %s", [text, version.pk])  # noqa: S608

    return _is_written(write)


def _is_written(write: Callable[[], object]) -> bool:
    """Whether the database takes it; nothing is kept."""
    try:
        with transaction.atomic():
            write()
            transaction.set_rollback(True)
    except IntegrityError:
        return False
    return True


def portal_takes(sandbox: SandboxProcess, name: str, text: str) -> bool:
    """As the form of the Portal."""
    return requests.post(f"{sandbox.url}/portal/callout", {name: text}, timeout=10).status_code == 200


def verdicts(sandbox: SandboxProcess, name: str, text: str) -> dict[str, bool]:
    """What each place says. Raw SQL is handed what would be stored."""
    return {
        "form": form_takes(name, text),
        "model": model_takes(name, text),
        "database": database_takes(name, text),
        "raw SQL": raw_sql_takes(name, normalise(text)),
        "Portal": portal_takes(sandbox, name, text),
    }


# --- The limits ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("over", [0, 1], ids=["at the limit", "one over"])
@pytest.mark.parametrize("name", CALLOUT_TEXTS)
@pytest.mark.parametrize("letter", LETTERS.values(), ids=LETTERS)
def test_every_place_draws_the_line_at_50_and_150(sandbox: SandboxProcess, letter: str, name: str, over: int) -> None:
    text = of_length(letter, CALLOUT_TEXTS[name] + over)
    assert counted(text) == {"title": 50, "body": 150}[name[:-3]] + over
    assert set(verdicts(sandbox, name, text).values()) == {not over}, verdicts(sandbox, name, text)


@st.composite
def near_the_limit(draw: st.DrawFn, limit: int) -> str:
    """Mixed letters, some longer or shorter once composed, whose length is about the limit."""
    pieces = st.sampled_from(
        [*LETTERS.values(), " ", "ç", "c\u0327", "👩\u200d💻", "日", "\u1e69", "s\u0323\u0307", "’"]
    )
    wanted = limit + draw(st.integers(-2, 2))
    text = ""
    for piece in draw(st.lists(pieces, min_size=limit + 2, max_size=limit + 2)):
        if counted(text) >= wanted:
            break
        text += piece
    return text


@given(text=near_the_limit(50), language=st.sampled_from(["en", "fr"]))
@every_place
def test_every_place_says_the_same_of_a_title(sandbox: SandboxProcess, text: str, language: str) -> None:
    assert set(verdicts(sandbox, f"title_{language}", text).values()) == {counted(text) <= 50}


@given(text=near_the_limit(150), language=st.sampled_from(["en", "fr"]))
@every_place
def test_every_place_says_the_same_of_a_body(sandbox: SandboxProcess, text: str, language: str) -> None:
    assert set(verdicts(sandbox, f"body_{language}", text).values()) == {counted(text) <= 150}


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
@every_place
def test_the_database_counts_any_text_exactly(text: str) -> None:
    assert raw_sql_takes("title_fr", text) == (len(text.encode("utf-16-le")) // 2 <= 50)


@pytest.mark.parametrize("value", ["short\0" + "x" * 500, b"x" * 40], ids=["behind a NUL", "no text"])
def test_the_database_takes_nothing_that_it_cannot_count(value: str | bytes) -> None:
    if isinstance(value, bytes) and connection.vendor != "sqlite":
        pytest.skip("only SQLite keeps bytes in a column of text")
    version = CalloutVersionFactory()
    with pytest.raises((DatabaseError, ValueError)), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE feeds_calloutversion SET title_en = %s WHERE id = %s", [value, version.pk])


@given(text=st.text(max_size=60))
@every_place
def test_what_we_take_the_portal_takes_as_it_is(sandbox: SandboxProcess, text: str) -> None:
    form = CalloutForm({**EMPTY, "note": "", "body_fr": text})
    if not form.is_valid():
        return
    stored = form.instance.body_fr
    assert normalise(stored) == stored
    assert portal_takes(sandbox, "body_fr", stored)


@given(text=st.text(max_size=60))
@every_place
def test_form_and_model_refuse_the_same(text: str) -> None:
    good = not refusals(normalise(text), 50)
    assert (form_takes("title_en", text), model_takes("title_en", text)) == (good, good)


@pytest.mark.parametrize("name", CALLOUT_TEXTS)
def test_what_is_stored_is_composed_whichever_way_it_comes(name: str) -> None:
    version = CalloutVersionFactory(**{name: "  e\u0301te\u0301 "})
    assert getattr(version, name) == "été"
    CalloutVersion.objects.filter(pk=version.pk).update(**{name: "cafe\u0301"})
    version.refresh_from_db()
    assert getattr(version, name) == "café"
    assert CalloutVersion.objects.filter(**{name: "cafe\u0301"}).exists()
