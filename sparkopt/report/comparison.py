"""Two receipts compared: what the second run saved in time, bytes, memory and steps, and how losses differ."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from pathlib import Path

from sparkopt.report.deep import DeepReceipt
from sparkopt.report.facts import Bars, Chart, Facts, Lines, Measure, Series
from sparkopt.report.page import chart_html, styled, write_page
from sparkopt.report.receipt import Receipt
from sparkopt.values import dataclass

__all__ = ["Comparison", "Difference", "compare"]


VERDICT = ("total time", "bytes sent", "peak memory")
"""Costs in the one sentence."""
ALIKE = 0.005
"""Ratios of costs as near to 1 are no difference."""


@dataclass(frozen=True)
class Difference:
    """One figure of two runs.

    Attributes
    ----------
    first, second : Measure
        Its values.
    """

    first: Measure
    second: Measure

    @property
    def name(self) -> str:
        """The figure's name."""
        return self.first.name

    @property
    def ratio(self) -> float | None:
        """The second over the first; None where the first is 0."""
        return self.second.value / self.first.value if self.first.value else None

    @property
    def better(self) -> bool | None:
        """Whether the second run's cost is lower; None where they are about equal, or it is no cost."""
        if not self.first.is_cost or self.text in ("the same", "about the same"):
            return None
        return self.second.value < self.first.value

    @property
    def text(self) -> str:
        """The change in words: ``3.2x less``, or the relative difference of what is no cost."""
        change = self.second.value - self.first.value
        if change == 0:
            return "the same"
        if self.ratio is None or self.ratio <= 0:
            return "less" if change < 0 else "more"
        if not self.first.is_cost:
            return f"{change / abs(self.first.value):+.1e} relative"
        if abs(self.ratio - 1) < ALIKE:
            return "about the same"
        return f"{1 / self.ratio:.2f}x less" if change < 0 else f"{self.ratio:.2f}x more"


