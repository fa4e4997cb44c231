"""The interface of a transform, its two kinds, decoding and encoding, and the pipeline that runs transforms.

A transform is a frozen dataclass that JSON can represent. It keeps no state and draws random numbers only from the
generator that it is given, so that an image's augmentation depends on that generator alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from sparkopt.errors import DataError, ParameterError
from sparkopt.images import functional as F
from sparkopt.images.decoding import COLORS, ENCODINGS
from sparkopt.images.geometry import REMEMBERED, GeometricMap, Size, joined, orientation_map, scaling, unchanged
from sparkopt.images.sampling import sample
from sparkopt.io.image_header import MAX_PIXELS, Header, read_header
from sparkopt.typing import Array
from sparkopt.validation import Constraint, Interval, OneOf, check

__all__ = ["Compose", "Decode", "Encode", "GeometricTransform", "ImageTransform"]

T = TypeVar("T", bound="ImageTransform")

_REGISTRY: dict[str, type[ImageTransform]] = {}


@dataclass(frozen=True)
class ImageTransform(ABC):
    """One step of a pipeline: a frozen dataclass whose fields are its parameters.

    Attributes
    ----------
    domains : dict of str to Constraint
        For each field, the values that it (or each of its numbers) may have.
    random : bool
        Whether ``apply`` draws random numbers. A subclass sets ``random = True``, or a property where that depends on
        its parameters.
    """

    domains: ClassVar[dict[str, Constraint]] = {}

    @property
    def random(self) -> bool:
        """Whether ``apply`` draws random numbers."""
        return False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _REGISTRY[cls.__name__] = cls

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _frozen(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            domain = self.domains.get(field.name)
            if domain is not None:
                for number in value if isinstance(value, tuple) else (value,):
                    check(f"{type(self).__name__}.{field.name}", number, domain)

    @abstractmethod
    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the transformed image; only a ``random`` transform draws from ``rng``."""


@dataclass(frozen=True)
class GeometricTransform(ImageTransform):
    """A step that only moves pixels: it returns a map, so that consecutive steps are sampled once."""

    @abstractmethod
    def map(self, size: Size, rng: np.random.Generator) -> GeometricMap:
        """Return the map for an image of ``size`` (height, width)."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Sample the image along this transform's map."""
        return sample(image, self.map(image.shape[:2], rng))


@dataclass(frozen=True)
class Decode(ImageTransform):
    """Decode the bytes of an image file and apply its EXIF orientation; a decoded image is only converted.

    Parameters
    ----------
    color : {"rgb", "gray", "rgba", "bgr"}, default "rgb"
        Channels of the result.
    max_pixels : int, default 2**26
        Images with more pixels are refused by their header.
    reduced : bool, default True
        Whether a pipeline may decode a JPEG at 1/2, 1/4 or 1/8 of its size if the following steps shrink it at least
        that much: several times faster, with nearly the same result.
    """

    color: str = "rgb"
    max_pixels: int = MAX_PIXELS
    reduced: bool = True

    domains: ClassVar = {
        "color": OneOf(COLORS),
        "max_pixels": Interval(1, None, whole=True),
        "reduced": OneOf((True, False)),
    }

    def apply(self, image: Array | bytes, rng: np.random.Generator) -> Array:
        """Decode bytes, or convert an RGB, RGBA or grey image."""
        if isinstance(image, bytes):
            return F.decode(image, self.color, max_pixels=self.max_pixels)
        source = {1: "gray", 3: "rgb", 4: "rgba"}[image.shape[2]]
        return image if source == self.color else F.convert_color(image, source, self.color)


@dataclass(frozen=True)
class Encode(ImageTransform):
    """Encode to the bytes of an image file: the last step of a pipeline.

    Parameters
    ----------
    format : {"jpeg", "png", "webp"}, default "jpeg"
        The file format.
    quality : int, default 90
        1 to 100, for jpeg and webp.
    """

    format: str = "jpeg"
    quality: int = 90

    domains: ClassVar = {"format": OneOf(ENCODINGS), "quality": Interval(1, 100, whole=True)}

    def apply(self, image: Array, rng: np.random.Generator) -> bytes:  # type: ignore[override]  # the last step
        """Return the encoded image."""
        return F.encode(image, self.format, self.quality)


