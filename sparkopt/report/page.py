"""Pages: facts as HTML without script that loads no style, font or image.

A fragment has its own style and can be shown in any notebook; a page wraps one. Both follow the reader's choice of
light or dark. Names that users chose are escaped.
"""

from __future__ import annotations

import base64
import os
from html import escape
from pathlib import Path

from sparkopt import __version__
from sparkopt.io.filesystem import STORAGE_ERRORS, resolve
from sparkopt.report import svg
from sparkopt.report.facts import Bars, Chart, Facts, Listing, Matrix, Measure, Picture

__all__ = ["chart_html", "fragment", "page", "styled", "write_file", "write_page", "write_report"]

TILES = 6
"""Measures above the charts; the others are in the table."""

STYLE = """
.sparkopt{--paper:#fff;--ink:#1b2127;--dim:#58626e;--rule:#e2e6ea;--tile:#f5f7f8;--c0:#1f6f8b;--c1:#b4610f;
--good:#1a7a45;--bad:#b3261e;background:var(--paper);color:var(--ink);line-height:1.45;padding:8px 20px 20px;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;font-size:15px;text-align:left}
@media(prefers-color-scheme:dark){.sparkopt{--paper:#14181d;--ink:#e6e9ec;--dim:#a0aab5;--rule:#2c333b;--tile:#1c2228;
--c0:#5cc4e0;--c1:#f2ab54;--good:#6fd39b;--bad:#ff8a80}}
.sparkopt *{box-sizing:border-box}
.sparkopt h1{font-size:23px;margin:14px 0 2px;font-weight:650;letter-spacing:-.01em}
.sparkopt h2{font-size:14.5px;margin:0 0 8px;font-weight:600}
.sparkopt .dim,.sparkopt footer{color:var(--dim)}
.sparkopt p{margin:0 0 10px}
.sparkopt .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;
margin:16px 0;padding:0}
.sparkopt .tile{background:var(--tile);border-radius:10px;padding:10px 14px}
.sparkopt .tile b{display:block;font-size:20px;font-weight:650;font-variant-numeric:tabular-nums}
.sparkopt .tile span{color:var(--dim);font-size:13px}
.sparkopt .charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:14px}
.sparkopt figure{margin:0;border:1px solid var(--rule);border-radius:10px;padding:14px 14px 8px;min-width:0}
.sparkopt svg{display:block;width:100%;height:auto;font-size:12px}
.sparkopt svg text{fill:var(--dim)}
.sparkopt svg .part,.sparkopt svg .value{fill:var(--ink);font-size:13px}
.sparkopt svg .grid{stroke:var(--rule);fill:none}
.sparkopt svg .line{fill:none;stroke-width:2.2;stroke-linejoin:round}
.sparkopt svg .line0{stroke:var(--c0)}.sparkopt svg .line1{stroke:var(--c1);stroke-dasharray:6 3}
.sparkopt svg .line2{stroke:var(--dim);stroke-dasharray:2 3}
.sparkopt svg .line3{stroke:var(--ink);stroke-dasharray:1 3}
.sparkopt svg .fill0{fill:var(--c0)}.sparkopt svg .fill1{fill:var(--c1)}.sparkopt svg .fill2{fill:var(--dim)}
.sparkopt svg .fill3{fill:var(--ink)}.sparkopt svg .area{opacity:.22}
.sparkopt svg .cell{fill:var(--c0)}.sparkopt svg .on{fill:var(--ink);font-size:11px}
.sparkopt .across{grid-column:1/-1}
.sparkopt figure img{display:block;width:100%;height:auto}
.sparkopt .legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--dim);margin:0 0 6px;padding:0}
.sparkopt .legend svg{display:inline-block;width:26px;height:10px;vertical-align:middle;margin-right:6px}
.sparkopt .wide{overflow-x:auto}
.sparkopt table{border-collapse:collapse;margin:10px 0;font-variant-numeric:tabular-nums;background:none}
.sparkopt th,.sparkopt td{text-align:right;padding:5px 14px 5px 0;border-bottom:1px solid var(--rule);font-weight:400;
background:none;color:var(--ink);white-space:nowrap}
.sparkopt th:first-child{text-align:left}.sparkopt thead th{color:var(--dim)}
.sparkopt td.note{text-align:left;color:var(--dim);white-space:normal}
.sparkopt .verdict{border:2px solid;border-radius:10px;padding:10px 14px;font-size:18px;font-weight:600}
.sparkopt .good{color:var(--good)}.sparkopt .bad{color:var(--bad)}
.sparkopt details{margin-top:16px}.sparkopt summary{cursor:pointer}
.sparkopt pre{overflow-x:auto;background:var(--tile);color:var(--ink);border-radius:10px;padding:12px 14px;
font-size:13px}
.sparkopt footer{margin-top:20px;font-size:13px}
"""


