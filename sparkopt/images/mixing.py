"""Steps of a batch of images and their targets: MixUp and CutMix."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.typing import Array
from sparkopt.validation import Interval, check

__all__ = ["BatchMixing", "CutMix", "MixUp", "one_hot"]


@dataclass(frozen=True)
class BatchMixing(ABC):
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
        check(f"{type(self).__name__}.alpha", self.alpha, Interval(0, None, closed="neither"))
        check(f"{type(self).__name__}.p", self.p, Interval(0, 1))

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
        if rng.random() >= self.p:
            return images, targets
        partners, share = rng.permutation(len(images)), float(rng.beta(self.alpha, self.alpha))
        mixed, share = self._mixed(images, partners, share, rng)
        return mixed, (targets * share + targets[partners] * (1 - share)).astype(targets.dtype)

    @abstractmethod
    def _mixed(self, images: Array, partners: Array, share: float, rng: np.random.Generator) -> tuple[Array, float]:
        """Return the images, and the share of the own one."""


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

    def _mixed(self, images: Array, partners: Array, share: float, rng: np.random.Generator) -> tuple[Array, float]:
        mixed = images * np.float32(share) + images[partners] * np.float32(1 - share)
        return (np.rint(mixed) if images.dtype == np.uint8 else mixed).astype(images.dtype), share


@dataclass(frozen=True)
class CutMix(BatchMixing):
    """Paste a rectangle of another image into each one; targets are mixed by area.

    References
    ----------
    Yun et al., "CutMix: Regularization strategy to train strong classifiers with localizable features", ICCV 2019.
    """

    def _mixed(self, images: Array, partners: Array, share: float, rng: np.random.Generator) -> tuple[Array, float]:
        height, width = images.shape[2:]
        half = math.sqrt(1 - share) / 2
        row, column = int(rng.integers(height)), int(rng.integers(width))
        down, across = int(half * height), int(half * width)
        rows = slice(max(row - down, 0), min(row + down, height))
        columns = slice(max(column - across, 0), min(column + across, width))
        mixed = images.copy()
        mixed[:, :, rows, columns] = images[partners][:, :, rows, columns]
        return mixed, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)


def one_hot(labels: Array | list[int], classes: int) -> Array:
    """Return whole-numbered labels as shares of classes: float32, shape (n, classes)."""
    found = np.asarray(labels)
    if found.ndim != 1 or not np.isin(found, np.arange(classes)).all():
        raise ParameterError(f"labels must be whole numbers from 0 to {classes - 1}. Got {labels!r} instead.")
    shares: Array = np.zeros((len(found), classes), np.float32)
    shares[np.arange(len(found)), found.astype(int)] = 1
    return shares
