"""albumentations as the reference for transforms and for targets, where it is installed; skipped where it is not.

``pip install albumentations==2.0.8`` in an environment of its own; its folder on PYTHONPATH is enough. Where the two
differ with a reason, the reason stands next to the case.
"""

from __future__ import annotations

import math
import os

import cv2
import numpy as np
import pytest
from scipy import stats

from sparkopt import images

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask an index for a newer version
A = pytest.importorskip("albumentations", reason="albumentations is not installed")
geometric = pytest.importorskip("albumentations.augmentations.geometric.functional")

EXACT, CUBIC, LANCZOS, AREA = cv2.INTER_NEAREST_EXACT, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_AREA
MEAN, STD = (0.2, 0.4, 0.5), (0.3, 0.2, 0.6)
CORNERS = ((0.1, 0.0), (0.9, 0.1), (1.0, 1.0), (0.0, 0.9))
SIZE = (80, 110)
OWN = 0.15  # OpenCV's own linear sampling of bytes, which albumentations has, is up to 0.8 of a level off


def always(kind, *arguments, **options):
    return kind(*arguments, **options, p=1.0)


def jitter(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0):
    return always(A.ColorJitter, *((value, value) for value in (brightness, contrast, saturation, hue)))


def moved(**options):
    return always(A.Affine, **options)


def blurred(angle):
    return always(A.MotionBlur, (7, 7), False, (angle, angle), (0, 0))


def boxed(height, width, fill=0):
    resized = always(A.LongestMaxSize, max_size_hw=(height, width), mask_interpolation=EXACT)
    return A.Compose([resized, always(A.PadIfNeeded, height, width, fill=fill)])


def padded(mode, **options):
    return always(A.Pad, (4, 1, 2, 3), border_mode=mode, **options)


GEOMETRY = {  # name: (a transform, albumentations', the mean difference in levels of 255)
    "HorizontalFlip": (images.HorizontalFlip(), always(A.HorizontalFlip), 0),
    "VerticalFlip": (images.VerticalFlip(), always(A.VerticalFlip), 0),
    "Crop": (images.Crop(3, 4, 40, 50), always(A.Crop, 4, 3, 54, 43), 0),
    # torchvision rounds other halves of an odd number of pixels to the next one
    "CenterCrop": (images.CenterCrop(43, 61), always(A.CenterCrop, 43, 61), 0),
    "Resize, larger": (images.Resize(150, 190), always(A.Resize, 150, 190, mask_interpolation=EXACT), OWN),
    "Resize, smaller": (
        images.Resize(31, 44), always(A.Resize, 31, 44, mask_interpolation=EXACT, area_for_downscale="image"), 0.01
    ),
    "ResizeShorterSide": (
        images.ResizeShorterSide(160), always(A.SmallestMaxSize, 160, mask_interpolation=EXACT), OWN
    ),
    "ResizeLongerSide": (images.ResizeLongerSide(220), always(A.LongestMaxSize, 220, mask_interpolation=EXACT), OWN),
    "Letterbox": (images.Letterbox(180, 165, 7), boxed(180, 165, 7), OWN),
    "Pad, constant": (images.Pad(1, 2, 3, 4, fill=7), padded(cv2.BORDER_CONSTANT, fill=7), 0),
    "Rotate": (images.Rotate(17), always(A.Rotate, (17, 17)), 0.01),
    "Rotate, right angle": (images.Rotate(90), always(A.Rotate, (90, 90)), 0.01),
    "Rotate, filled": (images.Rotate(-40, fill=(9, 99, 199)), always(A.Rotate, (-40, -40), fill=(9, 99, 199)), 0.01),
    "Affine, turned and scaled": (images.Affine(10, (0, 0), 1.2), moved(rotate=(10, 10), scale=(1.2, 1.2)), 0.3),
    "Affine, moved": (
        images.Affine(translate=(0.1, -0.05)), moved(translate_percent={"x": (0.1, 0.1), "y": (-0.05, -0.05)}), 0.01
    ),
    "Affine, sheared": (images.Affine(shear=(5, 0)), moved(shear={"x": (-5, -5), "y": (0, 0)}), 0.01),  # to the left
}  # fmt: skip
COLORS = {
    "Pad, edge": (images.Pad(1, 2, 3, 4, "edge"), padded(cv2.BORDER_REPLICATE), 0),
    "Pad, reflect": (images.Pad(1, 2, 3, 4, "reflect"), padded(cv2.BORDER_REFLECT_101), 0),
    "Pad, symmetric": (images.Pad(1, 2, 3, 4, "symmetric"), padded(cv2.BORDER_REFLECT), 0),
    "Resize, cubic": (images.Resize(150, 190, "cubic"), always(A.Resize, 150, 190, CUBIC), 0.01),
    "Resize, lanczos": (images.Resize(150, 190, "lanczos"), always(A.Resize, 150, 190, LANCZOS), 0.01),
    "Resize, nearest": (images.Resize(37, 64, "nearest"), always(A.Resize, 37, 64, EXACT), 0),
    "Resize, area": (images.Resize(31, 44, "area"), always(A.Resize, 31, 44, AREA), 0.01),
    "Rotate, nearest": (
        images.Rotate(17, interpolation="nearest"), always(A.Rotate, (17, 17), interpolation=cv2.INTER_NEAREST), 0.01
    ),
    "Grayscale": (images.Grayscale(3), always(A.ToGray, 3), 0.01),
    "Brightness": (images.Brightness(1.4), jitter(brightness=1.4), 0.6),  # it cuts off fractions, as below
    "Contrast": (images.Contrast(0.6), jitter(contrast=0.6), 0.7),
    "Saturation": (images.Saturation(1.7), jitter(saturation=1.7), 0.6),
    "Gamma": (images.Gamma(1.5), always(A.RandomGamma, (150, 150)), 0.6),
    "Invert": (images.Invert(), always(A.InvertImg), 0.01),
    "Solarize": (images.Solarize(0.3), always(A.Solarize, (0.3, 0.3)), 0.01),
    "Posterize": (images.Posterize(3), always(A.Posterize, (3, 3)), 0.01),
    "Clahe": (images.Clahe(3, 4), always(A.CLAHE, (3, 3), (4, 4)), 0.01),
    "GaussianBlur": (images.GaussianBlur(1.2, 5), always(A.GaussianBlur, (5, 5), (1.2, 1.2)), 0.1),
    "GaussianBlur, any kernel": (images.GaussianBlur(1.2), always(A.GaussianBlur, 0, (1.2, 1.2)), 0.2),
    "MedianBlur": (images.MedianBlur(3), always(A.MedianBlur, (3, 3)), 0.01),
    "MedianBlur, wide": (images.MedianBlur(7), always(A.MedianBlur, (7, 7)), 0.01),
    **{
        # it turns clockwise, and draws lines between the axes shorter
        f"MotionBlur, {angle}": (images.MotionBlur(7, float(angle)), blurred(180 - angle), least)
        for angle, least in ((0, 0.01), (90, 0.01), (45, 2), (135, 2))
    },
    "Downscale": (  # of float32 it rounds to 256 levels
        images.Downscale(2.0),
        always(A.Downscale, (0.5, 0.5), {"downscale": AREA, "upscale": cv2.INTER_LINEAR}), 0.5
    ),
    "Downscale, nearest": (
        images.Downscale(2.0, "nearest"), always(A.Downscale, (0.5, 0.5), {"downscale": AREA, "upscale": EXACT}), 0.5
    ),
    "Normalize": (images.Normalize(MEAN, STD), always(A.Normalize, MEAN, STD, max_pixel_value=1.0), 1e-3),
    "Standardize": (images.Standardize(), always(A.Normalize, normalization="image"), 1e-3),
}  # fmt: skip
BYTES = {  # these it has for bytes alone, or with other levels of float32
    "Rescale": (images.Rescale(1 / 255), always(A.ToFloat, 255), 1e-6),
}
"""AutoContrast and Equalize are Pillow's, which albumentations' differ from by some levels; ``test_torchvision.py``
and ``test_effects.py`` have their references."""
CASES = GEOMETRY | COLORS | BYTES


