"""Every source of rows times every type of features gives the same model, scores, metrics and search.

CrossValidator is run for a row and two columns of the table (`SEARCHED`); all else in each cell.
"""

from __future__ import annotations

import pytest

from tests.inputs import BY_ARROW, CELLS, IMPOSSIBLE, NOT_BY_ARROW, SEARCHED, SOURCES, Expected, cell, table

pytestmark = pytest.mark.usefixtures("minutes")


@pytest.fixture(scope="module")
def expected():
    return Expected()


@pytest.mark.parametrize(("source", "kind"), CELLS)
def test_a_cell_gives_the_one_model(spark, expected, tmp_path, source, kind):
    found = cell(spark, tmp_path, source, kind)
    expected.check(found, kind)
    assert ("searched" in found) == ((source, kind) in SEARCHED)
    by_arrow = source in BY_ARROW and kind != "big decimals" and (source, kind) not in NOT_BY_ARROW
    assert found["reader"].startswith("arrow" if by_arrow else "spark"), found["reader"]


@pytest.mark.parametrize(("source", "kind"), IMPOSSIBLE)
def test_a_cell_that_is_left_out_is_one_that_spark_refuses(spark, tmp_path, source, kind):
    with pytest.raises(Exception, match=r"UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE|is not supported"):
        SOURCES[source](table(spark, kind), tmp_path / "t")
