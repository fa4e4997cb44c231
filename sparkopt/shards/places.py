"""Where rows come from, as errors of batches name them: a batch's rows are shuffled, and are decoded when it is made.

A store of images has the partition and the number of each row in it, and the paths that were read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.io.secrets import mask_uri
from sparkopt.shards.fields import Field, Fields
from sparkopt.typing import Array

__all__ = ["ABOUT_ROWS", "paths_of", "place_of", "places"]

PLACE, PATHS = "place", "paths"
ABOUT_ROWS = (PLACE, PATHS)
"""Columns of a store that are about its rows, and none of their values."""


def places(fields: Fields, batch: pa.RecordBatch, partition: int, rows: Array) -> dict[str, Array | pa.Array]:
    """Return the columns that say where rows come from; none where nothing is decoded later.

    Parameters
    ----------
    fields : Fields
        What is stored.
    batch : pyarrow.RecordBatch
        The rows.
    partition : int
        Theirs.
    rows : ndarray of shape (rows,)
        Their numbers in the partition.
    """
    if not any(entry.is_image for entry in fields.inputs):
        return {}
    found: dict[str, Array | pa.Array] = {PLACE: np.stack([np.full(len(rows), partition), rows], 1).astype(np.int64)}
    paths = paths_of(fields.all, [batch.column(entry.name) for entry in fields.all])
    if paths is not None:
        found[PATHS] = pa.array([text.encode() for text in paths], pa.binary())
    return found


def paths_of(fields: Sequence[Field], columns: Sequence[pa.Array]) -> list[str] | None:
    """Return the paths that each row names, by their columns; None where no column holds paths, nor origins."""
    named = []
    for entry, column in zip(fields, columns, strict=True):
        if entry.kind == "path":
            named.append((entry.title, column))
        elif entry.kind == "pixels" and column.type.get_field_index("origin") >= 0:
            named.append((entry.title, column.field("origin")))
    if not named:
        return None
    texts = [[f"{title} {_shown(path)}" for path in column.to_pylist()] for title, column in named]
    return [", ".join(row) for row in zip(*texts, strict=True)]


def _shown(path: str | None) -> str:
    return "null" if path is None else repr(mask_uri(path))


def place_of(columns: Mapping[str, Any], row: int) -> str:
    """Return where a row of a batch comes from; of a store that does not know it, where it is in the batch."""
    if PLACE not in columns:
        return f"row {row} of its batch"
    partition, number = columns[PLACE][row].tolist()
    text = f"partition {partition}, row {number}"
    return f"{text} ({columns[PATHS][row].to_pybytes().decode()})" if PATHS in columns else text