def fragment(facts: Facts, text: str) -> str:
    """Return the report of a run as HTML for a notebook; parameters are those of ``write_report``."""
    notes = "".join(f"<p>{escape(note)}</p>" for note in facts.notes)
    charts = "".join(chart_html(chart) for chart in facts.charts)
    mood = "bad" if facts.is_bad else "good"
    banner = f'<p class="verdict {mood}" role="status">{escape(facts.verdict)}</p>' if facts.verdict else ""
    return styled(
        f'{banner}<h1>{escape(facts.title)}</h1><p class="dim">{escape(facts.subtitle)}</p>'
        f'<div class="tiles">{"".join(_tile(measure) for measure in facts.measures[:TILES])}</div>'
        f'{notes}<div class="charts">{charts}</div>'
        f'<details><summary>All figures</summary><div class="wide">{_table(facts.measures)}</div></details>'
        f"<details><summary>As text</summary><pre>{escape(text)}</pre></details>"
        f"<footer>sparkopt {escape(__version__)}</footer>"
    )


def styled(body: str) -> str:
    """Return a fragment with the style."""
    return f'<div class="sparkopt"><style>{STYLE}</style>{body}</div>'


def page(title: str, inside: str) -> str:
    """Return a page around a fragment; its policy forbids loading anything."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title>"
        "<style>body{margin:0}@media(prefers-color-scheme:dark){body{background:#14181d}}"
        ".sparkopt{max-width:1040px;margin:0 auto}</style>"
        f"</head><body><main>{inside}</main></body></html>\n"
    )


def write_report(path: str | Path, facts: Facts, text: str) -> Path:
    """Write the report of a run as a page without script that loads nothing; return its path.

    Parameters
    ----------
    path : str or Path
        The file. An older page is replaced, at once or not at all.
    facts : Facts
        The contents; there need be no charts.
    text : str
        The same as text, to copy.

    Examples
    --------
    >>> from sparkopt.report.facts import Facts, Measure
    >>> facts = Facts("Scoring", "with model/", (Measure("rows", 1e6, "count"), Measure("time", 41.0, "seconds")), ())
    >>> write_report("report.html", facts, "1,000,000 rows in 41 s").name
    'report.html'
    """
    return write_page(path, facts.title, fragment(facts, text))


def write_page(path: str | Path, title: str, inside: str) -> Path:
    """Write a page at once or not at all; return its path."""
    return write_file(path, page(title, inside))


def write_file(path: str | Path, text: str) -> Path:
    """Write a text at once or not at all, to a path or a URI; return its path there.

    Raises
    ------
    ParameterError
        For a URI that cannot be used.
    """
    target = resolve(os.fspath(path), "path")
    try:
        target.write(text.encode())
    except STORAGE_ERRORS as error:
        if target.is_local:
            raise
        raise target.unusable(error) from None
    return Path(target.path)


def chart_html(chart: Chart) -> str:
    """Return a chart with its title, and a legend where it has several series."""
    if isinstance(chart, Picture):
        data = base64.b64encode(chart.png).decode("ascii")
        image = f'<img alt="{escape(chart.description)}" src="data:image/png;base64,{data}">'
        return f'<figure class="across"><h2>{escape(chart.title)}</h2>{image}</figure>'
    if isinstance(chart, Listing):
        return f"<figure><h2>{escape(chart.title)}</h2>{_listing(chart)}</figure>"
    if isinstance(chart, Matrix):
        names, drawn = [], svg.matrix(chart)
    elif isinstance(chart, Bars):
        names, drawn = [name for name, _ in chart.groups], svg.bars(chart)
    else:
        names, drawn = [one.name for one in chart.series if one.x], svg.lines(chart)
    legend = ""
    if len(names) > 1:
        keys = "".join(
            f'<span><svg viewBox="0 0 26 10" aria-hidden="true"><path class="line line{number}" d="M1 5H25"/></svg>'
            f"{escape(name)}</span>"
            for number, name in enumerate(names)
        )
        legend = f'<div class="legend">{keys}</div>'
    return f"<figure><h2>{escape(chart.title)}</h2>{legend}{drawn}</figure>"


def _tile(measure: Measure) -> str:
    note = f"<span>{escape(measure.note)}</span>" if measure.note else ""
    return f'<div class="tile"><span>{escape(measure.name)}</span><b>{escape(measure.text)}</b>{note}</div>'


def _listing(chart: Listing) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in chart.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(text)}</td>" for text in rest)}</tr>'
        for first, *rest in chart.rows
    )
    note = f'<p class="dim">{escape(chart.note)}</p>' if chart.note else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>{rows}</table></div>{note}'


def _table(measures: tuple[Measure, ...]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(measure.name)}</th><td>{escape(measure.text)}</td>'
        f'<td class="note">{escape(measure.note)}</td></tr>'
        for measure in measures
    )
    return f"<table>{rows}</table>"
