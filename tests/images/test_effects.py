"""The steps' results are Pillow's, OpenCV's or a closed form's, and what they choose is distributed as they say."""

import collections
import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from sparkopt import images
from sparkopt.errors import DataError, ParameterError
from sparkopt.images import effects
from sparkopt.images.policies import POLICIES

RNG = np.random.default_rng(0)


def affine(*numbers, resample=Image.Resampling.NEAREST):
    return lambda picture: picture.transform(picture.size, Image.Transform.AFFINE, numbers, resample)


def through_jpeg(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=30, subsampling="4:2:0")
    return Image.open(file)


PILLOW = {  # a step, Pillow's operation, the largest difference in levels
    "AutoContrast": (images.AutoContrast(), ImageOps.autocontrast, 0),
    "Equalize": (images.Equalize(), ImageOps.equalize, 0),
    "Invert": (images.Invert(), ImageOps.invert, 0),
    "Posterize": (images.Posterize(3), lambda x: ImageOps.posterize(x, 3), 0),
    "Solarize": (images.Solarize(100 / 255), lambda x: ImageOps.solarize(x, 100), 0),
    "Sharpness, less": (images.Sharpness(0.2), lambda x: ImageEnhance.Sharpness(x).enhance(0.2), 1),
    "Sharpness, more": (images.Sharpness(1.9), lambda x: ImageEnhance.Sharpness(x).enhance(1.9), 2),
    "Brightness": (images.Brightness(1.4), lambda x: ImageEnhance.Brightness(x).enhance(1.4), 1),
    "Contrast": (images.Contrast(0.6), lambda x: ImageEnhance.Contrast(x).enhance(0.6), 1),
    "Saturation": (images.Saturation(0.4), lambda x: ImageEnhance.Color(x).enhance(0.4), 1),
    "MedianBlur": (images.MedianBlur(5), lambda x: x.filter(ImageFilter.MedianFilter(5)), 0),
    "JpegNoise": (images.JpegNoise(30), through_jpeg, 4),
    "Shear along x": (images.Shear(-0.3, 0, 0, "nearest"), affine(1, 0.3, 0, 0, 1, 0), 0),
    "Shear along y": (images.Shear(0, 0.23, 0, "nearest"), affine(1, 0, 0, -0.23, 1, 0), 0),
    "Translate": (images.Translate(7, -3), affine(1, 0, -7, 0, 1, 3), 0),
}


@pytest.mark.parametrize("name", PILLOW)
def test_the_result_is_pillow_s(photograph, name):
    step, reference, tolerance = PILLOW[name]
    for picture in (Image.fromarray(photograph), Image.fromarray(photograph).convert("L")):
        if name == "JpegNoise" and picture.mode == "L":
            tolerance = 1
        image = np.asarray(picture).reshape(*photograph.shape[:2], -1)
        expected = np.asarray(reference(picture), float).reshape(image.shape)
        difference = np.abs(images.Compose([step])(image) - expected)
        # Samples exactly between two pixels may fall to either.
        assert np.quantile(difference, 0.998 if "Shear" in name else 1) <= tolerance


