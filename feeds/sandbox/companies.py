"""Companies: the rules of their fields, and how they are kept and shown."""

import json
import re
import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any

from feeds.sandbox import events
from feeds.sandbox.clock import iso
from feeds.sandbox.links import LinkMint
from feeds.sandbox.replies import Page, Refusal, Reply
from feeds.sandbox.store import Record, dump

NAME_ALPHABET = re.compile(r"[^A-Za-z0-9\s\-',&@.,?!]")
MAX_TAGS, MAX_TAG_KEY, MAX_TAG_VALUE = 10, 27, 100
TAG_TERM = re.compile(r"(?P<key>[^=!~]+)(?P<operator>!=|=|~)(?P<value>.*)", re.DOTALL)


def clean_name(value: Any) -> str:
    """Return the name Codat stores: characters outside its alphabet vanish without a word.

    Raises:
        Refusal: 400, no name or nothing left of it.
    """
    if not isinstance(value, str):
        raise Refusal(400, "'Name' must not be empty.", "name")
    kept = NAME_ALPHABET.sub("", value)
    if not kept.strip():
        raise Refusal(400, "'Name' must contain at least one allowed character.", "name")
    return kept


def check_tags(value: Any) -> dict[str, str]:
    """Return the tags when they keep to the limits: 10 pairs, keys of 1-27 and values of at most 100 characters.

    Raises:
        Refusal: 400, they do not.
    """
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Refusal(400, "'Tags' must be an object of texts.", "tags")
    if len(value) > MAX_TAGS:
        raise Refusal(400, f"A company can have at most {MAX_TAGS} tags.", "tags")
    for key, text in value.items():
        if not 1 <= len(key) <= MAX_TAG_KEY or len(text) > MAX_TAG_VALUE:
            raise Refusal(400, f"Tag '{key}' is too long.", "tags")
    return value


def create(db: sqlite3.Connection, fields: Record, now: float) -> str:
    """Store a new company and return its id.

    Raises:
        Refusal: 400, a field breaks its rule.
    """
    company: Record = {"id": str(uuid.uuid4()), "name": clean_name(fields.get("name"))}
    if (description := _description(fields)) is not None:
        company["description"] = description
    company |= {"created": iso(now), "createdByUserName": None, "products": []}
    company["tags"] = check_tags(fields.get("tags") or {})
    db.execute(
        "INSERT INTO companies SELECT coalesce(max(position), 0) + 1, ?, ?, ? FROM companies",
        (company["id"], company["name"], dump(company)),
    )
    _store_tags(db, company)
    events.emit(db, "company.created", {"referenceCompany": events.reference(company)}, now)
    return str(company["id"])


def update(db: sqlite3.Connection, company_id: str, fields: Record) -> None:
    """Change only the given fields; an empty ``tags`` object wipes all tags.

    Raises:
        Refusal: 404 no such company, 400 a field breaks its rule.
    """
    company = get(db, company_id)
    if fields.get("name") is not None:
        company["name"] = clean_name(fields["name"])
    if (description := _description(fields)) is not None:
        company["description"] = description
    if fields.get("tags") is not None:
        company["tags"] = check_tags(fields["tags"])
        _store_tags(db, company)
    db.execute("UPDATE companies SET name = ?, body = ? WHERE id = ?", (company["name"], dump(company), company_id))


def delete(db: sqlite3.Connection, company_id: str, now: float) -> None:
    """Delete a company and all it owns.

    Raises:
        Refusal: 404, no such company.
    """
    company = get(db, company_id)
    owned = "SELECT id FROM connections WHERE company_id = ?"
    for table in ("source_accounts", "credentials"):
        db.execute(f"DELETE FROM {table} WHERE connection_id IN ({owned})", (company_id,))  # noqa: S608 - constants
    for table in ("connections", "tags"):
        db.execute(f"DELETE FROM {table} WHERE company_id = ?", (company_id,))  # noqa: S608 - constants
    _delete_row(db, company_id)
    events.emit(db, "company.deleted", {"referenceCompany": events.reference(company)}, now)


def get(db: sqlite3.Connection, company_id: str) -> Record:
    """Return a company as stored, without its connections.

    Raises:
        Refusal: 404, no such company.
    """
    row = db.execute("SELECT body FROM companies WHERE id = ?", (company_id,)).fetchone()
    if row is None:
        raise Refusal(404, f"Company with id '{company_id}' not found.")
    company: Record = json.loads(row["body"])
    return company


def show(db: sqlite3.Connection, company_id: str, mint: LinkMint) -> str:
    """Return a company with its connections, serialised.

    Raises:
        Refusal: 404, no such company.
    """
    get(db, company_id)
    return next(_shown(db, "c.id = ?", (company_id,), mint))


