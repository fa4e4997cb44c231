"""Published augmentation policies: RandAugment, TrivialAugment and AutoAugment, with torchvision's operations.

Each chooses among the package's transforms. Shears are about the upper left corner, and magnitudes as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from typing import ClassVar

import numpy as np

from sparkopt.images import effects
from sparkopt.images import functional as F
from sparkopt.images.parameters import FILL, Fill, checked
from sparkopt.images.transform import ChoosingTransform, ImageTransform
from sparkopt.images.warps import Affine, Rotate, Shear, Translate
from sparkopt.validation import Interval, OneOf
from sparkopt.values import dataclass

__all__ = ["AutoAugment", "RandAugment", "TrivialAugment"]

_Make = Callable[[float, "Fill", str], ImageTransform]

_OPERATIONS: dict[str, _Make] = {
    "ShearX": lambda m, fill, how: Shear(-m, 0.0, fill, how),
    "ShearY": lambda m, fill, how: Shear(0.0, -m, fill, how),
    "TranslateX": lambda m, fill, how: Affine(translate=(m, 0.0), fill=fill, interpolation=how),
    "TranslateY": lambda m, fill, how: Affine(translate=(0.0, m), fill=fill, interpolation=how),
    "ShiftX": lambda m, fill, how: Translate(float(int(m)), 0.0, fill, how),
    "ShiftY": lambda m, fill, how: Translate(0.0, float(int(m)), fill, how),
    "Rotate": lambda m, fill, how: Rotate(m, fill=fill, interpolation=how),
    "Brightness": lambda m, fill, how: effects.Brightness(1 + m),
    "Color": lambda m, fill, how: effects.Saturation(1 + m),
    "Contrast": lambda m, fill, how: effects.Contrast(1 + m),
    "Sharpness": lambda m, fill, how: effects.Sharpness(1 + m),
    "Posterize": lambda m, fill, how: effects.Posterize(8 - round(m)),
    "Solarize": lambda m, fill, how: effects.Solarize(1 - m),
    "AutoContrast": lambda m, fill, how: effects.AutoContrast(),
    "Equalize": lambda m, fill, how: effects.Equalize(),
    "Invert": lambda m, fill, how: effects.Invert(),
}
_TWO_SIDED = "ShearX ShearY TranslateX TranslateY ShiftX ShiftY Rotate Brightness Color Contrast Sharpness"
_SIGNED = frozenset(_TWO_SIDED.split())
_NARROW = {  # largest magnitudes: of AutoAugment and RandAugment
    "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 150 / 331, "TranslateY": 150 / 331, "Rotate": 30.0, "Brightness": 0.9,
    "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9, "Posterize": 4.0, "Solarize": 1.0, "AutoContrast": 0.0,
    "Equalize": 0.0,
}  # fmt: skip
_WIDE = {
    "ShearX": 0.99, "ShearY": 0.99, "ShiftX": 32.0, "ShiftY": 32.0, "Rotate": 135.0, "Brightness": 0.99,
    "Color": 0.99, "Contrast": 0.99, "Sharpness": 0.99, "Posterize": 6.0, "Solarize": 1.0, "AutoContrast": 0.0,
    "Equalize": 0.0,
}  # fmt: skip

# Operation, probability in tenths and magnitude in ninths of the largest; from the paper's tables 7, 8 and 9.
_LEARNED = {
    "imagenet": """
        Posterize 4 8 Rotate 6 9; Solarize 6 5 AutoContrast 6 0; Equalize 8 0 Equalize 6 0;
        Posterize 6 7 Posterize 6 6; Equalize 4 0 Solarize 2 4; Equalize 4 0 Rotate 8 8;
        Solarize 6 3 Equalize 6 0; Posterize 8 5 Equalize 10 0; Rotate 2 3 Solarize 6 8;
        Equalize 6 0 Posterize 4 6; Rotate 8 8 Color 4 0; Rotate 4 9 Equalize 6 0; Equalize 0 0 Equalize 8 0;
        Invert 6 0 Equalize 10 0; Color 6 4 Contrast 10 8; Rotate 8 8 Color 10 2; Color 8 8 Solarize 8 7;
        Sharpness 4 7 Invert 6 0; ShearX 6 5 Equalize 10 0; Color 4 0 Equalize 6 0; Equalize 4 0 Solarize 2 4;
        Solarize 6 5 AutoContrast 6 0; Invert 6 0 Equalize 10 0; Color 6 4 Contrast 10 8;
        Equalize 8 0 Equalize 6 0""",
    "cifar10": """
        Invert 1 0 Contrast 2 6; Rotate 7 2 TranslateX 3 9; Sharpness 8 1 Sharpness 9 3;
        ShearY 5 8 TranslateY 7 9; AutoContrast 5 0 Equalize 9 0; ShearY 2 7 Posterize 3 7;
        Color 4 3 Brightness 6 7; Sharpness 3 9 Brightness 7 9; Equalize 6 0 Equalize 5 0;
        Contrast 6 7 Sharpness 6 5; Color 7 7 TranslateX 5 8; Equalize 3 0 AutoContrast 4 0;
        TranslateY 4 3 Sharpness 2 6; Brightness 9 6 Color 2 8; Solarize 5 2 Invert 0 0;
        Equalize 2 0 AutoContrast 6 0; Equalize 2 0 Equalize 6 0; Color 9 9 Equalize 6 0;
        AutoContrast 8 0 Solarize 2 8; Brightness 1 3 Color 7 0; Solarize 4 5 AutoContrast 9 0;
        TranslateY 9 9 TranslateY 7 9; AutoContrast 9 0 Solarize 8 3; Equalize 8 0 Invert 1 0;
        TranslateY 7 9 AutoContrast 9 0""",
    "svhn": """
        ShearX 9 4 Invert 2 0; ShearY 9 8 Invert 7 0; Equalize 6 0 Solarize 6 6; Invert 9 0 Equalize 6 0;
        Equalize 6 0 Rotate 9 3; ShearX 9 4 AutoContrast 8 0; ShearY 9 8 Invert 4 0; ShearY 9 5 Solarize 2 6;
        Invert 9 0 AutoContrast 8 0; Equalize 6 0 Rotate 9 3; ShearX 9 4 Solarize 3 3; ShearY 8 8 Invert 7 0;
        Equalize 9 0 TranslateY 6 6; Invert 9 0 Equalize 6 0; Contrast 3 3 Rotate 8 4; Invert 8 0 TranslateY 0 2;
        ShearY 7 6 Solarize 4 8; Invert 6 0 Rotate 8 4; ShearY 3 7 TranslateX 9 3; ShearX 1 6 Invert 6 0;
        Solarize 7 2 TranslateY 6 7; ShearY 8 4 Invert 8 0; ShearX 7 9 TranslateY 8 3;
        ShearY 8 5 AutoContrast 7 0; ShearX 7 2 Invert 1 0""",
}
POLICIES = {
    name: tuple(
        tuple((words[at], int(words[at + 1]) / 10, int(words[at + 2]) / 9) for at in (0, 3))
        for words in (pair.split() for pair in text.split(";"))
    )
    for name, text in _LEARNED.items()
}
"""Pairs of (operation, probability, fraction of the largest magnitude)."""


@dataclass(frozen=True)
class _Policy(ChoosingTransform):
    """A policy: what is outside the image, and how pixels are interpolated."""

    _: KW_ONLY
    fill: Fill = 0.0
    interpolation: str = "nearest"

    domains: ClassVar = {"fill": FILL, "interpolation": OneOf(F.INTERPOLATIONS)}

    def _operation(self, name: str, magnitude: float, rng: np.random.Generator) -> list[ImageTransform]:
        if name in _SIGNED and rng.random() < 0.5:
            magnitude = -magnitude
        return [] if name == "Identity" else [_OPERATIONS[name](magnitude, self.fill, self.interpolation)]


@dataclass(frozen=True)
class RandAugment(_Policy):
    """Apply ``operations`` random operations of one magnitude.

    Parameters
    ----------
    operations : int, default 2
        How many, one after another.
    magnitude : int, default 9
        From 0 to ``levels`` − 1.
    levels : int, default 31
        How many magnitudes there are.
    fill, interpolation
        Of shears, translations and rotations; nearest by default.

    References
    ----------
    Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2019.
    """

    operations: int = 2
    magnitude: int = 9
    levels: int = 31

    domains: ClassVar = {
        **_Policy.domains,
        "operations": Interval(0, 100, whole=True),
        "magnitude": Interval(0, None, whole=True),
        "levels": Interval(2, 2**16, whole=True),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checked("RandAugment.magnitude", self.magnitude, Interval(0, self.levels - 1, whole=True))

    def choose(self, rng: np.random.Generator) -> Iterable[ImageTransform]:
        """Return the operations."""
        names, part = ["Identity", *_NARROW], self.magnitude / (self.levels - 1)
        chosen = [names[int(rng.integers(len(names)))] for _ in range(self.operations)]
        return [one for name in chosen for one in self._operation(name, part * _NARROW.get(name, 0.0), rng)]


@dataclass(frozen=True)
class TrivialAugment(_Policy):
    """Apply one random operation of a random magnitude (the wide space); it has nothing to tune.

    Parameters
    ----------
    levels : int, default 31
        How many magnitudes there are.
    fill, interpolation
        Of shears, translations and rotations; nearest by default.

    References
    ----------
    Müller and Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data augmentation", ICCV 2021.
    """

    levels: int = 31

    domains: ClassVar = {**_Policy.domains, "levels": Interval(2, 2**16, whole=True)}

    def choose(self, rng: np.random.Generator) -> Iterable[ImageTransform]:
        """Return the operation."""
        names = ["Identity", *_WIDE]
        name, part = names[int(rng.integers(len(names)))], int(rng.integers(self.levels)) / (self.levels - 1)
        return self._operation(name, part * _WIDE.get(name, 0.0), rng)


@dataclass(frozen=True)
class AutoAugment(_Policy):
    """Apply one of the 25 pairs of operations that were learnt on a data set.

    Parameters
    ----------
    policy : {"imagenet", "cifar10", "svhn"}, default "imagenet"
        The data set.
    fill, interpolation
        Of shears, translations and rotations; nearest by default.

    References
    ----------
    Cubuk et al., "AutoAugment: Learning augmentation strategies from data", CVPR 2019.
    """

    policy: str = "imagenet"

    domains: ClassVar = {**_Policy.domains, "policy": OneOf(POLICIES)}

    def choose(self, rng: np.random.Generator) -> Iterable[ImageTransform]:
        """Return the operations of a pair that their probabilities select."""
        pairs = POLICIES[self.policy]
        found = list[ImageTransform]()
        for name, probability, part in pairs[int(rng.integers(len(pairs)))]:
            if rng.random() < probability:
                found += self._operation(name, part * _NARROW.get(name, 0.0), rng)
        return found
