"""The pure rules of `feeds.states`, as tables."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from feeds.services.exports import EVENTS
from feeds.sign_in.events import USED
from feeds.states import (
    CALLOUT_TRANSITIONS,
    CASE_NEXT_STEPS,
    CASE_PLAYBOOKS,
    CASE_TRANSITIONS,
    EVENT_DETAIL_LABELS,
    EVENT_LABELS,
    CalloutEventKind,
    CalloutState,
    CaseCause,
    CaseState,
    account_is_broken,
    event_detail_label,
    event_label,
    feed_is_broken,
)

NEVER, ONCE = False, True
HERE, LOST = False, True


@pytest.mark.parametrize(
    ("status", "accounts", "was_connected", "lost", "expected"),
    [
        # Never connected: nothing to miss, whatever became of it.
        ("PendingAuth", [], NEVER, HERE, False),
        ("PendingAuth", ["pending", "pending"], NEVER, HERE, False),
        ("PendingAuth", ["pending", "disconnected"], NEVER, HERE, False),
        ("PendingAuth", ["pending"], NEVER, LOST, False),
        ("SomethingNew", ["disconnected"], NEVER, HERE, False),
        # Linked: as good as its accounts.
        ("Linked", [], NEVER, HERE, False),
        ("Linked", ["connected", "pending", "connecting", "unknown", ""], NEVER, HERE, False),
        ("Linked", ["connected", "disconnected"], NEVER, HERE, True),
        ("Linked", ["disconnected"], ONCE, HERE, True),
        # Codat says so, whatever the accounts still say.
        ("Unlinked", [], NEVER, HERE, True),
        ("Unlinked", ["connected"], NEVER, HERE, True),
        ("Deauthorized", ["pending"], NEVER, HERE, True),
        # Connected once, and on its way back.
        ("PendingAuth", ["connected"], ONCE, HERE, False),
        ("PendingAuth", ["disconnected"], ONCE, HERE, True),
        ("SomethingNew", ["disconnected"], ONCE, HERE, True),
        # Gone from Codat.
        ("Linked", ["connected"], NEVER, LOST, True),
        ("PendingAuth", ["pending"], ONCE, LOST, True),
    ],
)
def test_which_feeds_are_broken(
    status: str, accounts: list[str], was_connected: bool, lost: bool, expected: bool
) -> None:
    assert feed_is_broken(status, accounts, was_connected=was_connected, lost=lost) is expected


@pytest.mark.parametrize(
    ("status", "account", "lost", "expected"),
    [
        ("Linked", "disconnected", HERE, True),
        ("Linked", "connected", HERE, False),
        ("Linked", "unknown", HERE, False),
        ("Unlinked", "connected", HERE, True),
        ("Unlinked", "disconnected", HERE, True),
        ("Unlinked", "pending", HERE, False),
        ("Deauthorized", "", HERE, False),
        ("Linked", "connected", LOST, True),
        ("Linked", "pending", LOST, False),
    ],
)
def test_which_accounts_of_a_broken_feed_are_broken(status: str, account: str, lost: bool, expected: bool) -> None:
    assert account_is_broken(status, account, lost=lost) is expected


def test_every_state_of_a_case_has_its_moves_and_every_cause_its_next_step() -> None:
    assert CASE_TRANSITIONS.keys() == set(CaseState)
    assert CASE_NEXT_STEPS.keys() == set(CaseCause)


def test_every_state_of_the_callout_has_its_moves_and_only_what_is_submitted_goes_back() -> None:
    assert CALLOUT_TRANSITIONS.keys() == set(CalloutState)
    back = {state for state, moves in CALLOUT_TRANSITIONS.items() if CalloutState.DRAFT in moves}
    assert back == {CalloutState.SUBMITTED}


def test_every_playbook_offers_every_action_once() -> None:
    assert CASE_PLAYBOOKS.keys() == set(CaseCause)
    actions = sorted(CASE_PLAYBOOKS[CaseCause.UNKNOWN])
    assert len(set(actions)) == 9
    for playbook in CASE_PLAYBOOKS.values():
        assert sorted(playbook) == actions


# --- Events of the change history ------------------------------------------------------------------------------------
FEEDS = Path(__file__).resolve().parent.parent / "feeds"
PUT_TOGETHER = {
    "services/callouts.py": {f"callout_{kind.value}" for kind in CalloutEventKind},
    "services/exports.py": set(EVENTS.values()),
    "sign_in/events.py": set(USED.values()),
}
"""Where the name of an event is not written out in the call, and the names that it can be."""


def recordings(source: str) -> Iterator[tuple[str | None, set[str]]]:
    """Of every call that records an event: its name, None if it is not written out, and the names of its details."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0]
        is_written_out = isinstance(first, ast.Constant)
        if name == "record" or (name == "_record" and is_written_out):
            details = {keyword.arg for keyword in node.keywords if keyword.arg} - {"text", "company", "reason"}
            yield (first.value if isinstance(first, ast.Constant) else None), details


def test_every_recorded_event_and_detail_has_words() -> None:
    events: set[str] = set()
    details: set[str] = set()
    not_written_out: set[str] = set()
    for path in sorted(FEEDS.rglob("*.py")):
        name = str(path.relative_to(FEEDS))
        for event, named in recordings(path.read_text()):
            details |= named
            if event is None:
                not_written_out.add(name)
            else:
                events.add(event)
    assert not_written_out == set(PUT_TOGETHER)
    assert events | set().union(*PUT_TOGETHER.values()) == set(EVENT_LABELS)
    assert sorted(details - set(EVENT_DETAIL_LABELS)) == []


def test_an_event_without_words_would_be_found() -> None:
    source = """audit.record("x_made", row, reason="r", seconds=1); record(name, row); _record(row, "started")"""
    assert list(recordings(source)) == [("x_made", {"seconds"}), (None, set())]


def test_an_event_of_an_older_release_is_told_by_its_name() -> None:
    assert (event_label("link_lost"), event_detail_label("long_ago")) == ("link lost", "long ago")
