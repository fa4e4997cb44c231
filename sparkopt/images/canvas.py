"""The image in a pipeline's work: decoded as late and as small as possible, and sampled as seldom as possible."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images.decoding import decode_stored
from sparkopt.images.geometry import (
    REMEMBERED,
    GeometricMap,
    Size,
    check_result,
    inverse,
    joined,
    orientation_map,
    scaling,
    unchanged,
)
from sparkopt.images.sample import Sample, moved
from sparkopt.images.sampling import sample
from sparkopt.images.transform import NO_RNG, DividingTransform, GeometricTransform, ImageTransform
from sparkopt.io.image_header import Header
from sparkopt.typing import Array

__all__ = ["Canvas", "check_image", "fixed"]

_LOSS = 1.25
_TYPES = tuple(map(np.dtype, ("uint8", "uint16", "int16", "float32", "float64")))


def check_image(image: Any) -> None:
    """Raise ParameterError for what is no decoded image."""
    if not isinstance(image, np.ndarray):
        raise ParameterError(
            "image must be the bytes of an image file, or an array of shape (height, width, channels). Got "
            f"{type(image).__name__} instead; of a path, give what pathlib.Path(path).read_bytes() returns, and of a "
            "picture of another library numpy.asarray(picture)."
        )
    if image.ndim not in (2, 3) or not image.size:
        raise ParameterError(
            f"image must have the shape (height, width, channels). Got {image.shape} instead; of several images, "
            "give one at a time."
        )
    if image.dtype not in _TYPES:
        names = ", ".join(kind.name for kind in _TYPES)
        raise ParameterError(
            f"image must hold values of one of the types {names}. Got {image.dtype} instead; convert it by "
            "astype('uint8'), or 'float32'."
        )


class Canvas:
    """An image, decoded or not, the geometry that is still to be applied, and its targets.

    Parameters
    ----------
    image : ndarray or bytes
        A decoded image; or an encoded one, with the arguments after it.
    header : Header or None
        What its header says.
    color, depth, reduced
        As of ``Decode``.
    targets : Sample or None
        Mask, boxes and keypoints, of the upright image.
    alike : int, default 1
        Images of this size that one image becomes: together they are bounded.
    """

    def __init__(
        self,
        image: Array | bytes,
        header: Header | None = None,
        color: str = "rgb",
        depth: str = "8",
        reduced: bool = False,
        targets: Sample | None = None,
        alike: int = 1,
    ) -> None:
        self._image = image
        self._header = header
        self._color, self._depth, self._reduced = color, depth, reduced
        self._targets = targets
        self._alike = alike
        self._pending: GeometricMap | None = None
        self._turn: GeometricMap | None = None
        if header is not None and header.orientation != 1:
            self._pending = self._turn = orientation_map(header.orientation, header.height, header.width)
        if targets is not None:
            targets.check_size(self.size)

    @property
    def size(self) -> Size:
        """(height, width) after the pending geometry."""
        if self._pending is not None:
            return self._pending.size
        if self._header is not None:
            return self._header.size
        return self._image.shape[:2]  # type: ignore[union-attr]  # bytes come with a header

    def extend(self, geometry: GeometricMap) -> None:
        """Add a map to the pending one; sample first if the two do not fuse."""
        if geometry is unchanged(geometry.size):
            return
        if self._pending is not None and not _fuse(self._pending, geometry):
            self._replace(self.realise(), self._moved())
        self._pending = geometry if self._pending is None else joined(self._pending, geometry)

    def run(self, transform: ImageTransform, rng: np.random.Generator, *, swapped: bool) -> None:
        """Apply a transform of pixels; ``swapped`` says that blue comes first, where it expects red."""
        image, targets = self.realise(), self._moved()
        if swapped:
            image = _exchanged(image)
        if targets is None or type(transform).apply_to is ImageTransform.apply_to:  # pixels stay where they are
            image = transform.apply(image, rng)
        else:
            targets = transform.apply_to(targets.changed(image=image), rng)
            image = targets.image
        self._replace(_exchanged(image) if swapped and not isinstance(image, bytes) else image, targets)

    def divided(self, transform: DividingTransform) -> list[Array]:
        """Return the parts of the image."""
        if self._targets is not None and self._targets.has_targets:
            raise ParameterError(f"{type(transform).__name__} makes several images: it has no place for targets.")
        return transform.divide(self.realise())

    def _replace(self, image: Any, targets: Sample | None) -> None:
        self._image, self._header, self._pending, self._turn, self._targets = image, None, None, None, targets

    def _moved(self) -> Sample | None:
        """Return the targets after the pending geometry; they never see the turn of a stored image."""
        geometry, targets = self._pending, self._targets
        if targets is None or geometry is None or geometry is self._turn:
            return targets
        if self._turn is not None:
            geometry = geometry.after(_turned_back(self._turn))
            geometry = dataclasses.replace(geometry, clips=geometry.clips[1:])
        return moved(targets, geometry)

    def realise(self) -> Any:
        """Return the decoded and sampled image."""
        image, geometry = self._image, self._pending
        if self._header is not None and isinstance(image, bytes):
            reduction = _reduction(self._header, geometry) if self._reduced else 1
            image = decode_stored(image, self._header, self._color, reduction=reduction, depth=self._depth)
            stored = (self._header.height, self._header.width)
            if geometry is not None and reduction > 1:
                geometry = geometry.after(scaling(stored[1] / image.shape[1], stored[0] / image.shape[0]))
        if geometry is None:
            return image
        check_result(geometry.size, self._alike)
        return sample(image, geometry)  # type: ignore[arg-type]

    def result(self) -> Any:
        """Return the image, or the sample where there are targets."""
        image, targets = self.realise(), self._moved()
        image = image if isinstance(image, bytes) else np.ascontiguousarray(image)
        return image if targets is None else targets.changed(image=image)


@functools.lru_cache(maxsize=REMEMBERED)
def _fuse(first: GeometricMap, second: GeometricMap) -> bool:
    """Whether one sampling can do both; not where the second enlarges what the first made smaller."""
    if not first.fuses_with(second):
        return False
    smallest, largest = min(first.shrinkage()), max(second.shrinkage())
    return smallest * _LOSS > 1 or largest < _LOSS


@functools.lru_cache(maxsize=REMEMBERED)
def _turned_back(turn: GeometricMap) -> Array:
    return inverse(turn.matrix)


@functools.lru_cache(maxsize=REMEMBERED)
def fixed(transform: GeometricTransform, size: Size) -> GeometricMap:
    """Return the map of a transform that is not random: the same object for all images of a size."""
    return transform.map(size, NO_RNG)


@functools.lru_cache(maxsize=REMEMBERED)
def _reduction(header: Header, geometry: GeometricMap | None) -> int:
    """Return the largest reduction that still decodes at least the pixels of the output along both sides."""
    if header.format != "jpeg" or geometry is None or geometry.interpolation in (None, "nearest"):
        return 1
    horizontal, vertical = geometry.shrinkage()
    for reduction in (8, 4, 2):
        # A size that is no multiple of the reduction is rounded up, which stretches the image by less than this.
        stretch = max(-header.width % reduction * horizontal, -header.height % reduction * vertical)
        if reduction * max(horizontal, vertical) <= 1 and stretch <= 0.25:
            return reduction
    return 1


def _exchanged(image: Array) -> Array:
    """Return an image with red and blue exchanged."""
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        return image
    return np.ascontiguousarray(image[..., [2, 1, 0, 3][: image.shape[2]]])
