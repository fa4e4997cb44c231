"""torchvision as the reference for each transform that it has, where it is installed; skipped where it is not.

Its newest wheel may be built for CUDA: in an environment of its own, ``pip install torch==2.13.0`` and
``pip install --no-deps torchvision==0.28.0``; its folder on PYTHONPATH is enough.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy import stats

from sparkopt import images
from sparkopt.images import policies


def installed():
    """Return torchvision's transforms; of a wheel for CUDA without compiled operations, which these do not need."""
    try:
        import torchvision
    except RuntimeError as error:  # its wheel for CUDA next to PyTorch for CPUs
        if "does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        installed.library = torch.library.Library("torchvision", "DEF")  # as long as this process lives
        for name in ("nms", "qnms"):
            installed.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    except ImportError:
        pytest.skip("torchvision is not installed", allow_module_level=True)
    assert torchvision.__version__
    from torchvision.transforms import v2

    return v2


v2 = installed()
F = v2.functional
BILINEAR, NEAREST, EXACT, CUBIC = (
    getattr(v2.InterpolationMode, name) for name in ("BILINEAR", "NEAREST", "NEAREST_EXACT", "BICUBIC")
)
MEAN, STD = (0.2, 0.4, 0.5), (0.3, 0.2, 0.6)


def points(corners, height=33, width=48):
    """Return places by the centres of pixels, as torchvision counts them."""
    return [[x * width - 0.5, y * height - 0.5] for x, y in corners]


