"""Charts as inline SVG: pure functions from facts to text, styled by the page's CSS, readable without it.

Every chart is an image with a title and a description for those who cannot see it; series differ by dashes as well as
by colour. There is no script.
"""

from __future__ import annotations

from dataclasses import replace
from html import escape

from sparkopt.report.facts import Bars, Lines, Matrix, Series, figure_text
from sparkopt.report.scale import Axis

__all__ = ["bars", "lines", "matrix"]

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 74, 12, 12, 42
DIGIT = 8.0
"""Width of a tick's digit in the widest of the page's fonts."""
MOST_POINTS = 600
"""Of a line: more cannot be seen."""
FALL = 20
"""A logarithm helps where the first value is so many times the lowest."""
LABEL_WIDTH, VALUE_WIDTH = 108, 104
UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def lines(chart: Lines) -> str:
    """Draw series over one axis."""
    series = [one for one in chart.series if one.x]
    if not series:
        return _empty(chart.title)
    unit, size = _unit(chart.kind, max(max(one.y) for one in series))
    series = [replace(one, y=tuple(y / size for y in one.y)) for one in series]
    values = [y for one in series for y in one.y]
    positions = [x for one in series for x in ((*one.x, one.x[-1] + 1) if chart.filled else one.x)]
    x = Axis.over(positions, LEFT, WIDTH - RIGHT, zero=True)
    log = min(values) > 0 and series[0].y[0] / min(values) > FALL and not chart.filled
    y = Axis.over(values, HEIGHT - BOTTOM, TOP, zero=chart.filled, log=log).rounded()
    drawn = [_series(one, number, x, y, filled=chart.filled) for number, one in enumerate(series)]
    label = chart.x_label
    return _picture(
        chart.title,
        "; ".join(_described(one, chart, size) for one in series),
        HEIGHT,
        [*_grid(x, y, unit), *drawn, _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, label, "middle")],
    )


def bars(chart: Bars) -> str:
    """Draw parts as horizontal bars, those of several runs under each other."""
    thick, gap = (20, 12) if len(chart.groups) == 1 else (14, 14)
    most = max((value for _, values in chart.groups for value in values), default=0.0) or 1.0
    axis = Axis(0.0, most, LABEL_WIDTH, WIDTH - VALUE_WIDTH)
    drawn, top = [], 6.0
    for part, label in enumerate(chart.labels):
        middle = top + thick * len(chart.groups) / 2
        drawn.append(_text(LABEL_WIDTH - 8, middle + 4, label, "end", "part"))
        for number, (_, values) in enumerate(chart.groups):
            end, total = axis(values[part]), sum(values) or 1.0
            share = values[part] / total
            shown = f"{figure_text(values[part], chart.kind)} · {'<1%' if 0 < share < 0.01 else f'{share:.0%}'}"
            drawn.append(
                f'<rect class="bar fill{number}" x="{LABEL_WIDTH}" y="{top:.1f}" '
                f'width="{max(1.0, end - LABEL_WIDTH) if values[part] else 0:.1f}" height="{thick - 2}" rx="3"/>'
            )
            drawn.append(_text(max(LABEL_WIDTH + 1, end) + 7, top + thick / 2 + 3, shown, "start", "value"))
            top += thick
        top += gap
    described = "; ".join(
        f"{name}: "
        + ", ".join(f"{label} {figure_text(v, chart.kind)}" for label, v in zip(chart.labels, values, strict=True))
        for name, values in chart.groups
    )
    return _picture(chart.title, described, top, drawn)


