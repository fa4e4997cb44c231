"""Image preprocessing: OpenCV's operations as pipelines, on one machine or on Spark.

The operations are pure (:mod:`~sparkopt.images.functional`, :mod:`~sparkopt.images.operations`), their parameters are
frozen values, and
:class:`~sparkopt.images.pipeline.Compose` runs them with one sampling for all consecutive geometry.

Examples
--------
>>> from sparkopt import images
>>> pipeline = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])
>>> pipeline.random
False
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparkopt.images import functional, operations
from sparkopt.images.arrow import ImageKernel
from sparkopt.images.functional import decode, encode
from sparkopt.images.pipeline import Compose, Decode, Encode, GeometricTransform, ImageTransform
from sparkopt.images.pixelwise import (
    ColorJitter,
    ConvertColor,
    Cutout,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Normalize,
    Rescale,
    Standardize,
)
from sparkopt.images.randomness import row_rng
from sparkopt.images.spatial import (
    CenterCrop,
    Crop,
    HorizontalFlip,
    Letterbox,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
    ResizeLongerSide,
    ResizeShorterSide,
    VerticalFlip,
)
from sparkopt.images.warps import Affine, Perspective, RandomAffine, RandomPerspective, RandomRotation, Rotate
from sparkopt.io.image_header import MAX_PIXELS, read_header

__all__ = [
    "MAX_PIXELS",
    "Affine",
    "BatchFunction",
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "ConvertColor",
    "Crop",
    "Cutout",
    "Decode",
    "Encode",
    "GaussianBlur",
    "GaussianNoise",
    "GeometricTransform",
    "Grayscale",
    "HorizontalFlip",
    "ImageKernel",
    "ImageTransform",
    "Letterbox",
    "Normalize",
    "Pad",
    "Perspective",
    "RandomAffine",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomPerspective",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomVerticalFlip",
    "Rescale",
    "Resize",
    "ResizeLongerSide",
    "ResizeShorterSide",
    "Rotate",
    "Standardize",
    "VerticalFlip",
    "bound_batches",
    "decode",
    "encode",
    "functional",
    "operations",
    "read",
    "read_header",
    "row_rng",
    "udf",
]

if TYPE_CHECKING:
    from sparkopt.images.spark import BatchFunction, bound_batches, read, udf

_ON_SPARK = ("BatchFunction", "bound_batches", "read", "udf")


def __getattr__(name: str) -> Any:
    """Load Spark only for the names that need it, so that the operations also run where there is none."""
    if name in _ON_SPARK:
        return getattr(import_module("sparkopt.images.spark"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
