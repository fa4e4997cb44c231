"""Metrics of predicted masks, a class for each pixel: a confusion matrix of pixels, counted where the rows are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks.columns import column_type
from sparkopt.blocks.failures import data_errors
from sparkopt.blocks.names import quoted
from sparkopt.blocks.rows import rows_of, schema_of
from sparkopt.errors import CorruptImageError, DataError, SchemaError
from sparkopt.io.pixel_structs import TENSOR_FIELDS, holds_tensor
from sparkopt.machine import Table, TablePart
from sparkopt.ml.table_tasks import for_each_part
from sparkopt.typing import Array, Floats
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = ["SegmentationMetrics", "segmentation_metrics"]

MOST_CLASSES = 65_536
"""Classes are below this number, as those of masks of 16 bits."""
LARGEST_MATRIX = 8_192
"""Rows of a confusion matrix, at most: half a gigabyte."""
INVALID, ROWS = -1, -2
"""What counts of rows have in place of a label."""
_SCHEMA = "label bigint, prediction bigint, count bigint"


@dataclass(frozen=True)
class SegmentationMetrics:
    """How well masks are predicted; pixels of all rows count alike.

    Attributes
    ----------
    classes : ndarray of shape (k,)
        Classes that occur in labels or predictions, ascending; with ``num_classes``, all of 0, 1, ….
    confusion_matrix : ndarray of shape (k, k)
        Number of pixels by true class (rows) and predicted class (columns), as scikit-learn has it.
    rows, invalid : int
        Rows that were evaluated, and those left out.
    """

    classes: Array
    confusion_matrix: Array
    rows: int
    invalid: int = 0

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels whose class is right."""
        return float(np.trace(self.confusion_matrix) / self.confusion_matrix.sum())

    @property
    def iou(self) -> Floats:
        """Intersection over union (Jaccard index) of each class; NaN for one that occurs nowhere."""
        hits, actual, predicted = self._counts()
        return _ratio(hits, actual + predicted - hits)

    @property
    def dice(self) -> Floats:
        """Dice coefficient of each class, which is its F1 score; NaN for one that occurs nowhere."""
        hits, actual, predicted = self._counts()
        return _ratio(2 * hits, actual + predicted)

    @property
    def mean_iou(self) -> float:
        """Mean of ``iou`` over the classes that occur in labels or predictions."""
        return float(np.nanmean(self.iou))

    @property
    def mean_dice(self) -> float:
        """Mean of ``dice`` over the classes that occur in labels or predictions."""
        return float(np.nanmean(self.dice))

    def _counts(self) -> tuple[Floats, Floats, Floats]:
        matrix = self.confusion_matrix.astype(np.float64)
        return np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)


def _ratio(part: Floats, whole: Floats) -> Floats:
    found: Floats = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return found


def segmentation_metrics(
    dataset: Any,
    prediction: str = "prediction",
    label: str = "label",
    *,
    ignore_index: int | None = -100,
    num_classes: int | None = None,
    invalid: str = "error",
) -> SegmentationMetrics:
    """Compare predicted masks with true ones, in one pass; pixels stay where the rows are.

    Parameters
    ----------
    dataset : DataFrame, or what ``sparkopt.Table.of`` takes
        Rows with both columns, such as a network's ``transform`` gives.
    prediction : str, default "prediction"
        Column of a class for each pixel: an array of all pixels row by row, as networks write them, an array of
        arrays, a tensor (struct<shape, dtype, data>) or an encoded mask; or a tensor or nested array of scores,
        (classes, height, width), of which the highest counts.
    label : str, default "label"
        Column of true classes: encoded masks (bytes), tensors or arrays (nested or not), of the prediction's size.
    ignore_index : int or None, default -100
        Pixels with this label are left out, as PyTorch's losses do; often 255. None leaves none out.
    num_classes : int, optional
        Classes are 0 to ``num_classes`` - 1, and others an error; by default those that occur, up to 8,192.
    invalid : {"error", "skip"}, default "error"
        Whether rows with null, a mask that cannot be decoded, or masks of two sizes are errors, or left out and
        counted.

    Returns
    -------
    SegmentationMetrics
        The metrics, over all pixels that count.

    Raises
    ------
    SchemaError
        For a column that is missing, or holds no masks.
    DataError
        For an invalid row, too many classes, or where there is no pixel to evaluate.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sparkopt.ml import segmentation_metrics
    >>> rows = pa.table({"prediction": [[0, 1, 1, 1]], "label": [[[0, 0], [1, 255]]]})
    >>> found = segmentation_metrics(rows, ignore_index=255)
    >>> found.confusion_matrix.tolist(), found.iou.tolist()
    ([[1, 1], [0, 1]], [0.5, 0.5])
    """
    if num_classes is not None:
        check("num_classes", num_classes, Interval(1, LARGEST_MATRIX, whole=True))
    if ignore_index is not None:
        check("ignore_index", ignore_index, Interval(-(2**63), 2**63 - 1, whole=True))
    check("invalid", invalid, OneOf(("error", "skip")))
    rows = rows_of(dataset)
    for name, role in ((prediction, "prediction"), (label, "label")):
        _check_column(schema_of(rows), name, role)
    count = _CountPixels(prediction, label, ignore_index, num_classes, invalid == "skip")
    found = _on_spark(rows, count) if not isinstance(rows, Table) else _on_table(rows, count)
    return _metrics(found, num_classes)


