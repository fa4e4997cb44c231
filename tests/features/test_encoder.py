"""Encodings against scikit-learn and NumPy; statistics of parts against those of all rows; formulas."""

from __future__ import annotations

import datetime
import itertools
import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.preprocessing import OneHotEncoder

from sparkopt.errors import DataError, ParameterError
from sparkopt.features import (
    CategoryEncoding,
    Collect,
    DateEncoding,
    Encoder,
    EncodingOptions,
    Formula,
    HashEncoding,
    NumberEncoding,
    RawColumn,
    fitted_encoder,
)
from sparkopt.features import statistics as st

N = 1000
rng = np.random.default_rng(5)
AGE = np.where(rng.random(N) < 0.2, np.nan, rng.integers(18, 90, N).astype(float))
TOWN = np.where(rng.random(N) < 0.1, None, rng.choice(["Bonn", "Rome", "İzmir", "北京", "O'Fallon, IL"], N))
DAYS = rng.integers(0, 2000, N)
DATE = [datetime.date(2019, 3, 5) + datetime.timedelta(days=int(day)) for day in DAYS]
COLUMNS = (RawColumn("age", "number"), RawColumn("town", "category"), RawColumn("joined", "date"))
ROWS = pa.record_batch(
    {"age": pa.array(AGE, from_pandas=True), "town": pa.array(TOWN.tolist()), "joined": pa.array(DATE)}
)
EACH = [("age",), ("town",), ("joined",)]


def statistics(rows=ROWS, columns=COLUMNS, parts=1, most=100, counted=True):
    collect = Collect(columns, most, counted)
    step = -(-rows.num_rows // parts)
    return st.merged([collect([rows.slice(start, step)]) for start in range(0, rows.num_rows, step)])


def encoder(terms=EACH, **options):
    return fitted_encoder(COLUMNS, statistics(), EncodingOptions(**options), terms)


def dense(X):
    return X if isinstance(X, np.ndarray) else X.toarray()


def matrix(found, rows=ROWS):
    return dense(found.matrix([rows.column(name) for name in found.columns]))


@pytest.mark.parametrize("parts", [2, 7])
def test_statistics_of_parts_are_those_of_all_rows(parts):
    whole, apart = statistics(), statistics(parts=parts)
    for one, other in zip(whole, apart, strict=True):
        assert (one.rows, one.missing) == (other.rows, other.missing)
    age, other = whole[0], apart[0]
    assert age.mean() == pytest.approx(np.nanmean(AGE)) == pytest.approx(other.mean())
    assert age.median() == np.nanmedian(AGE) == other.median()
    values, counts = np.unique(AGE[~np.isnan(AGE)], return_counts=True)
    assert age.most_frequent() == values[counts.argmax()] == other.most_frequent()
    assert sorted(whole[1].counts.to_pylist(), key=str) == sorted(apart[1].counts.to_pylist(), key=str)


def test_the_median_of_very_many_numbers_is_close():
    numbers = rng.normal(size=400_000)
    found = st.NumberStatistics(True)
    for part in np.split(numbers, 8):
        found.add(part)
    assert len(found.values) <= st.DISTINCT
    assert np.mean(numbers <= found.median()) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("impute", "filled"),
    [("mean", np.nanmean(AGE)), ("median", np.nanmedian(AGE)), ("zero", 0.0), ("most_frequent", None)],
)
def test_numbers_are_filled_and_their_absence_is_a_feature(impute, filled):
    X = matrix(encoder([("age",)], impute=impute))
    if filled is None:
        values, counts = np.unique(AGE[~np.isnan(AGE)], return_counts=True)
        filled = values[counts.argmax()]
    assert np.allclose(X[:, 0], np.where(np.isnan(AGE), filled, AGE))
    assert np.array_equal(X[:, 1], np.isnan(AGE))