def listing(db: sqlite3.Connection, page: Page, mint: LinkMint, tags: str | None = None) -> Reply:
    """Answer one page of companies, each with its connections and a fresh link for every one.

    Args:
        db: Open transaction.
        page: Which part.
        mint: Mints the links.
        tags: Filter such as ``uid=abc && region~north || tier!=gold``.

    Raises:
        Refusal: 400, the filter is malformed.
    """
    if tags is not None:
        return _filtered(db, page, mint, tags)
    total = db.execute("SELECT coalesce(max(position), 0) FROM companies").fetchone()[0]
    return page.reply(_shown(db, "c.position BETWEEN ? AND ?", (page.first, page.last), mint), total)


def _filtered(db: sqlite3.Connection, page: Page, mint: LinkMint, tags: str) -> Reply:
    condition, values = tag_condition(tags)
    query = f"SELECT position FROM companies WHERE {condition} ORDER BY position"  # noqa: S608 - values are bound
    found = [row[0] for row in db.execute(query, values)]
    chosen = json.dumps(found[page.first - 1 : page.last])
    return page.reply(_shown(db, "c.position IN (SELECT value FROM json_each(?))", (chosen,), mint), len(found))


def tag_condition(expression: str) -> tuple[str, list[str]]:
    """Turn a tag filter into SQL over ``companies`` and its values; ``&&`` binds tighter than ``||``.

    Raises:
        Refusal: 400, a term is not ``key=value``, ``key!=value`` or ``key~value``.
    """
    alternatives: list[str] = []
    values: list[str] = []
    for alternative in expression.split("||"):
        terms = [_term(term.strip(), values) for term in alternative.split("&&")]
        alternatives.append("(" + " AND ".join(terms) + ")")
    return " OR ".join(alternatives), values


def _term(term: str, values: list[str]) -> str:
    match = TAG_TERM.fullmatch(term)
    if match is None:
        raise Refusal(400, f"Cannot read the tag filter '{term}'.", "tags")
    values += [match["key"].strip(), match["value"].strip()]
    test = "instr(value, ?) > 0" if match["operator"] == "~" else "value = ?"
    verb = "NOT IN" if match["operator"] == "!=" else "IN"
    return f"id {verb} (SELECT company_id FROM tags WHERE key = ? AND {test})"  # noqa: S608 - values are bound


def _shown(db: sqlite3.Connection, condition: str, values: tuple[Any, ...], mint: LinkMint) -> Iterator[str]:
    """Serialise the companies that meet a condition, by gluing stored JSON: parsing 5,000 bodies would cost most."""
    rows = db.execute(
        "SELECT c.id AS company_id, c.body AS company, n.id AS connection_id, n.body AS connection "  # noqa: S608
        "FROM companies c LEFT JOIN connections n ON n.company_id = c.id "
        f"WHERE {condition} ORDER BY c.position, n.seq",
        values,
    )
    current, body, connections = "", "", list[str]()
    for company_id, company, connection_id, connection in rows:
        if company_id != current:
            if current:
                yield _glue(current, body, connections, mint)
            current, body, connections = company_id, company, []
        if connection_id is not None:
            connections.append(f'{connection[:-1]},"linkUrl":"{mint.url(company_id, connection_id)}"}}')
    if current:
        yield _glue(current, body, connections, mint)


def _glue(company_id: str, body: str, connections: list[str], mint: LinkMint) -> str:
    redirect = f"{mint.public_url}/link/company/{company_id}"
    return f'{body[:-1]},"redirect":"{redirect}","dataConnections":[{",".join(connections)}]}}'


def _description(fields: Record) -> str | None:
    description = fields.get("description")
    if description is not None and not isinstance(description, str):
        raise Refusal(400, "'Description' must be a text.", "description")
    return description


def _store_tags(db: sqlite3.Connection, company: Record) -> None:
    db.execute("DELETE FROM tags WHERE company_id = ?", (company["id"],))
    rows = [(company["id"], key, value) for key, value in company["tags"].items()]
    db.executemany("INSERT INTO tags VALUES (?, ?, ?)", rows)


def _delete_row(db: sqlite3.Connection, company_id: str) -> None:
    """Delete the row and move the last one into its place, so that positions stay dense without renumbering."""
    hole = db.execute("DELETE FROM companies WHERE id = ? RETURNING position", (company_id,)).fetchone()[0]
    db.execute(
        "UPDATE companies SET position = ? WHERE position = (SELECT max(position) FROM companies) AND position > ?",
        (hole, hole),
    )
