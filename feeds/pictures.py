"""Charts as SVG that the server draws: no script, no inline style, nothing to load.

Pure: numbers and words in, a `Picture` out. Every picture carries its title and a sentence that says what it shows, and
the table of the numbers it was drawn from, so that nothing is told by shape or colour alone. Colours come from classes
(`skin.css`), because the content security policy refuses style attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil, floor, log10

from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from feeds.states import Tone

WIDTH = 440.0
HEIGHT = 236.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 8.0, 28.0, 42.0
"""Margins around the plot. The picture is narrow on purpose: on a telephone its text is still readable."""
METER_HEIGHT = 104.0
METER_TOP, METER_BOTTOM = 30.0, 58.0
STAGE_LEFT, STAGE_ROOM = 100.0, 200.0
"""Where a funnel's bars begin, and the longest; their figures stand behind them."""
STAGE_HEIGHT, STAGE_GAP = 22.0, 22.0
"""Between two bars stands how long it took to get from one to the other."""

MOST_STEPS = 5
MOST_TICKS = 6
MOST_VALUES = 8
"""With no more columns than this, each bar of a lone series has its number above it."""
FILLED = 0.78
"""Share of a column's room that its bars take."""


def whole(value: float) -> str:
    """A count, grouped as the reader's language groups thousands."""
    return number_format(round(value), force_grouping=True)


def one_decimal(value: float) -> str:
    """A number with one digit after the point."""
    return number_format(value, decimal_pos=1, force_grouping=True)


def percent(part: int, total: int) -> str:
    """A share in whole percent; with a decimal where rounding would say none or all and neither is true."""
    share = 100 * part / total if total else 0
    told = one_decimal(min(max(share, 0.1), 99.9)) if 0 < share < 1 or 99 < share < 100 else whole(share)
    return _("%(number)s%%") % {"number": told}


