"""What jobs read: files in many formats, tables by name, folders of images."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkopt.blocks.columns import is_number
from sparkopt.errors import DataError, ParameterError
from sparkopt.io.image_header import ENDINGS
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.overlap import check_once
from sparkopt.jobs.reading import checked_options, checked_types
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

    from sparkopt.images import Compose

__all__ = [
    "DataSource",
    "check_classes",
    "check_not_empty",
    "check_share",
    "check_source",
    "data_flags",
    "feature_columns_of",
    "format_of",
    "image_names",
    "image_pipeline",
    "no_images",
    "with_image_shape",
]

FORMATS = ("parquet", "csv", "json", "libsvm", "delta", "iceberg")
SEVERAL = FORMATS[:4]
"""Formats of which a run reads several paths."""
IMAGES, TABLE = "images", "table"
LABEL, FEATURES = "label", "features"
COLORS = ("gray", "rgb")
CHANNELS = {"gray": 1, "rgb": 3}
SIZE = 32
"""Pixels of a side that images are resized to, if neither a flag nor a model says otherwise."""


@dataclass(frozen=True)
class DataSource:
    """A format and paths, or a table's name.

    Parameters
    ----------
    kind : str
        A format, "table", or "images".
    location : str
        Path or name.
    more : tuple of str, default ()
        More paths.
    options : mapping of str to str, default none
        Options of the reader, by the names that Spark has for them.
    types : mapping of str to str, default none
        Types of columns of CSV files, where those that their text suggests are not right.
    """

    kind: str
    location: str
    more: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths."""
        return (self.location, *self.more)

    def __str__(self) -> str:
        return self.location + (f" and {len(self.more)} more" if self.more else "")


