"""What the product wrote into a row is read in the reader's language; what others said stays as they said it."""

from __future__ import annotations

import pytest
from django.utils import translation

from feeds import wording
from feeds.codat import errors
from feeds.wording import recorded, retold

NBSP = "\N{NO-BREAK SPACE}"


def in_french(text: str) -> str:
    with translation.override("fr"):
        return retold(text)


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ("", ""),
        ("Fresh link fetched.", "Nouveau lien obtenu."),
        ("Created as “Harbor Light”.", f"Créée sous «{NBSP}Harbor Light{NBSP}»."),
        ("Created as “Created as.”.", f"Créée sous «{NBSP}Created as.{NBSP}»."),
        ("Now Linked.", f"Maintenant{NBSP}: Liée."),
        ("3 accounts in Codat.", "3 comptes dans Codat."),
        ("some accounts in Codat.", "some accounts in Codat."),
        ("3 accounts stop feeding.", "3 comptes cessent d’être alimentés."),
        ("1 account stops feeding.", "1 compte cesse d’être alimenté."),
        ("0 accounts stop feeding.", "0 compte cesse d’être alimenté."),
        ("21 rows", "21 lignes"),
        ("Robin Hall is signed out everywhere.", "La session de Robin Hall est fermée partout."),
        ("Robin Hall is my neighbour.", "Robin Hall is my neighbour."),
        ("Connected again", "De nouveau connecté"),
        ("Connected again – Connected again", "De nouveau connecté – Connected again"),
        ("disconnected: Chequing, Savings", f"déconnecté{NBSP}: Chequing, Savings"),
        ("Unlinked: no account", f"Dissociée{NBSP}: aucun compte"),
        ("Feed broke: Support", f"Flux interrompu{NBSP}: Support"),
        ("We phoned them. They will reconnect.", "We phoned them. They will reconnect."),
        ("Active: no → yes; Roles: none → Support", f"Actif{NBSP}: non → oui; Rôles{NBSP}: aucun → Support"),
        (
            "Onboarding: Link ready → Needs attention; In Codat: no → yes",
            f"Intégration{NBSP}: Lien prêt → Intervention requise; Dans Codat{NBSP}: non → oui",
        ),
        ("Status: not in Codat → pending", f"Statut{NBSP}: absent de Codat → en attente"),
        ("Roles: Draft → Queued", f"Rôles{NBSP}: Draft → Queued"),
        ("Plan: none → phone them", "Plan: none → phone them"),
        ("English title, French body", "titre anglais, texte français"),
        ("English title, and more", "English title, and more"),
        (
            "Changed since it was asked: Status: Linked → Unlinked. Nothing was done; if it is still wanted, ask anew.",
            f"Modifié depuis la demande{NBSP}: Statut{NBSP}: Liée → Dissociée. Rien n’a été fait; s’il le faut encore, "
            "refaites la demande.",
        ),
        (
            "In the Portal on 2026-11-26, by Kim Chief. As agreed.",
            "Dans le portail le 2026-11-26, par Kim Chief. As agreed.",
        ),
    ],
)
def test_stored_words(stored: str, told: str) -> None:
    assert in_french(stored) == told


def test_every_sentence_of_an_error_is_told_and_codats_own_words_are_kept() -> None:
    error = errors.Timeout("log", outcome_unknown=True, details="Company name is too long", correlation_id="abc-1")
    with recorded():
        stored = error.staff_message
    with translation.override("fr"):
        assert retold(stored) == error.staff_message
        assert "Company name is too long" in error.staff_message
        assert "abc-1" in error.staff_message


def test_the_last_answer_inside_a_sentence_is_told_too() -> None:
    stored = (
        "Gave up after 8 attempts. Press Retry once Codat is well again. Last answer: "
        "Codat is still working on the same request. The system looks again by itself. You need not do anything."
    )
    told = in_french(stored)
    assert told.startswith("Abandon après 8 tentatives.")
    assert told.endswith("Vous n’avez rien à faire.")


def test_in_the_language_of_the_record_nothing_is_changed() -> None:
    with translation.override("en"):
        assert retold("Fresh link fetched.") == "Fresh link fetched."


def test_a_record_is_in_the_sites_language_whoever_is_at_work() -> None:
    with translation.override("fr"), recorded():
        assert errors.Timeout("log").staff_message.startswith("Codat did not answer in time.")


def test_a_sentence_that_says_a_thing_twice_is_told_too() -> None:
    sentence = wording._sentence("%(who)s left; ask for %(who)s.", ("%(who)s est partie; demandez %(who)s.",))
    found = sentence.pattern.fullmatch("Rita Moreau left; ask for Rita Moreau.")
    assert found is not None
    assert sentence.tell(found, wording._book("fr")) == "Rita Moreau est partie; demandez Rita Moreau."
    assert sentence.pattern.fullmatch("Rita Moreau left; ask for Ahmed Said.") is None
