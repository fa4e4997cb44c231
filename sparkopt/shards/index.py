"""The index of a store: what its files hold, and how ranks find it."""

from __future__ import annotations

import functools
import json
import math
import operator
import zlib
from dataclasses import asdict, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from sparkopt.errors import DataError
from sparkopt.io.filesystem import Location, resolve
from sparkopt.io.secrets import mask_uri
from sparkopt.shards.fields import Field, Fields
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["TRAINING", "VALIDATION", "WINDOW_BYTES", "Index", "LabelFacts", "Shard", "TensorSpec"]

INDEX = "index.json"
TRAINING, VALIDATION = "training", "validation"
WINDOW_BYTES = 2**28
"""About how many bytes of rows are shuffled together at most, by each stream."""


@dataclass(frozen=True)
class Shard:
    """One file.

    Attributes
    ----------
    path : str
        Below the store.
    groups : tuple of int
        Rows of each record batch.
    bytes : int
        Size of the file.
    digest : int
        CRC-32 of its rows.
    """

    path: str
    groups: tuple[int, ...]
    bytes: int
    digest: int


@dataclass(frozen=True)
class TensorSpec:
    """Shape and NumPy type of a field's rows; ``bytes`` for encoded images."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class LabelFacts:
    """What labels are there, of both splits, apart from those that are ignored.

    Attributes
    ----------
    least, most : float
        The smallest and the largest.
    least_at, most_at : str
        Column, partition and row that they are in.
    fraction, zero : str or None
        A label that is no whole number, and one that is 0, and their place; None where there is none.
    has_ignored : bool
        Whether there are labels that the loss ignores.
    size : int or None
        Of boxes, the numbers of each; of keypoints, how many a row has. None where no row says.
    size_at : str
        A row that has them, with its column and partition.
    unit : str
        What ``size`` counts.
    fill : float or None
        Of masks, the label of pixels outside of the image, which a pipeline adds; None of other labels.
    """

    least: float = math.inf
    most: float = -math.inf
    least_at: str = ""
    most_at: str = ""
    fraction: str | None = None
    zero: str | None = None
    has_ignored: bool = False
    size: int | None = None
    size_at: str = ""
    unit: str = ""
    fill: float | None = None

    @classmethod
    def of(cls, values: Array, place: str, rows: Array, ignored: int | None = None) -> LabelFacts:
        """Return the facts of labels (rows, ...), whose rows have these numbers in a place."""
        each = np.asarray(values).reshape(-1)
        width = max(1, each.size // max(1, len(values)))
        counts = None if ignored is None else each != ignored
        kept = None if counts is None or counts.all() else np.flatnonzero(counts)  # None is all, without a copy
        found = each if kept is None else each[kept]
        if not found.size:
            return cls(has_ignored=kept is not None)

        def at(position: int) -> str:
            return f"{place}, row {rows[int(position if kept is None else kept[position]) // width]}"

        low, high = int(found.argmin()), int(found.argmax())
        odd = None if found.dtype.kind in "iub" else _first(found != np.floor(found))
        zero = _first(found == 0)
        return cls(
            float(found[low]),
            float(found[high]),
            at(low),
            at(high),
            None if odd is None else f"{at(odd)} is {found[odd]:g}",
            None if zero is None else f"{at(zero)} is 0",
            kept is not None,
        )

    @classmethod
    def of_points(cls, packed: pa.Array, target: str, place: str, rows: Array) -> LabelFacts:
        """Return the facts of boxes or keypoints as a store has them, whose rows have these numbers in a place.

        Raises
        ------
        DataError
            Naming a row that has other ones than the rows before it.
        """
        from sparkopt.images.label_targets import UNITS, point_sizes  # here, since most networks need no OpenCV

        sizes = point_sizes(packed, target)
        known = np.flatnonzero(sizes >= 0)
        if not len(known):
            return cls()
        at = [known[0], *known[sizes[known] != sizes[known[0]]][:1]]  # a row, and one that is unlike it
        found = [cls(size=int(sizes[one]), size_at=f"{place}, row {rows[one]}", unit=UNITS[target]) for one in at]
        return functools.reduce(operator.add, found)

    def __add__(self, other: LabelFacts) -> LabelFacts:
        """Return the facts of both.

        Raises
        ------
        DataError
            Where rows have boxes of unlike numbers, or unlike numbers of keypoints.
        """
        if self.size is not None and other.size is not None and self.size != other.size:
            hint = " Give [null, null] for those that are not there." if self.unit == "keypoints" else ""
            raise DataError(
                f"{other.size_at} has {other.size} {other.unit}, and {self.size_at} has {self.size}: a network takes "
                f"as many of every row.{hint}"
            )
        low, high = min(self, other, key=lambda one: one.least), max(self, other, key=lambda one: one.most)
        odd, zero = self.fraction or other.fraction, self.zero or other.zero
        ignored, sized = self.has_ignored or other.has_ignored, other if self.size is None else self
        values, size = (low.least, high.most, low.least_at, high.most_at), (sized.size, sized.size_at, sized.unit)
        return LabelFacts(*values, odd, zero, ignored, *size, other.fill if self.fill is None else self.fill)


def _first(flags: Array) -> int | None:
    """Return the first place that is true."""
    place = int(flags.argmax())
    return place if flags[place] else None


@dataclass(frozen=True)
class Index:
    """What a store holds.

    Attributes
    ----------
    uri : str
        Its folder.
    fields : Fields
        Its columns.
    tensors : dict of str to TensorSpec
        Shape and type of each field's rows.
    training, validation : tuple of Shard
        Its files.
    seconds : float
        How long writing took.
    skipped : int
        Invalid rows that were left out.
    labels : LabelFacts or None
        What labels there are, where there are any.
    """

    uri: str
    fields: Fields
    tensors: dict[str, TensorSpec]
    training: tuple[Shard, ...]
    validation: tuple[Shard, ...] = ()
    seconds: float = field(default=0.0, compare=False)
    skipped: int = 0
    labels: LabelFacts | None = None

    @property
    def location(self) -> Location:
        """The store's folder."""
        return resolve(self.uri, "storePath")

    @cached_property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(shard.bytes for shard in (*self.training, *self.validation))

    def rows(self, split: str = TRAINING) -> int:
        """Rows of a split."""
        return sum(sum(shard.groups) for shard in self.shards(split))

    def shards(self, split: str = TRAINING) -> tuple[Shard, ...]:
        """Files of a split, "training" or "validation"."""
        return self.training if split == TRAINING else self.validation

    def window_rows(self, most: int) -> int:
        """Return how many rows are shuffled together: ``most``, or fewer where they need much memory."""
        size = self.bytes // max(1, self.rows(TRAINING) + self.rows(VALIDATION))
        return max(1, min(most, WINDOW_BYTES // max(1, size)))

    @cached_property
    def fingerprint(self) -> str:
        """A short text that is equal for stores with the same rows in the same groups."""
        parts = [[shard.groups, shard.digest] for shard in (*self.training, *self.validation)]
        return f"{zlib.crc32(json.dumps(parts).encode()):08x}"

    def save(self) -> None:
        """Write the index, which completes the store."""
        self.location.child(INDEX).write(json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, uri: str) -> Index:
        """Read the index of the store at ``uri``.

        Raises
        ------
        DataError
            Where there is none: the store is not shared between the machines, or was not written to its end.
        """
        try:
            found = json.loads(resolve(uri, "storePath").child(INDEX).read())
        except FileNotFoundError as error:
            raise DataError(
                f"there is no store at {mask_uri(uri)!r} as seen from this machine. Set storePath to storage that "
                "the driver and every executor share."
            ) from error
        fields, labels = found.pop("fields"), found.pop("labels")
        found["uri"] = uri  # it may have been moved
        label, weight = (None if fields[name] is None else _field(fields[name]) for name in ("label", "weight"))
        return cls(
            fields=Fields(tuple(map(_field, fields["inputs"])), label, weight, tuple(map(_field, fields["labels"]))),
            tensors={name: TensorSpec(tuple(t["shape"]), t["dtype"]) for name, t in found.pop("tensors").items()},
            training=tuple(_shard(entry) for entry in found.pop("training")),
            validation=tuple(_shard(entry) for entry in found.pop("validation")),
            labels=None if labels is None else LabelFacts(**labels),
            **found,
        )

    def delete(self) -> None:
        """Delete the store."""
        self.location.delete()


def _field(entry: dict[str, Any]) -> Field:
    return Field(**{**entry, "columns": tuple(entry["columns"])})


def _shard(entry: dict[str, Any]) -> Shard:
    return Shard(entry["path"], tuple(entry["groups"]), entry["bytes"], entry["digest"])
