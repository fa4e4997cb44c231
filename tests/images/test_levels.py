"""Steps that change each value by itself give in one pass what they give one after another, to the bit."""

import itertools

import numpy as np
import pytest

from sparkopt import images
from sparkopt.errors import ParameterError
from sparkopt.images.levels import Levels, in_tables

STEPS = [
    images.Rescale(1 / 255, -0.1),
    images.Normalize((0.485,), (0.229,)),
    images.Gamma(1.7),
    images.Invert(),
    images.Solarize(0.4),
    images.Posterize(3),
]
RNG = np.random.default_rng(0)


def picture(kind, channels):
    levels, factor = RNG.integers(0, 256, (37, 23, channels)), {"uint16": 257, "float32": 1 / 255}.get(kind, 1)
    return (levels * factor).astype(kind)


def one_after_another(steps, image):
    for step in steps:
        image = step.apply(image, RNG)
    return image


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_several_give_what_they_give_one_after_another(channels, kind):
    image = picture(kind, channels)
    before = image.copy()
    last, levels = images.ToCHW(), STEPS[2:]
    endings = (STEPS[:2], [*STEPS[:2], last], [STEPS[0], last], [levels[1], last])
    for steps in (*itertools.permutations(levels, 2), *((one, *end) for one in levels for end in endings), *endings):
        found, expected = images.Compose(steps)(image), one_after_another(steps, image)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, err_msg=str(steps))
    np.testing.assert_array_equal(image, before, "the input was changed")


def test_every_step_that_says_so_changes_each_value_by_itself():
    """Shuffled pixels give shuffled results."""
    image, order = picture("uint8", 3), RNG.permutation(37 * 23)
    shuffled = image.reshape(-1, 1, 3)[order]
    for step in STEPS:
        assert step.by_value
        found, expected = step.apply(shuffled, RNG), step.apply(image, RNG).reshape(-1, 1, 3)[order]
        np.testing.assert_array_equal(found, expected, err_msg=str(step))


def test_only_those_in_a_row_that_draw_nothing_are_joined():
    rescale, normalize, posterize = STEPS[0], STEPS[1], STEPS[5]
    flip, drawn = images.HorizontalFlip(), images.Gamma((0.5, 2.0))
    found = list(in_tables([posterize, flip, posterize, rescale, normalize, flip, drawn, rescale]))
    assert found == [posterize, flip, Levels((posterize, rescale, normalize)), flip, drawn, rescale]
    planes = images.ToCHW()
    assert list(in_tables([flip, planes])) == [flip, planes]
    assert list(in_tables([flip, rescale, planes, posterize])) == [flip, Levels((rescale, planes)), posterize]


def test_means_of_other_channels_are_an_error_still():
    pipeline = images.Compose([images.Rescale(1 / 255), images.Normalize((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))])
    with pytest.raises(ParameterError, match="mean must have 1 or 4 values"):
        pipeline(picture("uint8", 4))
