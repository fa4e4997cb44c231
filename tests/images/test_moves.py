"""Every transform is OpenCV's or NumPy's own operation, for every type and number of channels, down to one pixel."""

import colorsys
import math

import cv2
import numpy as np
import pytest

from sparkopt import images
from sparkopt.errors import ParameterError
from sparkopt.images import functional as F
from sparkopt.images import operations

SIZES = [(1, 1), (1, 7), (5, 1), (13, 17), (32, 31)]
NO_RNG = np.random.default_rng(0)


def picture(size, channels, dtype, smooth=False):
    values = np.random.default_rng(0).random((*size, channels), np.float32)
    if smooth:  # what is read between pixels then hardly depends on how finely places are rounded
        values = cv2.GaussianBlur(values, (0, 0), 3).reshape(values.shape)
    return np.rint(values * 255).astype(np.uint8) if dtype == np.uint8 else values


def shorter(x, length):
    shape = (int(length * side / min(x.shape[:2])) for side in x.shape[:2])  # rounded down, as torchvision does
    return F.resize(x, *shape)


def longer(x, length):
    scale = length / max(x.shape[:2])
    return F.resize(x, max(1, round(x.shape[0] * scale)), max(1, round(x.shape[1] * scale)))


def boxed(x, height, width, fill):
    rows, columns = x.shape[:2]
    scale = min(height / rows, width / columns)
    inner = F.resize(x, max(1, round(rows * scale)), max(1, round(columns * scale)))
    down, across = height - inner.shape[0], width - inner.shape[1]
    around = ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0))
    return np.pad(inner, around, constant_values=fill)


