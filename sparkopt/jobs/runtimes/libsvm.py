"""Files of sparse rows in LIBSVM's form, ``label index:value …`` with ascending indices from 1, as a table."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from sparkopt.errors import DataError
from sparkopt.io.secrets import mask
from sparkopt.jobs.runtimes.files import FileBelow, files_below
from sparkopt.jobs.runtimes.pooled import for_each
from sparkopt.jobs.sources import FEATURES, LABEL
from sparkopt.machine import Table, TablePart
from sparkopt.values import dataclass

__all__ = ["LibsvmPart", "libsvm_table"]

PART_BYTES = 32 << 20
"""About so many bytes of a file are a part."""
VECTOR = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        pa.field("size", pa.int32()),
        pa.field("indices", pa.list_(pa.int32())),
        pa.field("values", pa.list_(pa.float64())),
    ]
)
"""A pyspark.ml Vector as it is stored."""
SCHEMA = pa.schema([pa.field(LABEL, pa.float64()), pa.field(FEATURES, VECTOR)])
Numbers: TypeAlias = np.ndarray[Any, Any]
Text: TypeAlias = bytes  # parts have an attribute of that name


def libsvm_table(*paths: str, width: int = 0) -> Table:
    """Return the rows.

    Parameters
    ----------
    paths : str
        Files, folders or patterns.
    width : int, default 0
        Number of features; 0 is the largest index of all files, as Spark takes it.

    Raises
    ------
    DataError
        For a line of another form, which is named.
    """
    files = [file for path in paths for file in files_below(path) if file.size]
    if not files:
        raise DataError(f"{mask(paths[0])!r} is empty.")
    parts = [
        LibsvmPart(file, begin, min(begin + PART_BYTES, file.size), 0)
        for file in files
        for begin in range(0, file.size, PART_BYTES)
    ]
    width = width or max(for_each(_width, parts, sum(part.bytes for part in parts)), default=0)
    return Table(SCHEMA, tuple(LibsvmPart(part.file, part.begin, part.end, width) for part in parts))


def _width(part: LibsvmPart) -> int:
    """Return the largest index."""
    _, indices, _, _ = part.parsed()
    return int(indices.max(initial=-1)) + 1


@dataclass(frozen=True)
class LibsvmPart(TablePart):
    """The lines that begin within some bytes of a file.

    Parameters
    ----------
    file : FileBelow
        The file.
    begin, end : int
        The bytes.
    width : int
        Number of features.
    """

    file: FileBelow
    begin: int
    end: int
    width: int
    rows = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The file, and where its bytes begin."""
        return f"{self.file.location.path}, from byte {self.begin:,}" if self.begin else self.file.location.path

    @property
    def bytes(self) -> int:  # type: ignore[override]
        """Bytes of the lines."""
        return self.end - self.begin

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows as one batch."""
        labels, indices, values, counts = self.parsed()
        stored = values != 0  # as Spark keeps them
        counts = np.bincount(np.repeat(np.arange(len(labels)), counts)[stored], minlength=len(labels))
        indices, values = indices[stored], values[stored]
        if indices.max(initial=-1) >= self.width:
            raise DataError(
                f"{self.name} has feature {int(indices.max()) + 1:,}, and there are to be {self.width:,} "
                f"(--num-features, or what the model was trained on)."
            )
        ends = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        n = len(labels)
        features = pa.StructArray.from_arrays(
            [
                pa.array(np.zeros(n, np.int8)),
                pa.array(np.full(n, self.width, np.int32)),
                pa.ListArray.from_arrays(ends, pa.array(indices.astype(np.int32))),
                pa.ListArray.from_arrays(ends, pa.array(values)),
            ],
            fields=list(VECTOR),
        )
        batch = pa.RecordBatch.from_arrays([pa.array(labels), features], schema=SCHEMA)
        if n:
            yield batch if columns is None else batch.select(list(columns))

    def parsed(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Return labels (rows,), indices from 0 and values (entries,), and the number of entries of each row."""
        lines = [line.strip() for line in self._text().split(b"\n")]
        lines = [line.partition(b"#")[0].rstrip() for line in lines]
        kept = [line for line in lines if line]
        counts = np.array([line.count(b":") for line in kept], np.int64)
        numbers = _numbers(b"\n".join(kept).replace(b":", b" "))
        if numbers is None or len(numbers) != len(kept) + 2 * counts.sum():
            raise self._refused(lines)
        starts = np.concatenate([[0], np.cumsum(1 + 2 * counts)[:-1]]).astype(np.int64) if len(kept) else counts
        is_label = np.zeros(len(numbers), bool)
        is_label[starts] = True
        pairs = numbers[~is_label].reshape(-1, 2)
        indices = pairs[:, 0].astype(np.int64) - 1
        first = np.zeros(len(indices), bool)
        ends = np.cumsum(counts)
        first[(ends - counts)[counts > 0]] = True
        if (indices < 0).any() or (np.diff(indices)[~first[1:]] <= 0).any():
            raise self._refused(lines)
        return numbers[is_label], indices, np.ascontiguousarray(pairs[:, 1]), counts

    def _text(self) -> Text:
        """Return the lines that begin within the bytes."""
        system, path = self.file.location.filesystem, self.file.location.path
        with system.open_input_file(path) as opened:
            start = max(0, self.begin - 1)
            opened.seek(start)
            text: Text = opened.read(self.end - start)
            while not text.endswith(b"\n") and (more := opened.read(1 << 16)):
                head, newline, _ = more.partition(b"\n")
                text += head + newline
        return text.partition(b"\n")[2] if self.begin else text

    def _refused(self, lines: Sequence[Text]) -> DataError:
        """Return the error that names the first line of another form."""
        for number, line in enumerate(lines):
            entries = [entry.partition(b":") for entry in line.split()[1:]]
            found = (
                [_numbers(part) for part in (line.split()[0], *(x for e in entries for x in (e[0], e[2])))]
                if line
                else []
            )
            ordered = [int(each[0]) for each in found[1::2] if each is not None and len(each)]
            wrong = any(each is None or len(each) != 1 for each in found)
            if wrong or ordered != sorted(set(ordered)) or (ordered and ordered[0] < 1):
                shown = line[:60].decode("utf-8", errors="replace")
                return DataError(
                    f"{self.name}, line {number} is {shown!r}; it must be a label and index:value pairs, with "
                    f"ascending indices from 1."
                )
        return DataError(f"{self.name} has a line that is no label with index:value pairs.")


def _numbers(text: bytes) -> Numbers | None:
    """Return the numbers of a text; None where something in it is none."""
    if not text.strip():
        return np.zeros(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            return np.fromstring(text.decode("ascii"), sep=" ")
        except (DeprecationWarning, ValueError):
            return None