def test_categories_are_those_of_scikit_learn():
    known = [value if value is not None else "?" for value in TOWN]
    theirs = OneHotEncoder(sparse_output=False).fit(np.array(known)[:, None])
    X = matrix(encoder([("town",)]))

    names = [f"town={name}" for name in theirs.categories_[0] if name != "?"]
    assert encoder([("town",)]).names == [*names, "town is missing"]
    expected = theirs.transform(np.array(known)[:, None])
    place = list(theirs.categories_[0]).index("?")
    assert np.array_equal(X, np.hstack([np.delete(expected, place, axis=1), expected[:, [place]]]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b", "z", None], [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]),
        (pa.array(["a", "b", "z", None]).dictionary_encode(), [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]),
        (pa.nulls(2), [[0, 0, 1]] * 2),
        ([], np.zeros((0, 3))),
    ],
    ids=["text", "dictionary", "nulls", "none"],
)
def test_unseen_categories_are_zero_and_null_is_its_own(given, expected):
    found = Encoder((CategoryEncoding("c", ("a", "b"), missing=True),), ((0,),))
    column = given if isinstance(given, pa.Array) else pa.array(given, pa.string())
    assert np.array_equal(dense(found.matrix([column])), expected)


def test_rare_categories_share_a_feature_with_unseen_ones():
    rows = pa.record_batch({"c": ["a"] * 5 + ["b"] * 4 + ["r1", "r2"]})
    columns = [RawColumn("c", "category")]
    found = fitted_encoder(columns, statistics(rows, columns), EncodingOptions(min_count=3), [("c",)])
    assert found.names == ["c=a", "c=b", "c=(other)"]
    assert matrix(found, pa.record_batch({"c": ["r1", "new", "b"]})).tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("drop", "names"),
    [("if_binary", ["c=b", "d=x", "d=y", "d=z"]), ("first", ["c=b", "d=y", "d=z"]), ("none", None)],
)
def test_the_first_category_may_have_no_feature(drop, names):
    rows = pa.record_batch({"c": ["a", "b", "a"], "d": ["z", "x", "y"]})
    columns = [RawColumn("c", "category"), RawColumn("d", "category")]
    found = fitted_encoder(columns, statistics(rows, columns), EncodingOptions(drop=drop), [("c",), ("d",)])
    assert found.names == (names or ["c=a", "c=b", "d=x", "d=y", "d=z"])
    assert matrix(found, rows).sum() == {"if_binary": 4, "first": 3, "none": 6}[drop]


def test_a_column_of_too_many_categories_is_hashed_however_it_is_divided():
    rows = pa.record_batch({"c": [f"id {number}" for number in range(500)]})
    columns = [RawColumn("c", "category")]
    for parts in (1, 3):
        found = statistics(rows, columns, parts, most=400)
        assert found[0].counts is None
    made = fitted_encoder(columns, found, EncodingOptions(buckets=64), [("c",)])
    assert isinstance(made.encodings[0], HashEncoding)
    X = matrix(made, rows)
    assert X.shape == (500, 64)
    assert (X.sum(axis=1) == 1).all()
    assert np.count_nonzero(X.sum(axis=0)) > 60
    assert np.array_equal(X[::-1], matrix(made, pa.record_batch({"c": rows.column(0)[::-1]})))


def test_dates_have_the_parts_that_the_calendar_gives():
    found = encoder([("joined",)])
    X, names = matrix(found), found.names
    first = min(DATE)
    for row, date in zip(X, DATE, strict=True):
        told = dict(zip(names, row, strict=True))
        assert told[f"joined: days since {first}"] == (date - first).days
        assert told[f"joined: years since {first.year}"] == date.year - first.year
        assert told["joined: day of month"] == date.day
        ones = {name for name, value in told.items() if "=" in name and value == 1}
        assert ones == {f"joined: month={date:%b}", f"joined: weekday={date:%a}"}


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_a_timestamp_counts_as_its_own_clock_shows_it(zone):
    moment = datetime.datetime(2024, 2, 29, 23, 30)
    column = pa.array([moment, None], pa.timestamp("us"))
    if zone:
        column = pa.compute.assume_timezone(column, zone)
    found = Encoder((DateEncoding("at", 19000.0, 19000.5, has_time=True, indicator=True),), ((0,),))
    told = dict(zip(found.names, dense(found.matrix([column]))[0], strict=True))
    assert [name for name, value in told.items() if "=" in name and value] == [
        "at: month=Feb",
        "at: weekday=Thu",
        "at: hour=23",
    ]
    assert dense(found.matrix([column]))[:, -1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("encoding", "column", "expected"),
    [
        (NumberEncoding("x", 7.0), pa.nulls(2), [[7], [7]]),
        (NumberEncoding("x", 7.0), pa.array(["1.5", " "]), [[1.5], [7]]),
        (NumberEncoding("x", 7.0), pa.array([True, None]), [[1], [7]]),
        (CategoryEncoding("x", ("1", "2")), pa.array([1.0, 2.0]), [[1, 0], [0, 1]]),
        (CategoryEncoding("x", ("1", "2")), pa.array([2, 1], pa.int8()), [[0, 1], [1, 0]]),
        (CategoryEncoding("x", ("true",)), pa.array([True, False]), [[1], [0]]),
    ],
)
def test_a_column_of_another_type_is_taken_as_the_one_that_was_trained_on(encoding, column, expected):
    assert dense(Encoder((encoding,), ((0,),)).matrix([column])).tolist() == expected


