"""Steps that choose among others for each image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images.parameters import Each, shown
from sparkopt.images.pipeline import Decode, Encode
from sparkopt.images.transform import ChoosingTransform, DividingTransform, ImageTransform
from sparkopt.validation import Interval
from sparkopt.values import dataclass

__all__ = ["OneOf", "RandomApply", "RandomChoice", "RandomOrder"]


@dataclass(frozen=True)
class _Choosing(ChoosingTransform):
    """A step with a list of others."""

    transforms: tuple[ImageTransform, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if not isinstance(self.transforms, tuple) or not self.transforms:
            raise ParameterError(
                f"{name}.transforms must be a list of image transforms. Got {shown(self.transforms)} instead."
            )
        for transform in self.transforms:
            if not isinstance(transform, ImageTransform) or isinstance(
                transform, Decode | Encode | DividingTransform
            ):
                raise ParameterError(
                    f"{name}.transforms must be transforms of one image. Got {shown(transform)} instead."
                )
            if transform.channels_first:
                raise ParameterError(
                    f"{name}.transforms must leave the axes as they are. Got {transform!r} instead; "
                    "put it at the pipeline's end, where every image passes it."
                )


@dataclass(frozen=True)
class RandomChoice(_Choosing):
    """Apply one of ``transforms``: also named ``images.OneOf``.

    Parameters
    ----------
    transforms : sequence of ImageTransform
        The steps to choose from; the chosen one keeps its own ``p``.
    weights : sequence of float, optional
        How often each is chosen, in proportion; by default equally often.
    """

    weights: tuple[float, ...] = ()

    domains: ClassVar[Any] = {"weights": Each(Interval(0, None), "for each transform")}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights and (len(self.weights) != len(self.transforms) or not sum(self.weights)):
            raise ParameterError(
                f"RandomChoice.weights must be one for each transform, and not all 0. Got {self.weights!r} instead."
            )

    def choose(self, rng: np.random.Generator) -> Iterable[ImageTransform]:
        """Return one transform."""
        weights = np.array(self.weights or [1.0] * len(self.transforms))
        bounds = np.cumsum(weights) / weights.sum()
        return [self.transforms[min(int(np.searchsorted(bounds, rng.random(), "right")), len(bounds) - 1)]]


OneOf = RandomChoice
"""The same as RandomChoice, as albumentations calls it."""


@dataclass(frozen=True)
class RandomApply(_Choosing):
    """Apply all of ``transforms``, or with probability 1 − ``p`` none."""

    _: KW_ONLY
    p: float = 0.5

    def choose(self, rng: np.random.Generator) -> Iterable[ImageTransform]:
        """Return all transforms."""
        return self.transforms


@dataclass(frozen=True)
class RandomOrder(_Choosing):
    """Apply all of ``transforms``, in an order that is drawn for each image."""

    def choose(self, rng: np.random.Generator) -> Iterable[ImageTransform]:
        """Return all transforms, shuffled."""
        return [self.transforms[index] for index in rng.permutation(len(self.transforms))]
