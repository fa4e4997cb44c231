"""preprocess: a folder of images through a pipeline into Parquet files, by this machine's processes."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from pyarrow import parquet

from sparkopt.errors import DataError, SchemaError
from sparkopt.images.arrow import ImageKernel
from sparkopt.images.files import listed_images
from sparkopt.images.folder import table_of_files
from sparkopt.images.pipeline import Compose, Encode
from sparkopt.images.writing import CONTENT, MADE_BY, PATH, WriteCounts, WriteImages, made_by
from sparkopt.io.filesystem import resolve
from sparkopt.io.listing import FileBelow, files_below
from sparkopt.io.secrets import mask_uri
from sparkopt.machine import ProcessPool, Table
from sparkopt.values import dataclass

__all__ = ["Preprocessed", "preprocess"]

IMAGE = "image"


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
    output: str | os.PathLike[str],
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
    source : str or path, or what ``sparkopt.Table.of`` takes
        A directory, read with all its subdirectories, or a glob; or rows with the columns path and content.
    pipeline : Compose
        What to do with each image. If it ends in ``Encode``, the column image holds encoded images, else tensors.
    output : str or path
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
    DataError
        Where ``output`` holds the results of another pipeline, seed or epoch.

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
    output, source = os.fspath(output), os.fspath(source) if isinstance(source, os.PathLike) else source
    folder = resolve(output, "output")
    done = _done(output, kernel) if folder.exists() else set()
    table, skipped = _pending(source, done, progress)
    folder.make_folder()
    task = WriteImages(kernel, folder, IMAGE, frozenset(done) if skipped is None else frozenset())
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


def _done(output: str, kernel: ImageKernel) -> set[str]:
    """Return the paths of images in an output, which this kernel has made, or nobody knows which."""
    found, made = set[str](), made_by(kernel).get(MADE_BY)
    for file in files_below(output):
        if file.uri.endswith(".parquet"):
            rows = parquet.read_table(file.location.path, columns=[PATH], filesystem=file.location.filesystem)
            known = (rows.schema.metadata or {}).get(MADE_BY)
            if made is not None and known is not None and known != made:
                raise DataError(
                    f"output {mask_uri(output)!r} holds images of another pipeline, seed or epoch. Give another "
                    "folder, or delete this one."
                )
            found.update(rows[PATH].to_pylist())
    return found


def _pending(source: Any, done: set[str], progress: bool) -> tuple[Table, int | None]:
    """Return the images to process, and how many are done; None where only their rows tell."""
    if isinstance(source, str):
        known = Counter[bool]()  # whether a file is done

        def left() -> Iterator[FileBelow]:
            for one in listed_images(source, progress=progress):
                known[one.uri in done] += 1
                if one.uri not in done:
                    yield one

        return table_of_files(left()), known[True]
    table = Table.of(source)
    for name in (PATH, CONTENT):
        if name not in table.names:
            raise SchemaError(f"there is no column {name!r}. The columns are {', '.join(table.names)}.")
    return table, None


def _with_bar(task: WriteImages, table: Table, progress: bool) -> Iterator[WriteCounts]:
    from tqdm import tqdm

    parts = [part for part in table.partitions if part.rows != 0]
    with (
        ProcessPool.shared() as pool,
        tqdm(total=table.rows, desc="preprocess", unit="image", disable=not progress) as bar,
    ):
        for counts in pool.in_rounds(task, parts):
            bar.update(counts.images + counts.skipped)
            yield counts
