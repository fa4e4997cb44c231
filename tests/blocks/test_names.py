"""Names of columns: the same column is found as Spark finds it, and thousands in linear time."""

from __future__ import annotations

import pytest
from pyspark.sql.types import DoubleType, StructField, StructType

from sparkopt.blocks.columns import features_text
from sparkopt.blocks.names import path_of, type_at
from sparkopt.errors import SchemaError


def of(*names):
    return StructType([StructField(name, DoubleType()) for name in names])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a", ("a",)),
        ("B", ("B",)),
        ("b", ("B",)),
        ("s.X", ("s", "x")),
        ("S.y", ("s", "y")),
        ("a.x", None),
        ("c", None),
    ],
)
def test_a_real_name_wins_then_any_case_then_fields(name, path):
    schema = of("a", "B").add("s", of("x", "y"))
    assert path_of(schema, name, "features") == path
    if path is not None:
        assert type_at(schema, path) == DoubleType()


def test_columns_that_a_schema_is_given_later_are_found():
    schema = of("a")
    assert path_of(schema, "B", "features") is None
    assert path_of(schema.add("b", DoubleType()), "B", "features") == ("b",)


@pytest.mark.parametrize(
    ("names", "message"),
    [(("a", "a"), "exists 2 times"), (("A", "AA", "Aa"), None), (("aB", "Ab"), "may be any of aB, Ab")],
)
def test_several_columns_of_one_name_are_refused(names, message):
    wanted = "ab" if "aB" in names else "a"
    if message is None:
        assert path_of(of(*names), wanted, "features") == ("A",)
        return
    with pytest.raises(SchemaError, match=message):
        path_of(of(*names), wanted, "features")


def test_many_features_in_another_case_are_found_in_linear_time():
    class Counted(str):
        lowered = 0

        def lower(self):
            Counted.lowered += 1
            return str.lower(self)

    count = 500
    schema = of(*[Counted(f"X{index}") for index in range(count)])
    text = features_text(schema, [f"x{index}" for index in range(count)])
    assert text == f"array({', '.join(f'CAST(`X{index}` AS double)' for index in range(count))})"
    assert Counted.lowered == count
