"""The interface of a transform and its kinds: of pixels, of geometry, and those that choose others.

A transform is a frozen dataclass that JSON can represent. It keeps no state and draws random numbers only from the
generator that it is given, so that an image's augmentation depends on that generator alone.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images.construction import ExplainsArguments
from sparkopt.images.geometry import GeometricMap, Size
from sparkopt.images.parameters import Form, checked, plain
from sparkopt.images.sampling import sample
from sparkopt.typing import Array
from sparkopt.validation import Constraint, Interval
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.images.sample import Sample

__all__ = [
    "NO_RNG",
    "ChoosingTransform",
    "DividingTransform",
    "GeometricTransform",
    "ImageTransform",
    "built",
    "drawn",
    "spec",
]

NO_RNG = np.random.default_rng(0)
"""For transforms that are not random; never drawn from."""

_REGISTRY: dict[str, type[ImageTransform]] = {}
"""Transforms by name; one of a user's that has the name of one of ours is not in it."""
_PROBABILITY = Interval(0, 1)


def _hides_ours(kind: type) -> bool:
    """Whether a class of a user's has the name of one of ours."""
    named = _REGISTRY.get(kind.__name__)
    return named is not None and _is_ours(named) and not _is_ours(kind)


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("sparkopt.")


@dataclass(frozen=True)
class ImageTransform(ExplainsArguments, ABC):
    """One step of a pipeline: a frozen dataclass whose fields are its parameters.

    Parameters
    ----------
    p : float, default 1
        Probability that a pipeline applies the step to an image; else it leaves the image alone.

    Attributes
    ----------
    domains : dict of str to Constraint or Form
        For each field, the values that it (or each of its numbers) may have.
    same : dict of str to str
        For each field that need not be given, the earlier one whose value it then has.
    random : bool
        Whether ``apply`` draws random numbers. A subclass sets ``random = True``, or a property where that depends on
        its parameters.
    reads_colors : bool
        Whether it must know which channel is which: a pipeline gives it red first, whatever ``Decode`` was asked for.
    channels_first : bool
        Whether its result has the channels first.
    on_any_axes : bool
        Whether it does the same wherever the channels are, and may so follow ``ToCHW``.
    by_value : bool
        Whether each value of the result depends on that value, its channel and its type alone: a pipeline does
        several such steps in one pass.
    """

    p: float = field(default=1.0, kw_only=True)

    domains: ClassVar[dict[str, Constraint | Form]] = {}
    same: ClassVar[Mapping[str, str]] = {}
    reads_colors: ClassVar[bool] = False
    channels_first: ClassVar[bool] = False
    on_any_axes: ClassVar[bool] = False
    by_value: ClassVar[bool] = False

    @property
    def random(self) -> bool:
        """Whether ``apply`` draws random numbers."""
        return False

    def __init_subclass__(cls, *, registered: bool = True, **options: Any) -> None:
        super().__init_subclass__(**options)
        if registered and not _hides_ours(cls):
            _REGISTRY[cls.__name__] = cls

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            name = f"{type(self).__name__}.{entry.name}"
            domain = _PROBABILITY if entry.name == "p" else self.domains.get(entry.name)
            value = plain(getattr(self, entry.name))
            if value is None and entry.name in self.same:
                value = getattr(self, self.same[entry.name])
            if isinstance(domain, Form):
                value = domain.read(name, value)
            elif domain is not None:  # one value, unless the field is declared to be several
                for number in value if isinstance(value, tuple) and "tuple" in str(entry.type) else (value,):
                    checked(name, number, domain)
            object.__setattr__(self, entry.name, value)

    @property
    def order_of_colors(self) -> str | None:
        """The order of colours after it, "rgb" or "bgr"; None where it leaves that alone."""
        return None

    @abstractmethod
    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the transformed image, whatever ``p``; only a ``random`` transform draws from ``rng``."""

    def apply_to(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the transformed image with its targets, which stay where they are; override it if pixels move."""
        return sample.changed(image=self.apply(sample.pixels, rng))


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
class ChoosingTransform(ImageTransform):
    """A step that stands for others, which it chooses for each image."""

    random = True

    @abstractmethod
    def choose(self, rng: np.random.Generator) -> Iterable[ImageTransform]:
        """Return the transforms to apply, in their order."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Apply what is chosen, one after another."""
        for transform in drawn(self.choose(rng), rng):
            image = transform.apply(image, rng)
        return image


@dataclass(frozen=True)
class DividingTransform(ImageTransform):
    """A step that makes several images of one: the steps after it run on each, and the result is their stack."""

    @abstractmethod
    def divide(self, image: Array) -> list[Array]:
        """Return the images, of one shape."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the stack of images, of shape (n, height, width, channels)."""
        return np.stack(self.divide(image))


def drawn(transforms: Iterable[ImageTransform], rng: np.random.Generator) -> Iterator[ImageTransform]:
    """Yield the transforms that are applied to an image: those that their probability and choices select."""
    for transform in transforms:
        if transform.p < 1 and rng.random() >= transform.p:
            continue
        if isinstance(transform, ChoosingTransform):
            yield from drawn(transform.choose(rng), rng)
        else:
            yield transform


def spec(transform: ImageTransform) -> list[Any]:
    """Return [name, parameters] of plain data; a probability of 1 is left out.

    Raises
    ------
    ParameterError
        For a class of a user's that has the name of one of ours, which would be built in its place.
    """
    kind = type(transform)
    if _hides_ours(kind):
        raise ParameterError(
            f"{kind.__module__}.{kind.__qualname__} has the name of images.{kind.__name__}, which JSON would stand "
            "for: rename the class."
        )
    parameters = {entry.name: _plain_spec(getattr(transform, entry.name)) for entry in dataclasses.fields(transform)}
    if parameters["p"] == 1 and type(transform).__dataclass_fields__["p"].default == 1:
        del parameters["p"]
    return [type(transform).__name__, parameters]


def _plain_spec(value: Any) -> Any:
    if isinstance(value, ImageTransform):
        name, parameters = spec(value)
        return {"transform": name, "parameters": parameters}
    return [_plain_spec(item) for item in value] if isinstance(value, tuple) else value


def built(name: Any, parameters: Any) -> ImageTransform:
    """Return the transform of ``spec``; only subclasses of :class:`ImageTransform` can be named."""
    if not isinstance(name, str) or name not in _REGISTRY:
        hint = " If it is of your own, import the module that defines it first." if isinstance(name, str) else ""
        raise ParameterError(f"the pipeline names an unknown transform, {name!r}.{hint}")
    if not isinstance(parameters, Mapping):
        raise ParameterError(f"the pipeline has no parameters by name for {name}. Got {parameters!r} instead.")
    try:
        return _REGISTRY[name](**{key: _built_value(value) for key, value in parameters.items()})
    except TypeError as error:  # of another version, or written by hand
        raise ParameterError(f"the pipeline's parameters of {name} are not those of this version: {error}") from None


def _built_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return built(value.get("transform"), value.get("parameters"))
    return [_built_value(item) for item in value] if isinstance(value, list) else value
