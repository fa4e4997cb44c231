"""Decoding and encoding as steps, and the pipeline that runs transforms; ``transform`` has their interface."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from sparkopt.errors import DataError, ParameterError
from sparkopt.images import functional as F
from sparkopt.images.canvas import Canvas, check_image, fixed
from sparkopt.images.construction import ExplainsArguments
from sparkopt.images.decoding import COLORS, DEPTHS, ENCODINGS
from sparkopt.images.levels import in_tables
from sparkopt.images.opencl import DEVICES, running
from sparkopt.images.parameters import checked, shown
from sparkopt.images.resizing import with_channels
from sparkopt.images.sample import Sample, warn_of_shares
from sparkopt.images.transform import (
    NO_RNG,
    ChoosingTransform,
    DividingTransform,
    GeometricTransform,
    ImageTransform,
    built,
    drawn,
    spec,
)
from sparkopt.io.image_header import MAX_PIXELS, read_header
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf
from sparkopt.values import dataclass

__all__ = [
    "ChoosingTransform",
    "Compose",
    "Decode",
    "DividingTransform",
    "Encode",
    "GeometricTransform",
    "ImageTransform",
]


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
    depth : {"8", "keep"}, default "8"
        Whether samples become bytes, or keep the file's precision: uint8, uint16 or float32. Geometric steps,
        ``Rescale``, ``Normalize`` and ``Standardize`` take all of them.
    frame : int, default 0
        Which frame of an animated GIF or WebP; -1 is the last. :class:`FrameFunction` makes rows of all.
    """

    color: str = "rgb"
    max_pixels: int = MAX_PIXELS
    reduced: bool = True
    depth: str = "8"
    frame: int = 0

    domains: ClassVar = {
        "color": OneOf(COLORS),
        "max_pixels": Interval(1, None, whole=True),
        "reduced": OneOf((True, False)),
        "depth": OneOf(DEPTHS),
        "frame": Interval(whole=True),
    }

    def apply(self, image: Array | bytes, rng: np.random.Generator) -> Array:
        """Decode bytes, or convert an RGB, RGBA or grey image."""
        if isinstance(image, bytes):
            return F.decode(image, self.color, max_pixels=self.max_pixels, depth=self.depth, frame=self.frame)
        source = {1: "gray", 3: "rgb", 4: "rgba"}.get(image.shape[2])
        if source is None:
            raise DataError(f"unsupported: a decoded image of {image.shape[2]} channels; Decode converts 1, 3 or 4")
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
    reads_colors = True

    def apply(self, image: Array, rng: np.random.Generator) -> bytes:  # type: ignore[override]  # the last step
        """Return the encoded image."""
        return F.encode(image, self.format, self.quality)


