"""What others met with rows in the field, without Spark. Behaviours ask the same of Spark."""

from __future__ import annotations

import pytest

from tests.ml.field import CASES, Place
from tests.ml.tables import arrow


@pytest.mark.parametrize("name", CASES)
def test_a_case_of_the_field_ends_well(name, tmp_path):
    CASES[name](Place(lambda table: table, arrow, (), tmp_path))
