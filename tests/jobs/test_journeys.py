"""From raw files to scores by commands alone, on Spark as on this machine; tests/connect has Spark Connect."""

from __future__ import annotations

import pytest

from tests.jobs.raw_journeys import JOURNEYS

CLOSE = {"rel": 1e-6, "abs": 1e-9}


@pytest.mark.usefixtures("minutes", "spark")
@pytest.mark.parametrize("name", JOURNEYS)
def test_a_journey_on_spark_ends_where_one_without_does(name, tmp_path):
    found = {}
    for on in ("machine", "spark"):
        (tmp_path / on).mkdir()
        found[on] = JOURNEYS[name](tmp_path / on, on)
    here, there = found["machine"], found["spark"]
    assert there["accuracy"] == pytest.approx(here["accuracy"], abs=0.02)
    assert len(there["probability"]) == len(here["probability"])
    if name != "a CSV":  # whose partitions, and so whose held-out rows, are others
        assert there["probability"] == pytest.approx(here["probability"], **CLOSE)