def short_time(time: timedelta) -> str:
    """How long something took, in its two largest units: "2 d 4 h", "3 h 12 min", "12 min", "40 s"."""
    seconds = round(time.total_seconds())
    if seconds < 60:
        return _("%(count)s s") % {"count": seconds}
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("%(count)s min") % {"count": minutes}
    if minutes < 24 * 60:
        parts = [(minutes // 60, _("%(count)s h")), (minutes % 60, _("%(count)s min"))]
    else:
        hours = round(seconds / 3600)
        parts = [(hours // 24, _("%(count)s d")), (hours % 24, _("%(count)s h"))]
    return " ".join(words % {"count": whole(count)} for count, words in parts if count)


@dataclass(frozen=True, slots=True)
class Column:
    """One place on the horizontal axis: its name in the table, and a short one for the axis."""

    label: str
    tick: str


@dataclass(frozen=True, slots=True)
class Series:
    """One value for each column; None where there is none. `hollow` tells two series apart without colour."""

    label: str
    tone: Tone
    values: tuple[float | None, ...]
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw. `key` is unique on the page and plain ASCII; `y_label` names the unit; `as_of` is aware UTC.

    `no_value`: what the table says where a series has none.
    """

    key: str
    title: str
    summary: str
    empty: str
    x_label: str
    y_label: str
    columns: tuple[Column, ...]
    series: tuple[Series, ...]
    as_of: datetime | None
    note: str = ""
    no_value: str = "—"
    format: Callable[[float], str] = whole

    def __post_init__(self) -> None:
        for series in self.series:
            if len(series.values) != len(self.columns):
                raise ValueError(
                    f"{self.key}: {len(series.values)} values of {series.label} for {len(self.columns)} columns"
                )


@dataclass(frozen=True, slots=True)
class Meter:
    """How much of a whole is used, and the mark at which something changes."""

    key: str
    title: str
    summary: str
    empty: str
    x_label: str
    used: float
    total: float
    mark: float
    used_label: str
    rest_label: str
    mark_label: str
    as_of: datetime | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One line of the legend: the look of a series, and its name."""

    look: str
    label: str


@dataclass(frozen=True, slots=True)
class Table:
    """The picture's numbers in words; the first cell of a row is its heading."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One bar of a funnel. `before`: what stands between it and the bar above, such as how long that took."""

    label: str
    value: int
    before: str = ""


@dataclass(frozen=True, slots=True)
class FunnelChart:
    """How many of the first stage reached each of the others. `table` tells the same, and may tell more."""

    key: str
    title: str
    summary: str
    empty: str
    stages: tuple[Stage, ...]
    bar_label: str
    table: Table
    as_of: datetime | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn chart with its text equivalent. `svg` is empty when there is nothing to draw: then `summary` says so."""

    key: str
    title: str
    summary: str
    svg: SafeString
    legend: tuple[LegendEntry, ...]
    table: Table | None
    as_of: datetime | None
    note: str


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from 0 to `top` with a line every `step`; never shorter than one unit."""

    top: int
    step: int

    @property
    def lines(self) -> range:
        """Where the axis has a line."""
        return range(0, self.top + 1, self.step)


def scale_for(highest: float) -> Scale:
    """The smallest scale in steps of 1, 2 or 5 times a power of ten that holds `highest` in at most five steps."""
    rough = max(highest / MOST_STEPS, 1)
    magnitude = 10 ** max(0, floor(log10(rough)))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    return Scale(step * max(1, ceil(highest / step)), step)


def bars(chart: Chart) -> Picture:
    """Bars beside each other: one for each series in each column."""
    return _draw(chart, _bar_marks, _highest(value for series in chart.series for value in series.values))


def stacked_bars(chart: Chart) -> Picture:
    """One bar a column, its series on top of each other in their order from the bottom."""
    return _draw(chart, _stacked_marks, _highest(_sum_of_known(column) for column in _by_column(chart)))


def lines(chart: Chart) -> Picture:
    """One line for each series. A column without a value breaks the line: nothing is guessed."""
    return _draw(chart, _line_marks, _highest(value for series in chart.series for value in series.values))


def meter(data: Meter) -> Picture:
    """One lying bar: the used part of the total."""
    if data.total <= 0:
        return _without_drawing(data)
    rest = max(0.0, data.total - data.used)
    rows = (
        (data.used_label, whole(data.used)),
        (data.rest_label, whole(rest)),
        (data.mark_label, whole(data.mark)),
    )
    looks = (LegendEntry("mark-waiting", data.used_label), LegendEntry("mark-neutral mark-hollow", data.rest_label))
    return Picture(
        key=data.key,
        title=data.title,
        summary=data.summary,
        svg=_svg(data, METER_HEIGHT, _meter_marks(data)),
        legend=looks,
        table=Table((_("What"), data.x_label), rows),
        as_of=data.as_of,
        note=data.note,
    )


def funnel(data: FunnelChart) -> Picture:
    """Lying bars, one below the other, each with its figure and its share of the first."""
    if not data.stages or not data.stages[0].value:
        return _without_drawing(data)
    height = len(data.stages) * (STAGE_HEIGHT + STAGE_GAP) - STAGE_GAP
    return Picture(
        key=data.key,
        title=data.title,
        summary=data.summary,
        svg=_svg(data, height, _joined(_stage_marks(data))),
        legend=(LegendEntry("mark mark-waiting", data.bar_label),),
        table=data.table,
        as_of=data.as_of,
        note=data.note,
    )


# --- Drawing ---------------------------------------------------------------------------------------------------------
Marks = Callable[[Chart, Scale], Iterator[SafeString]]


def _draw(chart: Chart, marks: Marks, highest: float | None) -> Picture:
    if highest is None:
        return _without_drawing(chart)
    scale = scale_for(highest)
    inside = _joined([*_grid(chart, scale), *marks(chart, scale), *_ticks(chart)])
    return Picture(
        key=chart.key,
        title=chart.title,
        summary=chart.summary,
        svg=_svg(chart, HEIGHT, inside),
        legend=tuple(LegendEntry(_look(series), series.label) for series in chart.series),
        table=_table(chart),
        as_of=chart.as_of,
        note=chart.note,
    )


def _without_drawing(data: Chart | Meter | FunnelChart) -> Picture:
    return Picture(data.key, data.title, data.empty, SafeString(""), (), None, data.as_of, data.note)


def _svg(data: Chart | Meter | FunnelChart, height: float, inside: SafeString) -> SafeString:
    return format_html(
        '<svg class="picture-svg" viewBox="0 0 {} {}" role="img" aria-labelledby="{key}-title {key}-desc"'
        ' focusable="false"><title id="{key}-title">{}</title><desc id="{key}-desc">{}</desc>{}</svg>',
        _at(WIDTH),
        _at(height),
        data.title,
        data.summary,
        inside,
        key=f"picture-{data.key}",
    )


def _grid(chart: Chart, scale: Scale) -> Iterator[SafeString]:
    for value in scale.lines:
        y = _y(value, scale)
        yield _line("axis" if value == 0 else "grid", LEFT, y, WIDTH - RIGHT, y)
        yield _text(LEFT - 6, y + 4, whole(value), anchor="end")
    yield _text(0, 12, chart.y_label, look="axis-name")


def _ticks(chart: Chart) -> Iterator[SafeString]:
    """Names under the axis, not so many that they would touch, and always under the last column: it is the newest."""
    count = len(chart.columns)
    every = ceil(count / MOST_TICKS)
    for index, column in enumerate(chart.columns):
        if (count - 1 - index) % every == 0:
            x = _column_x(index, count) + _column_width(count) / 2
            # A name under the outermost columns must not leave the picture.
            anchor = "end" if index == count - 1 and every > 1 else "middle"
            yield _text(WIDTH - RIGHT if anchor == "end" else x, HEIGHT - BOTTOM + 16, column.tick, anchor=anchor)
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, chart.x_label, anchor="middle", look="axis-name")


def _bar_marks(chart: Chart, scale: Scale) -> Iterator[SafeString]:
    count = len(chart.columns)
    width = _column_width(count) * FILLED / len(chart.series)
    shows_values = len(chart.series) == 1 and count <= MOST_VALUES
    for place, series in enumerate(chart.series):
        for index, value in enumerate(series.values):
            if value is None:
                continue
            x = _column_x(index, count) + _column_width(count) * (1 - FILLED) / 2 + place * width
            y = _y(value, scale)
            yield _bar(_look(series), x, y, width, _y(0, scale) - y, _hint(chart, index, series, value))
            if shows_values:
                yield _text(x + width / 2, y - 4, chart.format(value), anchor="middle")


def _stacked_marks(chart: Chart, scale: Scale) -> Iterator[SafeString]:
    count = len(chart.columns)
    width = _column_width(count) * FILLED
    for index, column in enumerate(_by_column(chart)):
        x = _column_x(index, count) + _column_width(count) * (1 - FILLED) / 2
        below = 0.0
        for series, value in zip(chart.series, column, strict=True):
            if not value:
                continue
            y = _y(below + value, scale)
            yield _bar(_look(series), x, y, width, _y(below, scale) - y, _hint(chart, index, series, value))
            below += value


def _line_marks(chart: Chart, scale: Scale) -> Iterator[SafeString]:
    count = len(chart.columns)
    for series in chart.series:
        points = [
            None if value is None else (_column_x(index, count) + _column_width(count) / 2, _y(value, scale), value)
            for index, value in enumerate(series.values)
        ]
        for run in _runs(points):
            path = " ".join(f"{_at(x)},{_at(y)}" for x, y, _value in run)
            yield format_html('<polyline class="{}" points="{}"/>', _look(series, "trace"), path)
        for index, point in enumerate(points):
            if point is not None:
                x, y, value = point
                hint = _hint(chart, index, series, value)
                yield format_html(
                    '<circle class="{}" cx="{}" cy="{}" r="3"><title>{}</title></circle>',
                    _look(series),
                    _at(x),
                    _at(y),
                    hint,
                )


def _meter_marks(data: Meter) -> SafeString:
    scale = scale_for(max(data.total, data.used))
    room = WIDTH - LEFT - RIGHT
    left = LEFT / 2
    height = METER_BOTTOM - METER_TOP

    def x_of(value: float) -> float:
        return left + room * value / scale.top

    parts = [
        _bar("mark mark-neutral mark-hollow", left, METER_TOP, x_of(data.total) - left, height, data.rest_label),
        _bar("mark mark-waiting", left, METER_TOP, x_of(min(data.used, scale.top)) - left, height, data.used_label),
        _line("axis", left, METER_BOTTOM, x_of(scale.top), METER_BOTTOM),
    ]
    parts += [
        _text(x_of(value), METER_BOTTOM + 16, whole(value), anchor="middle") for value in (0, scale.top // 2, scale.top)
    ]
    at = x_of(data.mark)
    parts += [
        _line("limit", at, METER_TOP - 6, at, METER_BOTTOM),
        _text(at, METER_TOP - 12, data.mark_label, anchor="end" if at > WIDTH / 2 else "start"),
        _text(left + room / 2, METER_HEIGHT - 8, data.x_label, anchor="middle", look="axis-name"),
    ]
    return _joined(parts)


def _stage_marks(data: FunnelChart) -> Iterator[SafeString]:
    first = data.stages[0].value
    for place, stage in enumerate(data.stages):
        y = place * (STAGE_HEIGHT + STAGE_GAP)
        middle = y + STAGE_HEIGHT / 2 + 4
        length = STAGE_ROOM * min(stage.value / first, 1)
        told = f"{whole(stage.value)} · {percent(stage.value, first)}"
        if place and stage.before:
            yield _text(STAGE_LEFT, y - STAGE_GAP / 2 + 4, stage.before)
        yield _text(STAGE_LEFT - 8, middle, stage.label, anchor="end")
        # The whole length, so that an empty bar is seen to be one.
        yield _line("grid", STAGE_LEFT, y + STAGE_HEIGHT, STAGE_LEFT + STAGE_ROOM, y + STAGE_HEIGHT)
        yield _bar("mark mark-waiting", STAGE_LEFT, y, length, STAGE_HEIGHT, f"{stage.label}: {told}")
        yield _text(STAGE_LEFT + length + 8, middle, told, look="axis-name")


# --- Geometry and elements -------------------------------------------------------------------------------------------
Point = tuple[float, float, float]


def _y(value: float, scale: Scale) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / scale.top


def _column_width(count: int) -> float:
    return (WIDTH - LEFT - RIGHT) / count


def _column_x(index: int, count: int) -> float:
    return LEFT + index * _column_width(count)


def _highest(values: Iterable[float | None]) -> float | None:
    """The highest known value; None when none is known."""
    return max((value for value in values if value is not None), default=None)


def _sum_of_known(column: tuple[float | None, ...]) -> float | None:
    known = [value for value in column if value is not None]
    return sum(known) if known else None


def _by_column(chart: Chart) -> Iterator[tuple[float | None, ...]]:
    return zip(*(series.values for series in chart.series), strict=True)


def _runs(points: Sequence[Point | None]) -> Iterator[list[Point]]:
    """Stretches of at least two points without a hole."""
    run: list[Point] = []
    for point in [*points, None]:
        if point is not None:
            run.append(point)
            continue
        if len(run) > 1:
            yield run
        run = []


def _look(series: Series, kind: str = "mark") -> str:
    return f"{kind} {kind}-{series.tone}" + (f" {kind}-hollow" if series.hollow else "")


def _hint(chart: Chart, index: int, series: Series, value: float) -> str:
    return f"{chart.columns[index].label}, {series.label}: {chart.format(value)}"


def _at(value: float) -> str:
    return f"{value:.1f}"


def _bar(look: str, x: float, y: float, width: float, height: float, hint: str) -> SafeString:
    return format_html(
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
        look,
        _at(x),
        _at(y),
        _at(width),
        _at(height),
        hint,
    )


def _line(look: str, x1: float, y1: float, x2: float, y2: float) -> SafeString:
    return format_html('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>', look, _at(x1), _at(y1), _at(x2), _at(y2))


def _text(x: float, y: float, text: str, *, anchor: str = "start", look: str = "tick") -> SafeString:
    return format_html('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>', look, _at(x), _at(y), anchor, text)


def _joined(parts: Iterable[SafeString]) -> SafeString:
    return format_html_join("", "{}", ((part,) for part in parts))


def _table(chart: Chart) -> Table:
    rows = tuple(
        (column.label, *(chart.no_value if value is None else chart.format(value) for value in values))
        for column, values in zip(chart.columns, _by_column(chart), strict=True)
    )
    return Table((chart.x_label, *(series.label for series in chart.series)), rows)