CORNERS = ((0.1, 0.0), (0.9, 0.1), (1.0, 1.0), (0.0, 0.9))
FIXED = {  # a transform, torchvision's, the mean difference in levels of 255 within the middle of the image
    "HorizontalFlip": (images.HorizontalFlip(), F.horizontal_flip, 0),
    "VerticalFlip": (images.VerticalFlip(), F.vertical_flip, 0),
    "Crop": (images.Crop(3, 4, 20, 30), lambda x: F.crop(x, 3, 4, 20, 30), 0),
    "CenterCrop": (images.CenterCrop(21, 30), lambda x: F.center_crop(x, [21, 30]), 0),
    "FiveCrop, one number": (images.FiveCrop(20), lambda x: torch.stack(v2.FiveCrop(20)(x)), 0),
    "Pad, one number": (images.Pad(4), v2.Pad(4), 0),
    "FiveCrop": (images.FiveCrop(20, 30), lambda x: torch.stack(F.five_crop(x, [20, 30])), 0),
    "Pad, constant": (images.Pad(1, 2, 3, 4, fill=7), lambda x: F.pad(x, [4, 1, 2, 3], fill=7), 0),
    **{
        f"Pad, {ours}": (
            images.Pad(1, 2, 3, 4, ours), lambda x, how=theirs: F.pad(x, [4, 1, 2, 3], padding_mode=how), 0
        )
        for ours, theirs in (("edge", "edge"), ("reflect", "reflect"))
    },
    "Resize, larger": (images.Resize(70, 90), lambda x: F.resize(x, [70, 90], BILINEAR), 0.6),
    "Resize, cubic": (images.Resize(70, 90, "cubic"), lambda x: F.resize(x, [70, 90], CUBIC, antialias=False), 0.6),
    "Resize, nearest": (images.Resize(17, 64, "nearest"), lambda x: F.resize(x, [17, 64], EXACT), 0),
    "Resize, smaller": (images.Resize(11, 16, "area"), lambda x: F.resize(x, [11, 16], BILINEAR, antialias=True), 4),
    "ResizeShorterSide": (images.ResizeShorterSide(66), lambda x: F.resize(x, [66], BILINEAR), 0.6),
    "Rotate": (images.Rotate(17), lambda x: F.rotate(x, 17, BILINEAR), 0.6),
    "Rotate, nearest": (images.Rotate(180), lambda x: F.rotate(x, 180, NEAREST), 0),
    "Affine": (
        images.Affine(10, (0.125, 0), 1.2, (5, 0)),
        lambda x: F.affine(x, -10, [6, 0], 1.2, [-5, 0], BILINEAR), 0.6,  # clockwise
    ),
    "Perspective": (
        images.Perspective(CORNERS),
        lambda x: F.perspective(x, points(((0, 0), (1, 0), (1, 1), (0, 1))), points(CORNERS), BILINEAR), 0.6,
    ),
    "Grayscale": (images.Grayscale(3), lambda x: F.rgb_to_grayscale(x, 3), 0.6),
    "Brightness": (images.Brightness(1.4), lambda x: F.adjust_brightness(x, 1.4), 0.6),
    "Contrast": (images.Contrast(0.6), lambda x: F.adjust_contrast(x, 0.6), 1),
    "Saturation": (images.Saturation(1.7), lambda x: F.adjust_saturation(x, 1.7), 0.8),
    "Sharpness": (images.Sharpness(1.8), lambda x: F.adjust_sharpness(x, 1.8), 0.8),
    "Sharpness, less": (images.Sharpness(0.3), lambda x: F.adjust_sharpness(x, 0.3), 0.8),
    "Gamma": (images.Gamma(1.5), lambda x: F.adjust_gamma(x, 1.5), 0.6),
    "Invert": (images.Invert(), F.invert, 0),
    "Solarize": (images.Solarize(128 / 255), lambda x: F.solarize(x, 128), 0),
    "Posterize": (images.Posterize(3), lambda x: F.posterize(x, 3), 0),
    "AutoContrast": (images.AutoContrast(), F.autocontrast, 1),
    "Equalize": (images.Equalize(), F.equalize, 1),
    "GaussianBlur": (images.GaussianBlur(1.2, 5), lambda x: F.gaussian_blur(x, [5, 5], [1.2, 1.2]), 0.6),
    "Rescale": (images.Rescale(1 / 255), lambda x: F.to_dtype(x, torch.float32, scale=True), 1e-6),
    "Normalize": (
        images.Normalize(MEAN, STD), lambda x: F.normalize(x.float(), MEAN, STD), 1e-4
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_it_is_torchvisions(photograph, name):
    transform, reference, tolerance = FIXED[name]
    image = np.ascontiguousarray(photograph[40:73, 60:108])
    found = images.Compose([transform])(image, np.random.default_rng(0)).astype(float)
    expected = reference(torch.from_numpy(image.transpose(2, 0, 1).copy())).double().numpy()
    expected = expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected.transpose(1, 2, 0)
    assert found.shape == expected.shape
    if tolerance:  # borders are where both mix in what is outside, each in its way
        found, expected = (one[8:-8, 10:-10] if min(one.shape[:2]) > 20 else one for one in (found, expected))
    assert np.abs(found - expected).mean() <= tolerance


@pytest.mark.parametrize("size", [(33, 48), (34, 47), (33, 47), (34, 48), (97, 33), (31, 31)], ids=str)
@pytest.mark.parametrize("length", [24, 25, 26, 27])
def test_the_middle_is_the_same_pixels_whatever_the_sides(photograph, size, length):
    """A pixel's shift of the crop, or of the resized side, was 2.9 levels of photographs prepared for ImageNet."""
    image = np.ascontiguousarray(photograph[40 : 40 + size[0], 60 : 60 + size[1]])
    given = torch.from_numpy(image.transpose(2, 0, 1).copy())
    crop, five = images.CenterCrop(length - 1, length), images.FiveCrop(length)
    expected = F.center_crop(given, [length - 1, length]).numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(images.Compose([crop])(image), expected)
    expected = torch.stack(F.five_crop(given, [length, length])).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(images.Compose([five])(image), expected)
    resized = images.Compose([images.ResizeShorterSide(length)])(image)
    assert resized.shape == (*F.resize(given, [length]).shape[1:], 3)


def test_crops_and_erased_parts_are_drawn_alike():
    """Areas and ratios of sides are of one distribution."""
    size = (80, 100)
    crop, theirs = images.RandomResizedCrop(10, 10), v2.RandomResizedCrop(10)
    ours = np.array([crop._part(size, np.random.default_rng(seed))[2:] for seed in range(400)])
    torch.manual_seed(0)
    blank = torch.zeros(3, *size)
    found = [theirs.make_params([blank]) for _ in range(400)]
    drawn = np.array([(one["height"], one["width"]) for one in found])
    for measure in (lambda sides: sides.prod(1), lambda sides: sides[:, 1] / sides[:, 0]):
        assert stats.ks_2samp(measure(ours), measure(drawn)).pvalue > 1e-3
    erase, theirs = images.Compose([images.RandomErasing(p=1, fill=9)]), v2.RandomErasing(p=1)
    image = np.zeros((*size, 1), np.uint8)
    areas = [(erase(image, np.random.default_rng(seed)) == 9).sum() for seed in range(400)]
    found = [theirs.make_params([blank]) for _ in range(400)]
    assert stats.ks_2samp(areas, [one["h"] * one["w"] for one in found]).pvalue > 1e-3


def test_the_published_policies_are_torchvisions():
    for name, theirs in (("imagenet", "IMAGENET"), ("cifar10", "CIFAR10"), ("svhn", "SVHN")):
        reference = v2.AutoAugment(getattr(v2.AutoAugmentPolicy, theirs))
        expected = [tuple((op, p, m or 0) for op, p, m in pair) for pair in reference._policies]
        found = [tuple((op, p, round(m * 9)) for op, p, m in pair) for pair in policies.POLICIES[name]]
        assert found == expected
    for largest, reference in ((policies._NARROW, v2.RandAugment()), (policies._WIDE, v2.TrivialAugmentWide())):
        names = {name.replace("Shift", "Translate") for name in largest}
        assert names | {"Identity"} == set(reference._AUGMENTATION_SPACE)
        for name, most in largest.items():
            magnitudes, signed = reference._AUGMENTATION_SPACE[name.replace("Shift", "Translate")]
            values = magnitudes(31, 100, 100)
            assert (name in policies._SIGNED) == signed
            if values is not None:
                expected = {"Posterize": 8 - most, "Solarize": 1 - most}.get(name, most)
                scale = 100 if name in ("TranslateX", "TranslateY") else 1
                assert float(values[-1]) == pytest.approx(expected * scale, abs=1e-4)


class Rolled:
    """A generator whose partners are torchvision's: each image's is the one before it."""

    def __init__(self, share, row, column):
        self.share, self.places = share, [row, column]

    def random(self):
        return 0.0

    def permutation(self, count):
        return np.roll(np.arange(count), 1)

    def beta(self, a, b):
        return self.share

    def integers(self, below):
        return self.places.pop(0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
def test_batches_are_mixed_as_torchvision_mixes_them(name, share, monkeypatch):
    rng = np.random.default_rng(1)
    batch, labels = rng.random((6, 3, 20, 30), np.float32), rng.integers(0, 4, 6)
    theirs = getattr(v2, name)(num_classes=4)
    monkeypatch.setattr(theirs, "_dist", type("Drawn", (), {"sample": lambda self, shape: torch.tensor(share)})())
    places = [torch.tensor([22]), torch.tensor([5])]  # column, row
    monkeypatch.setattr(torch, "randint", lambda *arguments, **options: places.pop(0))
    expected, soft = theirs(torch.from_numpy(batch), torch.from_numpy(labels))
    mixed, targets = getattr(images, name)(1.0)(batch, images.one_hot(labels, 4), Rolled(share, 5, 22))
    np.testing.assert_allclose(mixed, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(targets, soft.numpy(), atol=1e-6)
