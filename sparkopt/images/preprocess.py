"""preprocess: a folder of images through a pipeline into Parquet files, by this machine's processes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from sparkopt.errors import SchemaError
from sparkopt.images.arrow import ImageKernel
from sparkopt.images.batches import BatchFunction
from sparkopt.images.files import image_files
from sparkopt.images.folder import table_of_files
from sparkopt.images.pipeline import Compose, Encode
from sparkopt.io.filesystem import UNFINISHED, Location, resolve
from sparkopt.io.listing import files_below
from sparkopt.machine import ProcessPool, Table, TablePart

__all__ = ["Preprocessed", "preprocess"]

PATH, CONTENT, IMAGE, ERROR = "path", "content", "image", "error"


@dataclass(frozen=True)
class Preprocessed:
    """What ``preprocess`` did.

    Attributes
    ----------
    images : int
        Images that this run processed.
    good : int
        Those that have a result.
    failures : mapping of str to int
        How many failed, by the first word or words of the reason, such as "truncated".
    first : mapping of str to str
        The first path of each reason.
    skipped : int
        Images of earlier runs, which are in the output already.
    seconds : float
        How long it took.
    """

    images: int
    good: int
    failures: Mapping[str, int]
    first: Mapping[str, str] = field(repr=False)
    skipped: int
    seconds: float = field(compare=False)

    def __str__(self) -> str:
        rate = self.images / max(self.seconds, 1e-9)
        lines = [
            f"{self.images:,} images, {self.good:,} good, {self.skipped:,} of earlier runs; {rate:,.0f} a second"
        ]
        lines += [f"  {count:,} {reason}, {self.first[reason]} first" for reason, count in self.failures.items()]
        return "\n".join(lines)


def preprocess(
    source: Any,
    pipeline: Compose,
    output: str,
    *,
    mode: str = "PERMISSIVE",
    seed: int = 0,
    epoch: int = 0,
    progress: bool = True,
) -> Preprocessed:
    """Run a pipeline over images by this machine's processes, without Spark, and write the results as Parquet.

    A file appears once it is whole. A run that was stopped is continued by the same call: images whose path is in the
    output are not processed again. Rows are those of the command ``preprocess-images``.

    Parameters
    ----------
    source : str, or what ``sparkopt.Table.of`` takes
        A directory, read with all its subdirectories, or a glob; or rows with the columns path and content.
    pipeline : Compose
        What to do with each image. If it ends in ``Encode``, the column image holds encoded images, else tensors.
    output : str
        A folder, or a URI of any storage that pyarrow knows. Its files have the columns path, image and error: the
        reason where there is no image.
    mode : {"PERMISSIVE", "DROPMALFORMED", "FAILFAST"}, default "PERMISSIVE"
        What a bad image does: it becomes null with its reason, its row is left out, or an error is raised.
    seed, epoch : int, default 0
        Random transforms depend on (seed, path, epoch) only.
    progress : bool, default True
        Whether to show a bar.

    Returns
    -------
    Preprocessed
        Exact counts of this run.

    Raises
    ------
    CorruptImageError
        In mode FAILFAST, for a bad image. What is written stays.
    SchemaError
        For rows without path or content.

    Examples
    --------
    >>> from sparkopt import images
    >>> pipeline = images.Compose([images.Decode(), images.Resize(8, 8), images.Encode("png")])
    >>> images.preprocess("photos", pipeline, "small", progress=False).good
    6
    """
    begin = time.perf_counter()
    kind = "bytes" if pipeline.transforms and isinstance(pipeline.transforms[-1], Encode) else "tensor"
    kernel = ImageKernel(pipeline, kind, mode, seed, epoch)
    folder = resolve(output, "output")
    done = _done(folder)
    table, skipped = _pending(source, done)
    folder.make_folder()
    task = _WriteImages(kernel, folder, frozenset(done) if skipped is None else frozenset())
    counts = list(_with_bar(task, table, progress))
    failures: dict[str, tuple[int, str]] = {}
    for one in counts:
        for reason, (count, path) in one.failures.items():
            known, first = failures.get(reason, (0, path))
            failures[reason] = (known + count, min(first, path))
    failed = sum(count for count, _ in failures.values())
    images = sum(one.images for one in counts)
    return Preprocessed(
        images,
        images - failed,
        {reason: count for reason, (count, _) in sorted(failures.items())},
        {reason: path for reason, (_, path) in sorted(failures.items())},
        sum(one.skipped for one in counts) if skipped is None else skipped,
        time.perf_counter() - begin,
    )


def _done(folder: Location) -> set[str]:
    """Return the paths of images in an output."""
    if not folder.exists():
        return set()
    found = set[str]()
    for file in files_below(folder.path) if folder.is_local else _parquet_files(folder):
        location = file if isinstance(file, Location) else file.location
        if location.path.endswith(".parquet"):
            rows = parquet.read_table(location.path, columns=[PATH], filesystem=location.filesystem)
            found.update(rows[PATH].to_pylist())
    return found


def _parquet_files(folder: Location) -> list[Location]:
    infos = [info for info in folder.listed(recursive=True) if not info.base_name.startswith((".", "_"))]
    return [Location(folder.filesystem, info.path) for info in infos]


def _pending(source: Any, done: set[str]) -> tuple[Table, int | None]:
    """Return the images to process, and how many are done; None where only their rows tell."""
    if isinstance(source, str):
        files = image_files(source)
        left = [one for one in files if one.uri not in done]
        return table_of_files(left), len(files) - len(left)
    table = Table.of(source)
    for name in (PATH, CONTENT):
        if name not in table.names:
            raise SchemaError(f"there is no column {name!r}. The columns are {', '.join(table.names)}.")
    return table, None


def _with_bar(task: _WriteImages, table: Table, progress: bool) -> Iterator[_Counts]:
    from tqdm import tqdm

    parts = [part for part in table.partitions if part.rows != 0]
    with (
        ProcessPool.shared() as pool,
        tqdm(total=table.rows, desc="preprocess", unit="image", disable=not progress) as bar,
    ):
        for counts in pool.in_rounds(task, parts):
            bar.update(counts.images + counts.skipped)
            yield counts


@dataclass(frozen=True)
class _Counts:
    """What a task did: failures are counts and the first path, by reason."""

    images: int
    skipped: int
    failures: Mapping[str, tuple[int, str]]


@dataclass(frozen=True)
class _WriteImages:
    """The task: the results of a partition's images, as a file of their own."""

    kernel: ImageKernel
    output: Location
    done: frozenset[str]

    def __call__(self, part: TablePart) -> _Counts:
        function = BatchFunction(self.kernel, CONTENT, IMAGE, ERROR, PATH)
        images, skipped, failures = 0, 0, dict[str, tuple[int, str]]()

        def pending() -> Iterator[pa.RecordBatch]:
            nonlocal images, skipped
            for batch in part.batches([PATH, CONTENT]):
                rows = batch.filter(pc.invert(pc.is_in(batch.column(PATH), pa.array(list(self.done), pa.string()))))
                images, skipped = images + rows.num_rows, skipped + batch.num_rows - rows.num_rows
                yield rows

        kept = 0
        with _Whole(self.output, f"part-{uuid.uuid4().hex}.parquet") as file:
            for rows in function(pending()):
                kept += rows.num_rows
                file.write(rows)
                for path, error in zip(rows.column(PATH).to_pylist(), rows.column(ERROR).to_pylist(), strict=True):
                    if error is not None:
                        reason = error.partition(":")[0]
                        count, first = failures.get(reason, (0, path))
                        failures[reason] = (count + 1, min(first, path))
        if kept < images:
            failures["dropped"] = (images - kept, part.name)
        return _Counts(images, skipped, failures)


class _Whole:
    """A Parquet file that appears when the block ends well; no file, where no row is written."""

    def __init__(self, folder: Location, name: str) -> None:
        self._target = folder.child(name)
        self._written = folder.child(f".{name}{UNFINISHED}") if folder.renames else self._target
        self._writer: Any = None

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows."""
        if self._writer is None:
            self._writer = parquet.ParquetWriter(
                self._written.path, rows.schema, filesystem=self._written.filesystem, compression="snappy"
            )
        self._writer.write_batch(rows)

    def __enter__(self) -> _Whole:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._writer is None:
            return
        self._writer.close()
        if kind is not None:
            self._written.filesystem.delete_file(self._written.path)
        elif self._written.path != self._target.path:
            self._target.filesystem.move(self._written.path, self._target.path)
