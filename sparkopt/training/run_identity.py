"""What a run is: the same fit, called again, resumes from its own checkpoints.

A trainer's dataclass fields say by their metadata what belongs to that: ``RUN``, ``MODEL`` or ``PASSES``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from sparkopt import __version__
from sparkopt.blocks.store import BlockStore
from sparkopt.io.fingerprint import Fingerprint, describe, rounded
from sparkopt.training.coordinates import Initial

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["MODEL", "PASSES", "RUN", "fingerprint", "first_difference"]

RUN: Mapping[str, bool] = MappingProxyType({"shared": True, "identity": True})
"""Metadata of a field that all models of a run share, and that decides what they compute."""
MODEL: Mapping[str, bool] = MappingProxyType({"shared": False, "identity": True})
"""Metadata of a field that decides what its own model computes."""
PASSES: Mapping[str, bool] = MappingProxyType({"shared": True, "identity": False})
"""Metadata of a field that all models of a run share, and that decides where or how the passes run."""


def first_difference(trainers: Sequence[DataclassInstance]) -> str | None:
    """Return the first shared field in which trainers differ, or None."""
    for field in fields(trainers[0]):
        values = [getattr(trainer, field.name) for trainer in trainers]
        if field.metadata.get("shared") and any(value != values[0] for value in values):
            return field.name
    return None


def fingerprint(
    trainers: Sequence[DataclassInstance],
    held_out: Sequence[int | None],
    initials: Sequence[Initial | None],
    store: BlockStore,
) -> Fingerprint:
    """Describe a run: what it computes and on which data, but not when it stops, nor where it runs.

    Sums over the data are rounded: another order of the rows changes their last digits, and is the same data.

    Parameters
    ----------
    trainers : sequence of dataclass
        One for each model; the metadata of their fields say what is described.
    held_out : sequence of (int or None)
        The fold that each model does not see.
    initials : sequence of (tuple of ndarray or None)
        Where each model starts.
    store : BlockStore
        The rows.
    """
    moments, factors = store.moments, store.columns.class_weights
    scale = float(np.linalg.norm([*moments.mean, *moments.std]))
    return {
        **_identity(trainers),
        "version": __version__,
        "columns": describe(replace(store.columns, class_weights=None, label_hint="")),
        "class weights": None if factors is None else [f"{factor:.6g}" for factor in factors],
        "rows": [moments.rows, store.validation.rows if store.validation else 0],
        "data": [rounded(moments.mean, scale), rounded(moments.std, scale), f"{scale:.6g}"],
        "initial": describe(initials),
        "held out": list(held_out),
        "folds": [
            rounded(store.moments_without(fold).mean, scale)
            for fold in sorted({fold for fold in held_out if fold is not None})
        ],
    }


def _identity(trainers: Sequence[DataclassInstance]) -> Fingerprint:
    """Describe what the trainers compute: once what they share, and each model's own."""
    found = {}
    for field in fields(trainers[0]):
        if field.metadata.get("identity"):
            values = [describe(getattr(trainer, field.name)) for trainer in trainers]
            found[field.name] = values[0] if field.metadata["shared"] else values
    return found
