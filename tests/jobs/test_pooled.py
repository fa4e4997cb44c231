"""A function of many items gives the same results with a progress bar, which is drawn where somebody sees it."""

from __future__ import annotations

import operator

import pytest

from sparkopt.jobs.runtimes import pooled
from sparkopt.machine.pool import ROUND
from sparkopt.solver.callbacks import PROGRESS


@pytest.mark.parametrize("shown", ["0", "1"])
def test_results_are_in_the_order_of_the_items(monkeypatch, capsys, shown):
    monkeypatch.setenv(PROGRESS, shown)
    items = list(range(3 * ROUND * 2 + 1))
    bars = []

    class Bar:
        n = 0

        def __init__(self, total, **options):
            bars.append((total, options["desc"]))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            bars.append(self.n)

        def update(self):
            self.n += 1

    monkeypatch.setattr("tqdm.tqdm", Bar)
    assert pooled.for_each(operator.neg, items, None, "score") == [-item for item in items]
    assert pooled.for_each(operator.neg, items, None) == [-item for item in items]
    assert bars == ([(len(items), "score"), len(items)] if shown == "1" else [])
    assert capsys.readouterr().out == ""
