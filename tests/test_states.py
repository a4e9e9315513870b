"""The pure rules of `feeds.states`, as tables."""

from __future__ import annotations

import pytest

from feeds.states import (
    CALLOUT_TRANSITIONS,
    CASE_NEXT_STEPS,
    CASE_PLAYBOOKS,
    CASE_TRANSITIONS,
    CalloutState,
    CaseCause,
    CaseState,
    account_is_broken,
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
