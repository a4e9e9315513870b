"""Pictures say in words what they show, hold whatever text they are given, and never draw outside their frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds import pictures
from feeds.admin import pictures as five
from feeds.pictures import HEIGHT, WIDTH, Chart, Column, FunnelChart, Meter, Picture, Series, Stage, Table
from feeds.services.budget import BudgetState
from feeds.services.figures import STATUSES, AgeGroup, DayFlow, Repairs, RepairWeek, StatusDay
from feeds.states import Tone

SVG = "{http://www.w3.org/2000/svg}"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TODAY = NOW.date()
SKIN = Path(__file__).resolve().parent.parent / "feeds" / "static" / "feeds" / "skin.css"

numbers = st.one_of(st.integers(0, 10**12), st.floats(0, 1e12, allow_nan=False))


def chart(*series: Sequence[float | None], **changes: object) -> Chart:
    """A chart of one or more series over as many days as they have values."""
    made = Chart(
        key="test",
        title="Title",
        summary="Summary.",
        empty="Nothing.",
        x_label="Day",
        y_label="Things",
        columns=tuple(Column(f"day {index}", str(index)) for index in range(len(series[0]))),
        series=tuple(Series(f"series {index}", Tone.GOOD, tuple(values)) for index, values in enumerate(series)),
        as_of=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def parsed(picture: Picture) -> ElementTree.Element:
    """The drawing as a tree: it must be well-formed."""
    named = picture.svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ElementTree.fromstring(named)  # noqa: S314  # our own drawing


def shapes(picture: Picture, tag: str) -> list[dict[str, float]]:
    """The measures of all elements of one kind."""
    found = parsed(picture).iter(f"{SVG}{tag}")
    return [
        {name: float(value) for name, value in it.attrib.items() if name not in ("class", "points", "text-anchor")}
        for it in found
    ]


def cells(picture: Picture) -> Table:
    """The text equivalent."""
    assert picture.table is not None
    return picture.table


# --- The forms -------------------------------------------------------------------------------------------------------
@given(numbers)
def test_a_scale_holds_the_highest_value_in_few_steps_and_wastes_little(highest: float) -> None:
    scale = pictures.scale_for(highest)
    assert scale.top >= highest * (1 - 1e-12)
    assert 2 <= len(scale.lines) <= pictures.MOST_STEPS + 1
    assert scale.lines[0] == 0
    assert scale.lines[-1] == scale.top
    assert scale.top - scale.step <= max(highest, 1)
    assert str(scale.step).rstrip("0") in ("1", "2", "5")


@given(st.lists(st.one_of(st.none(), numbers), min_size=1, max_size=60), st.sampled_from(["bars", "stacked", "lines"]))
def test_no_shape_leaves_the_frame_and_a_higher_value_is_never_drawn_lower(
    values: list[float | None], form: str
) -> None:
    draw = {"bars": pictures.bars, "stacked": pictures.stacked_bars, "lines": pictures.lines}[form]
    picture = draw(chart(values))
    known = [value for value in values if value is not None]
    if not known:
        assert picture.svg == ""
        return
    assert all(bar["x"] >= 0 and bar["x"] + bar["width"] <= WIDTH for bar in shapes(picture, "rect"))
    assert all(
        bar["y"] >= 0 and bar["height"] >= 0 and bar["y"] + bar["height"] <= HEIGHT for bar in shapes(picture, "rect")
    )
    assert all(0 <= dot["cx"] <= WIDTH and 0 <= dot["cy"] <= HEIGHT for dot in shapes(picture, "circle"))
    assert all(0 <= text["x"] <= WIDTH and 0 <= text["y"] <= HEIGHT for text in shapes(picture, "text"))
    drawn = known if form != "stacked" else [value for value in known if value]
    tops = [-dot["cy"] for dot in shapes(picture, "circle")] or [-bar["y"] for bar in shapes(picture, "rect")]
    assert len(tops) == len(drawn)
    ordered = [top for _value, top in sorted(zip(drawn, tops, strict=True))]
    assert ordered == sorted(ordered)


def test_a_bar_is_as_high_as_its_value() -> None:
    two, four = shapes(pictures.bars(chart([2, 4])), "rect")
    assert four["height"] == pytest.approx(2 * two["height"], abs=0.11)


def test_stacked_bars_stand_on_each_other() -> None:
    lower, upper = shapes(pictures.stacked_bars(chart([3], [5])), "rect")
    assert upper["y"] + upper["height"] == pytest.approx(lower["y"], abs=0.11)


def test_a_column_without_a_value_breaks_the_line_and_is_told_as_such() -> None:
    picture = pictures.lines(chart([1, 2, None, 3, 4, None, 5], no_value="none"))
    assert len(shapes(picture, "polyline")) == 2
    assert len(shapes(picture, "circle")) == 5
    assert [row[1] for row in cells(picture).rows] == ["1", "2", "none", "3", "4", "none", "5"]


@pytest.mark.parametrize("draw", [pictures.bars, pictures.stacked_bars, pictures.lines])
def test_one_point_is_drawn(draw: object) -> None:
    picture = draw(chart([7]))  # type: ignore[operator]
    assert len(shapes(picture, "rect")) + len(shapes(picture, "circle")) == 1
    assert cells(picture).rows == (("day 0", "7"),)


@pytest.mark.parametrize("values", [[], [None, None]])
@pytest.mark.parametrize("draw", [pictures.bars, pictures.stacked_bars, pictures.lines])
def test_nothing_to_draw_is_said_in_words(draw: object, values: list[None]) -> None:
    picture = draw(chart(values))  # type: ignore[operator]
    assert (picture.svg, picture.summary, picture.table, picture.legend) == ("", "Nothing.", None, ())


def test_series_and_columns_that_do_not_fit_are_a_loud_mistake() -> None:
    with pytest.raises(ValueError, match="2 values of series 1 for 3 columns"):
        chart([1, 2, 3], [1, 2])


def test_every_drawing_has_a_role_a_title_and_a_description() -> None:
    root = parsed(pictures.bars(chart([1])))
    assert root.get("role") == "img"
    names = {element.get("id"): element.text for element in root if element.tag in (f"{SVG}title", f"{SVG}desc")}
    assert names == {"picture-test-title": "Title", "picture-test-desc": "Summary."}
    assert root.get("aria-labelledby") == " ".join(names)


def test_axes_are_named_with_their_unit_and_the_newest_column_is_labelled() -> None:
    for count in (1, 2, 7, 13, 30):
        texts = [it.text for it in parsed(pictures.bars(chart(list(range(count))))).iter(f"{SVG}text")]
        assert {"Day", "Things", str(count - 1)} <= set(texts)
        assert len(texts) <= 2 * pictures.MOST_VALUES + pictures.MOST_STEPS + 4


NASTY = "<script>alert(\"1\")</script> & 'x'"


def test_text_from_outside_is_escaped_wherever_it_stands() -> None:
    made = chart(
        [1],
        title=NASTY,
        summary=NASTY,
        x_label=NASTY,
        y_label=NASTY,
        columns=(Column(NASTY, NASTY),),
        series=(Series(NASTY, Tone.BAD, (1,)),),
    )
    for picture in (pictures.bars(made), pictures.lines(made), pictures.stacked_bars(made)):
        assert "<script" not in picture.svg
        assert NASTY in [it.text for it in parsed(picture).iter(f"{SVG}text")]
        assert parsed(picture).find(f"{SVG}title").text == NASTY  # type: ignore[union-attr]


def test_nothing_is_drawn_that_the_content_security_policy_refuses() -> None:
    drawn = [*everything(), pictures.bars(chart([1, 2], [3, 4]))]
    for picture in drawn:
        assert picture.svg
        assert not re.search(r"\sstyle=|<style|<script|\son\w+=|href=|url\(", picture.svg)


def test_every_class_that_is_drawn_has_its_rule_in_the_skin() -> None:
    skin = SKIN.read_text()
    used = {
        name
        for picture in everything()
        for names in re.findall(r'class="([^"]+)"', picture.svg)
        for name in names.split()
    }
    assert {"mark", "mark-bad", "mark-hollow", "trace", "limit"} <= used
    # "tick" is plain text, which the skin styles as such.
    assert [name for name in used - {"tick"} if f".{name}" not in skin] == []


# --- The five --------------------------------------------------------------------------------------------------------
AGES = [AgeGroup(0, 1, 4), AgeGroup(1, 3, 0), AgeGroup(3, None, 1200)]
FLOWS = [DayFlow(TODAY - timedelta(days=1), None, None), DayFlow(TODAY, 3, 5)]
WEEKS = [
    RepairWeek(date(2026, 11, 2), 0, None, None),
    RepairWeek(date(2026, 11, 9), 1, timedelta(hours=1), timedelta(hours=1)),
    RepairWeek(date(2026, 11, 16), 12, timedelta(hours=6), timedelta(hours=30, minutes=30)),
]
BUDGET = BudgetState(1000, 250, 200, 50, NOW, 0, None, NOW)
STATUS_DAYS = [StatusDay(TODAY - timedelta(days=1), None), StatusDay(TODAY, dict(zip(STATUSES, range(5), strict=True)))]


def everything() -> list[Picture]:
    """The five pictures, each with something to show."""
    return [
        five.broken_by_age(AGES, NOW),
        five.opened_and_closed(FLOWS, NOW),
        five.time_to_repair(Repairs(WEEKS, is_capped=False), NOW),
        five.calls_used(BUDGET),
        five.connections_by_status(STATUS_DAYS, NOW),
    ]


def test_the_keys_of_the_pictures_differ_because_they_become_ids() -> None:
    keys = [picture.key for picture in everything()]
    assert len(set(keys)) == len(keys) == 5


def test_broken_feeds_are_told_by_age() -> None:
    picture = five.broken_by_age(AGES, NOW)
    assert cells(picture).rows == (("under 1", "4"), ("1–3", "0"), ("3 or more", "1,200"))
    assert picture.summary == "1,204 feeds are broken; 1,200 of them for 3 days or longer."
    assert len(shapes(picture, "rect")) == 3


def test_no_broken_feed_is_told_in_words() -> None:
    picture = five.broken_by_age([AgeGroup(0, None, 0)], NOW)
    assert (picture.svg, picture.summary) == ("", "No feed is broken that we know of.")


def test_cases_opened_and_closed_are_told_day_by_day() -> None:
    picture = five.opened_and_closed(FLOWS, NOW)
    assert cells(picture).head == ("Day", "Opened", "Closed")
    assert cells(picture).rows == (("2026-11-21", "not recorded", "not recorded"), ("2026-11-22", "3", "5"))
    assert [entry.look for entry in picture.legend] == ["mark mark-bad", "mark mark-good mark-hollow"]


def test_time_to_repair_is_told_in_hours_while_that_is_readable() -> None:
    picture = five.time_to_repair(Repairs(WEEKS, is_capped=False), NOW)
    assert cells(picture).rows == (
        ("2026-11-02", "no repair", "no repair"),
        ("2026-11-09", "1.0", "1.0"),
        ("2026-11-16", "6.0", "30.5"),
    )
    assert "nine in ten at most 30.5 hours" in picture.summary
    assert "13 feeds were repaired" in picture.summary


def test_long_repairs_are_told_in_days() -> None:
    slow = replace(WEEKS[2], p90=timedelta(days=12))
    assert cells(five.time_to_repair(Repairs([slow], is_capped=False), NOW)).rows == (("2026-11-16", "0.2", "12.0"),)


def test_a_capped_picture_says_so() -> None:
    assert "Only the newest 20,000 repairs" in five.time_to_repair(Repairs(WEEKS, is_capped=True), NOW).note


def test_no_repair_is_told_in_words() -> None:
    picture = five.time_to_repair(Repairs(WEEKS[:1] * 13, is_capped=False), NOW)
    assert (picture.svg, picture.summary) == ("", "No feed was repaired in the last 13 weeks.")


def test_calls_are_told_against_the_quota_and_the_reserve() -> None:
    picture = five.calls_used(BUDGET)
    assert picture.summary == "750 of 1,000 calls are used."
    assert cells(picture).rows == (("Used", "750"), ("Left", "250"), ("Background polling stops", "800"))
    total, used = shapes(picture, "rect")
    assert used["width"] == pytest.approx(0.75 * total["width"], abs=0.2)
    limit = next(it for it in parsed(picture).iter(f"{SVG}line") if it.get("class") == "limit")
    assert float(limit.attrib["x1"]) == pytest.approx(total["x"] + 0.8 * total["width"], abs=0.2)


def test_an_unknown_quota_is_told_in_words() -> None:
    picture = five.calls_used(BudgetState(None, None, 0, 0, None, 0, None, None))
    assert picture.svg == ""
    assert "Codat has not told its quota yet" in picture.summary


@given(st.integers(1, 10**9), st.integers(0, 2 * 10**9), st.integers(0, 10**9))
def test_no_meter_leaves_its_frame(total: int, used: int, mark: int) -> None:
    data = Meter("m", "t", "s", "e", "x", used, total, min(mark, total), "u", "r", "b", NOW)
    picture = pictures.meter(data)
    assert all(bar["x"] >= 0 and bar["x"] + bar["width"] <= WIDTH + 0.1 for bar in shapes(picture, "rect"))
    assert cells(picture).rows[0] == ("u", pictures.whole(used))


def test_connections_are_told_by_status_with_those_that_codat_adds_later() -> None:
    picture = five.connections_by_status(STATUS_DAYS, NOW)
    assert cells(picture).head == ("Day", "Linked", "PendingAuth", "Unlinked", "Deauthorized", "other")
    told = dict(zip(cells(picture).head[1:], cells(picture).rows[1][1:], strict=True))
    assert told == {"PendingAuth": "0", "Linked": "1", "Unlinked": "2", "Deauthorized": "3", "other": "4"}
    assert cells(picture).rows[0][1:] == ("not recorded",) * 5
    assert picture.summary == "As last recorded: Linked 1, PendingAuth 0, Unlinked 2, Deauthorized 3, other 4."


def test_connections_that_were_never_recorded_are_told_in_words() -> None:
    assert "No day has been recorded yet" in five.connections_by_status(STATUS_DAYS[:1], None).summary


# --- The funnel ------------------------------------------------------------------------------------------------------
def stages(*values: int) -> FunnelChart:
    """A funnel of so many at each stage."""
    return FunnelChart(
        key="test",
        title="Title",
        summary="Summary.",
        empty="Nothing.",
        stages=tuple(
            Stage(f"Stage {place}", value, "median 3 h" if place else "") for place, value in enumerate(values)
        ),
        bar_label="Reached",
        table=Table(("Stage",), (("Stage 0",),)),
        as_of=NOW,
    )


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_a_funnel_stays_in_its_frame_and_no_bar_is_longer_than_the_first(values: list[int]) -> None:
    falling = sorted(values, reverse=True)
    picture = pictures.funnel(stages(*falling))
    if not falling[0]:
        assert (picture.svg, picture.summary) == ("", "Nothing.")
        return
    box = parsed(picture).attrib["viewBox"].split()
    bars = shapes(picture, "rect")
    assert len(bars) == len(falling)
    assert max(bar["width"] for bar in bars) == bars[0]["width"] == pictures.STAGE_ROOM
    assert all(bar["x"] + bar["width"] <= WIDTH and bar["y"] + bar["height"] <= float(box[3]) for bar in bars)
    # Figures stand behind the bars: the longest is some 130 units.
    assert all(0 <= text["x"] <= WIDTH - 130 and 0 <= text["y"] <= float(box[3]) for text in shapes(picture, "text"))


def test_a_funnel_tells_its_figures_in_words() -> None:
    told = [text.text for text in parsed(pictures.funnel(stages(200, 50))).iter(f"{SVG}text")]
    assert told == ["Stage 0", "200 · 100%", "median 3 h", "Stage 1", "50 · 25%"]


@pytest.mark.parametrize(
    ("part", "total", "told"),
    [
        (0, 0, "0%"),
        (0, 9, "0%"),
        (1, 2, "50%"),
        (1, 3, "33%"),
        (1, 10_000, "0.1%"),
        (9_999, 10_000, "99.9%"),
        (9, 9, "100%"),
    ],
)
def test_a_share_is_never_rounded_to_none_or_all(part: int, total: int, told: str) -> None:
    assert pictures.percent(part, total) == told


@pytest.mark.parametrize(
    ("time", "told"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=59.4), "59 s"),
        (timedelta(seconds=59.6), "1 min"),
        (timedelta(minutes=59, seconds=40), "1 h"),
        (timedelta(hours=3, minutes=12), "3 h 12 min"),
        (timedelta(hours=23, minutes=59, seconds=40), "1 d"),
        (timedelta(days=2, hours=4, minutes=10), "2 d 4 h"),
        (timedelta(days=1000), "1,000 d"),
    ],
)
def test_a_time_is_told_in_its_two_largest_units(time: timedelta, told: str) -> None:
    assert pictures.short_time(time) == told
