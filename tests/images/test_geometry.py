"""Composed geometry: exact where it can be, and otherwise what step by step gives at high resolution."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparkopt import images
from sparkopt.errors import DataError, ParameterError
from sparkopt.images.geometry import has_horizon, inverse

RNG = np.random.default_rng(0)


def stepwise(pipeline, image, rng=RNG):
    for transform in pipeline.transforms:
        image = transform.apply(image, rng)
    return image


def error(first, second):
    return float(np.sqrt(np.mean((first.astype(float) - second.astype(float)) ** 2)))


def smooth(shape, seed=0):
    noise = np.random.default_rng(seed).random((*shape, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.rint(255 * (noise - noise.min()) / (noise.max() - noise.min())).astype(np.uint8)


def area(image, height, width):
    return images.functional.resize(image, height, width, "area")


EXACT = {
    "resize": ([images.Resize(50, 70)], lambda x: area(x, 50, 70)),
    "shorter side": ([images.ResizeShorterSide(60)], lambda x: area(x, 60, 90)),
    "longer side": ([images.ResizeLongerSide(60)], lambda x: area(x, 40, 60)),
    "crop": ([images.Crop(3, 5, 20, 30)], lambda x: x[3:23, 5:35]),
    "center crop": ([images.CenterCrop(20, 30)], lambda x: x[50:70, 75:105]),
    "flips": ([images.HorizontalFlip(), images.VerticalFlip()], lambda x: x[::-1, ::-1]),
    "quarter turn": ([images.Rotate(90, expand=True)], lambda x: np.rot90(x)),
    "half turn": ([images.Rotate(180)], lambda x: x[::-1, ::-1]),
    "three quarters": ([images.Rotate(-90, expand=True)], lambda x: np.rot90(x, -1)),
    "resize, crop": (
        [images.ResizeShorterSide(80, "area"), images.CenterCrop(60, 60)],
        lambda x: area(x, 80, 120)[10:70, 30:90],
    ),
    "crop, resize": ([images.Crop(8, 4, 100, 120), images.Resize(50, 40)], lambda x: area(x[8:108, 4:124], 50, 40)),
    "crop, resize, flip": (
        [images.Crop(8, 4, 100, 120), images.Resize(50, 40), images.HorizontalFlip()],
        lambda x: area(x[8:108, 4:124], 50, 40)[:, ::-1],
    ),
    "turn, resize": (
        [images.Rotate(90, expand=True), images.Resize(90, 60, "area")],
        lambda x: np.rot90(area(x, 60, 90)),
    ),
    "larger": ([images.Resize(300, 400)], lambda x: images.functional.resize(x, 300, 400)),
    "crop of a crop": ([images.Crop(10, 20, 80, 90), images.Crop(5, 6, 30, 40)], lambda x: x[15:45, 26:66]),
    "letterbox": (
        [images.Letterbox(60, 60, fill=7)],
        lambda x: np.pad(area(x, 40, 60), ((10, 10), (0, 0), (0, 0)), constant_values=7),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_aligned_maps_are_exact(photograph, name):
    steps, reference = EXACT[name]
    image = photograph[:120, :180]
    np.testing.assert_array_equal(images.Compose(steps)(image), reference(image))


@pytest.mark.parametrize("angle", [10.0, 45.0, -30.0])
def test_rotation_is_opencv_s(photograph, angle):
    height, width = photograph.shape[:2]
    # OpenCV counts from pixel centres: the middle of the image is at (width - 1) / 2.
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    expected = cv2.warpAffine(photograph, matrix, (width, height), borderValue=[9] * 4)
    result = images.Rotate(angle, fill=9).apply(photograph, RNG)
    assert np.abs(result.astype(int) - expected).max() <= 2  # the matrix is inverted in another order


def test_perspective_is_opencv_s(photograph):
    height, width = photograph.shape[:2]
    corners = ((0.1, 0.05), (0.95, 0.0), (0.9, 0.98), (0.02, 0.9))
    sides = np.array([width, height])
    start = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * sides - 0.5
    matrix = cv2.getPerspectiveTransform(
        start.astype(np.float32), (np.array(corners) * sides - 0.5).astype(np.float32)
    )
    expected = cv2.warpPerspective(photograph, matrix, (width, height))
    assert error(images.Perspective(corners).apply(photograph, RNG), expected) < 1


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "lanczos"])
@pytest.mark.parametrize("angle", [12.0, 100.0])
def test_a_part_of_a_turned_image_is_sampled_as_the_whole_is(photograph, interpolation, angle):
    turn = images.Rotate(angle, interpolation=interpolation)
    part = images.Compose([turn, images.Crop(150, 200, 40, 60)])(photograph)
    whole = turn.apply(photograph, RNG)[150:190, 200:260]
    assert np.abs(part.astype(int) - whole).max() <= 5  # coordinates are rounded to 1/32 of a pixel, from elsewhere
    assert error(part, whole) < 0.5


@pytest.mark.parametrize(
    "warp",
    [
        images.Rotate(13.3),
        images.Affine(5, scale=1.7, fill=9.0),
        images.Affine(3, scale=0.4, fill=200.0),
        images.Perspective(((0.1, 0.1), (0.9, 0.0), (1.0, 1.0), (0.0, 0.8))),
        images.Compose([images.CenterCrop(60, 80), images.Rotate(45, fill=77)]),
        images.Compose([images.Rotate(8), images.CenterCrop(50, 50), images.Resize(70, 75)]),
    ],
)
def test_colours_are_warped_as_each_channel_is(photograph, warp):
    image = photograph[:101, :143]
    run = warp if isinstance(warp, images.Compose) else images.Compose([warp])
    alone = [run(np.ascontiguousarray(image[..., channel : channel + 1])) for channel in range(3)]
    np.testing.assert_array_equal(run(image), np.concatenate(alone, 2))
    np.testing.assert_array_equal(run(image[:, ::-1]), run(np.ascontiguousarray(image[:, ::-1])))


def test_a_perspective_with_a_horizon_is_opencv_s(photograph):
    image = photograph[:120, :180]
    corners = ((0.45, 0.3), (0.55, 0.3), (1.5, 1.0), (-0.5, 1.0))  # a road; the sky is beyond the horizon
    step = images.Perspective(corners, fill=5)
    assert has_horizon(inverse(step.map((120, 180), RNG).matrix), (120, 180))
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ step.map((120, 180), RNG).matrix @ half
    expected = cv2.warpPerspective(image, matrix, (180, 120), borderValue=[5] * 4)
    assert error(step.apply(image, RNG)[40:], expected[40:]) < 1


def test_expanding_rotation_keeps_the_corners():
    image = np.full((31, 57, 1), 200, np.uint8)
    turned = images.Rotate(30, expand=True).apply(image, RNG)
    assert turned.shape[0] >= 31 * np.cos(np.pi / 6) + 57 * np.sin(np.pi / 6) - 1
    assert abs(turned.astype(float).sum() / image.astype(float).sum() - 1) < 0.01  # nothing is cut off


CHAINS = {
    "rotate, crop, resize": [images.Rotate(17), images.CenterCrop(300, 400), images.Resize(150, 200)],
    "resize, rotate": [images.Resize(160, 200), images.Rotate(-25, fill=128)],
    "rotate twice": [images.Rotate(20), images.Rotate(-20)],
    "crop, rotate": [images.Crop(60, 80, 300, 300), images.Rotate(30)],
    "crop, rotate, resize": [images.Crop(60, 80, 300, 300), images.Rotate(30, fill=50), images.Resize(120, 120)],
    "affine, flip, resize": [
        images.Affine(12, (0.05, -0.1), 1.2, (5, 3)),
        images.HorizontalFlip(),
        images.Resize(200, 220),
    ],
    "perspective, resize": [
        images.Perspective(((0.1, 0.1), (0.9, 0.0), (1.0, 0.9), (0.0, 1.0))),
        images.Resize(150, 150),
    ],
    "letterbox, rotate": [images.Letterbox(256, 256, fill=90), images.Rotate(15, fill=90)],
}


@pytest.mark.parametrize("name", CHAINS)
def test_composed_is_near_to_step_by_step_in_high_resolution(name):
    pipeline = images.Compose(CHAINS[name])
    image = smooth((480, 640))
    once, steps = pipeline(image), stepwise(pipeline, image)
    assert once.shape == steps.shape
    difference = np.abs(once.astype(float) - steps).max(axis=2)
    # The edges of what is filled are a pixel wide and may differ; inside both show the same smooth picture.
    edges = cv2.dilate((cv2.Laplacian(steps[..., 0], cv2.CV_32F) > 20).astype(np.uint8), np.ones((5, 5)))
    assert difference[edges == 0].mean() < 1.5
    assert np.percentile(difference, 97) < 6


def test_composed_is_sharper_than_step_by_step(photograph):
    there_and_back = images.Compose([images.Rotate(20), images.Rotate(-20), images.CenterCrop(100, 100)])
    expected = images.CenterCrop(100, 100).apply(photograph, RNG)
    once = error(there_and_back(photograph), expected)
    assert once == 0  # the rotations cancel
    assert error(stepwise(there_and_back, photograph), expected) > 2


@pytest.mark.parametrize("angle", [0.001, 13.0])
def test_shrinking_does_not_alias(angle):
    stripes = np.zeros((512, 512, 1), np.uint8)
    stripes[:, ::2] = 255  # as fine as can be: every smaller picture of it is grey
    small = images.Compose([images.Rotate(angle, fill=127), images.Resize(64, 64)])(stripes)
    assert np.abs(small[8:-8, 8:-8].astype(float) - 127.5).max() < 12
    aliased = images.Compose([images.Rotate(angle, interpolation="nearest"), images.Resize(64, 64, "nearest")])(
        stripes
    )
    assert np.abs(aliased[8:-8, 8:-8].astype(float) - 127.5).max() > 100


def test_what_a_crop_removed_does_not_come_back():
    image = np.full((100, 100, 1), 250, np.uint8)
    turned = images.Compose([images.Crop(20, 20, 60, 60), images.Rotate(45, fill=3)])(image)
    assert turned[0, 0, 0] == turned[0, -1, 0] == turned[-1, 0, 0] == turned[-1, -1, 0] == 3
    assert turned[30, 30, 0] == 250


def test_different_fills_are_not_fused():
    image = np.full((50, 50, 1), 100, np.uint8)
    pipeline = images.Compose([images.Letterbox(50, 100, fill=10), images.Rotate(20, fill=200)])
    result = pipeline(image)
    assert {10, 200} <= set(np.unique(result).tolist())
    np.testing.assert_array_equal(result, stepwise(pipeline, image))


def test_reduced_decoding_looks_like_whole_decoding(photograph):
    large = cv2.resize(photograph, (1600, 1200), interpolation=cv2.INTER_CUBIC)
    data = images.encode(large, "jpeg", 90)
    for size in ((112, 112), (224, 224), (500, 600)):
        reduced = images.Compose([images.Decode(), images.Resize(*size)])(data)
        whole = Image.fromarray(images.decode(data)).resize(size[::-1], Image.Resampling.BILINEAR)
        assert reduced.shape == (*size, 3)
        assert error(reduced, np.asarray(whole)) < 3


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    angle=st.floats(-180, 180),
    channels=st.sampled_from([1, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.float32]),
    value=st.integers(0, 200),
)
def test_a_constant_stays_constant_and_shapes_are_promised(size, target, angle, channels, dtype, value):
    image = np.full((*size, channels), value, dtype)
    pipeline = images.Compose(
        [images.Resize(*target), images.Rotate(angle, expand=True, fill=value), images.HorizontalFlip()]
    )
    result = pipeline(image)
    assert result.dtype == dtype
    assert result.shape[2] == channels
    assert np.abs(result.astype(float) - value).max() <= (1 if dtype == np.uint8 else 1e-3 * max(value, 1))


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-3, 3), min_size=9, max_size=9))
def test_inverse_is_the_inverse(values):
    matrix = np.array(values).reshape(3, 3)
    if abs(np.linalg.det(matrix)) < 1e-3:
        return
    np.testing.assert_allclose(inverse(matrix) @ matrix, np.eye(3), atol=1e-8)


def test_what_cannot_be_inverted_is_refused():
    with pytest.raises(ParameterError, match="cannot be inverted"):
        inverse(np.zeros((3, 3)))


@pytest.mark.parametrize("crop", [images.Crop(0, 0, 5, 4), images.CenterCrop(4, 5), images.RandomCrop(9, 1)])
def test_an_image_too_small_for_a_crop_is_bad_data(crop):
    with pytest.raises(DataError, match="too small: the crop needs"):
        crop.apply(np.zeros((4, 4, 3), np.uint8), RNG)
