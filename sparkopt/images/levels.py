"""Steps that change each value by itself, several at once: a table of what they make of the 256 levels of a byte."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from sparkopt.images.degradations import ToCHW
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
        Steps with ``by_value``, none of them random, and maybe ``ToCHW`` after them.
    """

    steps: tuple[ImageTransform, ...]

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return what the steps make of the image."""
        if image.dtype != np.uint8:
            return _through(self.steps, image)
        *steps, last = self.steps
        if not isinstance(last, ToCHW):
            return with_channels(cv2.LUT(np.ascontiguousarray(image), _table(self.steps, image.shape[2])))
        table, planes = _table(tuple(steps), image.shape[2]), last.apply(image, rng)  # bytes are moved sooner
        result = np.empty(planes.shape, table.dtype)
        for index, plane in enumerate(planes):
            cv2.LUT(plane, np.ascontiguousarray(table[..., index]), result[index])
        return result


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
    """Yield steps, with one for several in a row that change each value by itself, and a ``ToCHW`` after them."""
    run: list[ImageTransform] = []
    for step in steps:
        if step.by_value and not step.random:
            run.append(step)
        elif run and isinstance(step, ToCHW):
            yield _joined(*run, step)
            run = []
        else:
            if run:
                yield _joined(*run)
                run = []
            yield step
    if run:
        yield _joined(*run)


@functools.lru_cache(maxsize=REMEMBERED)
def _joined(*steps: ImageTransform) -> ImageTransform:
    return Levels(steps) if len(steps) > 1 else steps[0]
