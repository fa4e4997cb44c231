"""What jobs read: files in many formats, tables by name, folders of images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkopt.blocks.columns import column_type, is_number, quoted
from sparkopt.errors import DataError, ParameterError
from sparkopt.io.fingerprint import digest
from sparkopt.io.secrets import mask
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.frame import PACKAGES, essence

__all__ = ["DataSource", "InputRows", "check_source", "data_flags", "fingerprint", "fingerprint_of_files", "read"]

FORMATS = ("parquet", "csv", "json", "libsvm", "delta", "iceberg")
IMAGES, TABLE = "images", "table"
LABEL, FEATURES = "label", "features"
COLORS = ("gray", "rgb")
ENDINGS = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff")


@dataclass(frozen=True)
class DataSource:
    """A format and a path, or a table's name.

    Parameters
    ----------
    kind : str
        A format, "table", or "images".
    location : str
        Path or name.
    """

    kind: str
    location: str


@dataclass(frozen=True)
class InputRows:
    """Rows, and the roles of their columns.

    Parameters
    ----------
    df : DataFrame
        The rows.
    features : str, list of str or None
        Feature columns; None where the flags name none.
    label, weight : str or None
        Their columns; None where the flags name none.
    labels : list of str
        Names of the classes 0, 1, …, where they are known.
    """

    df: DataFrame
    features: str | list[str] | None
    label: str | None
    weight: str | None = None
    labels: list[str] = field(default_factory=list)


class _KeepSource(argparse.Action):
    """Stores the flag that was given together with its value."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.source = DataSource(str(option_string).removeprefix("--"), values)


def data_flags(flags: Parser, *, features: str | None, label: str | None, only_images: bool = False) -> None:
    """Add the flags for the data and the roles of its columns.

    Parameters
    ----------
    flags : Parser
        The parser.
    features, label : str or None
        Default columns; None leaves the choice to the model.
    only_images : bool, default False
        Whether the job reads nothing else.
    """
    data = flags.add_argument_group("data")
    source = data.add_mutually_exclusive_group()
    helps = {"csv": "files with a header; types are guessed", "libsvm": "files of sparse rows"}
    kinds = () if only_images else FORMATS
    add = {"action": _KeepSource, "dest": "source", "default": None}
    source.add_argument("--images", metavar="FOLDER", help="image files; a file's folder is its label", **add)  # type: ignore[arg-type]
    for kind in kinds:
        source.add_argument(f"--{kind}", metavar="PATH", help=helps.get(kind, f"a {kind} file or folder"), **add)  # type: ignore[arg-type]
    if not only_images:
        source.add_argument("--table", metavar="NAME", help="a table of the catalog", **add)  # type: ignore[arg-type]
        own = "the model's own"
        data.add_argument(
            "--features",
            metavar="COLUMNS",
            default=features,
            help=f"Vector, array or numeric columns, with commas between (default: {features or own})",
        )
        data.add_argument("--label", metavar="COLUMN", default=label, help=f"target (default: {label or own})")
        data.add_argument("--weight", metavar="COLUMN", help="row weights (default: every row weighs 1)")
    data.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=int,
        default=32,
        help="width and height that images are resized to (default: %(default)s)",
    )
    data.add_argument("--color", choices=COLORS, default="gray", help="of images (default: %(default)s)")


def check_source(args: argparse.Namespace, *, only_images: bool = False) -> None:
    """Refuse flags that name no data, before Spark starts.

    Raises
    ------
    ParameterError
        Naming the flags.
    MissingDependencyError
        For images where OpenCV is not installed.
    """
    if args.source is None:
        kinds = ("images",) if only_images else ("images", *FORMATS, TABLE)
        one = "the argument" if only_images else "one of the arguments"
        raise ParameterError(f"{one} {' '.join('--' + kind for kind in kinds)} is required.")
    if not args.source.location.strip():
        raise ParameterError(f"--{args.source.kind} is empty: name the data.")
    if args.image_size < 1:
        raise ParameterError(f"--image-size must be at least 1. Got {args.image_size} instead.")
    if args.source.kind == IMAGES and not only_images:  # a job of images alone imports what it needs
        import_module("sparkopt.images")


def check_share(name: str, value: float) -> None:
    """Refuse a share of the rows that is not between 0 and 1."""
    if not 0 < value < 1:
        raise ParameterError(f"{name} must be between 0 and 1. Got {value:g} instead.")


def read(
    spark: SparkSession, args: argparse.Namespace, *, labels: Sequence[str] = (), encoded: bool = False
) -> InputRows:
    """Return the rows that the flags name.

    Parameters
    ----------
    spark : SparkSession
        The session.
    args : Namespace
        Values of the flags of ``data_flags``.
    labels : sequence of str
        For images: the folders' names in the model's order; empty for alphabetical order.
    encoded : bool, default False
        For images: whether to leave them encoded, as deep models read them.

    Raises
    ------
    DataError
        Where there is nothing to read.
    """
    source: DataSource = args.source
    try:
        if source.kind != IMAGES:
            df = load(spark, source)
            return InputRows(df, _features(df, args.features), args.label, args.weight)
        files, names = image_files(spark, source.location, labels)
    except (PySparkException, Py4JJavaError) as error:
        raise _unreadable(source, error) from error
    if encoded:
        return InputRows(files, None, LABEL, None, names)
    from sparkopt import images  # imported here: tables do not need OpenCV

    size = args.image_size
    pipeline = images.Compose([images.Decode(args.color), images.Resize(size, size), images.Rescale(1 / 255)])
    rows = files.select(images.udf(pipeline, output="array")("content").alias(FEATURES), LABEL, "path")
    return InputRows(rows, FEATURES, LABEL, None, names)


