"""Crops that are more than a map: from a padded image, and several from one image."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sparkopt.errors import DataError
from sparkopt.images import functional as F
from sparkopt.images.geometry import GeometricMap, check_result, translation
from sparkopt.images.parameters import AS_OTHER, FILL, Fill, checked
from sparkopt.images.sample import Sample, moved
from sparkopt.images.spatial import SQUARE, Pad, middle
from sparkopt.images.transform import DividingTransform, ImageTransform
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf
from sparkopt.values import dataclass

__all__ = ["FiveCrop", "PaddedRandomCrop", "Tiles"]

_LENGTH = Interval(1, 2**16, whole=True)


@dataclass(frozen=True)
class PaddedRandomCrop(ImageTransform):
    """Pad each side, and cut out ``height`` × ``width`` pixels at a random position: as for CIFAR.

    Parameters
    ----------
    height, width : int
        Size of the result; without ``width`` a square. A side that is shorter even when padded is padded further.
    padding : int, default 4
        Pixels that are added on each side first.
    mode, fill
        As of :class:`~sparkopt.images.Pad`.
    """

    height: int
    width: int = AS_OTHER
    padding: int = 4
    mode: str = "constant"
    fill: Fill = 0.0

    same: ClassVar = SQUARE
    domains: ClassVar = {
        "height": _LENGTH,
        "width": _LENGTH,
        "padding": Interval(0, 2**16, whole=True),
        "mode": OneOf(F.PAD_MODES),
        "fill": FILL,
    }
    random = True

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the part of the padded image."""
        padded = self._pad(image).apply(image, rng)
        return F.crop(padded, *self._corner(padded, rng), self.height, self.width)

    def apply_to(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the part of the padded image, with the targets in it."""
        padded = self._pad(sample.pixels).apply_to(sample, rng)
        top, left = self._corner(padded.pixels, rng)
        part = moved(padded, GeometricMap(translation(-left, -top), (self.height, self.width)))
        return part.changed(image=F.crop(padded.pixels, top, left, self.height, self.width))

    def _pad(self, image: Array) -> Pad:
        down, across = (
            self.padding + max(0, -(-(needed - length - 2 * self.padding) // 2))
            for needed, length in zip((self.height, self.width), image.shape[:2], strict=True)
        )
        return Pad(down, across, down, across, self.mode, self.fill)

    def _corner(self, padded: Array, rng: np.random.Generator) -> tuple[int, int]:
        rows, columns = padded.shape[:2]
        return int(rng.integers(rows - self.height + 1)), int(rng.integers(columns - self.width + 1))


@dataclass(frozen=True)
class FiveCrop(DividingTransform):
    """Cut out the four corners and the centre: the steps after it run on each, and the result is their stack.

    Without ``width``, squares of ``height`` × ``height``.
    """

    height: int
    width: int = AS_OTHER

    same: ClassVar = SQUARE
    domains: ClassVar = {"height": _LENGTH, "width": _LENGTH}

    def divide(self, image: Array) -> list[Array]:
        """Return upper left, upper right, lower left, lower right, and centre; DataError if the image is smaller."""
        down, across = image.shape[0] - self.height, image.shape[1] - self.width
        if down < 0 or across < 0:
            raise DataError(
                f"too small: the crops need {self.height} x {self.width} pixels, the image has {image.shape[0]} x "
                f"{image.shape[1]}"
            )
        corners = [(0, 0), (0, across), (down, 0), (down, across), (middle(down), middle(across))]
        return [F.crop(image, top, left, self.height, self.width) for top, left in corners]


@dataclass(frozen=True)
class Tiles(DividingTransform):
    """Cut the image into tiles, row by row: the steps after it run on each, and the result is their stack.

    Parameters
    ----------
    height, width : int
        Size of a tile; without ``width`` a square.
    overlap : int, default 0
        Pixels that neighbouring tiles share.
    fill : float or a value for each channel, default 0
        Of the tiles that reach beyond the right and the lower edge.
    """

    height: int
    width: int = AS_OTHER
    overlap: int = 0
    fill: Fill = 0.0

    same: ClassVar = SQUARE
    domains: ClassVar = {
        "height": _LENGTH,
        "width": _LENGTH,
        "overlap": Interval(0, 2**16, whole=True),
        "fill": FILL,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checked("Tiles.overlap", self.overlap, Interval(0, min(self.height, self.width) - 1, whole=True))

    def divide(self, image: Array) -> list[Array]:
        """Return the tiles; DataError if together they have too many pixels."""
        tops, lefts = (
            range(0, max(length - self.overlap, 1), side - self.overlap)
            for length, side in zip(image.shape[:2], (self.height, self.width), strict=True)
        )
        check_result((self.height, self.width), len(tops) * len(lefts))
        bottom, right = tops[-1] + self.height - image.shape[0], lefts[-1] + self.width - image.shape[1]
        padded = F.pad(image, 0, max(right, 0), max(bottom, 0), 0, "constant", self.fill)
        return [F.crop(padded, top, left, self.height, self.width) for top in tops for left in lefts]
