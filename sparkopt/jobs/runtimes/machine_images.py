"""Preprocessing of images by this machine's worker processes: each writes the rows of some files as a file."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import dataset, parquet

from sparkopt.images.files import image_files
from sparkopt.io.filesystem import Location, resolve
from sparkopt.io.hashing import xxhash64
from sparkopt.jobs.locations import JobLocation
from sparkopt.jobs.runtimes.files import FileBelow, files_below
from sparkopt.jobs.runtimes.images import SPLIT, SPLITS, ImageRows, ordered_names
from sparkopt.jobs.runtimes.machine_files import COMPRESSION
from sparkopt.jobs.runtimes.machine_rows import SHARES, image_parts
from sparkopt.jobs.runtimes.pooled import for_each
from sparkopt.jobs.sources import FEATURES, LABEL

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
        self._written(["path"])

    def names(self) -> list[str]:
        return ordered_names(sorted({_folder(file.uri) for file in self._files}), self.options.labels)

    def done(self) -> int:
        return int(self._written(["path"]).num_rows)

    def steps(self) -> Sequence[tuple[FileBelow, ...]]:
        done = set(self._written(["path"])["path"].to_pylist())
        pending = sorted((file for file in self._files if file.uri not in done), key=lambda file: file.size)
        parts = np.array_split(np.arange(len(pending)), min(self.options.parts, len(pending))) if pending else []
        return [tuple(pending[place] for place in part) for part in parts]

    def process(self, step: tuple[FileBelow, ...], names: Sequence[str]) -> None:
        self.output.make_folder()
        below = int(self.options.test_fraction * SHARES) if self.options.features else None
        task = _WriteImages(self.kernel, self.output.uri, tuple(names), below)
        for_each(task, image_parts(step), len(step) * IMAGE_BYTES)

    def reasons(self) -> list[tuple[str, int, str]]:
        rows = self._written(["path", "error"])
        found: dict[str, tuple[int, str]] = {}
        for path, error in zip(rows["path"].to_pylist(), rows["error"].to_pylist(), strict=True):
            reason = "ok" if error is None else error.partition(":")[0]
            count, first = found.get(reason, (0, path))
            found[reason] = (count + 1, min(first, path))
        return [(reason, count, path) for reason, (count, path) in found.items()]

    def samples(self, count: int) -> list[tuple[str, bytes, bytes]]:
        good = self._written(["path"], dataset.field("image").is_valid())["path"].combine_chunks()
        paths = good.take(pa.array(np.argsort(xxhash64([good]), kind="stable")[:count])).to_pylist()
        rows = self._written(["path", "image"], dataset.field("path").isin(paths))
        after = dict(zip(rows["path"].to_pylist(), rows["image"].to_pylist(), strict=True))
        before = {file.uri: file.location for file in self._files if file.uri in after}
        return [(path, before[path].read(), after[path]) for path in paths if path in before]

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
class _WriteImages:
    """The task: the rows of some image files, as a file of the table.

    Attributes
    ----------
    kernel : ImageKernel
        What is done with an image.
    folder : str
        URI of the table.
    names : tuple of str
        Folders in the order of the labels.
    below : int or None
        Bound of the hashes of images for tests, modulo ``SHARES``; None for tables of encoded images.
    """

    kernel: Any
    folder: str
    names: tuple[str, ...]
    below: int | None

    def __call__(self, files: tuple[FileBelow, ...]) -> None:
        from sparkopt.images.opencv import use_cores

        use_cores(1)
        paths = pa.array([file.uri for file in files], pa.string())
        content = pa.array([file.location.read() if file.size else b"" for file in files], pa.binary())
        name, writers, start = f"part-{uuid.uuid4().hex}.{COMPRESSION}.parquet", _Writers(), 0
        with writers:
            for values, errors in self.kernel(content, paths):
                keys = paths.slice(start, len(values))
                start += len(values)
                for below, rows in self._tables(keys, values, errors):
                    target = resolve(self.folder, "output").child(*([below] if below else []), name)
                    writers.write(target, rows)

    def _tables(self, keys: pa.Array, values: pa.Array, errors: pa.Array) -> list[tuple[str, pa.Table]]:
        """Return rows by the folder that they are written to."""
        column = "image" if self.below is None else FEATURES
        rows = pa.table({"path": keys, column: values, "error": errors})
        split = None
        if self.below is not None:
            named = [(_folder(path), path.split("/")[-1]) for path in keys.to_pylist()]
            labels = [float(self.names.index(folder)) for folder, _ in named]
            rows = rows.append_column(LABEL, pa.array(labels, pa.float64()))
            hashes = xxhash64([pa.array([pair[i] for pair in named], pa.string()) for i in range(2)])
            split = np.mod(hashes, SHARES) < self.below
        kept = np.ones(len(keys), bool)
        if self.kernel.mode == "DROPMALFORMED":
            kept = errors.is_null().to_numpy(zero_copy_only=False)
        if split is None:
            return [("", rows.filter(pa.array(kept)))]
        chosen = zip(SPLITS, (kept & ~split, kept & split), strict=True)
        return [(f"{SPLIT}={name}", rows.filter(pa.array(some))) for name, some in chosen if some.any()]


class _Writers:
    """Parquet files that appear when the block ends well, and not at all otherwise."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Location, Location, Any]] = {}

    def write(self, target: Location, rows: pa.Table) -> None:
        """Append rows to a file."""
        if target.path not in self._open:
            folder, _, name = target.path.rpartition("/")
            Location(target.filesystem, folder).make_folder()
            hidden = Location(target.filesystem, f"{folder}/.{name}.unfinished") if target.renames else target
            writer = parquet.ParquetWriter(
                hidden.path, rows.schema, filesystem=target.filesystem, compression=COMPRESSION
            )
            self._open[target.path] = (target, hidden, writer)
        self._open[target.path][2].write_table(rows)

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for target, hidden, writer in self._open.values():
            writer.close()
            if kind is not None:
                hidden.delete()
            elif hidden != target:
                target.filesystem.move(hidden.path, target.path)


def _folder(uri: str) -> str:
    """Return the name of a file's folder."""
    return uri.split("/")[-2]
