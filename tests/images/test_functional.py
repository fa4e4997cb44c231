"""Each function equals OpenCV's own result or a formula, for every type, number of channels and odd size."""

import colorsys
import math
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from sparkopt import images
from sparkopt.errors import ParameterError
from sparkopt.images import functional as F
from sparkopt.images import resizing

SIZES = [(1, 1), (1, 7), (5, 1), (13, 17), (32, 31)]
DTYPES = [np.uint8, np.float32]


def picture(size, channels, dtype, seed=0):
    values = np.random.default_rng(seed).random((*size, channels), np.float32)
    return np.rint(values * 255).astype(np.uint8) if dtype == np.uint8 else values


def cv(function, image, *arguments, **options):
    result = function(image, *arguments, **options)
    return result if result.ndim == 3 else result[..., None]


def clip(values, dtype):
    return np.clip(np.rint(values), 0, 255) if dtype == np.uint8 else np.clip(values, 0, 1)


def white(dtype):
    return 255 if dtype == np.uint8 else 1


def luma(image):
    colors = image[..., :3].astype(float)
    return colors if image.shape[2] == 1 else colors @ np.array([[0.299], [0.587], [0.114]])


def with_alpha(colors, image):
    return colors if image.shape[2] < 4 else np.dstack([colors, image[..., 3:]])


