"""Rows of unlike lengths: what a store and a batch make of them is what NumPy and SciPy make of the same rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse

from sparkopt.shards.ragged import Ragged, joined

RNG = np.random.default_rng(3)
WIDTH = 6


def vectors(rows=40, share=0.3):
    """Rows as SciPy's CSR has them, of which every third has all columns, and one has none."""
    dense = RNG.normal(size=(rows, WIDTH)).astype(np.float32)
    dense[RNG.random(dense.shape) > share] = 0
    dense[::3], dense[4] = RNG.normal(size=(len(dense[::3]), WIDTH)), 0
    found = scipy.sparse.csr_array(dense)
    return Ragged(found.data, found.indptr.astype(np.int64), found.indices.astype(np.int32), WIDTH), dense


def lists(rows=40, inner=()):
    values = [RNG.normal(size=(length, *inner)).astype(np.float32) for length in RNG.integers(1, 7, rows)]
    return Ragged(np.concatenate(values), np.cumsum([0, *map(len, values)])), values


CHOICES = {
    "a slice": slice(5, 17),
    "all": slice(None),
    "none": slice(3, 3),
    "beyond the end": slice(35, 90),
    "an order": np.random.default_rng(1).permutation(40),
    "a mask": np.arange(40) % 4 == 1,
    "some twice": np.array([3, 3, 0, 39]),
}


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
def test_rows_are_chosen_as_of_an_array(chosen):
    sparse, dense = vectors()
    np.testing.assert_array_equal(sparse[chosen].dense(), dense[chosen])
    ragged, values = lists(inner=(2,))
    found, numbers = ragged[chosen], np.arange(40)[chosen]
    padded, mask = found.padded()
    assert len(found) == len(numbers)
    for row, number in enumerate(numbers):
        np.testing.assert_array_equal(padded[row][mask[row]], values[number])
        assert not padded[row][~mask[row]].any()


@pytest.mark.parametrize("start", [0, 7])
def test_a_store_holds_rows_as_they_are(start):
    """In a slice of a file too; a vector that has all columns takes no more than its values."""
    sparse, dense = vectors()
    column = sparse.encoded().slice(start)
    found = Ragged.decoded(column, (WIDTH,))
    np.testing.assert_array_equal(found.dense(), dense[start:])
    entries = np.where((dense != 0).sum(1) == WIDTH, 4 * WIDTH, 8 * (dense != 0).sum(1))
    np.testing.assert_array_equal(sparse.row_bytes, entries)
    full = Ragged(dense.reshape(-1), np.arange(41) * WIDTH, None, WIDTH)
    np.testing.assert_array_equal(Ragged.decoded(full.encoded().slice(start), (WIDTH,)), dense[start:])
    assert full.encoded().type == sparse.encoded().type
    for inner in ((), (2,), (2, 3)):
        ragged, values = lists(inner=inner)
        again = Ragged.decoded(ragged.encoded().slice(start), (-1, *inner))
        padded, mask = again.padded()
        for row, value in enumerate(values[start:]):
            np.testing.assert_array_equal(padded[row][mask[row]], value)


def test_dense_and_sparse_rows_are_joined():
    (one, dense), (two, more) = vectors(), vectors(9, 0.1)
    np.testing.assert_array_equal(joined([one, two]).dense(), np.concatenate([dense, more]))
    np.testing.assert_array_equal(joined([dense, two]).dense(), np.concatenate([dense, more]))
    np.testing.assert_array_equal(joined([two, dense]).dense(), np.concatenate([more, dense]))
    np.testing.assert_array_equal(joined([dense, more]), np.concatenate([dense, more]))
    (one, first), (two, second) = lists(), lists(8)
    padded, mask = joined([one, two]).padded()
    for row, value in enumerate([*first, *second]):
        np.testing.assert_array_equal(padded[row][mask[row]], value)


def test_an_empty_store_of_vectors_has_a_type():
    assert pa.types.is_struct(vectors()[0][slice(0, 0)].encoded().type)
