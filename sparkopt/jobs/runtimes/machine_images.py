"""Preprocessing of images by this machine's worker processes, with labels and held-out images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import dataset

from sparkopt.errors import DataError
from sparkopt.images.files import image_files
from sparkopt.images.folder import table_of_files
from sparkopt.images.writing import WriteImages
from sparkopt.io.filesystem import resolve
from sparkopt.io.hashing import xxhash64
from sparkopt.jobs.locations import JobLocation
from sparkopt.jobs.runtimes.files import FileBelow, files_below
from sparkopt.jobs.runtimes.images import SPLIT, SPLITS, ImageRows, ordered_names
from sparkopt.jobs.runtimes.machine_rows import SHARES
from sparkopt.jobs.runtimes.pooled import for_each
from sparkopt.jobs.sources import FEATURES, LABEL, no_images
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.images import ImageKernel

__all__ = ["MachineImages"]

IMAGE_BYTES = 1 << 18
"""What an image counts as, next to rows: decoding takes longer than reading."""


class MachineImages(ImageRows):
    """The images of a job on this machine.

    Parameters
    ----------
    options, kernel, output : Namespace, ImageKernel, JobLocation
        As of ``ImageRows``.
    """

    def __init__(self, options: argparse.Namespace, kernel: ImageKernel, output: JobLocation) -> None:
        super().__init__(options, kernel, output)
        self._files = image_files(options.input)

    def check(self) -> None:
        if not self._files:
            raise DataError(no_images(self.options.input))
        if self.options.features:
            self.names()
        self._written(["path"])

    def names(self) -> list[str]:
        return ordered_names(sorted({_folder(file.uri) for file in self._files}), self.options.labels)

    def done(self) -> int:
        return int(self._written(["path"]).num_rows)

    def steps(self) -> Sequence[tuple[FileBelow, ...]]:
        pending = sorted(self._pending(), key=lambda file: file.size)
        parts = np.array_split(np.arange(len(pending)), min(self.options.parts, len(pending))) if pending else []
        return [tuple(pending[place] for place in part) for part in parts]

    def process(self, step: tuple[FileBelow, ...], names: Sequence[str]) -> None:
        self.output.make_folder()
        folder = resolve(self.output.uri, "output")
        if self.options.features:
            placed = _Labelled(tuple(names), int(self.options.test_fraction * SHARES))
            task = WriteImages(self.kernel, folder, FEATURES, placed=placed)
        else:
            task = WriteImages(self.kernel, folder, "image")
        for_each(task, table_of_files(step).partitions, len(step) * IMAGE_BYTES, "preprocess")

    def reasons(self) -> list[tuple[str, int, str]]:
        rows = self._written(["path", "error"])
        found: dict[str, tuple[int, str]] = {}
        for path, error in zip(rows["path"].to_pylist(), rows["error"].to_pylist(), strict=True):
            reason = "ok" if error is None else error.partition(":")[0]
            count, first = found.get(reason, (0, path))
            found[reason] = (count + 1, min(first, path))
        return [(reason, count, path) for reason, (count, path) in found.items()]

    def missing(self) -> tuple[int, str]:
        pending = self._pending()
        return len(pending), min((file.uri for file in pending), default="")

    def samples(self, count: int) -> list[tuple[str, bytes, bytes]]:
        good = self._written(["path"], dataset.field("image").is_valid())["path"].combine_chunks()
        paths = good.take(pa.array(np.argsort(xxhash64([good]), kind="stable")[:count])).to_pylist()
        rows = self._written(["path", "image"], dataset.field("path").isin(pa.array(paths, pa.string())))
        after = dict(zip(rows["path"].to_pylist(), rows["image"].to_pylist(), strict=True))
        before = {file.uri: file.location for file in self._files if file.uri in after}
        return [(path, before[path].read(), after[path]) for path in paths if path in before]

    def _pending(self) -> list[FileBelow]:
        """Return the images that are not in the table."""
        done = set(self._written(["path"])["path"].to_pylist())
        return [file for file in self._files if file.uri not in done]

    def _written(self, columns: list[str], where: Any = None) -> pa.Table:
        """Return columns of the rows of earlier runs and steps."""
        files = [file for file in _files_of(self.output) if file.uri.endswith(".parquet")]
        if not files:
            return pa.table({name: pa.array([], pa.binary() if name == "image" else pa.string()) for name in columns})
        system = files[0].location.filesystem
        rows = dataset.dataset([file.location.path for file in files], filesystem=system, format="parquet")
        return rows.to_table(columns=columns, filter=where)


def _files_of(output: JobLocation) -> list[FileBelow]:
    return files_below(output.uri) if output.exists() else []


@dataclass(frozen=True)
class _Labelled:
    """Adds each image's label, and splits rows by the hash of its folder and name, so that every run agrees.

    Attributes
    ----------
    names : tuple of str
        Folders in the order of the labels.
    below : int
        Bound of the hashes of images for tests, modulo ``SHARES``.
    """

    names: tuple[str, ...]
    below: int

    def __call__(self, rows: pa.RecordBatch) -> list[tuple[str, pa.RecordBatch]]:
        named = [(_folder(path), path.split("/")[-1]) for path in rows.column("path").to_pylist()]
        labels = pa.array([float(self.names.index(folder)) for folder, _ in named], pa.float64())
        hashes = xxhash64([pa.array([pair[i] for pair in named], pa.string()) for i in range(2)])
        split = np.mod(hashes, SHARES) < self.below
        labelled = pa.RecordBatch.from_arrays([*rows.columns, labels], [*rows.schema.names, LABEL])
        return [
            (f"{SPLIT}={name}", labelled.filter(pa.array(some)))
            for name, some in zip(SPLITS, (~split, split), strict=True)
        ]


def _folder(uri: str) -> str:
    """Return the name of a file's folder."""
    return uri.split("/")[-2]
