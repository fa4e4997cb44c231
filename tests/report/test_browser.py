"""The pages in a real Chromium, where there is one: nothing to complain of, and everything is to be seen."""

from __future__ import annotations

import pytest

from sparkopt.report.comparison import compare
from sparkopt.report.facts import Picture
from tests.report import browser, receipts

PAGES = {
    "linear": receipts.linear,
    "deep": receipts.deep,
    "job": receipts.Outcome,
    "comparison": lambda: compare(receipts.linear(90, 0.1), receipts.linear()),
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_seen_whole_and_complains_of_nothing(tab, name, dark, tmp_path):
    thing = PAGES[name]()
    path = thing.report(tmp_path / "report.html")
    charts = thing.charts if name == "comparison" else thing.facts().charts
    pictures = [chart for chart in charts if isinstance(chart, Picture)]
    browser.look(tab, path, len(charts) - len(pictures), len(pictures), dark=dark)


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
