"""What a fit is: the same fit, asked for again, goes on from its own checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sparkopt import __version__
from sparkopt.blocks.store import BlockStore
from sparkopt.checkpoint.checkpointer import Run
from sparkopt.io.fingerprint import Fingerprint, describe, rounded
from sparkopt.typing import Floats

if TYPE_CHECKING:
    from sparkopt.training.trainer import Trainer

__all__ = ["SHARED", "Initial", "checkpoints_of"]

Initial: TypeAlias = tuple[Floats, Floats] | tuple[Floats, Floats, Floats]
"""Coefficients (features, outputs), intercept (outputs,) in the user's units, and the loss's auxiliary parameters."""

SHARED = (
    "loss",
    "fit_intercept",
    "standardization",
    "scale_target",
    "mini_batch_fraction",
    "compression",
    "local_steps",
    "seed",
    "engine",
    "checkpointer",
    "progress",
)
"""What trainers must agree on to share passes over the data."""


def checkpoints_of(trainers: Sequence[Trainer], initials: Sequence[Initial | None], store: BlockStore) -> Run | None:
    """Return the checkpoints of a run on these rows, or None where the trainers keep none."""
    keeper = trainers[0].checkpointer
    return keeper.run(_fingerprint(trainers, initials, store)) if keeper else None


def _fingerprint(trainers: Sequence[Trainer], initials: Sequence[Initial | None], store: BlockStore) -> Fingerprint:
    """Describe a run: what it does and on which data, but not when it stops, nor where it runs.

    Sums over the data are rounded: another order of the rows changes their last digits, and is the same data.
    """
    first, moments = trainers[0], store.moments
    scale = float(np.linalg.norm([*moments.mean, *moments.std]))
    factors = store.columns.class_weights
    folds = {trainer.held_out for trainer in trainers if trainer.held_out is not None}
    shared = {name: describe(getattr(first, name)) for name in SHARED[:8]}
    return {
        **shared,
        "version": __version__,
        "columns": describe(replace(store.columns, class_weights=None)),
        "class weights": None if factors is None else [f"{factor:.6g}" for factor in factors],
        "rows": [moments.rows, store.validation.rows if store.validation else 0],
        "data": [rounded(moments.mean, scale), rounded(moments.std, scale), f"{scale:.6g}"],
        "optimizer": [describe(trainer.optimizer) for trainer in trainers],
        "penalty": [describe(trainer.penalty) for trainer in trainers],
        "initial": describe(initials),
        "held out": [trainer.held_out for trainer in trainers],
        "folds": [rounded(store.moments_without(fold).mean, scale) for fold in sorted(folds)],
    }