def quarter(x):
    return x[x.shape[0] // 4 : x.shape[0] // 4 + 1, x.shape[1] // 4 : x.shape[1] // 4 + 1]


def middle(x):
    return x[(x.shape[0] - 1) // 2, (x.shape[1] - 1) // 2][None, None]


SLICES = {  # name: (a transform for an image of this size, what NumPy or a function says)
    "Resize": (lambda h, w: images.Resize(9, 4), lambda x: F.resize(x, 9, 4)),
    "Resize, nearest": (lambda h, w: images.Resize(9, 4, "nearest"), lambda x: F.resize(x, 9, 4, "nearest")),
    "Resize, cubic": (lambda h, w: images.Resize(40, 41, "cubic"), lambda x: F.resize(x, 40, 41, "cubic")),
    "ResizeShorterSide": (lambda h, w: images.ResizeShorterSide(6), lambda x: shorter(x, 6)),
    "ResizeLongerSide": (lambda h, w: images.ResizeLongerSide(6), lambda x: longer(x, 6)),
    "Letterbox": (lambda h, w: images.Letterbox(20, 24, 1), lambda x: boxed(x, 20, 24, 1)),
    "Crop": (lambda h, w: images.Crop(h // 4, w // 4, 1, 1), quarter),
    "CenterCrop": (
        lambda h, w: images.CenterCrop(1, 1),
        lambda x: x[round((len(x) - 1) / 2), round((x.shape[1] - 1) / 2)][None, None],
    ),
    "RandomCrop of all": (lambda h, w: images.RandomCrop(h, w), lambda x: x),
    "RandomResizedCrop of all": (
        lambda h, w: images.RandomResizedCrop(9, 4, (1.0, 1.0), (w / h, w / h)),
        lambda x: F.resize(x, 9, 4),
    ),
    "HorizontalFlip": (lambda h, w: images.HorizontalFlip(), lambda x: x[:, ::-1]),
    "VerticalFlip": (lambda h, w: images.VerticalFlip(), lambda x: x[::-1]),
    "RandomHorizontalFlip": (lambda h, w: images.RandomHorizontalFlip(1.0), lambda x: x[:, ::-1]),
    "RandomHorizontalFlip, never": (lambda h, w: images.RandomHorizontalFlip(0.0), lambda x: x),
    "RandomVerticalFlip": (lambda h, w: images.RandomVerticalFlip(1.0), lambda x: x[::-1]),
    "Rotate 90": (lambda h, w: images.Rotate(90, expand=True), np.rot90),
    "Rotate 180": (lambda h, w: images.Rotate(180), lambda x: x[::-1, ::-1]),
    "Rotate 270": (lambda h, w: images.Rotate(270, expand=True), lambda x: np.rot90(x, 3)),
    "Affine of nothing": (lambda h, w: images.Affine(), lambda x: x),
    "Perspective of nothing": (lambda h, w: images.Perspective(((0, 0), (1, 0), (1, 1), (0, 1))), lambda x: x),
    "RandomPerspective, never": (lambda h, w: images.RandomPerspective(p=0.0), lambda x: x),
    **{
        f"Pad, {mode}": (
            lambda h, w, mode=mode: images.Pad(1, 2, 3, 4, mode),
            lambda x, mode=mode: np.pad(x, ((1, 3), (4, 2), (0, 0)), mode),
        )
        for mode in ("constant", "edge", "reflect", "symmetric")
    },
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", SLICES)
def test_pixels_that_only_move_are_numpy_s(name, dtype):
    make, reference = SLICES[name]
    for size in SIZES:
        for channels in (1, 3, 4):
            image = picture(size, channels, dtype)
            result = images.Compose([make(*size)])(image, np.random.default_rng(1))
            assert result.dtype == dtype
            np.testing.assert_allclose(result, reference(image), atol=1e-6, err_msg=f"{size} x {channels}")


def about_the_middle(linear, size, move=(0.0, 0.0)):
    """OpenCV's matrix, which counts from the centre of the first pixel, for a map about the middle of the image."""
    middle = np.array([size[1] - 1, size[0] - 1]) / 2
    return np.column_stack([linear, middle + move - linear @ middle])


def sheared(angle, scale, x, y):
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    shear = np.array([[1, math.tan(math.radians(x))], [math.tan(math.radians(y)), 1]])
    return scale * np.array([[cosine, sine], [-sine, cosine]]) @ shear


CORNERS = ((0.1, 0.05), (0.95, 0.0), (0.9, 0.98), (0.02, 0.9))


def by_corners(x, fill):
    sides = np.array(x.shape[1::-1])
    start = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * sides - 0.5
    matrix = cv2.getPerspectiveTransform(start.astype(np.float32), (CORNERS * sides - 0.5).astype(np.float32))
    return cv2.warpPerspective(x, matrix, x.shape[1::-1], borderValue=[fill] * 4)


def by_affine(x, matrix, fill):
    return cv2.warpAffine(x, matrix, x.shape[1::-1], borderValue=[fill] * 4)


WARPS = {
    "Rotate": (
        images.Rotate(33, fill=1),
        lambda x: by_affine(x, cv2.getRotationMatrix2D(((x.shape[1] - 1) / 2, (len(x) - 1) / 2), 33, 1), 1),
    ),
    "RandomRotation": (
        images.RandomRotation((-20, -20), fill=1),
        lambda x: by_affine(x, about_the_middle(sheared(-20, 1, 0, 0), x.shape), 1),
    ),
    "Affine": (
        images.Affine(10, (0.1, -0.2), 1.2, (6, 4)),
        lambda x: by_affine(
            x, about_the_middle(sheared(10, 1.2, 6, 4), x.shape, (0.1 * x.shape[1], -0.2 * x.shape[0])), 0
        ),
    ),
    "RandomAffine": (
        images.RandomAffine((15, 15), (0, 0), (0.9, 0.9), (5, 5)),
        lambda x: by_affine(x, about_the_middle(sheared(15, 0.9, 5, 0), x.shape), 0),
    ),
    "Perspective": (images.Perspective(CORNERS, fill=1), lambda x: by_corners(x, 1)),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", WARPS)
def test_pixels_that_are_read_in_between_are_opencv_s(name, dtype):
    transform, reference = WARPS[name]
    for size in SIZES:
        for channels in (1, 3, 4):
            image = picture(size, channels, dtype, smooth=True)
            result = transform.apply(image, np.random.default_rng(1))
            white = 255 if dtype == np.uint8 else 1
            # Places are rounded to a 32nd of a pixel, from matrices that are multiplied in another order.
            difference = np.abs(result.astype(float) - reference(image).reshape(result.shape)) / white
            assert difference.max() < 0.04, f"{size} x {channels}"
            assert difference.mean() < 0.004, f"{size} x {channels}"


FUNCTIONS = {
    "resize_shorter_side": ((6, "cubic"), images.ResizeShorterSide),
    "resize_longer_side": ((40, "nearest"), images.ResizeLongerSide),
    "letterbox": ((20, 24, 1, "cubic"), images.Letterbox),
    "center_crop": ((1, 1), images.CenterCrop),
    "rotate": ((33, True, 1, "nearest"), images.Rotate),
    "affine": ((10, (0.1, -0.2), 1.2, (6, 4), 1, "cubic"), images.Affine),
    "perspective": ((CORNERS, 1, "nearest"), images.Perspective),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_transform_is_a_function_too(name, dtype):
    arguments, transform = FUNCTIONS[name]
    for size in SIZES:
        for channels in (1, 3, 4):
            image = picture(size, channels, dtype)
            result = getattr(operations, name)(image, *arguments)
            np.testing.assert_array_equal(result, images.Compose([transform(*arguments)])(image))
            assert result.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_chance_is_handed_to_a_function(dtype):
    for channels in (1, 3, 4):
        image, rngs = picture((13, 17), channels, dtype), [np.random.default_rng(5) for _ in range(4)]
        noisy = images.GaussianNoise(0.2).apply(image, rngs[0])
        np.testing.assert_array_equal(operations.gaussian_noise(image, 0.2, rngs[1]), noisy)
        holed = images.Cutout(5, 2, 1).apply(image, rngs[2])
        np.testing.assert_array_equal(operations.cutout(image, 5, rngs[3], 2, 1), holed)
    assert {*FUNCTIONS, "gaussian_noise", "cutout"} == set(operations.__all__)
    with pytest.raises(ParameterError, match="Letterbox.height must be a whole number"):
        operations.letterbox(image, 0, 5)


def each_pixel(image, convert):
    """Apply a function of one pixel's three numbers between 0 and 1."""
    scale = 255 if image.dtype == np.uint8 else 1
    return np.apply_along_axis(lambda pixel: convert(*(pixel / scale).tolist()), 2, image)


def lab(r, g, b):
    """CIE L*a*b* of sRGB, for the white point D65."""
    linear = [((v + 0.055) / 1.055) ** 2.4 if v > 0.04045 else v / 12.92 for v in (r, g, b)]
    rows = [(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227)]
    xyz = np.array(rows) @ linear / (0.950456, 1.0, 1.088754)
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def ycrcb(r, g, b):
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return y, (r - y) * 0.713 + 0.5, (b - y) * 0.564 + 0.5


SPACES = {  # (formula, what a float is multiplied by to be compared with it, and a byte: scale and offset)
    "hsv": (colorsys.rgb_to_hsv, (1 / 360, 1, 1), (1 / 256, 1 / 255, 1 / 255), (0, 0, 0)),
    "lab": (lab, (1, 1, 1), (100 / 255, 1, 1), (0, -128, -128)),
    "ycrcb": (ycrcb, (1, 1, 1), (1 / 255, 1 / 255, 1 / 255), (0, 0, 0)),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("space", SPACES)
def test_colour_spaces_are_their_formulas(space, dtype):
    formula, of_floats, of_bytes, offset = SPACES[space]
    scale, offset = (of_bytes, offset) if dtype == np.uint8 else (of_floats, 0)
    for size in SIZES:
        image = picture(size, 3, dtype)
        found = images.ConvertColor("rgb", space).apply(image, NO_RNG) * np.array(scale) + offset
        expected = each_pixel(image, formula)
        away = np.abs(found - expected)
        if space == "hsv":  # a hue is on a circle
            away[..., 0] = np.minimum(away[..., 0], 1 - away[..., 0])
        assert away.max() < (0.02 if dtype == np.uint8 else 0.01) * (100 if space == "lab" else 1)  # by tables


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_are_exchanged_repeated_added_and_dropped(dtype):
    white = 255 if dtype == np.uint8 else 1
    for size in SIZES:
        gray, rgb, rgba = (picture(size, channels, dtype) for channels in (1, 3, 4))
        opaque = np.full((*size, 1), white, dtype)
        for source, target, image, expected in [
            ("rgb", "bgr", rgb, rgb[..., ::-1]),
            ("bgr", "rgb", rgb, rgb[..., ::-1]),
            ("rgb", "rgba", rgb, np.dstack([rgb, opaque])),
            ("bgr", "rgba", rgb, np.dstack([rgb[..., ::-1], opaque])),
            ("rgba", "rgb", rgba, rgba[..., :3]),
            ("rgba", "bgr", rgba, rgba[..., 2::-1]),
            ("gray", "rgb", gray, np.repeat(gray, 3, axis=2)),
            ("gray", "bgr", gray, np.repeat(gray, 3, axis=2)),
            ("gray", "rgba", gray, np.dstack([gray, gray, gray, opaque])),
        ]:
            converted = images.ConvertColor(source, target).apply(image, NO_RNG)
            np.testing.assert_array_equal(converted, expected, f"{source} to {target}, {size}")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_hue_leaves_grey_and_transparency_alone(dtype):
    for size in SIZES:
        gray, rgb, rgba = (picture(size, channels, dtype) for channels in (1, 3, 4))
        np.testing.assert_array_equal(F.adjust_hue(gray, 0.3), gray)
        turned = F.adjust_hue(rgba, 0.3)
        np.testing.assert_array_equal(turned[..., 3], rgba[..., 3])
        np.testing.assert_array_equal(turned[..., :3], F.adjust_hue(rgba[..., :3], 0.3))
        assert F.adjust_hue(rgb, 0.3).shape == rgb.shape


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_values_are_scaled_by_channel(channels, dtype):
    mean, std = np.linspace(0.1, 0.4, channels), np.linspace(0.5, 2, channels)
    for size in SIZES:
        image = picture(size, channels, dtype)
        normalized = images.Normalize(tuple(mean), tuple(std)).apply(image, NO_RNG)
        np.testing.assert_allclose(normalized, (image - mean) / std, rtol=1e-5, atol=1e-4)
        rescaled = images.Rescale(0.5, -3).apply(image, NO_RNG)
        np.testing.assert_allclose(rescaled, 0.5 * image.astype(float) - 3, rtol=1e-6)
        assert normalized.dtype == rescaled.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_noise_has_the_spread_that_is_asked_for_and_cutout_removes_a_square(dtype):
    white, gray = (255, 128) if dtype == np.uint8 else (1, np.float32(0.5))
    for channels in (1, 3, 4):
        flat = np.full((61, 67, channels), gray, dtype)
        noise = (images.GaussianNoise(0.1).apply(flat, np.random.default_rng(3)) - flat.astype(float)) / white
        assert abs(noise.mean()) < 0.005
        assert noise.std() == pytest.approx(0.1, rel=0.05)
        holed = images.Cutout(9, fill=1).apply(flat, np.random.default_rng(3))
        rows, columns = np.nonzero((holed != flat).any(axis=2))
        square = holed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (square == 1).all()
        assert square.shape[:2] == (9, 9)  # of this seed, inside the image
        assert (holed != flat).any(axis=2).sum() == 81
    for size in SIZES[:3]:  # a hole that is larger than the image
        assert (images.Cutout(15).apply(np.ones((*size, 3), dtype), NO_RNG) == 0).all()


@pytest.mark.parametrize(("format", "quality"), [("jpeg", 35), ("jpeg", 90), ("webp", 60), ("png", 90)])
def test_encoded_bytes_are_opencv_s(photograph, format, quality):  # noqa: A002
    flag = {"jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality], "webp": [cv2.IMWRITE_WEBP_QUALITY, quality], "png": []}
    _, expected = cv2.imencode(f".{format}", photograph[..., ::-1], flag[format])
    step = images.Compose([images.Encode(format, quality)])
    assert step(photograph) == expected.tobytes() == images.encode(photograph, format, quality)
