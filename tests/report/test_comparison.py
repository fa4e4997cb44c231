"""Comparing two receipts: ratios are those of the figures, runs that do not compare are recognised."""

from __future__ import annotations

import pytest

from sparkopt.report.comparison import compare
from tests.report import receipts

SLOW = receipts.linear(90, 0.1, optimizer="gd", seconds={**receipts.linear().seconds, "total": 8.864, "compute": 3.1})
FAST = receipts.linear(30, 0.25)


def test_ratios():
    found = {difference.name: difference for difference in compare(SLOW, FAST).differences}
    assert found["total time"].text == "4.00x less"
    assert found["steps"].text == "3.00x less"
    assert (found["total time"].better, found["peak memory"].better) == (True, None)
    assert found["peak memory"].text == "the same"
    assert found["bytes sent"].ratio == pytest.approx(31 / 91)
    relative = (FAST.objective[-1] - SLOW.objective[-1]) / SLOW.objective[-1]
    assert found["objective"].text == f"{relative:+.1e} relative"
    near = {d.name: d for d in compare(FAST, receipts.linear(peak_memory=217_000_001)).differences}["peak memory"]
    assert (near.text, near.better) == ("about the same", None)
    back = {difference.name: difference for difference in compare(FAST, SLOW).differences}
    assert back["total time"].text == "4.00x more"
    assert back["total time"].better is False


def test_what_does_not_compare_is_said():
    assert not compare(SLOW, FAST).unlike
    other = compare(FAST, receipts.linear(loss="hinge", rows=5))
    assert "loss logistic and hinge, rows 1,000,000 and 5" in other.unlike
    assert other.unlike in str(other)
    assert "objective" not in other.verdict
    mixed = compare(FAST, receipts.deep())
    assert "only costs compare" in mixed.unlike
    assert {d.name for d in mixed.differences} >= {"total time", "steps", "peak memory", "stored on disk"}
    assert [chart.title for chart in mixed.charts] == ["Loss by step", "Loss by second", "Time by phase"]


def test_charts_overlay_both_runs():
    for chart in compare(SLOW, FAST, ("a", "b")).charts:
        drawn = getattr(chart, "series", None)
        names = [one.name for one in drawn] if drawn else [name for name, _ in chart.groups]
        assert names == ["a", "b"], chart.title


def test_names_are_escaped():
    assert "<img" not in compare(SLOW, FAST, ("<img src=x>", "b"))._repr_html_()
