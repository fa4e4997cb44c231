"""Image preprocessing: OpenCV's operations as pipelines, on one machine or on Spark.

The operations are pure (:mod:`~sparkopt.images.functional`), their parameters are frozen values, and
:class:`~sparkopt.images.transforms.Compose` runs them with one sampling for all consecutive geometry.

Examples
--------
>>> from sparkopt import images
>>> pipeline = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])
>>> pipeline.random
False
"""

from sparkopt.images import functional
from sparkopt.images.functional import decode, encode
from sparkopt.images.header import MAX_PIXELS, read_header
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
from sparkopt.images.transforms import Compose, Decode, Encode, GeometricTransform, ImageTransform
from sparkopt.images.warps import Affine, Perspective, RandomAffine, RandomPerspective, RandomRotation, Rotate

__all__ = [
    "MAX_PIXELS",
    "Affine",
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
    "decode",
    "encode",
    "functional",
    "read_header",
]
