"""Reports: JSON that can be loaded, a page that loads nothing, and charts that agree with the figures."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from sparkopt.errors import DataError
from sparkopt.report import DeepReceipt, Receipt, load_receipt, svg
from sparkopt.report.facts import Bars, Lines, Listing, Matrix, Series
from sparkopt.report.page import STYLE, chart_html
from sparkopt.report.scale import Axis
from tests.report import receipts

KINDS = {"linear": receipts.linear, "deep": receipts.deep}
BAD = '<script>alert("1")</script>&\'<img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Collects tags and their attributes, and checks that what was opened is closed."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("kind", KINDS)
def test_json_comes_back(kind, tmp_path):
    receipt = KINDS[kind]()
    receipt.save(tmp_path / "receipt.json")
    assert load_receipt(tmp_path / "receipt.json") == receipt
    assert type(receipt).load(tmp_path / "receipt.json") == receipt
    assert type(receipt).from_dict(json.loads(json.dumps(receipt.to_dict()))) == receipt


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{", "holds no JSON"),
        ("[]", "a JSON list, and no receipt"),
        ('{"rows": 1}', "lacks bytes, "),
        (json.dumps({**receipts.linear().to_dict(), "more": 1}), "has the unknown more"),
    ],
)
def test_what_is_no_receipt_is_refused(content, said, tmp_path):
    path = tmp_path / "receipt.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=said):
        load_receipt(path)


def test_receipts_of_earlier_versions_are_read():
    new = {"linear": ("sent", "models", "resumed_at"), "deep": ("objective", "validation", "elapsed")}
    for kind, names in new.items():
        receipt = KINDS[kind]()
        old = {name: value for name, value in receipt.to_dict().items() if name not in names}
        assert "<svg" in type(receipt).from_dict(old)._repr_html_()


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_needs_nothing_but_itself(kind, tmp_path):
    receipt = KINDS[kind]()
    path = tmp_path / "report.html"
    path.write_text("an older one")
    assert receipt.report(path.as_uri()) == receipt.report(path) == path
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    names = {name for _, attributes in page.tags for name in attributes}
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "use"}
    assert not names & {"src", "href", "srcset", "data", "action"}
    assert not [name for name in names if name.startswith("on")]
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme:dark" in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize("kind", KINDS)
def test_charts_can_be_read_without_seeing_them(kind):
    receipt = KINDS[kind]()
    pictures = [attributes for tag, attributes in Page(receipt._repr_html_()).tags if tag == "svg"]
    drawn = [picture for picture in pictures if picture.get("role") == "img"]
    assert len(drawn) == len(receipt.facts().charts) >= 3
    for picture, chart in zip(drawn, receipt.facts().charts, strict=True):
        assert picture["aria-label"].startswith(f"{chart.title}: ")
    assert all("aria-hidden" in picture for picture in pictures if picture not in drawn)


@pytest.mark.parametrize(
    "receipt",
    [
        receipts.linear(optimizer=BAD, loss=BAD, engine=BAD, reason=BAD),
        receipts.deep(
            launcher=BAD, devices=[BAD], why=BAD, stopped=BAD, resumed=BAD, seconds={BAD: 1.0, "total": 1.0}
        ),
        receipts.Outcome(BAD),
    ],
)
def test_what_users_name_is_escaped(receipt, tmp_path):
    found = Page(receipt.report(tmp_path / "report.html").read_text(encoding="utf-8"))
    pages = (receipts.deep(), receipts.Outcome())
    harmless = {tag for page in pages for tag, _ in Page(page._repr_html_()).tags}
    assert {tag for tag, _ in found.tags} <= harmless | {"html", "head", "meta", "body", "main"}
    assert [attributes["src"][:22] for tag, attributes in found.tags if tag == "img"] == [
        "data:image/png;base64,"
    ] * isinstance(receipt, receipts.Outcome)


def test_every_figure_is_on_the_page():
    receipt = receipts.linear(resumed_at=4, models=3)
    text = receipt._repr_html_()
    for measure in receipt.facts().measures:
        assert measure.name in text
        assert measure.text in text
    assert "4 steps were taken by an earlier attempt" in text
    assert "in the same passes" in text


def test_a_line_goes_through_its_points():
    values = [8.0, 4.0, 6.0]
    root = ElementTree.fromstring(svg.lines(Lines("Loss", "steps", "number", (Series.of("a", range(3), values),))))
    (path,) = [e.get("d") for e in root.iter("path") if e.get("class") == "line line0"]
    places = np.array([point.split() for point in path[1:].split("L")], float)
    assert places[:, 0] == pytest.approx(np.linspace(svg.LEFT, svg.WIDTH - svg.RIGHT, 3))
    floor, top = svg.HEIGHT - svg.BOTTOM, svg.TOP
    assert places[:, 1] == pytest.approx([top, floor, (floor + top) / 2])


def test_a_scatter_plot_has_no_line():
    points = Series.of("a", (1, 2, 3), (1, 5, 2), dots=True, joined=False)
    root = ElementTree.fromstring(svg.lines(Lines("Rows", "true", "number", (points,))))
    assert len(list(root.iter("circle"))) == 3
    assert not [path for path in root.iter("path") if "line" in path.get("class")]


def test_bars_are_as_long_as_their_parts():
    chart = Bars("Time", "seconds", ("a", "b"), (("", (1.0, 4.0)),))
    root = ElementTree.fromstring(svg.bars(chart))
    widths = [float(bar.get("width")) for bar in root.iter("rect")]
    assert widths[0] / widths[1] == pytest.approx(0.25, rel=1e-3)
    assert [text.text for text in root.iter("text")] == ["a", "1.00 s · 20%", "b", "4.00 s · 80%"]


def test_a_listing_is_a_table_and_escapes_names():
    listing = Listing("Coefficients", ("feature", "coefficient"), (("town=<Bonn>", "-3"), ("age", "0")), "2 in all")
    text = chart_html(listing)
    assert re.findall(r"<th scope=.row.>(.*?)</th><td>(.*?)</td>", text) == [
        ("town=&lt;Bonn&gt;", "-3"),
        ("age", "0"),
    ]
    assert "2 in all" in text


def test_what_is_zero_is_drawn_as_zero():
    bars = svg.bars(Bars("Time", "seconds", ("read", "send"), (("", (2.0, 0.0)),)))
    assert [float(bar.get("width")) > 0 for bar in ElementTree.fromstring(bars).iter("rect")] == [True, False]
    assert "0 ms · 0%" in bars
    cells = svg.matrix(Matrix("Right and wrong", "true", "predicted", ("a",), ("a", "b"), ((6.0, 0.0),)))
    assert [text.text for text in ElementTree.fromstring(cells).iter("text")][-2:] == ["6", "0"]


def test_a_cell_is_as_dark_as_its_share_of_its_row():
    chart = Matrix("Right and wrong", "true", "predicted", ("a", "b"), ("a", "b"), ((6.0, 2.0), (0.0, 0.0)))
    text = svg.matrix(chart)
    root = ElementTree.fromstring(text)
    shades = [float(cell.get("fill-opacity")) for cell in root.iter("rect")]
    assert np.diff(shades) / 0.5 == pytest.approx([-0.5, -0.25, 0.0])
    assert root.get("aria-label") == "Right and wrong: true a: 6 a, 2 b; true b: 0 a, 0 b"
    assert [label.text for label in root.iter("text") if label.get("class") == "on"] == [*"6200"]


def test_a_long_line_keeps_its_spikes():
    values = np.random.default_rng(0).normal(size=100_000)
    values[77_777], values[33_333] = 90.0, -90.0
    points = svg.downsampled(Series.of("a", range(len(values)), values.tolist()))
    assert len(points) <= svg.MOST_POINTS + 4
    assert {(77_777.0, 90.0), (33_333.0, -90.0), (0.0, values[0]), (99_999.0, values[-1])} <= set(points)
    assert points == sorted(points)


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ((0.0, 1.0), False),
        ((0.31249, 0.31251), False),
        ((5.0, 5.0), False),
        ((0.0, 0.0), False),
        ((1e-9, 3.0), True),
        ((2.0, 7.0), True),
        ((-4e9, 1e10), False),
        ((0.0, 1.25), False),
    ],
)
def test_ticks_are_round_and_told_apart(values, log):
    axis = Axis.over(values, 10.0, 110.0, log=log)
    ticks = axis.ticks()
    labels = axis.labels(ticks)
    assert 2 <= len(ticks) <= 16
    assert len(set(labels)) == len(labels)
    assert [float(label.replace(",", "")) for label in labels] == pytest.approx(ticks, abs=1e-12)
    assert all(10 - 1e-6 <= axis(tick) <= 110 + 1e-6 for tick in ticks)
    assert (axis(axis.low), axis(axis.high)) == pytest.approx((10.0, 110.0))


def test_receipts_of_stages_add_up():
    """Nonsmooth losses are fitted in stages; each counts its steps from 0, where the one before it ended."""
    first = receipts.linear(4, sent=[1, 1, 1, 1, 1, 1], codecs={"none": 6}, peak_memory=7)
    then = receipts.linear(2, sent=[5, 5, 5], codecs={"none": 2, "fp16": 1}, peak_memory=3)
    both = first + then.after(4)
    assert both.sent == [1, 1, 1, 1, 6, 6, 5]
    assert sum(both.sent) == sum(first.sent) + sum(then.sent)
    assert then.after(4).sent == [0, 0, 0, 0, 5, 5, 5]  # an earlier attempt took the first four
    assert (both.resumed_at, (first.after(3) + then.after(7)).resumed_at) == (first.resumed_at, 3 + first.resumed_at)
    assert (both.passes, both.rows_touched) == (
        first.passes + then.passes,
        first.rows_touched + then.rows_touched,
    )
    assert (both.codecs, both.peak_memory) == ({"none": 8, "fp16": 1}, 7)
    written = first.seconds["ingest"]  # once
    assert both.seconds["ingest"] == written
    assert both.seconds["total"] == pytest.approx(first.seconds["total"] + then.seconds["total"] - written)
    assert both.bytes["stored"] == first.bytes["stored"]
    assert both.bytes["driver"] == first.bytes["driver"] + then.bytes["driver"]
    again = both + both.idle(6)
    assert (again.seconds, again.bytes, again.sent) == (both.seconds, both.bytes, both.sent)


def test_runs_without_steps_have_a_page_too():
    receipt = receipts.linear(0, objective=[0.7], elapsed=[0.0], validation=[None], sent=[0], passes=1)
    assert "<circle" in receipt._repr_html_()
    empty = receipts.deep(objective=[], validation=[], elapsed=[], epochs=0, steps=0)
    assert "nothing was measured" in empty._repr_html_()


def test_text_and_page_agree_with_the_receipt():
    for receipt in (receipts.linear(), receipts.deep()):
        assert isinstance(receipt, (Receipt, DeepReceipt))
        assert re.search(r"<pre>.*</pre>", receipt._repr_html_(), re.DOTALL)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colours_stand_out(dark):
    """WCAG 2.2: text 4.5:1 (1.4.3), lines and bars 3:1 (1.4.11)."""
    light, night = (dict(re.findall(r"--(\w+):(#\w+)", part)) for part in STYLE.split("@media", 1))
    colours = night if dark else light
    for paper in ("paper", "tile"):
        assert min(_contrast(colours[name], colours[paper]) for name in ("ink", "dim", "good", "bad")) >= 4.5
    assert min(_contrast(colours[name], colours["paper"]) for name in ("c0", "c1")) >= 3


def _contrast(one: str, other: str) -> float:
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
