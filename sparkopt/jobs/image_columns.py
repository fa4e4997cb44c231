"""Images in the columns of a table: how train-deep prepares them for its network, and which columns it refuses."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparkopt.blocks.columns import column_type, is_number
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.io.pixel_structs import holds_image, holds_tensor
from sparkopt.jobs.raw_rows import with_classes
from sparkopt.jobs.runtimes.base import InputRows, Runtime
from sparkopt.jobs.runtimes.class_names import values_of
from sparkopt.jobs.sources import CHANNELS, COLORS, FEATURES, IMAGES, LABEL, SIZE
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

    from sparkopt.images import Compose

__all__ = ["FILES", "ImageColumn", "check_image_column", "found_column", "labelled"]

MAX_CLASSES = 10_000
"""Most classes of a network."""
IMAGES_AS = ("encoded", "tensor", "image")
WAY_OUT = "preprocess-images --features --form tensor writes images that keep their shape"


@dataclass(frozen=True)
class ImageColumn:
    """Images as a network of the job is given them.

    Parameters
    ----------
    name : str
        The column.
    is_encoded : bool
        Whether it holds image files, or their paths, which are decoded.
    channels : int or None
        Of decoded images; None where ``--color`` says it.
    is_whole : bool
        Whether decoded pixels are whole numbers from 0 to 255.
    keeps_size : bool
        Whether images keep their size where no flag says another.
    """

    name: str
    is_encoded: bool = True
    channels: int | None = None
    is_whole: bool = True
    keeps_size: bool = True

    def channels_of(self, args: argparse.Namespace) -> int:
        """Return how many channels the network is given."""
        return self.channels or CHANNELS[args.color or COLORS[0]]

    def pipelines(self, args: argparse.Namespace) -> tuple[Compose, Compose]:
        """Return what is done with images in training, and otherwise."""
        from sparkopt import images

        size = args.image_size or (None if self.keeps_size else SIZE)
        before: list[Any] = [images.Decode(args.color or COLORS[0])] if self.is_encoded else []
        before += [images.Resize(size, size)] if size else []
        after: list[Any] = [images.Rescale(1 / 255)] if self.is_whole else []
        moved = images.RandomAffine((-10.0, 10.0), translate=(0.05, 0.05), scale=(0.95, 1.05))
        training = [*before, *([moved] if args.augment else []), *after]
        # ToCHW is how batches are laid out anyway: it stands where there is nothing else to do
        return images.Compose(training or [images.ToCHW()]), images.Compose([*before, *after] or [images.ToCHW()])


FILES = ImageColumn("content", keeps_size=False)
"""The images of ``--images``."""


def check_image_column(schema: StructType, name: str) -> str:
    """Return what a column holds, "encoded", "tensor" or "image", by its type alone.

    Raises
    ------
    SchemaError
        Where it is missing or holds no images: naming the column, what it holds, and the way out.
    """
    try:
        kind: Any = column_type(schema, name, FEATURES)
    except SchemaError as error:
        alike = [one.name for one in schema if _held(one.dataType) in IMAGES_AS]
        way = f"Give --features {alike[0]}" if len(alike) == 1 else "Name the one of images by --features"
        raise SchemaError(f"{error} {way}.") from None
    held = "encoded" if kind.typeName() == "string" else _held(kind)  # a column of text that is named holds paths
    if held in IMAGES_AS:
        return held
    raise SchemaError(
        f"features column {name!r} holds {held}, and the network takes images: their height and width are lost. "
        f"{WAY_OUT}; so do --form image and --form bytes. For rows of numbers there is the command train."
    )


def _held(kind: Any) -> str:
    name = kind.typeName()
    if name == "binary":
        return "encoded"
    names = set(getattr(kind, "names", ()))
    if {"type", "size", "indices", "values"} <= names:
        return "Vectors (vector)"
    if holds_tensor(names):
        return "tensor"
    if holds_image(names):
        return "image"
    if name == "array":
        return "arrays (array)"
    if is_number(kind):
        return "numbers"
    return "Vectors (vector)" if "vector" in type(kind).__name__.lower() else str(kind.simpleString())


def found_column(args: argparse.Namespace, rows: InputRows, runtime: Runtime) -> ImageColumn:
    """Return the column of images, of which the first decoded one shows channels and type of all.

    Raises
    ------
    SchemaError
        Where it is no column of images.
    ParameterError
        Where a flag says another colour.
    DataError
        Where no row has an image.
    """
    if args.source.kind == IMAGES:
        return FILES
    if not isinstance(rows.features, str):
        raise SchemaError(
            f"--features {args.features} is of numbers, and the network takes one column of images. {WAY_OUT}. For "
            "rows of numbers there is the command train."
        )
    name = rows.features
    held = check_image_column(runtime.schema(rows.rows), name)
    if held == "encoded":
        return ImageColumn(name)
    first = runtime.first(rows.rows, name)
    if first is None:
        raise DataError(f"features column {name!r} is null in every row: there are no images to train on.")
    shape = (first["height"], first["width"], first["nChannels"]) if held == "image" else tuple(first["shape"])
    channels = 1 if len(shape) == 2 else shape[-1]
    if len(shape) not in (2, 3) or channels not in (1, 3, 4):
        raise DataError(
            f"features column {name!r} has tensors of shape {tuple(shape)}; the network takes images (height, width, "
            "channels) with 1, 3 or 4 channels. Leave ToCHW out of the pipeline of preprocess-images."
        )
    if args.color is not None and CHANNELS[args.color] != channels:
        raise ParameterError(
            f"--color {args.color} is for encoded images, and features column {name!r} has decoded ones of "
            f"{channels} channel{'s' * (channels > 1)}. Leave it out, or give --color to preprocess-images."
        )
    return ImageColumn(name, False, channels, held == "image" or first["dtype"] == "uint8")


def labelled(args: argparse.Namespace, rows: InputRows, runtime: Runtime) -> tuple[InputRows, int]:
    """Return rows whose label is a number, with the names of classes that are text, and how many classes there are.

    Raises
    ------
    SchemaError
        Where the label is missing.
    DataError
        Where it is not that of two classes or more.
    """
    if args.source.kind == IMAGES:
        return rows, len(rows.labels)
    schema, label = runtime.schema(rows.rows), rows.label or LABEL
    try:
        kind = column_type(schema, label, "label")
    except SchemaError as error:
        raise SchemaError(
            f"{error} Name it by --label; preprocess-images --features writes the number of each image's folder."
        ) from None
    if kind.typeName() in ("string", "varchar", "char"):
        rows = with_classes(args, rows, schema, most=MAX_CLASSES)
        return rows, len(rows.labels)
    if not is_number(kind):
        raise SchemaError(
            f"label column {label!r} has type {kind.simpleString()}; it must be a number from 0, or the name of a "
            "class."
        )
    classes = _largest(values_of(rows.rows, label, MAX_CLASSES), label) + 1
    if classes < 2:
        raise DataError(f"label column {label!r} is 0 in every row: there is nothing to learn.")
    return replace(rows, labels=[]), classes


def _largest(values: list[str] | None, label: str) -> int:
    numbers = [float(value) for value in values or []]
    bad = next((number for number in numbers if number != int(number) or not 0 <= number < MAX_CLASSES), None)
    if values is None or bad is not None:
        such = f"values such as {bad:g}" if bad is not None else f"more than {MAX_CLASSES:,} different values"
        raise DataError(f"label column {label!r} has {such}; classes are numbers from 0, or names.")
    if not numbers:
        raise DataError(f"label column {label!r} is null in every row: there is nothing to learn.")
    return int(max(numbers))