class _KeepSource(argparse.Action):
    """Stores the flag that was given together with its values, next to those of the same flag before it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        kind = str(option_string).removeprefix("--")
        paths = [values] if isinstance(values, str) else values
        before: DataSource | None = namespace.source
        if before is not None and before is not parser.of_file:  # the command line wins over a file
            if kind not in SEVERAL:
                parser.error(f"argument --{kind}: it is given twice, and one run reads one.")
            paths = [*before.paths, *paths]
        namespace.source = DataSource(kind, paths[0], tuple(paths[1:]))


BY_ENDING = {
    "parquet": ("parquet", "pq"),
    "csv": ("csv", "tsv", "txt"),
    "json": ("json", "jsonl", "ndjson"),
    "libsvm": ("svm", "libsvm", "svmlight", "t"),
}
"""Formats by the endings of files, in lower case."""


def format_of(path: str) -> str:
    """Return the format of a path by its ending, or by that of the first file below it; else a folder is Parquet.

    Examples
    --------
    >>> format_of("people.CSV"), format_of("s3://bucket/rows.csv.gz"), format_of("a9a.t"), format_of("photos/*.JPG")
    ('csv', 'csv', 'libsvm', 'images')

    Raises
    ------
    ParameterError
        For another ending.
    """
    name = re.sub(r"\.(gz|bz2|zst)$", "", path.rstrip("/").rpartition("/")[2].lower())
    ending = name.rpartition(".")[2] if "." in name else ""
    for kind, endings in BY_ENDING.items():
        if ending in endings:
            return kind
    if ending in ENDINGS:
        return IMAGES
    folder = Path(path)
    if folder.is_dir():
        for found in sorted(folder.rglob("*.*")):
            if found.is_file() and not found.name.startswith((".", "_")):
                return format_of(found.name)
        return "parquet"
    if not ending or any(sign in name for sign in "*?["):
        return "parquet"
    raise ParameterError(f"{path!r} does not say what it is by its ending: give --csv, --parquet or another flag.")


def data_flags(flags: Parser, *, features: str | None, label: str | None, images_in_tables: bool = False) -> None:
    """Add the flags for the data and the roles of its columns.

    Parameters
    ----------
    flags : Parser
        The parser.
    features, label : str or None
        Default columns; None leaves the choice to the model.
    images_in_tables : bool, default False
        Whether the job reads images of tables too, which keep their size where no flag says another.
    """
    data, own = flags.add_argument_group("data"), "the model's own"
    source = data.add_mutually_exclusive_group()
    helps = {"csv": "files with a header; types are guessed", "libsvm": "files of sparse rows"}
    add = {"action": _KeepSource, "dest": "source", "default": None}
    flags.add_argument(
        "path",
        nargs="*",
        help="the rows, in place of a flag below: .parquet, .csv, .tsv, .json, .svm, folders of them, or of images",
    )
    source.add_argument("--images", metavar="FOLDER", help="image files; a file's folder is its label", **add)  # type: ignore[arg-type]
    for kind in FORMATS:
        several = {"nargs": "+"} if kind in SEVERAL else {}
        source.add_argument(
            f"--{kind}",
            metavar="PATH",
            help=helps.get(kind, f"{kind} files or folders" if several else f"a {kind} table's folder"),
            **add,  # type: ignore[arg-type]
            **several,  # type: ignore[arg-type]
        )
    source.add_argument("--table", metavar="NAME", help="a table of the catalog", **add)  # type: ignore[arg-type]
    what = "column of images: bytes, paths, tensors or rows of Spark's image schema"
    if not images_in_tables:
        what = "Vector, array or numeric columns, with commas between"
    data.add_argument("--features", metavar="COLUMNS", default=features, help=f"{what} (default: {features or own})")
    data.add_argument("--label", metavar="COLUMN", default=label, help=f"target (default: {label or own})")
    data.add_argument("--weight", metavar="COLUMN", help="row weights (default: every row weighs 1)")
    _declare_reader(data)
    _declare_shape(data, own if features is None else "", images_in_tables=images_in_tables)


def _declare_shape(data: argparse._ArgumentGroup, own: str, *, images_in_tables: bool) -> None:
    size, color = own or str(SIZE), own or COLORS[0]
    if images_in_tables:
        size, color = f"{SIZE}; images of tables keep theirs", f"{COLORS[0]}; decoded ones keep theirs"
    is_open = bool(own) or images_in_tables
    data.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=int,
        default=None if is_open else SIZE,
        help=f"width and height that images are resized to (default: {size})",
    )
    data.add_argument(
        "--color",
        choices=COLORS,
        default=None if is_open else COLORS[0],
        help=f"of images (default: {color})",
    )


def _declare_reader(data: argparse._ArgumentGroup) -> None:
    data.add_argument(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="of the reader of files, by the names of Spark's: sep=; nullValue=NA multiLine=true encoding=cp1254 "
        "header=false; may be given several times",
    )
    data.add_argument(
        "--type",
        metavar="COLUMN=TYPE",
        action="append",
        default=[],
        help="of a column of CSV files, where it is not the one that the text suggests: string, double, long, "
        "boolean or date; may be given several times",
    )


def check_source(args: argparse.Namespace, *, images_in_tables: bool = False) -> None:
    """Refuse flags that name no data, before Spark starts.

    Parameters
    ----------
    args : Namespace
        The flags.
    images_in_tables : bool, default False
        As of ``data_flags``.

    Raises
    ------
    ParameterError
        Naming the flags.
    MissingDependencyError
        For images where OpenCV is not installed.
    """
    if paths := getattr(args, "path", None):
        if args.source is not None:
            raise ParameterError(f"{paths[0]!r} and --{args.source.kind} both name the data: give one of them.")
        args.source = _of_paths(paths)
    if args.source is None:
        kinds = ("images", *FORMATS, TABLE)
        raise ParameterError(f"one of the arguments {' '.join('--' + kind for kind in kinds)} is required.")
    kind = args.source.kind
    if not all(path.strip() for path in args.source.paths):
        raise ParameterError(f"--{kind} is empty: name the data.")
    check_once(f"--{kind}", args.source.paths)
    options, types = getattr(args, "option", []), getattr(args, "type", [])
    args.source = replace(args.source, options=checked_options(kind, options), types=checked_types(kind, types))
    _check_roles(args)
    if kind != IMAGES and not images_in_tables:  # where both have no meaning, and are the same for all
        args.image_size, args.color = args.image_size or SIZE, args.color or COLORS[0]
    if args.image_size is not None and args.image_size < 1:
        raise ParameterError(f"--image-size must be at least 1. Got {args.image_size} instead.")
    if kind == IMAGES and not images_in_tables:  # a job that trains on images imports what it needs
        import_module("sparkopt.images")


NO_COLUMNS = {IMAGES: "an image's label is its folder", "libsvm": "its lines begin with the label"}
"""Sources without columns that flags could name, and what has the label there."""


def _check_roles(args: argparse.Namespace) -> None:
    """Refuse names of columns where there are none, and columns of two roles."""
    kind, defaults = args.source.kind, {"features": FEATURES, "label": LABEL, "weight": None}
    for role, default in defaults.items() if kind in NO_COLUMNS else ():
        given = getattr(args, role, None)
        if given not in (None, default):
            way = f"{NO_COLUMNS[kind]}. Leave --{role} out."
            raise ParameterError(f"--{role} names columns, and --{kind} has none: {way}")
    if getattr(args, "weight", None) and args.weight == getattr(args, "label", None):
        raise ParameterError(f"--weight names the label, {args.weight!r}. Name the column of row weights.")
    for role in ("label", "features"):
        if getattr(args, role, None) is not None and not getattr(args, role).strip():
            raise ParameterError(f"--{role} is empty: name a column, or leave it out.")


def check_not_empty(args: argparse.Namespace, *names: str) -> None:
    """Refuse flags that have an empty value."""
    for name in names:
        if getattr(args, name) is not None and not getattr(args, name).strip():
            raise ParameterError(f"--{name.replace('_', '-')} is empty: name a path.")


def _of_paths(paths: Sequence[str]) -> DataSource:
    """Return the data that paths name, which are of one format."""
    kinds = [format_of(path) for path in paths]
    for path, kind in zip(paths, kinds, strict=True):
        if kind != kinds[0]:
            raise ParameterError(f"{paths[0]!r} is {kinds[0]} and {path!r} is {kind}: a run reads one format.")
    if kinds[0] == IMAGES and len(paths) > 1:
        raise ParameterError(f"{paths[0]!r} and {paths[1]!r} hold images: name one folder that both are in.")
    return DataSource(kinds[0], paths[0], tuple(paths[1:]))


def check_share(name: str, value: float) -> None:
    """Refuse a share of the rows that is not between 0 and 1."""
    if not 0 < value < 1:
        raise ParameterError(f"{name} must be between 0 and 1. Got {value:g} instead.")


def feature_columns_of(schema: StructType, named: str | None) -> str | list[str] | None:
    """Return one column of vectors or arrays, or a list of numeric columns."""
    if named is None:
        return None
    names = [name.strip() for name in named.split(",")]
    is_one_number = names[0] in schema.names and is_number(schema[names[0]].dataType)  # a missing one is told later
    several = len(names) > 1 or is_one_number
    return names if several else names[0]


def with_image_shape(args: argparse.Namespace, width: int) -> argparse.Namespace:
    """Return flags that say how images become features: those given, and of the others what the model was trained on.

    Parameters
    ----------
    args : Namespace
        The flags; ``image_size`` and ``color`` may be None.
    width : int
        Number of features of the model; 0 for none.

    Raises
    ------
    ParameterError
        Where the flags make another number of features than the model has.
    """
    chosen = argparse.Namespace(**vars(args))
    colors = COLORS if args.color is None else (args.color,)
    sizes = {color: args.image_size or math.isqrt(width // CHANNELS[color]) for color in colors}
    fits = [color for color, size in sizes.items() if CHANNELS[color] * size**2 == width]
    chosen.color = fits[0] if fits else colors[0]
    chosen.image_size = args.image_size or (sizes[chosen.color] if fits else SIZE)
    made = CHANNELS[chosen.color] * chosen.image_size**2
    if width and not _is_square(width):
        raise ParameterError(
            f"the model was trained on {width} features, and no square image has as many values. Name the table that "
            "it is for."
        )
    if width and made != width:
        raise ParameterError(
            f"the model was trained on {width} features, and --image-size {chosen.image_size} --color {chosen.color} "
            f"makes {made} of an image. Leave both out."
        )
    return chosen


def _is_square(width: int) -> bool:
    """Whether a number of features is that of a square image."""
    return any(count * math.isqrt(width // count) ** 2 == width for count in CHANNELS.values())


def image_pipeline(args: argparse.Namespace) -> Compose:
    """Return what makes features of an image file."""
    from sparkopt import images  # imported here: tables do not need OpenCV

    size = args.image_size
    return images.Compose([images.Decode(args.color), images.Resize(size, size), images.Rescale(1 / 255)])


def no_images(folder: str) -> str:
    """Return the error of a folder without images."""
    return f"{folder!r} has no images: there is no file that ends in {', '.join(ENDINGS)}."


def image_names(folder: str, found: Sequence[str], labels: Sequence[str] = ()) -> list[str]:
    """Return the labels' names in order: ``labels``, or those of the folders that have images.

    Raises
    ------
    DataError
        Where there are no images, or a folder is not in ``labels``, where these are given.
    """
    if not found:
        raise DataError(no_images(folder))
    names = list(labels) or sorted(found)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DataError(f"{folder!r} has images of {unknown[0]!r}; the model knows {', '.join(names)}.")
    return names


def check_classes(names: Sequence[str], folder: str) -> None:
    """Refuse a folder that a classifier cannot learn from."""
    if len(names) < 2:
        raise DataError(f"{folder!r} has images of {len(names)} classes; a classifier needs two folders or more.")
