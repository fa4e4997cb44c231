"""Evaluation of networks whose predictions are masks, a class for each pixel."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.io.pixel_structs import holds_tensor
from sparkopt.jobs.invalid_rows import INVALID, mode_of, with_mode
from sparkopt.jobs.metrics import MASK_METRICS
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

    from sparkopt.ml import SegmentationMetrics

__all__ = ["JudgedMasks", "holds_masks", "judged_masks"]


@dataclass(frozen=True)
class JudgedMasks:
    """How well masks are predicted.

    Attributes
    ----------
    metrics : dict of str to float
        Numbers of rows, and the metrics.
    by_class : dict of str to dict
        ``iou`` and ``dice`` of each class that occurs.
    """

    metrics: dict[str, float]
    by_class: dict[str, dict[str, float]]


def holds_masks(schema: StructType, label: str) -> bool:
    """Whether a label column holds masks: encoded ones, tensors, or arrays of arrays."""
    if label not in schema.names:
        return False
    kind: Any = schema[label].dataType
    is_nested = kind.typeName() == "array" and kind.elementType.typeName() == "array"
    return is_nested or kind.typeName() == "binary" or holds_tensor(getattr(kind, "names", ()))


def judged_masks(args: argparse.Namespace, model: Any, rows: Any, label: str, weight: str | None) -> JudgedMasks:
    """Return the metrics of a network's masks.

    Raises
    ------
    ParameterError
        For row weights: pixels count alike.
    """
    from sparkopt.ml import segmentation_metrics  # here, since it loads the estimators, and flags need none

    if weight is not None:
        raise ParameterError(f"--weight {weight}: pixels of masks count alike. Leave it out.")
    mode = mode_of(model)
    scored = (model if mode == "error" else with_mode(model, "keep")).transform(rows)
    found = segmentation_metrics(
        scored,
        model.getOrDefault("predictionCol"),
        label,
        ignore_index=args.ignore_index,
        invalid="error" if mode == "error" else "skip",
    )
    metrics: dict[str, float] = {"rows": found.rows}
    if mode != "error":
        metrics[INVALID] = found.invalid
    values = (found.mean_iou, found.mean_dice, found.pixel_accuracy)
    return JudgedMasks(metrics | dict(zip(MASK_METRICS, values, strict=True)), _by_class(found))


def _by_class(found: SegmentationMetrics) -> dict[str, dict[str, float]]:
    rows = zip(found.classes.tolist(), found.iou.tolist(), found.dice.tolist(), strict=True)
    return {str(name): {"iou": iou, "dice": dice} for name, iou, dice in rows if not np.isnan(iou)}
