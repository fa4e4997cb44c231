"""What holds for every image and every pipeline, looked for by hypothesis."""

import itertools

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sparkopt import images
from sparkopt.images import functional as F
from sparkopt.images.geometry import orientation_map
from sparkopt.images.sampling import sample

SIDES = st.integers(1, 24)
FEW = settings(max_examples=60, deadline=None)


@st.composite
def pictures(draw, dtypes=(np.uint8, np.float32)):
    shape = draw(st.tuples(SIDES, SIDES, st.sampled_from([1, 3, 4])))
    dtype = draw(st.sampled_from(dtypes))
    values = st.integers(0, 255) if dtype == np.uint8 else st.floats(0, 1, width=32)
    return draw(arrays.arrays(dtype, shape, elements=values))


@FEW
@given(image=pictures(), orientation=st.integers(1, 8))
def test_an_orientation_and_its_inverse_are_nothing(image, orientation):
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    turned = F.orient(image, orientation)
    np.testing.assert_array_equal(F.orient(turned, inverse), image)
    np.testing.assert_array_equal(sample(image, orientation_map(orientation, *image.shape[:2])), turned)


@FEW
@given(image=pictures(), around=st.tuples(*[st.integers(0, 30)] * 4), mode=st.sampled_from(list(F.PAD_MODES)))
def test_what_is_padded_and_cropped_is_as_it_was(image, around, mode):
    top, right, bottom, left = around
    padded = images.Pad(top, right, bottom, left, mode).apply(image, np.random.default_rng(0))
    assert padded.shape[:2] == (image.shape[0] + top + bottom, image.shape[1] + left + right)
    np.testing.assert_array_equal(F.crop(padded, top, left, *image.shape[:2]), image)


@FEW
@given(image=pictures(dtypes=(np.uint8,)))
def test_png_loses_nothing(image):
    color = {1: "gray", 3: "rgb", 4: "rgba"}[image.shape[2]]
    np.testing.assert_array_equal(images.decode(images.encode(image, "png"), color), image)


EXACT = [
    images.HorizontalFlip(),
    images.VerticalFlip(),
    images.Rotate(90, expand=True),
    images.Rotate(180),
    images.Rotate(270, expand=True),
    images.CenterCrop(3, 3),
    images.Letterbox(9, 9, 7),
    images.Resize(24, 12, "nearest"),
]


@FEW
@given(image=pictures(), steps=st.lists(st.sampled_from(EXACT), min_size=2, max_size=6))
def test_moves_in_one_are_moves_in_turn(image, steps):
    """Where every step only moves pixels, whatever the order, no bit of the one sampling differs.

    A mirrored linear sampling rounds its weights the other way: there it may be the last bit, or one level.
    """
    image = cv2.resize(image, (12, 12), interpolation=cv2.INTER_NEAREST).reshape(12, 12, -1)
    scaled = [step for step in steps if isinstance(step, images.Resize | images.Letterbox)]
    steps = [step for step in steps if step not in scaled[1:]]  # of several scales in one the middle is not kept
    steps = [step for step in steps if not (scaled and isinstance(step, images.CenterCrop))]
    expected = image
    for step in steps:
        expected = step.apply(expected, np.random.default_rng(0))
    smooth = any(isinstance(step, images.Letterbox) for step in steps)
    tolerance = 0 if not smooth else (1 if image.dtype == np.uint8 else 1e-6)
    np.testing.assert_allclose(images.Compose(steps)(image).astype(float), expected.astype(float), 0, tolerance)


AUGMENT = images.Compose(
    [
        images.Decode(),
        images.RandomResizedCrop(6, 5),
        images.RandomHorizontalFlip(),
        images.ColorJitter(0.4, 0.4, 0.4, 0.1),
        images.GaussianNoise(0.1),
        images.Cutout(2),
    ]
)


@pytest.fixture(scope="module")
def encoded(photograph):
    good = [images.encode(photograph[i : i + 20, i : i + 30], "png") for i in range(9)]
    return [*good[:4], b"no image", *good[4:]]


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 9)), max_bytes=st.integers(1, 2000), order=st.permutations(range(10)))
def test_a_row_is_augmented_alike_in_every_batch(encoded, cuts, max_bytes, order):
    """Whatever comes before it, beside it and after it, and however often it is done."""
    kernel = images.ImageKernel(AUGMENT, "array", seed=3, epoch=2, max_bytes=max_bytes)
    alone = [AUGMENT(data, images.row_rng(3, i, 2)).ravel() if i != 4 else None for i, data in enumerate(encoded)]
    edges = [0, *sorted(cuts), 10]
    found = {}
    for low, high in itertools.pairwise(edges):
        part = list(order)[low:high]
        data, keys = pa.array([encoded[i] for i in part], pa.binary()), pa.array(part, pa.int64())
        next(kernel(data, keys))  # an attempt that is given up after its first piece changes nothing
        values = [value for piece, _ in kernel(data, keys) for value in piece]
        found.update(zip(part, values, strict=True))
    for index, expected in enumerate(alone):
        if expected is None:
            assert not found[index].is_valid
        else:
            np.testing.assert_array_equal(found[index].values.to_numpy(), expected)
