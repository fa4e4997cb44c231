"""Every transform keeps the contract: frozen, checked, written as JSON, and blind to anything but its generator."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import stats

from sparkopt import images
from sparkopt.errors import ParameterError
from sparkopt.images.transform import drawn

ALL = [
    images.Resize(20, 24),
    images.ResizeShorterSide(16),
    images.ResizeLongerSide(30),
    images.Letterbox(32, 40, 5),
    images.Crop(1, 2, 10, 12),
    images.CenterCrop(9, 9),
    images.RandomCrop(8, 9),
    images.RandomResizedCrop(16, 16),
    images.HorizontalFlip(),
    images.VerticalFlip(),
    images.RandomHorizontalFlip(0.4),
    images.RandomVerticalFlip(0.4),
    images.Rotate(12.5, expand=True),
    images.RandomRotation((-20, 20)),
    images.Affine(10, (0.1, 0), 1.1, (3, 2)),
    images.RandomAffine((-5, 5), (0.1, 0.1), (0.9, 1.1), (-3, 3)),
    images.Perspective(((0, 0), (0.9, 0), (1, 1), (0, 0.9))),
    images.RandomPerspective(0.3, p=0.7),
    images.Pad(1, 2, 3, 4, "reflect"),
    images.Grayscale(3),
    images.ColorJitter(0.3, 0.2, 0.4, 0.1),
    images.GaussianBlur((0.5, 1.5)),
    images.GaussianBlur(1.0),
    images.GaussianNoise(0.1),
    images.Cutout(6, 2),
    images.Rescale(1 / 255),
    images.Normalize(0.5, 2),
    images.Standardize(),
    images.Shear(0.2, -0.1, 7),
    images.Translate(3, -2),
    images.Brightness((0.5, 1.5)),
    images.Contrast(0.7),
    images.Saturation((0.2, 0.9)),
    images.Sharpness((0.3, 2)),
    images.Gamma((0.5, 2)),
    images.Invert(),
    images.Solarize(0.4),
    images.Posterize(3),
    images.AutoContrast(),
    images.Equalize(),
    images.Clahe(3, 4),
    images.MedianBlur(3),
    images.MedianBlur(7),
    images.MotionBlur(5),
    images.JpegNoise((20, 40)),
    images.Downscale((2, 3)),
    images.RandomErasing(p=0.9),
    images.ToCHW(),
    images.PaddedRandomCrop(33, 35, 4, "reflect"),
    images.FiveCrop(8, 9),
    images.Tiles(16, 20, 4),
    images.ElasticDistortion(8, 3),
    images.GridDistortion(4, 0.4),
    images.RandomChoice([images.Invert(), images.HorizontalFlip()], [1, 3]),
    images.RandomApply([images.Resize(9, 9), images.Invert()], p=0.6),
    images.RandomOrder([images.Pad(2, 2, 2, 2), images.Crop(0, 0, 10, 9)]),
    images.RandAugment(2, 9),
    images.TrivialAugment(fill=3),
    images.AutoAugment("cifar10"),
]


@pytest.mark.parametrize("transform", [*ALL, images.Encode("png")], ids=repr)
def test_after_the_channels_are_first_a_step_does_the_same_or_is_refused(transform):
    if not transform.on_any_axes:
        with pytest.raises(ParameterError, match=f"^{type(transform).__name__} cannot follow ToCHW"):
            images.Compose([images.ToCHW(), images.Rescale(1), transform])
        return
    image = np.random.default_rng(1).integers(0, 256, (33, 35, 3), np.uint8)
    found = images.Compose([images.ToCHW(), transform])(image)
    np.testing.assert_allclose(found, images.Compose([transform])(image).transpose(2, 0, 1), rtol=1e-6)


@pytest.mark.parametrize("transform", [*ALL, images.Decode(), images.Encode("png")], ids=repr)
def test_the_text_of_a_transform_makes_it_again(transform):
    """It leaves out parameters that have their defaults."""
    text = repr(transform)
    assert eval(text, dict(vars(images))) == transform
    assert "p=1.0" not in text
    pipeline = images.Compose([transform])
    assert repr(pipeline) == f"Compose(transforms=({text},))"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_contract(transform, dtype):
    for channels in (1, 3, 4):
        image = np.random.default_rng(1).random((33, 35, channels)).astype(np.float32)
        image = np.rint(image * 255).astype(np.uint8) if dtype == np.uint8 else image
        before = image.copy()
        pipeline = images.Compose([transform])
        assert images.Compose.from_json(pipeline.to_json()) == pipeline
        first, second = (pipeline(image, np.random.default_rng(7)) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        rng = np.random.default_rng(7)
        applied = image
        for step in drawn([transform], rng):
            applied = step.apply(applied, rng)
        np.testing.assert_allclose(first, applied, atol=1e-6)
        never = images.Compose([dataclasses.replace(transform, p=0)])
        np.testing.assert_array_equal(never(image, np.random.default_rng(7)), image)
        assert images.Compose.from_json(never.to_json()) == never
        np.testing.assert_array_equal(image, before)
        assert first.ndim == (4 if isinstance(transform, images.DividingTransform) else 3)
        assert first.dtype == (np.float32 if transform.__class__.__name__ in FLOATS else dtype)
        if transform.random and not (channels == 1 and isinstance(transform, images.Saturation)):
            different = [pipeline(image, np.random.default_rng(seed)) for seed in range(24)]
            assert any(d.shape != first.shape or (d != first).any() for d in different)
            with pytest.raises(ParameterError, match="rng must be given"):
                pipeline(image)
    with pytest.raises(dataclasses.FrozenInstanceError):
        transform.anything = 1


FLOATS = ("Rescale", "Normalize", "Standardize")


REFERENCES = {  # a transform, its result by NumPy or OpenCV, the tolerance as a fraction of full scale
    "Pad": (images.Pad(1, 2, 3, 4, "edge"), lambda x: np.pad(x, ((1, 3), (4, 2), (0, 0)), "edge"), 0),
    "GaussianBlur": (images.GaussianBlur(1.2, 5), lambda x: cv2.GaussianBlur(x, (5, 5), 1.2).reshape(x.shape), 0),
    "Standardize": (images.Standardize(), lambda x: (x - x.mean(dtype=float)) / x.std(dtype=float), 1e-4),
}
"""For the other transforms, `test_moves.py` and `test_functional.py` have the references."""


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", REFERENCES)
def test_the_result_is_that_of_the_reference(name, dtype):
    transform, reference, tolerance = REFERENCES[name]
    for channels in (1, 3, 4):
        image = np.random.default_rng(2).random((13, 17, channels)).astype(np.float32)
        image = np.rint(image * 255).astype(np.uint8) if dtype == np.uint8 else image
        result = images.Compose([transform])(image, np.random.default_rng(0))
        scale = 255 if result.dtype == np.uint8 else 1
        np.testing.assert_allclose(result / scale, reference(image) / scale, rtol=0, atol=tolerance)


def test_every_public_transform_is_in_the_table():
    named = {name for name in images.__all__ if isinstance(getattr(images, name), type)}
    found = [getattr(images, name) for name in named]
    transforms = {one.__name__ for one in found if issubclass(one, images.ImageTransform)}
    abstract_or_codec = {
        "ImageTransform",
        "GeometricTransform",
        "ChoosingTransform",
        "DividingTransform",
        "Decode",
        "Encode",
        "ConvertColor",
    }
    assert transforms - abstract_or_codec == {type(transform).__name__ for transform in ALL}


def test_the_notebook_shows_every_transform():
    text = (Path(__file__).parents[2] / "notebooks" / "images.ipynb").read_text(encoding="utf-8")
    names = {type(transform).__name__ for transform in ALL} | {"Decode", "ConvertColor"}
    assert [name for name in sorted(names) if f"images.{name}(" not in text] == []
    assert "images.encode(" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: images.Resize(0, 5), r"Resize.height must be a whole number in \[1, 65536\]. Got 0"),
        (lambda: images.Resize(5, 5, "magic"), "Resize.interpolation must be one of"),
        (lambda: images.RandomHorizontalFlip(1.5), r"RandomHorizontalFlip.p must be in \[0, 1\]"),
        (lambda: images.ColorJitter(hue=0.7), "ColorJitter.hue"),
        (lambda: images.Resize(5, 5, p=2), r"Resize.p must be in \[0, 1\]"),
        (lambda: images.Compose([images.Decode(p=0.5)]), "Decode.p must be 1"),
        (lambda: images.RandomRotation((20, -20)), r"low <= high. Got \(20, -20\).* mean \(-20, 20\)\?"),
        (lambda: images.RandomRotation(-5), "RandomRotation.degrees must be >= 0"),
        (lambda: images.RandomRotation((1, 2, 3)), r"a range \(low, high\); one number n stands for \(-n, n\)"),
        (lambda: images.RandomAffine(5, scale=0.5), "RandomAffine.scale must be a range .*; write one value twice"),
        (lambda: images.RandomAffine(5, translate=0.5), r"RandomAffine.translate must be numbers \(x, y\)"),
        (lambda: images.RandomResizedCrop(8, 8, ratio=(2, 1)), "RandomResizedCrop.ratio .*low <= high"),
        (lambda: images.Perspective(((0, 0), (1, 0))), "Perspective.corners must be four"),
        (lambda: images.GaussianBlur((2, 1)), "GaussianBlur.sigma .*low <= high"),
        (lambda: images.Letterbox(8, 8, (1, 2)), "Letterbox.fill must be one number or 1, 3 or 4"),
        (
            lambda: images.Compose([images.Letterbox(8, 8, (1, 2, 3))])(np.zeros((4, 8, 1), np.uint8)),
            "fill has 3 values, .* 1 channels",
        ),
        (lambda: images.Normalize((0, 0), (1, 1)), "Normalize.mean must have 1, 3 or 4 values"),
        (lambda: images.Normalize(0, 0), "Normalize.std must be > 0"),
        (lambda: images.Compose([images.Resize(2, 2), images.Decode()]), "Decode must be the first"),
        (lambda: images.Compose([images.Encode(), images.Resize(2, 2)]), "Encode must be the last"),
        (lambda: images.Compose(["resize"]), "must be image transforms"),
        (lambda: images.Compose.from_json('[["Popen", {}]]'), "unknown transform, 'Popen'"),
        (lambda: images.Compose.from_json("resize"), "a pipeline must be an images.Compose, or the text .* 'resize'"),
        (lambda: images.Compose.from_json([images.Resize(8, 8)]), "a pipeline must be an images.Compose"),
        (lambda: images.Compose.from_json('{"transforms": 3}'), "a pipeline must be an images.Compose"),
        (lambda: images.Compose([images.Resize(2, 2)])(b"x"), "must begin with Decode"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_the_random_parts_are_distributed_as_they_say():
    crop = images.RandomResizedCrop(10, 10, scale=(0.2, 0.6))
    parts = [crop._part((400, 500), np.random.default_rng(seed)) for seed in range(400)]
    areas = np.array([height * width / 200_000 for _, _, height, width in parts])
    ratios = np.log([width / height for _, _, height, width in parts])
    assert stats.kstest(areas, stats.uniform(0.2, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(ratios, stats.uniform(np.log(3 / 4), 2 * np.log(4 / 3)).cdf).pvalue > 1e-3
    noise = images.GaussianNoise(0.1).apply(np.zeros((100, 100, 1), np.float32), np.random.default_rng(0))
    assert stats.kstest(noise.ravel(), stats.norm(0, 0.1).cdf).pvalue > 1e-3


def test_rows_have_independent_generators():
    draws = np.array([images.row_rng(0, key).random(2) for key in range(500)])
    assert stats.kstest(draws[:, 0], "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.15
    distinct = {images.row_rng(s, k, e).random() for s in (0, 1) for k in (b"1", 1, "2", 2) for e in (0, 1)}
    assert len(distinct) == 16


def test_importing_sparkopt_loads_neither_opencv_nor_spark_and_images_loads_no_spark():
    code = (
        "import sys, sparkopt; assert not {'cv2', 'pyspark'} & set(sys.modules); "
        "import sparkopt.images; assert 'pyspark' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