@pytest.fixture(scope="module")
def image(photograph):
    return np.ascontiguousarray(photograph[40 : 40 + SIZE[0], 60 : 60 + SIZE[1]])


def applied(reference, image):
    found = reference(image=image)["image"]
    return found.reshape(*found.shape[:2], -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", CASES)
def test_it_is_albumentations(image, name, dtype, channels):
    transform, reference, tolerance = CASES[name]
    if dtype == np.float32 and name in BYTES:
        pytest.skip("it is of bytes")
    if channels == 1 and name in ("Grayscale", "Saturation", "Normalize", "Rotate, filled"):
        pytest.skip("it is of colours")
    given = image if channels == 3 else image[..., :1].copy()
    scale = 1
    if dtype == np.float32:
        given, scale = given.astype(np.float32) / 255, 1 if name in ("Normalize", "Standardize") else 255
    found = images.Compose([transform])(given).astype(float)
    expected = applied(reference, given).astype(float)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() * scale <= tolerance


@pytest.mark.parametrize("shift", [0.1, -0.3, 0.5])
def test_hue(image, shift):
    """It turns the hue in 180 whole steps, where this turns it as far as it is asked to."""
    found = images.functional.adjust_hue(image, shift).astype(int)
    assert np.abs(found - applied(jitter(hue=shift), image)).mean() <= 1.1


@pytest.mark.parametrize("quality", [10, 30, 90])
def test_jpeg(image, quality):
    """It takes red for blue, which JPEG keeps at another precision."""
    reference = always(A.ImageCompression, "jpeg", (quality, quality))
    found = images.Compose([images.JpegNoise(quality)])(np.ascontiguousarray(image[..., ::-1]))[..., ::-1]
    assert np.abs(found.astype(int) - applied(reference, image)).mean() <= 0.01


def test_perspective(image):
    height, width = SIZE
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    source, target = (np.float32([[x * width, y * height] for x, y in points]) for points in (corners, CORNERS))
    matrix = cv2.getPerspectiveTransform(source, target)
    back, forth = (np.array([[1, 0, by], [0, 1, by], [0, 0, 1]]) for by in (-0.5, 0.5))
    sides = (back @ matrix @ forth, width, height)
    expected = geometric.perspective(image, *sides, 0, cv2.BORDER_CONSTANT, False, cv2.INTER_LINEAR)
    found = images.Compose([images.Perspective(CORNERS)])(image)
    assert np.abs(found.astype(int) - expected).mean() <= 0.3


BOXES = np.array([[10, 5, 60, 50], [0, 0, 30, 20], [70.5, 40.25, 109, 79], [100, 70, 110, 80]])
POINTS = np.array([[10.0, 5.0], [60.0, 50.0], [100.0, 70.0], [30.5, 20.25]])
MASK = (np.arange(SIZE[0])[:, np.newaxis] // 10 + np.arange(SIZE[1]) // 10 * 8).astype(np.uint8)


def both(name, image, min_visibility=0.0):
    """A sample by both; keypoints are places of pixels' centres there, but for scaling, and of the plane here."""
    transform, reference, _ = GEOMETRY[name]
    half = 0.0 if name.startswith(("Resize", "Letterbox")) else 0.5
    given = images.Sample(
        image, mask=MASK, boxes=BOXES, labels=range(4), keypoints=POINTS + half, min_visibility=min_visibility
    )
    boxes = A.BboxParams("pascal_voc", label_fields=["labels"], clip=True, min_area=1, min_visibility=min_visibility)
    points = A.KeypointParams("xy", remove_invisible=False)
    composed = A.Compose([reference], bbox_params=boxes, keypoint_params=points)
    expected = composed(image=image, mask=MASK, bboxes=BOXES, labels=[*range(4)], keypoints=POINTS)
    return images.Compose([transform])(given), expected, half


@pytest.mark.parametrize("name", GEOMETRY)
def test_masks_boxes_and_keypoints_move_as_albumentations_moves_them(name, image):
    found, expected, half = both(name, image)
    np.testing.assert_array_equal(found.mask, expected["mask"])
    np.testing.assert_allclose(found.boxes, expected["bboxes"], atol=0.01)
    assert found.labels.tolist() == list(expected["labels"])
    height, width = found.image.shape[:2]
    points = expected["keypoints"] + half
    is_inside = ((points >= 0) & (points <= (width, height))).all(axis=1)
    np.testing.assert_array_equal(np.isfinite(found.keypoints).all(axis=1), is_inside)
    np.testing.assert_allclose(found.keypoints[is_inside], points[is_inside], atol=0.01)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("name", ["Crop", "CenterCrop", "Affine, moved", "Affine, turned and scaled"])
def test_the_same_boxes_are_too_little_seen(name, share, image):
    found, expected, _ = both(name, image, share)
    assert found.labels.tolist() == list(expected["labels"])
    np.testing.assert_allclose(found.boxes, expected["bboxes"], atol=0.01)


def test_parts_are_drawn_alike():
    """Areas and ratios of sides. What is erased is drawn as the paper says, and as torchvision draws it."""
    crop = images.RandomResizedCrop(10, 10, (0.2, 0.6))
    theirs = A.RandomResizedCrop((10, 10), (0.2, 0.6))
    theirs.set_random_seed(3)
    ours = np.array([crop._part((400, 500), np.random.default_rng(seed))[2:] for seed in range(400)])
    drawn = []
    for _ in range(400):
        left, top, right, bottom = theirs.get_params_dependent_on_data({"shape": (400, 500, 3)}, {})["crop_coords"]
        drawn.append((bottom - top, right - left))
    for measure in (lambda sides: sides.prod(1), lambda sides: sides[:, 1] / sides[:, 0]):
        assert stats.ks_2samp(measure(ours), measure(np.array(drawn))).pvalue > 1e-3


def test_noise_and_displacements_are_drawn_alike():
    grey = np.full((200, 200, 1), 0.5, np.float32)
    theirs = always(A.GaussNoise, (0.1, 0.1))
    theirs.set_random_seed(3)
    noise = images.Compose([images.GaussianNoise(0.1)])(grey, np.random.default_rng(0))
    assert stats.ks_2samp(noise.ravel()[::7], theirs(image=grey)["image"].ravel()[::7]).pvalue > 1e-3
    ramp = np.tile(np.arange(300, dtype=np.float32) / 300, (300, 1))[..., np.newaxis]
    theirs = always(A.ElasticTransform, 60, 6, noise_distribution="uniform", border_mode=cv2.BORDER_REFLECT_101)
    theirs.set_random_seed(3)
    elastic = images.Compose([images.ElasticDistortion(60, 6)])
    spreads = []
    for seed in range(8):
        both = elastic(ramp, np.random.default_rng(seed)), theirs(image=ramp)["image"]
        spreads.append([np.std((one.reshape(300, 300) - ramp[..., 0])[40:-40, 40:-40]) for one in both])
    assert math.isclose(*np.mean(spreads, axis=0), rel_tol=0.07)
