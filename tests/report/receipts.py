"""Receipts for tests, made up but consistent."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sparkopt.report import DeepReceipt, Receipt
from sparkopt.report.base import BaseReceipt
from sparkopt.report.facts import Bars, Facts, Lines, Matrix, Measure, Picture, Series


def linear(steps: int = 30, rate: float = 0.25, **changes) -> Receipt:
    """A fit whose objective falls by ``rate`` a step from log 2 towards 0.3."""
    at = np.arange(steps + 1)
    return Receipt(
        **{
            "optimizer": "lbfgs",
            "loss": "logistic",
            "engine": "resident",
            "reason": "tolerance",
            "rows": 1_000_000,
            "features": 100,
            "partitions": 8,
            "steps": steps,
            "passes": steps + 3,
            "rows_touched": (steps + 3) * 1_000_000,
            "seconds": {
                "ingest": 1.8,
                "compute": 0.31,
                "reduce": 0.004,
                "schedule": 0.09,
                "optimizer": 0.012,
                "total": 2.216,
            },
            "bytes": {"stored": 404_000_000, "sent": 2000 * (steps + 1), "raw": 1616, "encoded": 404, "driver": 404},
            "peak_memory": 217_000_000,
            "objective": (0.3 + 0.393 * np.exp(-rate * at)).tolist(),
            "elapsed": (0.013 * at).tolist(),
            "validation": [None if step % 2 else 0.35 + 0.3 * np.exp(-rate * step) for step in at],
            "chosen_step": steps,
            "sent": [2000] * (steps + 1),
            **changes,
        }
    )


def deep(**changes) -> DeepReceipt:
    """A training of three epochs by two processes."""
    facts = {
        "launcher": "horovod",
        "devices": ["cpu", "cpu"],
        "why": "no accelerator was found",
        "processes": 2,
        "rows": 1437,
        "validation_rows": 360,
        "epochs": 3,
        "steps": 69,
        "seconds": {
            "store": 2.0,
            "start": 6.0,
            "wait": 0.2,
            "train": 9.0,
            "validate": 1.0,
            "checkpoint": 0.3,
            "total": 18.5,
        },
        "bytes": 120_000,
        "peak_memory": 400_000_000,
        "device_memory": 0,
        "rows_per_second": 479.0,
        "stopped": "epochs",
        "resumed": None,
        "restarts": 0,
        "objective": [1.9, 0.8, 0.4],
        "validation": [1.2, 0.7, 0.5],
        "elapsed": [3.0, 6.0, 9.0],
    }
    return DeepReceipt(**{**facts, **changes})


@dataclass(frozen=True)
class Outcome(BaseReceipt):
    """What jobs other than training show: every kind of chart; ``said`` is whatever a user may have named."""

    said: str = "cats"

    def facts(self) -> Facts:
        rng = np.random.default_rng(0)
        x = rng.normal(size=60)
        png = cv2.imencode(".png", np.full((40, 90, 3), 127, np.uint8))[1].tobytes()
        scatter = Series.of("rows", x, 2 * x + rng.normal(size=60), dots=True, joined=False)
        counts = ((120.0, 3.0, 0.0), (15_300.0, 2e6, 0.0), (0.0, 0.0, 0.0))
        classes = (self.said, "dogs", "none")
        return Facts(
            self.said,
            self.said,
            (Measure(self.said, 3.0, "count", self.said),),
            (
                Lines(self.said, self.said, "number", (scatter, Series(self.said, (-3.0, 3.0), (-6.0, 6.0)))),
                Lines("Long ticks", "seconds", "number", (Series.of("a", (0, 0.00125), (0.693147, 0.693141)),)),
                Matrix(self.said, "true", "predicted", classes, classes, counts),
                Bars(self.said, "count", ("from -1.25", "from -0.50"), (("", (0.0, 7.0)),)),
                Picture(self.said, self.said, png),
            ),
            (self.said,),
        )

    def __str__(self) -> str:
        return self.said