@dataclass(frozen=True)
class Compose(ExplainsArguments):
    """A pipeline of transforms, in which consecutive geometric ones are sampled once.

    Parameters
    ----------
    transforms : sequence of ImageTransform
        The steps. On encoded images the first must be :class:`Decode`; :class:`Encode` may only be the last.
    device : {"cpu", "opencl", "auto"}, default "cpu"
        What resizes, warps, blurs and mixes colours: the processor, or by OpenCL the device that OpenCV takes: a GPU,
        or what the environment variable OPENCV_OPENCL_DEVICE names. "auto" compares both on the first images in each
        process, and is the processor where no device is. A device rounds otherwise: by up to a level of 255.

    Examples
    --------
    >>> import numpy as np
    >>> from sparkopt import images
    >>> pipeline = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])
    >>> pipeline(images.functional.encode(np.full((20, 30, 3), 255, np.uint8), "png")).shape
    (8, 8, 1)
    """

    transforms: tuple[ImageTransform, ...]
    device: str = "cpu"

    def __init__(self, transforms: Iterable[ImageTransform | Compose], device: str = "cpu") -> None:
        if isinstance(device, ImageTransform):
            raise ParameterError(f"Compose.transforms must be one list: Compose([…, {type(device).__name__}(…)]).")
        checked("Compose.device", device, OneOf(DEVICES))
        if not isinstance(transforms, Iterable) or isinstance(transforms, _NO_LISTS):
            raise ParameterError(
                f"Compose.transforms must be a list of image transforms. Got {shown(transforms)} instead."
            )
        flat = tuple(_flatten(transforms))
        for index, transform in enumerate(flat):
            if isinstance(transform, Decode) and index > 0:
                raise ParameterError("Decode must be the first transform; to convert colours later use ConvertColor.")
            if isinstance(transform, Decode | Encode) and transform.p < 1:
                raise ParameterError(f"{type(transform).__name__}.p must be 1: a pipeline always has it, or never.")
            if isinstance(transform, Encode) and index < len(flat) - 1:
                raise ParameterError("Encode must be the last transform: it leaves bytes, which no other takes.")
        _check_axes(flat)
        object.__setattr__(self, "transforms", flat)
        object.__setattr__(self, "device", device)

    @cached_property
    def random(self) -> bool:
        """Whether any transform draws random numbers."""
        return any(transform.random or transform.p < 1 for transform in self.transforms)

    @cached_property
    def decodes(self) -> bool:
        """Whether the pipeline begins with :class:`Decode`, and so runs on encoded images."""
        return bool(self.transforms) and isinstance(self.transforms[0], Decode)

    @property
    def keeps_depth(self) -> bool:
        """Whether the type of an image's values is that of its file."""
        return any(isinstance(transform, Decode) and transform.depth == "keep" for transform in self.transforms)

    @property
    def color(self) -> str:
        """Order of the result's channels: "bgr" where the pipeline asks for it, else "rgb"."""
        orders = [_order(transform) for transform in self.transforms]
        return next((order for order in reversed(orders) if order is not None), "rgb")

    def __call__(self, image: Array | bytes | Sample, rng: np.random.Generator | None = None) -> Any:
        """Run the pipeline on one image.

        Parameters
        ----------
        image : bytes, ndarray of shape (height, width, channels), or Sample
            An encoded or a decoded image; or one with its mask, boxes and keypoints, which are moved with it.
        rng : numpy.random.Generator, optional
            Needed if the pipeline is ``random``.

        Returns
        -------
        ndarray, or bytes if the last transform is Encode; a Sample of it for a Sample

        Raises
        ------
        CorruptImageError, DataError
            If the image cannot be decoded, is too small for a crop, or would become larger than ``MAX_PIXELS``.
        ParameterError
            If ``device`` is "opencl" and no device is here, or the image is neither bytes nor such an array.
        """
        if rng is None:
            if self.random:
                raise ParameterError("rng must be given: the pipeline has random transforms.")
            rng = NO_RNG
        targets = image if isinstance(image, Sample) else None
        content: Any = image.image if isinstance(image, Sample) else image
        if isinstance(content, bytearray | memoryview):
            content = bytes(content)
        if not isinstance(rng, np.random.Generator):
            raise ParameterError(
                f"rng must be a numpy.random.Generator, such as numpy.random.default_rng(3). Got {rng!r} instead."
            )
        if not isinstance(content, bytes):
            check_image(content)
            content = with_channels(content)
        elif not self.decodes:
            raise ParameterError("the pipeline must begin with Decode to run on encoded images.")
        if self.device == "cpu":
            found = self._run(content, targets, rng)
        else:
            with running(self.device, self, len(content) if isinstance(content, bytes) else content.nbytes):
                found = self._run(content, targets, rng)
        if targets is not None and targets.boxes is not None:
            warn_of_shares(targets, found)
        return found

    def _run(self, content: Array | bytes, targets: Sample | None, rng: np.random.Generator) -> Any:
        steps = in_tables(drawn(self.transforms, rng))
        if not self.decodes:
            return _run(Canvas(content, targets=targets), steps, "rgb", rng)
        decode = next(steps)
        assert isinstance(decode, Decode)  # noqa: S101  # it is the first, and always applied
        return _run(_opened(content, decode, targets), steps, _order(decode) or "rgb", rng)

    def to_json(self) -> str:
        """Return the pipeline as JSON: a list of [name, parameters], with its device where it is not "cpu"."""
        steps = [spec(step) for step in self.transforms]
        return json.dumps(steps if self.device == "cpu" else {"device": self.device, "transforms": steps})

    @classmethod
    def from_json(cls, text: str) -> Compose:
        """Return the pipeline of :meth:`to_json`; only subclasses of :class:`ImageTransform` can be named.

        Raises
        ------
        ParameterError
            For anything else.
        """
        try:
            found = json.loads(text)
            parts = found if isinstance(found, dict) else {"transforms": found, "device": "cpu"}
            if unknown := parts.keys() - {"transforms", "device"}:
                raise KeyError(unknown)
            steps, device = parts["transforms"], parts["device"]
            named = [(name, parameters) for name, parameters in steps]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ParameterError(
                "a pipeline must be an images.Compose, or the text that its to_json() gives. Got "
                f"{str(text)[:80]!r} instead."
            ) from None
        return cls([built(name, parameters) for name, parameters in named], device)