@dataclass(frozen=True)
class Comparison:
    """Two runs compared: as text, as HTML in a notebook, and as a page.

    Attributes
    ----------
    names : pair of str
        Names of the runs.
    first, second : Facts
        Contents of their reports.
    """

    names: tuple[str, str]
    first: Facts
    second: Facts

    @property
    def differences(self) -> tuple[Difference, ...]:
        """The figures that both runs have, in the first one's order."""
        others = {measure.name: measure for measure in self.second.measures}
        return tuple(Difference(one, others[one.name]) for one in self.first.measures if one.name in others)

    @property
    def unlike(self) -> str:
        """Why the losses of the runs do not compare; empty where they do."""
        pairs = [
            f"{name} {value} and {self.second.task[name]}"
            for name, value in self.first.task.items()
            if self.second.task.get(name, value) != value
        ]
        if self.first.task.keys() != self.second.task.keys():
            return "These runs are of different kinds: only costs compare."
        return f"These runs differ in {', '.join(pairs)}: their losses do not compare." if pairs else ""

    @property
    def verdict(self) -> str:
        """The essentials in one sentence."""
        found = {difference.name: difference for difference in self.differences}
        parts = [f"{name} {found[name].text}" for name in VERDICT if name in found]
        loss = next((found[name] for name in ("objective", "loss") if name in found), None)
        if loss is not None and not self.unlike:
            parts.append(f"{loss.name} {loss.second.value:.8g} against {loss.first.value:.8g} ({loss.text})")
        return f"{self.names[1]}, compared with {self.names[0]}: " + "; ".join(parts) + "."

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The charts that both runs have, drawn over each other."""
        others = {chart.title: chart for chart in self.second.charts}
        pairs = [(chart, others[chart.title]) for chart in self.first.charts if chart.title in others]
        return tuple(_overlaid(one, other, self.names) for one, other in pairs)

    def __str__(self) -> str:
        rows = [(d.name, d.first.text, d.second.text, d.text) for d in self.differences]
        table = [("", *self.names, "difference"), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(4)]
        body = [
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}".rstrip()
            for row in table
        ]
        titles = [f"{name}: {facts.title}; {facts.subtitle}" for name, facts in self._named]
        return "\n".join([*titles, *([self.unlike] if self.unlike else []), "", *body, "", self.verdict])

    def report(self, path: str | Path) -> Path:
        """Write a page without script that loads nothing; return its path."""
        return write_page(path, f"{self.names[0]} and {self.names[1]}", self._repr_html_())

    def _repr_html_(self) -> str:
        rows = "".join(_row(difference) for difference in self.differences)
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in (*self.names, "difference"))
        titles = "".join(
            f'<p class="dim">{escape(name)}: {escape(facts.title)}; {escape(facts.subtitle)}</p>'
            for name, facts in self._named
        )
        unlike = f'<p class="bad">{escape(self.unlike)}</p>' if self.unlike else ""
        return styled(
            f"<h1>{escape(self.names[0])} and {escape(self.names[1])}</h1>"
            f"<p>{escape(self.verdict)}</p>{unlike}{titles}"
            f'<div class="charts">{"".join(chart_html(chart) for chart in self.charts)}</div>'
            f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )

    @property
    def _named(self) -> list[tuple[str, Facts]]:
        return [(self.names[0], self.first), (self.names[1], self.second)]


def compare(
    first: Receipt | DeepReceipt, second: Receipt | DeepReceipt, names: tuple[str, str] = ("first", "second")
) -> Comparison:
    """Compare two receipts.

    Parameters
    ----------
    first, second : Receipt or DeepReceipt
        What two runs cost: ``model.summary.receipt``, or ``load_receipt("receipt.json")``.
    names : pair of str, default ("first", "second")
        Names of the runs.

    Returns
    -------
    Comparison
        Print it, show it in a notebook, or write it by ``.report("compare.html")``.

    Examples
    --------
    >>> from sparkopt import Receipt
    >>> common = dict(loss="logistic", engine="driver", reason="tolerance", rows=1000, features=10, partitions=4)
    >>> sent = {"stored": 90000, "sent": 7000, "raw": 3500, "encoded": 3500, "driver": 3500}
    >>> def receipt(optimizer, steps, seconds):
    ...     spent = dict.fromkeys(("ingest", "compute", "reduce", "schedule", "optimizer"), seconds / 5)
    ...     return Receipt(optimizer=optimizer, steps=steps, passes=steps, rows_touched=1000 * steps,
    ...         seconds={**spent, "total": seconds}, bytes=sent, peak_memory=10**8, objective=[0.69, 0.31],
    ...         elapsed=[0.0, seconds], validation=[None, None], chosen_step=1, **common)
    >>> compare(receipt("gd", 90, 9.0), receipt("lbfgs", 10, 3.0), ("yesterday", "today")).verdict[:50]
    'today, compared with yesterday: total time 3.00x l'
    """
    return Comparison(names, first.facts(), second.facts())


def _overlaid(one: Chart, other: Chart, names: tuple[str, str]) -> Lines | Bars:
    """Return two charts of one title as one; of several series it has the first, that of the training rows."""
    if isinstance(one, Bars) and isinstance(other, Bars):
        labels = tuple(dict.fromkeys((*one.labels, *other.labels)))
        groups = []
        for name, chart in zip(names, (one, other), strict=True):
            parts = dict(zip(chart.labels, chart.groups[0][1], strict=True))
            groups.append((name, tuple(parts.get(label, 0.0) for label in labels)))
        return Bars(one.title, one.kind, labels, tuple(groups))
    if not isinstance(one, Lines) or not isinstance(other, Lines):
        raise TypeError(f"both receipts have a chart {one.title!r}, but of different kinds")
    pairs: list[tuple[str, Series]] = list(zip(names, (one.series[0], other.series[0]), strict=True))
    return replace(one, series=tuple(replace(series, name=name) for name, series in pairs))


def _row(difference: Difference) -> str:
    style = {True: ' class="good"', False: ' class="bad"', None: ""}[difference.better]
    return (
        f'<tr><th scope="row">{escape(difference.name)}</th><td>{escape(difference.first.text)}</td>'
        f"<td>{escape(difference.second.text)}</td><td{style}>{escape(difference.text)}</td></tr>"
    )
