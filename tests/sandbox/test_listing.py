"""Paging and tag filters, and what a page costs."""

import sqlite3
from collections.abc import Callable

import pytest

from feeds.sandbox import companies, seed
from feeds.sandbox.links import LinkMint
from feeds.sandbox.replies import Page
from feeds.sandbox.store import Store
from tests.sandbox.customer import Customer, call
from tests.sandbox_process import SandboxProcess


def names(sandbox: SandboxProcess, query: str = "") -> list[str]:
    answer = call(sandbox, "GET", f"/companies{query}")
    assert answer.status_code == 200
    return [company["name"] for company in answer.json()["results"]]


def test_pages_cover_every_company_once(sandbox: SandboxProcess) -> None:
    sandbox.control("POST", "seed", {"companies": 25, "accounts": 1})
    pages = [names(sandbox, f"?page={number}&pageSize=10") for number in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert len({name for page in pages for name in page}) == 25


def test_a_page_holds_a_hundred_unless_told_and_five_thousand_at_most(sandbox: SandboxProcess) -> None:
    sandbox.control("POST", "seed", {"companies": 5001})
    assert len(names(sandbox)) == 100
    assert len(names(sandbox, "?pageSize=5000")) == 5000
    assert call(sandbox, "GET", "/companies?pageSize=5001").status_code == 400


@pytest.mark.parametrize("query", ["page=0", "page=-1", "page=x", "pageSize=0", "page=%D9%A1"])
def test_a_page_out_of_range_is_400(sandbox: SandboxProcess, query: str) -> None:
    assert call(sandbox, "GET", f"/companies?{query}").status_code == 400


def test_pages_stay_complete_when_companies_go(sandbox: SandboxProcess) -> None:
    made = [Customer(sandbox, name=f"Company {letter}") for letter in "ABCDE"]
    for position in (1, 4, 0):
        assert call(sandbox, "DELETE", made[position].company_path).status_code == 204
    assert sorted(names(sandbox, "?page=1&pageSize=1") + names(sandbox, "?page=2&pageSize=1")) == [
        "Company C",
        "Company D",
    ]
    Customer(sandbox, name="Company F")
    assert sorted(names(sandbox)) == ["Company C", "Company D", "Company F"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("region=north", "AB"),
        ("region!=north", "CD"),
        ("region~ort", "AB"),
        ("region=north && tier=gold", "A"),
        ("tier=gold || region=south", "AC"),
        ("region=north&&tier!=gold||region~ou", "BC"),
        ("uid=no'one", ""),
    ],
)
def test_tags_filter_companies(sandbox: SandboxProcess, expression: str, expected: str) -> None:
    tags: dict[str, dict[str, str]] = {
        "A": {"region": "north", "tier": "gold"},
        "B": {"region": "north", "tier": "tin"},
        "C": {"region": "south"},
        "D": {},
    }
    for name, values in tags.items():
        call(sandbox, "POST", "/companies", {"name": name, "tags": values})
    encoded = expression.replace("&", "%26").replace("=", "%3D").replace("|", "%7C")
    assert "".join(names(sandbox, f"?tags={encoded}")) == expected


def test_a_filtered_listing_is_paged_and_its_links_keep_the_filter(sandbox: SandboxProcess) -> None:
    for number in range(3):
        call(sandbox, "POST", "/companies", {"name": f"Company {number}", "tags": {"region": "north"}})
        call(sandbox, "POST", "/companies", {"name": "Other"})
    page = call(sandbox, "GET", "/companies?tags=region%3Dnorth&page=2&pageSize=1").json()
    assert ([company["name"] for company in page["results"]], page["totalResults"]) == (["Company 1"], 3)
    following = call(sandbox, "GET", page["_links"]["next"]["href"]).json()
    assert [company["name"] for company in following["results"]] == ["Company 2"]


def test_a_malformed_filter_is_400(sandbox: SandboxProcess) -> None:
    assert call(sandbox, "GET", "/companies?tags=north").status_code == 400


SMALL, LARGE = 500, 20_000


@pytest.fixture(scope="module")
def stores() -> dict[int, Store]:
    """A small and a large store, seeded alike."""
    made = {size: Store(":memory:") for size in (SMALL, LARGE)}
    for size, store in made.items():
        with store.transaction() as db:
            seed.fill(db, size, 0, True, 1_700_000_000.0)
    return made


def steps(db: sqlite3.Connection, work: Callable[[], object]) -> int:
    """Count the virtual-machine steps SQLite takes, in hundreds."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    db.set_progress_handler(count, 100)
    try:
        work()
    finally:
        db.set_progress_handler(None, 100)
    return taken


def cost(store: Store, page: Page, strict: bool = False, tags: str | None = None) -> int:
    def listing(db: sqlite3.Connection) -> None:
        mint = LinkMint(db, 1_700_000_000.0, "http://codat.test", strict)
        reply = companies.listing(db, page, mint, tags)
        mint.supersede()
        assert reply.body.count('"linkUrl"') == (1 if tags else page.size)

    with store.transaction() as db:
        return steps(db, lambda: listing(db))


@pytest.mark.parametrize("strict", [False, True])
def test_a_page_costs_the_same_in_a_table_forty_times_larger(stores: dict[int, Store], strict: bool) -> None:
    small = cost(stores[SMALL], Page(1, 100, "/companies", {}), strict)
    first = cost(stores[LARGE], Page(1, 100, "/companies", {}), strict)
    last = cost(stores[LARGE], Page(LARGE // 100, 100, "/companies", {}), strict)
    assert small > 5
    assert max(first, last) < 1.5 * small


@pytest.mark.parametrize("tags", [None, "uid=seed-0000077"])
def test_no_statement_of_a_listing_scans_a_table(stores: dict[int, Store], tags: str | None) -> None:
    statements: list[str] = []
    with stores[SMALL].transaction() as db:
        db.set_trace_callback(statements.append)
        companies.listing(db, Page(2, 100, "/companies", {}), LinkMint(db, 1.0, "http://codat.test", True), tags)
        db.set_trace_callback(None)
        plans = [str(row["detail"]) for each in statements for row in db.execute(f"EXPLAIN QUERY PLAN {each}")]
    assert any(plan.startswith("SEARCH") for plan in plans)
    assert [plan for plan in plans if plan.startswith("SCAN") and "VIRTUAL TABLE" not in plan] == []


def test_a_larger_page_costs_in_proportion(stores: dict[int, Store]) -> None:
    hundred = cost(stores[LARGE], Page(1, 100, "/companies", {}))
    thousand = cost(stores[LARGE], Page(1, 1000, "/companies", {}))
    assert 7 * hundred < thousand < 13 * hundred


def test_finding_one_company_by_its_tag_costs_the_same_in_a_larger_table(stores: dict[int, Store]) -> None:
    page = Page(1, 100, "/companies", {})
    small = cost(stores[SMALL], page, tags="uid=seed-0000077")
    assert cost(stores[LARGE], page, tags="uid=seed-0000077") <= small + 1