def _check_axes(steps: tuple[ImageTransform, ...]) -> None:
    """Refuse steps that would take the channels of an image for its rows."""
    moved: ImageTransform | None = None
    for step in steps:
        if moved is not None and not step.on_any_axes:
            raise ParameterError(
                f"{type(step).__name__} cannot follow {type(moved).__name__}, which puts the channels first: put "
                f"{type(moved).__name__} at the end. A step of your own that takes any axes says so by on_any_axes."
            )
        moved = step if step.channels_first else moved


_NO_LISTS = (str, bytes, np.ndarray, Mapping, Set)


def _opened(image: Array | bytes, decode: Decode, targets: Sample | None) -> Canvas:
    """Return an image whose decoding waits until the geometry after it determines the scale."""
    if isinstance(image, bytes) and not decode.frame:
        header = read_header(image, decode.max_pixels)
        return Canvas(image, header, decode.color, decode.depth, decode.reduced, targets)
    return Canvas(decode.apply(image, NO_RNG), targets=targets)


def _run(canvas: Canvas, steps: Iterator[ImageTransform], order: str, rng: np.random.Generator) -> Any:
    """Apply steps, and return the image, the sample, or a stack of images after a step that makes several."""
    for transform in steps:
        if isinstance(transform, GeometricTransform):
            canvas.extend(transform.map(canvas.size, rng) if transform.random else fixed(transform, canvas.size))
        elif isinstance(transform, DividingTransform):
            parts, rest = canvas.divided(transform), tuple(steps)
            results = [_run(Canvas(part, alike=len(parts)), iter(rest), order, rng) for part in parts]
            if any(isinstance(result, bytes) for result in results):
                raise ParameterError(f"Encode cannot follow {type(transform).__name__}, which makes several images.")
            return np.stack(results)
        else:
            canvas.run(transform, rng, swapped=order == "bgr" and transform.reads_colors)
        order = _order(transform) or order
    return canvas.result()


def _order(transform: ImageTransform) -> str | None:
    """Return the order of colours after a transform that sets it."""
    if isinstance(transform, Decode):
        return "bgr" if transform.color == "bgr" else "rgb"
    return transform.order_of_colors


def _flatten(transforms: Iterable[ImageTransform | Compose]) -> Iterator[ImageTransform]:
    for transform in transforms:
        if isinstance(transform, Compose):
            yield from transform.transforms
        elif isinstance(transform, ImageTransform):
            yield transform
        else:
            is_class = isinstance(transform, type) and issubclass(transform, ImageTransform)
            hint = f"; give an instance of it, {transform.__name__}(…)" if is_class else ""
            raise ParameterError(
                f"Compose.transforms must be image transforms. Got {shown(transform)} instead{hint}."
            )