def _check_column(schema: Any, name: str, role: str) -> None:
    kind: Any = column_type(schema, name, role)
    is_tensor = holds_tensor(getattr(kind, "names", ()))
    if not (is_tensor or kind.typeName() in ("array", "binary")):
        raise SchemaError(
            f"{role} column {name!r} has type {kind.simpleString()}; masks are arrays (nested or not), tensors "
            "(struct<shape, dtype, data>) or encoded images of one channel (binary)."
        )


def _on_spark(rows: DataFrame, count: _CountPixels) -> Counter[tuple[int, int]]:
    chosen = rows.select(*[F.col(quoted(name)) for name in dict.fromkeys((count.prediction, count.label))])
    with data_errors():
        pairs = chosen.mapInArrow(count.in_task, _SCHEMA).groupBy("label", "prediction").agg(F.sum("count"))
        return Counter({(row[0], row[1]): row[2] for row in pairs.collect()})


def _on_table(rows: Table, count: _CountPixels) -> Counter[tuple[int, int]]:
    return sum(for_each_part(count, rows), Counter())


def _metrics(found: Counter[tuple[int, int]], num_classes: int | None) -> SegmentationMetrics:
    rows, invalid = found.pop((ROWS, 0), 0), found.pop((INVALID, 0), 0)
    if not found:
        why = f": {rows:,} rows have only pixels of ignore_index" if rows else ""
        raise DataError(f"there are no pixels to evaluate{why or f', and {invalid:,} rows are invalid'}.")
    classes = np.arange(num_classes) if num_classes else np.unique(np.array(list(found)))
    if len(classes) > LARGEST_MATRIX:
        raise DataError(
            f"masks have {len(classes):,} classes, and at most {LARGEST_MATRIX:,} are compared: numbers of objects "
            "are no classes."
        )
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for pair, pixels in found.items():
        matrix[tuple(np.searchsorted(classes, pair))] = pixels
    return SegmentationMetrics(classes, matrix, rows, invalid)