def load(spark: SparkSession, source: DataSource) -> DataFrame:
    """Return the rows of files or of a table."""
    if source.kind == TABLE:
        return spark.read.table(source.location)
    options = {"header": "true", "inferSchema": "true"} if source.kind == "csv" else {}
    return spark.read.format(source.kind).options(**options).load(source.location)


def _features(df: DataFrame, named: str | None) -> str | list[str] | None:
    """Return one column of vectors or arrays, or a list of numeric columns."""
    if named is None:
        return None
    names = [name.strip() for name in named.split(",")]
    several = len(names) > 1 or is_number(column_type(df.schema, names[0], FEATURES))
    return names if several else names[0]


def _unreadable(source: DataSource, error: Exception) -> DataError:
    return DataError(f"cannot read {mask(source.location)!r}: {mask(essence(error))}")


def image_files(spark: SparkSession, folder: str, labels: Sequence[str] = ()) -> tuple[DataFrame, list[str]]:
    """Return image files as rows of content, label and path, and the labels' names in order.

    Raises
    ------
    DataError
        For a folder that is not in ``labels``, where these are given.
    """
    files = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", True)
        .option("pathGlobFilter", f"*.{{{','.join(ENDINGS)}}}")
        .load(folder)
    )
    parent = F.element_at(F.split("path", "/"), -2)
    found = sorted(row[0] for row in files.select(parent).distinct().collect())
    if not found:
        raise DataError(f"{folder!r} has no images: there is no file that ends in {', '.join(ENDINGS)}.")
    names = list(labels) or found
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DataError(f"{folder!r} has images of {unknown[0]!r}; the model knows {', '.join(names)}.")
    return files.select("content", (F.array_position(F.lit(names), parent) - 1).alias(LABEL), "path"), names


def check_classes(names: Sequence[str], folder: str) -> None:
    """Refuse a folder that a classifier cannot learn from."""
    if len(names) < 2:
        raise DataError(f"{folder!r} has images of {len(names)} classes; a classifier needs two folders or more.")


def split(rows: DataFrame, fraction: float, seed: int) -> tuple[DataFrame, DataFrame]:
    """Return training and held-out rows; the split is the same in every run.

    For images it depends on the names of file and folder, not on where these are; for other rows on their content.
    """
    whole = [F.col(quoted(name)) for name in rows.columns]
    hashed = [F.substring_index("path", "/", -2)] if "path" in rows.columns else whole
    key = F.pmod(F.xxhash64(F.lit(seed), *hashed), F.lit(1_000_000))
    held_out = key < int(fraction * 1_000_000)
    return rows.where(~held_out), rows.where(held_out)


def fingerprint(spark: SparkSession, source: DataSource) -> dict[str, Any] | None:
    """Return a fingerprint that changes when the data change; None where there is no way to tell.

    Files: how many, their bytes, and a hash over names, sizes and times. Delta and Iceberg: the version.

    Raises
    ------
    DataError
        Where there is nothing to read.
    """
    named = {source.kind: mask(source.location)}
    try:
        kind, name = source.kind, source.location
        if kind in PACKAGES:  # without its package, the statements below would be syntax errors
            load(spark, source).schema  # noqa: B018  # Connect resolves it no earlier
        if kind == TABLE:
            kind = _provider(spark, name)
        elif kind in ("delta", "iceberg"):
            name = f"{kind}.`{name}`"
        if kind == "delta":
            row = spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").collect()[0]  # a table's own name
            return {**named, "version": row["version"], "timestamp": str(row["timestamp"])}
        if kind == "iceberg":
            snapshots = _snapshots(spark, source).orderBy(F.col("committed_at").desc()).limit(1).collect()
            return {**named, "version": snapshots[0]["snapshot_id"] if snapshots else 0}
        paths = load(spark, source).inputFiles() if source.kind == TABLE else [source.location]
        return {**named, **fingerprint_of_files(spark, *paths)} if paths else None
    except (PySparkException, Py4JJavaError) as error:
        raise _unreadable(source, error) from error


def _provider(spark: SparkSession, name: str) -> str:
    """Return a catalog table's format, in lower case; "" where the catalog does not know it."""
    described = spark.sql(f"DESCRIBE EXTENDED {name}").where("col_name = 'Provider'").collect()
    return described[0]["data_type"].lower() if described else ""


def _snapshots(spark: SparkSession, source: DataSource) -> DataFrame:
    if source.kind == TABLE:
        return spark.read.table(f"{source.location}.snapshots")
    return spark.read.format("iceberg").load(f"{source.location}#snapshots")


def fingerprint_of_files(spark: SparkSession, *paths: str) -> dict[str, Any]:
    """Return count, bytes and a hash of the files below some paths; only their listing is read."""
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(list(paths))
    one = F.xxhash64("path", "length", "modificationTime")
    row = files.agg(F.count("*"), F.sum("length"), F.bit_xor(one), F.sum(one % 1_000_003)).collect()[0]
    count, size, *hashes = (value or 0 for value in row)
    return {"files": count, "bytes": size, "digest": digest({"count": count, "bytes": size, "hashes": hashes})}