def smoothed(image, height, width):
    """Linear sampling of what [a, 1 - 2a, a] smooths along the axes that shrink, a = (s^2 - 1) / 12."""
    values = image.astype(float)
    for axis, length in ((0, height), (1, width)):
        old = image.shape[axis]
        side = max((old / length) ** 2 - 1, 0) / 12
        places = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
        low = np.minimum(places.astype(int), max(old - 2, 0))
        part = (places - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        before, here, after = (
            np.take(values, np.clip(np.arange(old) + step, 0, old - 1), axis) for step in (-1, 0, 1)
        )
        smooth = side * before + (1 - 2 * side) * here + side * after
        values = (1 - part) * np.take(smooth, low, axis) + part * np.take(smooth, np.minimum(low + 1, old - 1), axis)
    return values


def by_area(values, length, axis):
    """Mean over the area of each new pixel: differences of the integral, which is linear between pixel edges."""
    old = values.shape[axis]
    integral = np.insert(np.cumsum(values, axis), 0, 0, axis)
    edges = np.arange(length + 1) * old / length
    low = np.minimum(edges.astype(int), old - 1)
    part = (edges - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
    at_edges = (1 - part) * np.take(integral, low, axis) + part * np.take(integral, low + 1, axis)
    return np.diff(at_edges, axis=axis) * length / old


# name: (ours, the reference, tolerance in parts of full scale)
OPERATIONS = {
    "hflip": (F.hflip, lambda x: cv(cv2.flip, x, 1), 0),
    "vflip": (F.vflip, lambda x: cv(cv2.flip, x, 0), 0),
    "resize larger": (
        lambda x: F.resize(x, 40, 41),
        lambda x: smoothed(x, 40, 41),
        0.003,  # three quarters of a level, where OpenCV has no better than its own sampling
    ),
    "resize smaller": (
        lambda x: F.resize(x, -(-x.shape[0] // 3), -(-x.shape[1] // 4), "area"),
        lambda x: by_area(by_area(x.astype(float), -(-x.shape[0] // 3), 0), -(-x.shape[1] // 4), 1),
        0.00197,  # half a level
    ),
    "resize a little smaller": (
        lambda x: F.resize(x, -(-2 * x.shape[0] // 3), -(-3 * x.shape[1] // 4)),
        lambda x: smoothed(x, -(-2 * x.shape[0] // 3), -(-3 * x.shape[1] // 4)),
        0.008,
    ),
    "resize to half the height, larger width": (
        lambda x: F.resize(x, -(-x.shape[0] // 2), 2 * x.shape[1]),
        lambda x: smoothed(x, -(-x.shape[0] // 2), 2 * x.shape[1]),
        0.008,
    ),
    "resize a little smaller by area": (
        lambda x: F.resize(x, -(-2 * x.shape[0] // 3), -(-3 * x.shape[1] // 4), "area"),
        lambda x: by_area(by_area(x.astype(float), -(-2 * x.shape[0] // 3), 0), -(-3 * x.shape[1] // 4), 1),
        0.00197,
    ),
    "resize nearest": (
        lambda x: F.resize(x, 9, 4, "nearest"),
        lambda x: cv(cv2.resize, x, (4, 9), interpolation=cv2.INTER_NEAREST_EXACT),
        0,
    ),
    "pad": (
        lambda x: F.pad(x, 1, 2, 3, 4, fill=1),
        lambda x: np.pad(x, ((1, 3), (4, 2), (0, 0)), constant_values=1),
        0,
    ),
    "pad edge": (lambda x: F.pad(x, 1, 2, 3, 4, "edge"), lambda x: np.pad(x, ((1, 3), (4, 2), (0, 0)), "edge"), 0),
    "crop": (lambda x: F.crop(x, 0, 0, 1, x.shape[1]), lambda x: x[:1], 0),
    "grayscale": (F.to_grayscale, luma, 0.003),
    "grayscale 3": (lambda x: F.to_grayscale(x, 3), lambda x: np.repeat(luma(x), 3, axis=2), 0.003),
    "brightness": (
        lambda x: F.adjust_brightness(x, 1.4),
        lambda x: with_alpha(clip(1.4 * x[..., :3].astype(float), x.dtype), x),
        0.001,
    ),
    "contrast": (
        lambda x: F.adjust_contrast(x, 0.6),
        lambda x: with_alpha(clip(luma(x).mean() + 0.6 * (x[..., :3] - luma(x).mean()), x.dtype), x),
        0.005,
    ),
    "saturation": (
        lambda x: F.adjust_saturation(x, 1.7),
        lambda x: x if x.shape[2] == 1 else with_alpha(clip(luma(x) + 1.7 * (x[..., :3] - luma(x)), x.dtype), x),
        0.005,
    ),
    "blur": (
        lambda x: F.gaussian_blur(x, 1.2, 5),
        lambda x: cv(cv2.GaussianBlur, x, (5, 5), 1.2),
        0,
    ),
    "rescale": (lambda x: F.rescale(x, 0.5, -1) / 255, lambda x: (0.5 * x.astype(float) - 1) / 255, 1e-6),
    "normalize": (
        lambda x: F.normalize(x, [0.4], [2.0]) / 255,
        lambda x: (x.astype(float) - 0.4) / 2 / 255,
        1e-6,
    ),
    "standardize": (
        lambda x: F.standardize(x),
        lambda x: (x - x.mean(dtype=float)) / max(x.std(dtype=float), x.size**-0.5),
        1e-4,
    ),
    "erase": (
        lambda x: F.erase(x, -1, 0, 3, 2, 1),
        lambda x: np.where((np.arange(x.shape[0])[:, None, None] < 2) & (np.arange(x.shape[1])[:, None] < 2), 1, x),
        0,
    ),
}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_equals_its_reference(name, dtype, channels):
    ours, reference, tolerance = OPERATIONS[name]
    for size in SIZES:
        image = picture(size, channels, dtype)
        before = image.copy()
        result, expected = ours(image), np.asarray(reference(image), float)
        assert result.ndim == 3
        scale = 1 if result.dtype == np.float32 else white(dtype)
        assert result.shape == expected.shape, size
        np.testing.assert_allclose(result / scale, expected / scale, atol=tolerance + 1e-12, err_msg=str(size))
        np.testing.assert_array_equal(image, before, "the input was changed")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.1, 0.45])
def test_hue_turns_as_colorsys_says(dtype, shift):
    image = picture((9, 11), 3, dtype)
    expected = np.empty(image.shape)
    for index in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[index] / white(dtype)).tolist())
        expected[index] = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
    error = np.abs(F.adjust_hue(image, shift) / white(dtype) - expected)
    assert error.max() < (0.05 if dtype == np.uint8 else 1e-3)  # uint8 keeps 256 hues


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_adjustments_that_are_multiplied_are_those_in_turn(channels, dtype):
    image = np.clip(picture((21, 22), channels, np.float32), 0.3, 0.7)  # nothing is clipped on the way
    image = np.rint(255 * image).astype(np.uint8) if dtype == np.uint8 else image
    jitter = images.ColorJitter(0.2, 0.2, 0.2)
    for seed in range(12):
        draws = np.random.default_rng(seed).random(8)
        factors, order = 0.8 + 0.4 * draws[:4], np.argsort(draws[4:])
        steps = image
        for index in order[order < 3]:
            steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)[index](steps, factors[index])
        once = jitter.apply(image, np.random.default_rng(seed))
        tolerance = 3 / 255 if dtype == np.uint8 else 1e-5  # each step in turn is rounded
        np.testing.assert_allclose(once / white(dtype), steps / white(dtype), atol=tolerance)


@pytest.mark.parametrize("space", ["bgr", "hsv", "lab", "ycrcb"])
def test_colour_spaces_come_back(space):
    image = picture((15, 16), 3, np.float32)
    back = F.convert_color(F.convert_color(image, "rgb", space), space, "rgb")
    np.testing.assert_allclose(back, image, atol=0.02)


def test_mixed_resize_shrinks_one_side_and_enlarges_the_other():
    image = picture((60, 10), 3, np.uint8)
    expected = cv2.resize(cv2.resize(image, (10, 20), interpolation=cv2.INTER_AREA), (30, 20))
    np.testing.assert_array_equal(F.resize(image, 20, 30), expected)


@pytest.mark.parametrize(("height", "width"), [(427, 420), (300, 450), (240, 340), (214, 320)])
def test_resizing_photographs_is_nearly_what_pillow_does(height, width):
    for photograph in load_sample_images().images:
        expected = np.asarray(Image.fromarray(photograph).resize((width, height), Image.Resampling.BILINEAR), float)
        ours, aliased = F.resize(photograph, height, width), cv2.resize(photograph, (width, height))
        error, plain = (float(np.sqrt(np.mean((result - expected) ** 2))) for result in (ours, aliased))
        assert error < min(3, plain / 1.3), (error, plain)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_bytes_are_smoothed_by_whole_256ths_and_rounded_once(axis, channels):
    image = picture((33, 41), channels, np.uint8)
    for side in range(1, 65):
        factor = math.sqrt(1 + 12 * side / 256)
        factors = [factor if axis in (0, None) else 1.0, factor if axis in (1, None) else 1.0]
        exact = image.astype(float)
        for along in (0, 1) if axis is None else (axis,):
            padded = np.pad(exact, [(1, 1) if along == each else (0, 0) for each in range(3)], "edge")
            before, here, after = (np.take(padded, np.arange(image.shape[along]) + step, along) for step in range(3))
            exact = (side * before + (256 - 2 * side) * here + side * after) / 256
        found = resizing._smoothed(image, *factors).reshape(image.shape)
        assert np.abs(found - exact).max() <= 0.5


@given(height=st.integers(1, 60), width=st.integers(1, 60), value=st.integers(0, 255))
def test_resizing_keeps_a_constant(height, width, value):
    assert (F.resize(np.full((17, 23, 3), value, np.uint8), height, width) == value).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.crop(x, 1, 0, 4, 4), "is not inside an image of 4 x 4"),
        (lambda x: F.normalize(x, [0, 0], [1.0]), "mean must have 1 or 3 values"),
        (lambda x: F.encode(x, "bmp"), "format must be one of 'jpeg', 'png', 'webp'"),
        (lambda x: F.encode(x, quality=0), "quality must be a whole number in"),
        (lambda x: F.resize(x, 2, 2, "best"), "interpolation must be one of"),
        (lambda x: F.pad(x, 0, 0, 0, 0, "wrap"), "mode must be one of"),
        (lambda x: F.adjust_hue(x, 0.6), "shift must be in"),
        (lambda x: F.convert_color(x, "rgb", "cmyk"), "must be one of"),
        (lambda x: F.decode(F.encode(x), reduction=3), "reduction must be one of"),
    ],
)
def test_bad_parameters_are_named(call, message):
    with pytest.raises(ParameterError, match=message):
        call(np.zeros((4, 4, 3), np.uint8))


def test_the_thread_s_setting_of_intel_s_library_is_put_back():
    image = picture((9, 8), 3, np.uint8)
    for before in (True, False):
        cv2.ipp.setUseIPP_NotExact(before)
        after = cv2.ipp.useIPP_NotExact()  # False where OpenCV was built without it
        first = F.resize(image, 20, 30)
        assert cv2.ipp.useIPP_NotExact() is after
        np.testing.assert_array_equal(F.resize(image, 20, 30), first)


RESIZED = """
import sys
import numpy as np
from sparkopt.images import functional

rng = np.random.default_rng(0)
for _ in range(40):
    rows, columns, height, width = rng.integers(20, 300, 4)
    image = rng.integers(0, 256, (rows, columns, 3), np.uint8)
    for interpolation in ("linear", "area"):
        sys.stdout.buffer.write(functional.resize(image, height, width, interpolation).tobytes())
"""


@pytest.mark.parametrize(("instructions", "share"), [("avx2", 0), ("sse42", 1e-3)])
def test_processors_agree_on_resized_images(instructions, share):
    """Workers of a cluster may have different ones; OpenCV lets a process use those of an older one."""

    def resized(environment):
        run = subprocess.run([sys.executable, "-c", RESIZED], env=os.environ | environment, capture_output=True)
        assert run.returncode == 0, run.stderr.decode()
        return np.frombuffer(run.stdout, np.uint8).astype(int)

    difference = np.abs(resized({"OPENCV_IPP": instructions}) - resized({}))
    assert difference.max() <= 1
    assert np.mean(difference > 0) <= share