def test_text_that_is_no_number_is_named():
    with pytest.raises(DataError, match=r"column 'x', row 1 is 'many', which is no number"):
        Encoder((NumberEncoding("x", 0.0),), ((0,),)).matrix([pa.array(["1", "many"])])
    with pytest.raises(DataError, match=r"column 'd', row 0 is 'soon', which is no date"):
        Encoder((DateEncoding("d", 0.0, 0.0),), ((0,),)).matrix([pa.array(["soon"])])


@pytest.mark.parametrize("pair", list(itertools.combinations(["age", "town", "joined"], 2)), ids=":".join)
def test_products_are_those_of_the_columns_features(pair):
    left, right, both = (matrix(encoder([term])) for term in ((pair[0],), (pair[1],), pair))
    expected = np.einsum("ni,nj->nij", left, right).reshape(N, -1)
    assert np.allclose(both, expected)
    names = encoder([pair]).names
    assert len(names) == both.shape[1]
    assert names[1] == f"{encoder([(pair[0],)]).names[0]}:{encoder([(pair[1],)]).names[1]}"


def test_vectors_are_the_matrix_and_an_encoder_is_data():
    found = encoder([*EACH, ("age", "town")])
    found = replace(found, types=("string",) * len(found.columns))
    again = Encoder.from_json(found.to_json())
    assert again == found == pickle.loads(pickle.dumps(found))
    assert again.names == found.names
    vectors = again.vectors([ROWS.column(name) for name in found.columns]).to_pylist()
    X = matrix(found)
    for row, vector in zip(X, vectors, strict=True):
        told = np.zeros(X.shape[1])
        if vector["type"]:
            told[:] = vector["values"]
        else:
            told[vector["indices"]] = vector["values"]
        assert np.array_equal(row, told)


def test_columns_without_values_are_left_out_and_rows_are_needed(caplog):
    rows = pa.record_batch({"a": pa.array([None, None], pa.float64()), "b": [1.0, 2.0]})
    columns = [RawColumn("a", "number"), RawColumn("b", "number")]
    made = fitted_encoder(columns, statistics(rows, columns), EncodingOptions(), [("a",), ("b",), ("a", "b")])
    assert made.columns == ("b",)
    assert "column 'a' is left out" in caplog.text
    with pytest.raises(DataError, match="every value of every column is missing"):
        fitted_encoder(columns[:1], statistics(rows, columns)[:1], EncodingOptions(), [("a",)])


@pytest.mark.parametrize(
    ("text", "label", "terms", "intercept"),
    [
        ("y ~ a + b", "y", [("a",), ("b",)], True),
        ("y~.", "y", [("a",), ("b",), ("c d",)], True),
        ("y ~ . - b - 1", "y", [("a",), ("c d",)], False),
        ("a:b + 0", "", [("a", "b")], False),
        ("y ~ a*`c d` + 1", "y", [("a",), ("c d",), ("a", "c d")], True),
        ("`y ~` ~ a:b:a + a", "y ~", [("a", "b"), ("a",)], True),
        ("~ yaş + 年龄", "", [("yaş",), ("年龄",)], True),
    ],
)
def test_formulas(text, label, terms, intercept):
    found = Formula.of(text)
    columns = [name for name in ("a", "b", "c d", "y") if name != "y" or label == "y"]
    assert (found.label, found.terms_of(columns), found.intercept) == (label, terms, intercept)


@pytest.mark.parametrize(
    "text", ["", "y ~", "y ~ a +", "a b", "y ~ a ~ b", "x + y ~ a", "log(a)", "a^2", ":a", "a:", "a +* b"]
)
def test_formulas_that_are_not_understood_say_so(text):
    with pytest.raises(ParameterError, match="It is like 'y ~ a"):
        Formula.of(text)
