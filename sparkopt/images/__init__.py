"""Image preprocessing: OpenCV's operations as pipelines, on one machine or on Spark.

A :class:`Compose` is a pipeline of transforms, and samples consecutive geometric ones once. Start at ``transform``,
which has the interface, :class:`ImageTransform`, and ``pipeline``. The transforms are in ``pixelwise``, ``effects``
(tone), ``degradations`` (blur, noise, erased parts), ``spatial`` and ``crops`` (resize, crop, flip, pad), ``warps``
(rotation, affine, perspective), ``fields`` (distortions), ``choices`` and ``policies`` (which choose others) and
``mixing`` (batches). ``frames`` divides animations, and ``opencl`` runs operations on a device. ``sample`` and
``targets`` move masks, boxes and keypoints. ``functional`` has operations as functions on arrays, ``operations``
has transforms as functions. ``geometry`` and ``sampling`` compose and apply geometric maps. ``arrow`` runs a
pipeline on columns, ``batches`` on whole batches, and ``spark`` on DataFrames. ``folder`` reads image files as
rows, and ``preprocess`` processes a folder without Spark.

Imports only ``errors``, ``typing``, ``validation``, ``io`` and ``machine``, OpenCV and pyarrow. Only ``spark`` needs
Spark; its names are loaded when they are first used.

To add an operation, edit three files:

1. In ``pixelwise``, write a frozen dataclass that derives from :class:`ImageTransform` and defines ``apply``. In
   ``spatial`` or ``warps``, derive it from :class:`GeometricTransform` and define ``map``. Set ``domains``, and
   ``random = True`` if it draws random numbers. Add its name to the module's ``__all__``: from there it is exported
   here.
2. In ``tests/images/test_transforms.py``, add it to the table ``ALL`` (contract) and to ``REFERENCES`` (its result,
   computed by NumPy or OpenCV).
3. In ``notebooks/images.ipynb``, show it.

Examples
--------
>>> from sparkopt import images
>>> pipeline = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])
>>> pipeline.random
False
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparkopt.images import (
    choices,
    crops,
    degradations,
    effects,
    fields,
    functional,
    mixing,
    operations,
    pixelwise,
    policies,
    spatial,
    warps,
)
from sparkopt.images.arrow import ImageKernel, Targets
from sparkopt.images.batches import BatchFunction
from sparkopt.images.choices import *  # noqa: F403
from sparkopt.images.crops import *  # noqa: F403
from sparkopt.images.degradations import *  # noqa: F403
from sparkopt.images.effects import *  # noqa: F403
from sparkopt.images.fields import *  # noqa: F403
from sparkopt.images.files import Survey, survey
from sparkopt.images.folder import read
from sparkopt.images.frames import FrameFunction
from sparkopt.images.functional import decode, decode_mask, encode
from sparkopt.images.geometry import GeometricMap, Size
from sparkopt.images.mixing import *  # noqa: F403
from sparkopt.images.other_names import OTHER_NAMES
from sparkopt.images.parameters import Fill, Form
from sparkopt.images.pipeline import Compose, Decode, Encode
from sparkopt.images.pixelwise import *  # noqa: F403  # a new transform needs no line here
from sparkopt.images.policies import *  # noqa: F403
from sparkopt.images.preprocess import Preprocessed, preprocess
from sparkopt.images.randomness import row_rng
from sparkopt.images.sample import Sample
from sparkopt.images.spatial import *  # noqa: F403
from sparkopt.images.targets import SampleFunction
from sparkopt.images.transform import ChoosingTransform, DividingTransform, GeometricTransform, ImageTransform
from sparkopt.images.warps import *  # noqa: F403
from sparkopt.io.image_header import ENDINGS, MAX_PIXELS, read_header

__all__ = [
    "ENDINGS",
    "MAX_PIXELS",
    "BatchFunction",
    "FrameFunction",
    "ChoosingTransform",
    "Compose",
    "Decode",
    "DividingTransform",
    "Encode",
    "Fill",
    "Form",
    "GeometricMap",
    "GeometricTransform",
    "ImageKernel",
    "ImageTransform",
    "Preprocessed",
    "Sample",
    "SampleFunction",
    "Survey",
    "Size",
    "Targets",
    "bound_batches",
    "decode",
    "decode_mask",
    "encode",
    "functional",
    "operations",
    "preprocess",
    "read",
    "read_header",
    "row_rng",
    "survey",
    "udf",
    *choices.__all__,
    *crops.__all__,
    *degradations.__all__,
    *effects.__all__,
    *fields.__all__,
    *mixing.__all__,
    *pixelwise.__all__,
    *policies.__all__,
    *spatial.__all__,
    *warps.__all__,
]

if TYPE_CHECKING:
    from sparkopt.images.spark import bound_batches, udf

_ON_SPARK = ("bound_batches", "udf")


def __getattr__(name: str) -> Any:
    """Load Spark only for the names that need it, so that the operations also run where there is none."""
    if name in _ON_SPARK:
        return getattr(import_module("sparkopt.images.spark"), name)
    hint = f"; take {OTHER_NAMES[name]}" if name in OTHER_NAMES else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
