"""Steps of a batch of images and their targets: MixUp and CutMix."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images.construction import ExplainsArguments
from sparkopt.images.parameters import checked, plain
from sparkopt.typing import Array
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = ["BatchMixing", "CutMix", "MixUp", "mixing_from_json", "mixing_to_json", "one_hot"]


@dataclass(frozen=True)
class BatchMixing(ExplainsArguments, ABC):
    """A step that mixes each row of a batch with another one.

    Parameters
    ----------
    alpha : float, default 1
        Of the distribution Beta(alpha, alpha), from which the share of the own image is drawn.
    p : float, default 1
        Probability that a batch is mixed.
    """

    alpha: float = 1.0
    p: float = 1.0

    def __post_init__(self) -> None:
        for name, domain in (("alpha", Interval(0, None, closed="neither")), ("p", Interval(0, 1))):
            value = plain(getattr(self, name))
            object.__setattr__(self, name, checked(f"{type(self).__name__}.{name}", value, domain))

    def __call__(self, images: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Mix a batch.

        Parameters
        ----------
        images : ndarray of shape (n, channels, height, width)
            uint8 is rounded.
        targets : ndarray of shape (n,) or (n, …)
            Numbers: a value to regress, or shares of classes (:func:`one_hot`).
        rng : numpy.random.Generator
            Where the partners, and whether and how to mix, are drawn from.

        Returns
        -------
        images, targets : ndarray
            Of the same shapes; targets are floating-point.
        """
        if images.ndim != 4 or len(targets) != len(images):
            raise ParameterError(
                f"a batch must be images of shape (n, channels, height, width) and n targets. Got {images.shape} and "
                f"{np.shape(targets)}."
            )
        targets = np.asarray(targets)
        targets = targets if targets.dtype.kind == "f" else targets.astype(np.float32)
        (mixed,), partners, share = self.mixed([images], rng)
        return mixed, (targets * share + targets[partners] * (1 - share)).astype(targets.dtype)

    def mixed(self, inputs: Sequence[Array], rng: np.random.Generator) -> tuple[list[Array], Array, float]:
        """Mix the inputs of a batch, and say with what: so that a loss is taken of both targets, whatever they are.

        Parameters
        ----------
        inputs : sequence of ndarray of shape (n, …)
            Floating-point numbers or uint8, which is rounded.
        rng : numpy.random.Generator
            Where the partners, and whether and how to mix, are drawn from.

        Returns
        -------
        inputs : list of ndarray
            Of the same shapes.
        partners : ndarray of shape (n,)
            The row that each row is mixed with, which may be itself.
        share : float
            Share of the own row; 1 where the batch is not mixed.
        """
        for one in inputs:
            if one.dtype != np.uint8 and one.dtype.kind != "f":
                raise ParameterError(
                    f"{type(self).__name__} mixes floating-point numbers and bytes. Got {one.dtype} of shape "
                    f"{one.shape}: cast it, or leave it out."
                )
        rows = len(inputs[0])
        if rng.random() >= self.p:
            return list(inputs), np.arange(rows), 1.0
        partners, share = rng.permutation(rows), float(rng.beta(self.alpha, self.alpha))
        found, share = self._mixed(inputs, partners, share, rng)
        return found, partners, share

    @abstractmethod
    def _mixed(
        self, inputs: Sequence[Array], partners: Array, share: float, rng: np.random.Generator
    ) -> tuple[list[Array], float]:
        """Return the inputs, and the share of the own one."""


@dataclass(frozen=True)
class MixUp(BatchMixing):
    """Average each image, and its target, with another one's.

    References
    ----------
    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sparkopt import images
    >>> batch, labels = np.zeros((4, 3, 8, 8), np.float32), images.one_hot([0, 1, 2, 0], 3)
    >>> mixed, shares = images.MixUp(0.2)(batch, labels, np.random.default_rng(0))
    >>> shares.sum(axis=1).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def _mixed(
        self, inputs: Sequence[Array], partners: Array, share: float, rng: np.random.Generator
    ) -> tuple[list[Array], float]:
        return [_averaged(one, partners, share) for one in inputs], share


def _averaged(rows: Array, partners: Array, share: float) -> Array:
    mixed = rows * np.float32(share) + rows[partners] * np.float32(1 - share)
    return (np.rint(mixed) if rows.dtype == np.uint8 else mixed).astype(rows.dtype, copy=False)


@dataclass(frozen=True)
class CutMix(BatchMixing):
    """Paste a rectangle of another image into each one; targets are mixed by area.

    References
    ----------
    Yun et al., "CutMix: Regularization strategy to train strong classifiers with localizable features", ICCV 2019.
    """

    def _mixed(
        self, inputs: Sequence[Array], partners: Array, share: float, rng: np.random.Generator
    ) -> tuple[list[Array], float]:
        if len(inputs) != 1 or inputs[0].ndim != 4:
            shapes = ", ".join(str(one.shape[1:]) for one in inputs)
            raise ParameterError(
                f"CutMix takes one input of images, (n, channels, height, width). Got rows of {shapes}: take MixUp."
            )
        (images,) = inputs
        height, width = images.shape[2:]
        half = math.sqrt(1 - share) / 2
        row, column = int(rng.integers(height)), int(rng.integers(width))
        down, across = int(half * height), int(half * width)
        rows = slice(max(row - down, 0), min(row + down, height))
        columns = slice(max(column - across, 0), min(column + across, width))
        mixed = images.copy()
        mixed[:, :, rows, columns] = images[partners][:, :, rows, columns]
        return [mixed], 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)


_STEPS: dict[str, type[BatchMixing]] = {"CutMix": CutMix, "MixUp": MixUp}


def mixing_to_json(steps: BatchMixing | Sequence[BatchMixing]) -> str:
    """Return one or several steps as JSON: a list of [name, parameters].

    Examples
    --------
    >>> from sparkopt import images
    >>> images.mixing_to_json([images.MixUp(0.2), images.CutMix()])
    '[["MixUp", {"alpha": 0.2, "p": 1.0}], ["CutMix", {"alpha": 1.0, "p": 1.0}]]'
    """
    several: list[Any] = list(steps) if isinstance(steps, (list, tuple)) else [steps]
    if not several or any(type(one) not in _STEPS.values() for one in several):
        raise ParameterError(f"steps of a batch must be images.MixUp or images.CutMix. Got {steps!r} instead.")
    return json.dumps([[type(one).__name__, asdict(one)] for one in several])


def mixing_from_json(text: str) -> tuple[BatchMixing, ...]:
    """Return the steps of :func:`mixing_to_json`.

    Raises
    ------
    ParameterError
        For anything else.
    """
    try:
        return tuple(_STEPS[name](**parameters) for name, parameters in json.loads(text))
    except (ValueError, TypeError, KeyError):
        raise ParameterError(
            f"steps of a batch must be images.MixUp or images.CutMix, or their JSON. Got {text!r} instead."
        ) from None


def one_hot(labels: Array | list[int], classes: int) -> Array:
    """Return whole-numbered labels as shares of classes: float32, shape (n, classes)."""
    found = np.asarray(labels)
    if found.ndim != 1 or not np.isin(found, np.arange(classes)).all():
        raise ParameterError(f"labels must be whole numbers from 0 to {classes - 1}. Got {labels!r} instead.")
    shares: Array = np.zeros((len(found), classes), np.float32)
    shares[np.arange(len(found)), found.astype(int)] = 1
    return shares