@dataclass(frozen=True)
class Compose:
    """A pipeline of transforms, in which consecutive geometric ones are sampled once.

    Parameters
    ----------
    transforms : sequence of ImageTransform
        The steps. On encoded images the first must be :class:`Decode`; :class:`Encode` may only be the last.

    Examples
    --------
    >>> import numpy as np
    >>> from sparkopt import images
    >>> pipeline = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])
    >>> pipeline(images.functional.encode(np.full((20, 30, 3), 255, np.uint8), "png")).shape
    (8, 8, 1)
    """

    transforms: tuple[ImageTransform, ...]

    def __init__(self, transforms: Iterable[ImageTransform | Compose]) -> None:
        flat = tuple(_flatten(transforms))
        for index, transform in enumerate(flat):
            if isinstance(transform, Decode) and index > 0:
                raise ParameterError("Decode must be the first transform; to convert colours later use ConvertColor.")
            if isinstance(transform, Encode) and index < len(flat) - 1:
                raise ParameterError("Encode must be the last transform: it leaves bytes, which no other takes.")
        object.__setattr__(self, "transforms", flat)

    @property
    def random(self) -> bool:
        """Whether any transform draws random numbers."""
        return any(transform.random for transform in self.transforms)

    @property
    def decodes(self) -> bool:
        """Whether the pipeline begins with :class:`Decode`, and so runs on encoded images."""
        return bool(self.transforms) and isinstance(self.transforms[0], Decode)

    def __call__(self, image: Array | bytes, rng: np.random.Generator | None = None) -> Any:
        """Run the pipeline on one image.

        Parameters
        ----------
        image : bytes or ndarray of shape (height, width, channels)
            An encoded or a decoded image.
        rng : numpy.random.Generator, optional
            Needed if the pipeline is ``random``.

        Returns
        -------
        ndarray, or bytes if the last transform is Encode

        Raises
        ------
        CorruptImageError, DataError
            If the image cannot be decoded, is too small for a crop, or would become larger than ``MAX_PIXELS``.
        """
        if rng is None:
            if self.random:
                raise ParameterError("rng must be given: the pipeline has random transforms.")
            rng = _NO_RNG
        if isinstance(image, bytes) and not self.decodes:
            raise ParameterError("the pipeline must begin with Decode to run on encoded images.")
        canvas = _Canvas(image)
        for transform in self.transforms:
            if isinstance(transform, Decode):
                canvas = _Canvas.opened(image, transform)
            elif isinstance(transform, GeometricTransform):
                canvas.extend(transform.map(canvas.size, rng) if transform.random else _fixed(transform, canvas.size))
            else:
                canvas = _Canvas(transform.apply(canvas.realise(), rng))
        result = canvas.realise()
        return result if isinstance(result, bytes) else np.ascontiguousarray(result)

    def to_json(self) -> str:
        """Return the pipeline as JSON: a list of [name, parameters]."""
        return json.dumps([[type(step).__name__, dataclasses.asdict(step)] for step in self.transforms])

    @classmethod
    def from_json(cls, text: str) -> Compose:
        """Return the pipeline of :meth:`to_json`; only subclasses of :class:`ImageTransform` can be named."""
        steps = []
        for name, parameters in json.loads(text):
            if name not in _REGISTRY:
                raise ParameterError(f"the pipeline names an unknown transform, {name!r}.")
            steps.append(_REGISTRY[name](**parameters))
        return cls(steps)


class _Canvas:
    """An image, decoded or not, and the geometry that is still to be applied."""

    def __init__(self, image: Array | bytes, header: Header | None = None, decode: Decode | None = None) -> None:
        self._image = image
        self._header = header
        self._decode = decode
        self._pending: GeometricMap | None = None
        if header is not None and header.orientation != 1:
            self._pending = orientation_map(header.orientation, header.height, header.width)

    @classmethod
    def opened(cls, image: Array | bytes, decode: Decode) -> _Canvas:
        """Defer decoding until the following geometry determines its scale."""
        if isinstance(image, bytes):
            return cls(image, read_header(image, decode.max_pixels), decode)
        return cls(decode.apply(image, _NO_RNG))

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
        if self._pending is not None and not self._pending.fuses_with(geometry):
            self._image, self._header, self._pending = self.realise(), None, None
        self._pending = geometry if self._pending is None else joined(self._pending, geometry)

    def realise(self) -> Any:
        """Return the decoded and sampled image."""
        image, geometry = self._image, self._pending
        if self._header is not None and self._decode is not None and isinstance(image, bytes):
            reduction = _reduction(self._header, geometry) if self._decode.reduced else 1
            image = F.decode_stored(image, self._header, self._decode.color, reduction=reduction)
            stored = (self._header.height, self._header.width)
            if geometry is not None and reduction > 1:
                geometry = geometry.after(scaling(stored[1] / image.shape[1], stored[0] / image.shape[0]))
        if geometry is None:
            return image
        height, width = geometry.size
        if height * width > MAX_PIXELS:
            raise DataError(
                f"too large: the pipeline would make {height} x {width} pixels of this image, more than {MAX_PIXELS}"
            )
        return sample(image, geometry)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=REMEMBERED)
def _fixed(transform: GeometricTransform, size: Size) -> GeometricMap:
    """Return the map of a transform that is not random: the same object for all images of a size."""
    return transform.map(size, _NO_RNG)


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


def _flatten(transforms: Iterable[ImageTransform | Compose]) -> Iterator[ImageTransform]:
    for transform in transforms:
        if isinstance(transform, Compose):
            yield from transform.transforms
        elif isinstance(transform, ImageTransform):
            yield transform
        else:
            raise ParameterError(f"transforms must be image transforms. Got {transform!r} instead.")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


_NO_RNG = np.random.default_rng(0)  # for transforms that are not random; never drawn from
