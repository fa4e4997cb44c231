"""The contents of a report as plain data: measures, charts and notes. Receipts make them, pages draw them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TypeAlias

from sparkopt.values import dataclass

__all__ = [
    "Bars",
    "Chart",
    "Facts",
    "Lines",
    "Listing",
    "Matrix",
    "Measure",
    "Picture",
    "Series",
    "bytes_text",
    "figure_text",
    "seconds_text",
]


@dataclass(frozen=True)
class Measure:
    """One figure of a report.

    Attributes
    ----------
    name : str
        What it is; figures of one name are compared.
    value : float
        How much.
    kind : {"count", "number", "seconds", "bytes"}
        Its unit.
    note : str, default ""
        Shown next to it.
    is_cost : bool, default False
        Whether less is better.
    """

    name: str
    value: float
    kind: str
    note: str = ""
    is_cost: bool = False

    @property
    def text(self) -> str:
        """The figure with its unit."""
        return figure_text(self.value, self.kind)


@dataclass(frozen=True)
class Series:
    """Points of one name, in order, without those that are not finite.

    Attributes
    ----------
    name : str
        What the legend calls it.
    x, y : tuple of float
        Coordinates.
    dots : bool, default False
        Draw every point, for few of them.
    joined : bool, default True
        Draw a line from point to point; without it, dots make a scatter plot.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    dots: bool = False
    joined: bool = True

    @classmethod
    def of(
        cls, name: str, x: Sequence[float], y: Sequence[float | None], *, dots: bool = False, joined: bool = True
    ) -> Series:
        """Return the points of two sequences; where ``y`` is None or not finite there is none."""
        pairs = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if b is not None and math.isfinite(a + b)]
        return cls(name, tuple(a for a, _ in pairs), tuple(b for _, b in pairs), dots, joined)


@dataclass(frozen=True)
class Lines:
    """A chart of series over one axis.

    Attributes
    ----------
    title, x_label : str
        What it shows, over what.
    kind : str
        Unit of y, as of a Measure.
    series : tuple of Series
        What is drawn.
    filled : bool, default False
        Draw amounts from zero on, constant over each step, instead of a line.
    """

    title: str
    x_label: str
    kind: str
    series: tuple[Series, ...]
    filled: bool = False


@dataclass(frozen=True)
class Bars:
    """A chart of parts of a whole, for one run or several.

    Attributes
    ----------
    title : str
        What it shows.
    kind : str
        Unit, as of a Measure.
    labels : tuple of str
        The parts.
    groups : tuple of (str, tuple of float)
        Name of a run, and its parts; the name of a single one is not shown.
    """

    title: str
    kind: str
    labels: tuple[str, ...]
    groups: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Matrix:
    """A chart of counts by two categories, such as the true and the predicted class.

    Attributes
    ----------
    title, row_label, column_label : str
        What it shows, and the two categories.
    rows, columns : tuple of str
        Their names.
    values : tuple of tuple of float
        A count for each row and column; a cell's shade is its share of its row.
    """

    title: str
    row_label: str
    column_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Picture:
    """An image that is a part of the page.

    Attributes
    ----------
    title, description : str
        What it shows; the second for those who cannot see it.
    png : bytes
        The image.
    """

    title: str
    description: str
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Listing:
    """Rows of text, such as the largest coefficients.

    Attributes
    ----------
    title : str
        What it shows.
    columns : tuple of str
        Their names.
    rows : tuple of tuple of str
        A text for each column.
    note : str, default ""
        A sentence below.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


Chart: TypeAlias = Lines | Bars | Matrix | Picture | Listing
"""Any plot of a report."""


@dataclass(frozen=True)
class Facts:
    """All contents of a report of one run.

    Attributes
    ----------
    title, subtitle : str
        What ran, and how it ended.
    measures : tuple of Measure
        The figures, the most important ones first.
    charts : tuple of Lines, Bars, Matrix, Picture or Listing
        The plots.
    notes : tuple of str
        Sentences on what not every run has.
    verdict : str
        A judgement that is shown first, as a banner; "" for none.
    is_bad : bool
        Whether it is one that somebody should act on.
    task : dict of str to str
        What was trained, on what: losses compare only where it is the same.
    """

    title: str
    subtitle: str
    measures: tuple[Measure, ...]
    charts: tuple[Chart, ...]
    notes: tuple[str, ...] = ()
    task: Mapping[str, str] = field(default_factory=dict)
    verdict: str = ""
    is_bad: bool = False


def figure_text(value: float, kind: str) -> str:
    """Return a figure as text, with its unit."""
    if kind == "bytes":
        return bytes_text(value)
    if kind == "seconds":
        return seconds_text(value)
    return f"{value:,.0f}" if kind == "count" else f"{value:.6g}"


def bytes_text(count: float) -> str:
    """Return a number of bytes with the unit that suits it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def seconds_text(value: float) -> str:
    """Return seconds with the unit that suits them."""
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 100:
        return f"{value:.2f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