def test_gamma_clahe_motion_and_downscale(photograph):
    bright = images.Compose([images.Gamma(0.5)])(photograph)
    np.testing.assert_array_equal(bright, np.rint(255 * np.sqrt(photograph / 255)))
    lab = cv2.cvtColor(photograph, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (4, 4)).apply(lab[..., 0].copy())
    np.testing.assert_array_equal(images.Clahe(2, 4).apply(photograph, RNG), cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
    point = np.zeros((21, 21, 1), np.float32)
    point[10, 10] = 1
    for angle, line in ((0, point[10, :]), (90, point[:, 10])):
        blurred = images.MotionBlur(7, angle).apply(point, RNG)
        row = blurred[10, :, 0] if angle == 0 else blurred[:, 10, 0]
        np.testing.assert_allclose(row[7:14], 1 / 7, rtol=1e-6)
        assert blurred.sum() == pytest.approx(1)
        assert len(line) == 21
    small = images.functional.resize(photograph, 64, 96, "area")
    expected = images.functional.resize(small, 256, 384)
    np.testing.assert_array_equal(images.Downscale(4).apply(photograph, RNG), expected)


def test_erasing_is_of_the_size_that_it_says(photograph):
    step = images.RandomErasing((0.1, 0.2), (0.5, 2), fill=(1, 2, 3))
    white = np.full((100, 120, 3), 255, np.uint8)
    shares = []
    for seed in range(200):
        holes = (step.apply(white, np.random.default_rng(seed)) != 255).all(axis=2)
        rows, columns = np.flatnonzero(holes.any(axis=1)), np.flatnonzero(holes.any(axis=0))
        assert holes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.45 < len(rows) / len(columns) < 2.2
        shares.append(holes.mean())
    assert 0.09 < min(shares) < 0.12 < 0.18 < max(shares) < 0.21


def test_crops_and_tiles(photograph):
    five = images.Compose([images.FiveCrop(40, 50), images.Grayscale()])(photograph)
    assert five.shape == (5, 40, 50, 1)
    gray = images.functional.to_grayscale(photograph)
    np.testing.assert_array_equal(five[3], gray[-40:, -50:])
    np.testing.assert_array_equal(five[4], gray[108:148, 167:217])
    tiles = images.Compose([images.Tiles(100, 100, 20, fill=(9, 8, 7))])(photograph)
    assert tiles.shape == (15, 100, 100, 3)  # 3 rows x 5 columns, 80 apart
    np.testing.assert_array_equal(tiles[6], photograph[80:180, 80:180])
    assert tiles[-1][-1, -1].tolist() == [9, 8, 7]
    padded = np.pad(photograph, ((4, 4), (4, 4), (0, 0)), "reflect")
    crop = images.PaddedRandomCrop(256, 384, 4, "reflect").apply(photograph, np.random.default_rng(3))
    assert any(
        np.array_equal(crop, padded[top : top + 256, left : left + 384]) for top in range(9) for left in range(9)
    )
    assert images.PaddedRandomCrop(300, 400, 0).apply(photograph, RNG).shape == (300, 400, 3)
    with pytest.raises(DataError, match="too small: the crops need"):
        images.Compose([images.FiveCrop(999, 9)])(photograph)
    with pytest.raises(ParameterError, match="Encode cannot follow FiveCrop"):
        images.Compose([images.FiveCrop(9, 9), images.Encode()])(photograph)
    assert images.Compose([images.Resize(8, 9), images.ToCHW()])(photograph).shape == (3, 8, 9)


def test_a_field_moves_pixels_as_it_says():
    gradient = np.tile(np.arange(200, dtype=np.float32)[:, np.newaxis, np.newaxis], (1, 150, 1))
    for step in (images.ElasticDistortion(20, 4), images.GridDistortion(5, 0.4)):
        columns, rows = step.field((200, 150), np.random.default_rng(5))
        result = step.apply(gradient, np.random.default_rng(5))
        inside = (rows > 1) & (rows < 198) & (columns > 1) & (columns < 148)
        np.testing.assert_allclose(result[..., 0][inside], rows[inside], atol=0.05)
    edges = images.GridDistortion(5, 0.4).field((200, 150), np.random.default_rng(5))[0][0]
    assert (np.diff(edges) > 0).all()
    assert edges[0] > -0.5
    assert edges[-1] < 149.5


def chosen(step, count=4000):
    rng = np.random.default_rng(1)
    return [[*step.choose(rng)] for _ in range(count)]


def test_choices_are_distributed_as_they_say():
    a, b, c = images.Invert(), images.HorizontalFlip(), images.VerticalFlip()
    found = collections.Counter(one for (one,) in chosen(images.OneOf([a, b, c], [1, 2, 0])))
    assert set(found) == {a, b}
    assert 0.30 < found[a] / 4000 < 0.37
    orders = collections.Counter(tuple(order) for order in chosen(images.RandomOrder([a, b, c])))
    assert len(orders) == 6
    assert min(orders.values()) > 4000 / 6 * 0.8
    rand = [len(steps) for steps in chosen(images.RandAugment(3, 9))]
    assert np.mean(rand) == pytest.approx(3 * 13 / 14, abs=0.05)
    angles = [step.angle for steps in chosen(images.RandAugment(1, 15)) for step in steps if hasattr(step, "angle")]
    assert {round(abs(angle), 6) for angle in angles} <= {15.0, 0.0}
    trivial = collections.Counter(type(step).__name__ for steps in chosen(images.TrivialAugment()) for step in steps)
    assert trivial["Shear"] == pytest.approx(2 * trivial["Rotate"], rel=0.3)
    assert {name: len(pairs) for name, pairs in POLICIES.items()} == dict.fromkeys(POLICIES, 25)
    learnt = chosen(images.AutoAugment("svhn"))
    assert max(map(len, learnt)) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: images.OneOf([]), "RandomChoice.transforms must be a list of image transforms"),
        (lambda: images.OneOf([images.Decode()]), "must be transforms of one image. Got Decode"),
        (lambda: images.RandomApply([images.Compose([])]), "must be transforms of one image"),
        (lambda: images.RandomOrder([images.Invert(), images.ToCHW()]), "must leave the axes as they are. Got ToCHW"),
        (lambda: images.OneOf([images.Invert()], [0]), "weights must be one for each transform, and not all 0"),
        (lambda: images.RandAugment(2, 31), r"RandAugment.magnitude must be a whole number in \[0, 30\]"),
        (lambda: images.AutoAugment("mnist"), "AutoAugment.policy must be one of 'imagenet'"),
        (lambda: images.Tiles(8, 8, 8), r"Tiles.overlap must be a whole number in \[0, 7\]"),
        (lambda: images.MedianBlur(4), "MedianBlur.kernel_size must be an odd number in"),
        (lambda: images.MixUp(0), "MixUp.alpha must be > 0"),
        (lambda: images.CutMix()(np.zeros((2, 3)), np.zeros(2), RNG), "a batch must be images of shape"),
        (lambda: images.one_hot([0, 3], 3), "whole numbers from 0 to 2"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("mixing", [images.MixUp(1.0), images.CutMix(1.0), images.CutMix(0.3)], ids=repr)
def test_batches_are_mixed_with_their_targets(mixing, dtype):
    """With an image whose every pixel is its own target, the mean of a mixed image is its mixed target."""
    numbers = np.arange(8) * 10
    batch = np.tile(numbers.astype(dtype)[:, None, None, None], (1, 3, 20, 30))
    before = batch.copy()
    for seed in range(20):
        mixed, targets = mixing(batch, numbers, np.random.default_rng(seed))
        assert (mixed.dtype, mixed.shape) == (batch.dtype, batch.shape)
        np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), targets, atol=0.51 if dtype == np.uint8 else 1e-3)
        again, _ = mixing(batch, numbers, np.random.default_rng(seed))
        np.testing.assert_array_equal(mixed, again)
    np.testing.assert_array_equal(batch, before)
    assert images.MixUp(p=0)(batch, numbers, RNG)[0] is batch
    np.testing.assert_array_equal(images.one_hot([1, 0], 3), [[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("step", [images.MedianBlur(3), images.MedianBlur(9), images.MotionBlur(5, 30)], ids=str)
def test_blurs_keep_the_transparency(step):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    found = step.apply(image, np.random.default_rng(0))
    np.testing.assert_array_equal(found[..., 3], image[..., 3])
    np.testing.assert_array_equal(found[..., :3], step.apply(image[..., :3], np.random.default_rng(0)))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("step", [images.Equalize(), images.AutoContrast()], ids=lambda step: type(step).__name__)
def test_histograms_of_large_images_are_the_same(step, channels, monkeypatch):
    image = np.random.default_rng(0).integers(20, 200, (50, 40, channels)).astype(np.uint8)
    first = step.apply(image, None)
    monkeypatch.setattr(effects, "_EXACT", 0)
    np.testing.assert_array_equal(step.apply(image, None), first)