@dataclass(frozen=True)
class _CountPixels:
    """The task: how many pixels there are by label and prediction, and how many rows."""

    prediction: str
    label: str
    ignored: int | None
    classes: int | None
    skips: bool

    def __call__(self, part: TablePart) -> Counter[tuple[int, int]]:
        return self.over(part.batches(list(dict.fromkeys((self.prediction, self.label)))))

    def in_task(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the counts of a partition of Spark."""
        found = self.over(batches)
        pairs = np.array(list(found), np.int64).reshape(-1, 2)
        counts = pa.array(list(found.values()), pa.int64())
        yield pa.RecordBatch.from_arrays(
            [pa.array(pairs[:, 0]), pa.array(pairs[:, 1]), counts], ["label", "prediction", "count"]
        )

    def over(self, batches: Iterator[pa.RecordBatch]) -> Counter[tuple[int, int]]:
        """Return the counts of rows, taken one at a time."""
        found, row = Counter[tuple[int, int]](), 0
        for batch in batches:
            labels, predictions = batch.column(self.label), batch.column(self.prediction)
            for one, other in zip(labels, predictions, strict=True):
                try:
                    self._add(found, one, other)
                except DataError as error:
                    if not self.skips:
                        raise DataError(f"row {row} of its partition: {error}") from None
                    found[INVALID, 0] += 1
                row += 1
        return found

    def _add(self, found: Counter[tuple[int, int]], label: pa.Scalar, prediction: pa.Scalar) -> None:
        truth = _mask(label, f"label column {self.label!r}")
        answer = _classes(_mask(prediction, f"prediction column {self.prediction!r}"), truth)
        truth, answer = truth.reshape(-1), answer.reshape(-1)
        if self.ignored is not None:
            kept = truth != self.ignored
            truth, answer = truth[kept], answer[kept]
        first, second = self._whole(truth, "label"), self._whole(answer, "prediction")
        width = int(max(first.max(initial=0), second.max(initial=0))) + 1
        for pair, pixels in _counted(first * width + second, width * width):
            found[divmod(pair, width)] += pixels
        found[ROWS, 0] += 1

    def _whole(self, values: Array, role: str) -> Array:
        """Return classes as integers."""
        bound = self.classes or MOST_CLASSES
        # written so that NaN is refused
        bad = values[~((values >= 0) & (values < bound) & (values == np.floor(values)))]
        if len(bad):
            way = "" if role == "prediction" else " Leave such pixels out by ignore_index."
            raise DataError(f"{role} has a pixel of {bad[0]:g}; classes are 0 to {bound - 1}.{way}")
        return values.astype(np.int64)


def _counted(values: Array, bound: int) -> Iterator[tuple[int, int]]:
    """Return each value below ``bound`` and its count; pixels are not sorted where there are more of them."""
    if bound <= 4 * len(values) + 1024:
        counts = np.bincount(values)
        found = np.flatnonzero(counts)
        return zip(found.tolist(), counts[found].tolist(), strict=True)
    found, counts = np.unique(values, return_counts=True)
    return zip(found.tolist(), counts.tolist(), strict=True)


def _mask(value: pa.Scalar, where: str) -> Array:
    """Return a row's numbers, without an axis of one channel."""
    if not value.is_valid:
        raise DataError(f"{where} is null")
    if pa.types.is_struct(value.type):
        shape, dtype, data = (value[name].as_py() for name in TENSOR_FIELDS)
        try:
            return _squeezed(np.frombuffer(data, dtype).reshape(shape))
        except (TypeError, ValueError) as error:
            raise DataError(f"{where} holds no tensor: {error}") from None
    if pa.types.is_binary(value.type) or pa.types.is_large_binary(value.type):
        from sparkopt.images.decoding import decode_mask  # here: numbers need no OpenCV

        try:
            return decode_mask(value.as_py())
        except CorruptImageError as error:
            raise DataError(f"{where}: {error}") from None
    try:
        return _squeezed(_nested(value.values))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} is no mask: {error}") from None


def _nested(values: pa.Array) -> Array:
    """Return lists of equal lengths as an array."""
    if values.null_count:
        raise ValueError("it has a null")
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    lengths = set(values.value_lengths().to_pylist())
    if len(lengths) != 1:
        raise ValueError("its rows are of unlike lengths")
    inner = _nested(values.flatten())
    return inner.reshape(len(values), lengths.pop(), *inner.shape[1:])


def _squeezed(values: Array) -> Array:
    for axis in (2, 0):
        if values.ndim == 3 and values.shape[axis] == 1:
            return values.squeeze(axis)
    return values


def _classes(values: Array, truth: Array) -> Array:
    """Return the class of each pixel; of scores, the highest one's. Their axis is fixed: sizes alone do not tell."""
    if values.size == truth.size and (values.ndim == 1 or truth.ndim == 1 or values.shape == truth.shape):
        return values
    if values.ndim == 3 and values.shape[1:] == truth.shape:
        chosen: Array = values.argmax(0)
        return chosen
    raise DataError(
        f"the prediction has shape {values.shape} and the label {truth.shape}: bring masks to the prediction's size, "
        "and scores to (classes, height, width)."
    )