def matrix(chart: Matrix) -> str:
    """Draw counts as cells, each as dark as its share of its row."""
    count = max(1, len(chart.columns))
    left, top, size = LABEL_WIDTH, 40.0, min(64.0, (WIDTH - LABEL_WIDTH - RIGHT) / count)
    drawn = [
        _text(left + size * count / 2, 14, chart.column_label, "middle"),
        _text(left - 8, 14, chart.row_label, "end"),
    ]
    drawn += [_text(left + (j + 0.5) * size, top - 8, name, "middle") for j, name in enumerate(chart.columns)]
    for i, (name, values) in enumerate(zip(chart.rows, chart.values, strict=True)):
        y, total = top + i * size, sum(values) or 1.0
        drawn.append(_text(left - 8, y + size / 2 + 4, name, "end", "part"))
        for j, value in enumerate(values):
            x = left + j * size
            # opaque enough to stand out from the paper, light enough for the number on it
            shade = 0.06 + 0.5 * value / total
            drawn.append(
                f'<rect class="cell" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{size - 2:.1f}" '
                f'height="{size - 2:.1f}" rx="3" fill-opacity="{shade:.3f}"/>'
            )
            if size > 24:
                drawn.append(_text(x + size / 2, y + size / 2 + 4, _short(value), "middle", "on"))
    described = "; ".join(
        f"{chart.row_label} {name}: "
        + ", ".join(f"{figure_text(v, 'count')} {column}" for column, v in zip(chart.columns, values, strict=True))
        for name, values in zip(chart.rows, chart.values, strict=True)
    )
    return _picture(chart.title, described, top + size * len(chart.rows) + 8, drawn)


def _short(value: float) -> str:
    """Return a count with at most four characters."""
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f}{letter}" if value < 10 * size else f"{value / size:.0f}{letter}"
    return f"{value:.0f}"


def _series(one: Series, number: int, x: Axis, y: Axis, *, filled: bool) -> str:
    points = [(x(a), y(b)) for a, b in downsampled(one)]
    if filled:
        floor, last = y(0.0), x(one.x[-1] + 1)
        ends = [*[a for a, _ in points[1:]], last]
        path = "".join(f"V{up:.1f}H{end:.1f}" for (_, up), end in zip(points, ends, strict=True))
        begin = f"M{points[0][0]:.1f} {floor:.1f}"
        area = f'<path class="area fill{number}" d="{begin}{path}V{floor:.1f}Z"/>'
        return area + f'<path class="line line{number}" d="{begin}{path}"/>'
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    found = f'<path class="line line{number}" d="{path}"/>' if one.joined else ""
    if one.dots or len(points) == 1:
        found += "".join(f'<circle class="fill{number}" cx="{a:.1f}" cy="{b:.1f}" r="3.4"/>' for a, b in points)
    return found


def downsampled(one: Series, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Return at most about ``most`` points: of each stretch its ends and its extremes, so no spike is lost."""
    points = list(zip(one.x, one.y, strict=True))
    if len(points) <= most:
        return points
    stretch = -(-len(points) * 4 // most)
    kept: set[int] = set()
    for begin in range(0, len(points), stretch):
        inside = range(begin, min(begin + stretch, len(points)))
        kept |= {inside[0], inside[-1], min(inside, key=one.y.__getitem__), max(inside, key=one.y.__getitem__)}
    return [points[i] for i in sorted(kept)]


def _grid(x: Axis, y: Axis, unit: str) -> list[str]:
    """Horizontal lines with their values, and the values below."""
    found = []
    ticks = y.ticks()
    for tick, label in zip(ticks, y.labels(ticks), strict=True):
        height = y(tick)
        found.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
        found.append(_text(LEFT - 7, height + 4, f"{label} {unit}".strip(), "end"))
    ticks = x.ticks(6)
    for tick, label in zip(ticks, x.labels(ticks), strict=True):
        middle = min(x(tick), WIDTH - DIGIT / 2 * len(label))  # a long label at the end of the axis stays inside
        found.append(_text(middle, HEIGHT - BOTTOM + 18, label, "middle"))
    return found


def _unit(kind: str, most: float) -> tuple[str, float]:
    """Return the unit that bytes are drawn in, and its size."""
    if kind != "bytes":
        return "", 1.0
    return next(((name, float(size)) for name, size in UNITS if most >= size), ("B", 1.0))


def _described(one: Series, chart: Lines, size: float) -> str:
    first, last = (figure_text(value * size, chart.kind) for value in (one.y[0], one.y[-1]))
    return f"{one.name} from {first} to {last} over {one.x[-1]:,.6g} {chart.x_label}"


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _picture(title: str, description: str, height: float, parts: list[str]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:.0f}" aria-label="{escape(title)}: {escape(description)}">'
        + f"<title>{escape(title)}</title>"
        + "".join(parts)
        + "</svg>"
    )


def _empty(title: str) -> str:
    return _picture(title, "nothing was measured", 60, [_text(WIDTH / 2, 34, "nothing was measured", "middle")])
