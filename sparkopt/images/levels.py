"""Steps that change each value by itself, several at once: a table of what they make of the 256 levels of a byte."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from sparkopt.images.geometry import REMEMBERED
from sparkopt.images.resizing import with_channels
from sparkopt.images.transform import NO_RNG, ImageTransform
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["Levels", "in_tables"]


@dataclass(frozen=True)
class Levels(ImageTransform, registered=False):
    """Several steps that change each value by itself, such as ``Rescale`` and ``Normalize``, with their very results.

    Bytes are looked up in a table, in one pass over the image; other types go through the steps.

    Parameters
    ----------
    steps : tuple of ImageTransform
        Steps with ``by_value``, none of them random.
    """

    steps: tuple[ImageTransform, ...]

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return what the steps make of the image."""
        if image.dtype == np.uint8:
            return with_channels(cv2.LUT(np.ascontiguousarray(image), _table(self.steps, image.shape[2])))
        return _through(self.steps, image)


@functools.lru_cache(maxsize=REMEMBERED)
def _table(steps: tuple[ImageTransform, ...], channels: int) -> Array:
    """Return what steps make of each level of each channel, shape (1, 256, channels)."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    return np.ascontiguousarray(_through(steps, np.repeat(levels, channels, axis=2)))


def _through(steps: Iterable[ImageTransform], image: Array) -> Array:
    for step in steps:
        image = step.apply(image, NO_RNG)
    return image


def in_tables(steps: Iterable[ImageTransform]) -> Iterator[ImageTransform]:
    """Yield steps, with one for all of several in a row that change each value by itself."""
    run: list[ImageTransform] = []
    for step in steps:
        if step.by_value and not step.random:
            run.append(step)
            continue
        if run:
            yield _joined(*run)
            run = []
        yield step
    if run:
        yield _joined(*run)


@functools.lru_cache(maxsize=REMEMBERED)
def _joined(*steps: ImageTransform) -> ImageTransform:
    return Levels(steps) if len(steps) > 1 else steps[0]
