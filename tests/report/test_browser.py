"""The pages in a real Chromium, where there is one: nothing to complain of, and everything is to be seen."""

from __future__ import annotations

import pytest

from sparkopt.compare import compare
from tests.report import browser, receipts

PAGES = {
    "linear": receipts.linear,
    "deep": receipts.deep,
    "comparison": lambda: compare(receipts.linear(90, 0.1), receipts.linear()),
}
BOXES = """[...document.querySelectorAll('figure svg[role=img], figure svg[role=img] *')]
    .filter(e => !['title'].includes(e.tagName))
    .map(e => [e.tagName, e.getBoundingClientRect().width, e.getBoundingClientRect().height])"""
OUTSIDE = """[...document.querySelectorAll('svg[role=img] text')].filter(text => {
    const inner = text.getBoundingClientRect(), outer = text.closest('svg').getBoundingClientRect();
    return inner.left < outer.left - 1 || inner.right > outer.right + 1
        || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
}).map(text => text.textContent)"""
MARKS = "svg[role=img] .line, svg[role=img] rect, svg[role=img] circle"
UNSEEN = f"""[...document.querySelectorAll('{MARKS}')].filter(mark => {{
    const style = getComputedStyle(mark), paper = getComputedStyle(mark.closest('.sparkopt')).backgroundColor;
    const colour = mark.classList.contains('line') ? style.stroke : style.fill;
    return colour === 'none' || colour === paper || style.visibility !== 'visible' || style.opacity === '0';
}}).length"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    executable = browser.find()
    if executable is None:
        pytest.skip("no Chromium is on the PATH: apt-get install chromium, then this test runs")
    with browser.Browser(executable, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_seen_whole_and_complains_of_nothing(tab, name, dark, tmp_path):
    thing = PAGES[name]()
    path = thing.report(tmp_path / "report.html")
    tab.open(path, dark=dark)
    assert tab.complaints() == []
    assert tab.requested() == [path.as_uri()]
    boxes = tab.evaluate(BOXES)
    charts = [(width, height) for tag, width, height in boxes if tag == "svg"]
    assert len(charts) == len(thing.charts if name == "comparison" else thing.facts().charts)
    assert all(width > 300 and height > 80 for width, height in charts)
    assert all(width > 0 or height > 0 for _, width, height in boxes)
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(UNSEEN) == 0
    paper = tab.evaluate("getComputedStyle(document.querySelector('.sparkopt')).backgroundColor")
    assert paper == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


def test_a_narrow_window_needs_no_sideways_scrolling(tab, tmp_path):
    tab.open(receipts.linear().report(tmp_path / "report.html"), width=380)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 380


def test_the_figures_unfold(tab, tmp_path):
    receipt = receipts.linear()
    tab.open(receipt.report(tmp_path / "report.html"))
    assert not tab.evaluate("document.querySelector('table').checkVisibility()")
    tab.evaluate("document.querySelector('summary').click()")
    assert tab.evaluate("document.querySelectorAll('tr').length") == len(receipt.facts().measures)
    assert tab.evaluate("document.querySelector('table').checkVisibility()")


def test_what_users_name_runs_nothing(tab, tmp_path):
    bad = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    tab.open(receipts.linear(optimizer=bad, engine=bad, reason=bad).report(tmp_path / "report.html"))
    assert tab.complaints() == []
    assert tab.evaluate("document.images.length") == 0
    assert tab.evaluate("document.title") == f"logistic by {bad}"
    assert bad in tab.evaluate("document.querySelector('h1').textContent")


def test_the_browser_would_complain(tab, tmp_path):
    page = receipts.linear().report(tmp_path / "report.html").read_text()
    (tmp_path / "bad.html").write_text(page.replace("</main>", '<img src="gone.png"><script>1</script></main>'))
    tab.open(tmp_path / "bad.html")
    assert len(tab.complaints()) == 2
    assert all("Content Security Policy" in str(complaint) for complaint in tab.complaints())
