"""Every transform with wrong arguments: of each parameter, missing ones, and those of other libraries."""

import dataclasses
import inspect
import math
import pathlib
import re
from fractions import Fraction

import numpy as np
import pytest

from sparkopt import images
from sparkopt.errors import DataError, ParameterError
from sparkopt.images.mixing import BatchMixing
from sparkopt.images.other_names import OTHER_NAMES, OTHER_PARAMETERS, our_parameter
from tests.images.test_transforms import ALL

NAMES = [name for name in images.__all__ if isinstance(getattr(images, name), type)]
KINDS = {
    name: kind
    for name in NAMES
    if issubclass(kind := getattr(images, name), images.ImageTransform | BatchMixing | images.Compose)
    and not getattr(kind, "__abstractmethods__", ())
    and kind.__name__ == name  # not one of another name
}
GIVEN = {
    "height": 8, "length": 7, "top": 1, "left": 1, "source": "rgb", "target": "gray", "sigma": 1.0, "std": 0.5,
    "mean": 0.5, "scale": 2.0, "bits": 3, "gamma": 2.0, "factor": 2.0, "angle": 10.0, "degrees": 10.0,
    "corners": ((0, 0), (1, 0), (1, 1), (0, 1)), "transforms": [images.HorizontalFlip()], "width": 9,
}  # fmt: skip
"""Of the parameters that must be given."""
NEVER = [
    "no such text", b"1", {}, {"a": 1}, {1, 2}, object(), lambda: 0, int, 2 + 1j, float("nan"), -math.inf, [[[1]]],
    ("a", "b"), (None, None), (math.nan, 1.0), (1, 2, 3, 4, 5), pathlib.Path(), np.zeros((2, 2)), np.array(["a"]),
    np.datetime64("2020"), np.array([{}], object), 10**5000,
]  # fmt: skip
"""Values that no parameter takes."""
SOMETIMES = [
    None, True, False, np.bool_(True), 0, 1, -1, 300, 2**70, 0.5, -0.5, 1.5, 1e30, 1e-30, 5e-324, math.inf, (), (1,),
    (1, 2), (2, 1), [1, 2, 3], (5e-324, 1), np.array([]), np.array(3.0), np.float32(0.5), range(3), Fraction(1, 2),
]  # fmt: skip
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)


def needed(kind):
    fields = dataclasses.fields(kind)
    return {one.name: GIVEN[one.name] for one in fields if one.default is dataclasses.MISSING}


def each_parameter():
    for name, kind in KINDS.items():
        for field in dataclasses.fields(kind):
            yield pytest.param(name, field.name, id=f"{name}.{field.name}")


@pytest.mark.parametrize(("name", "parameter"), list(each_parameter()))
def test_a_wrong_value_is_refused_by_name_or_works(name, parameter):
    kind = KINDS[name]
    arguments = needed(kind)
    if (name, parameter) in {("Pad", "right"), ("Pad", "bottom"), ("Pad", "left")}:
        arguments |= {"right": 1, "bottom": 1, "left": 1}
    for value in (*NEVER, *SOMETIMES):
        try:
            step = kind(**{**arguments, parameter: value})
        except ParameterError as error:
            message = str(error)
            assert message.startswith(f"{name}.{parameter} must "), message
            assert "\n" not in message
            assert len(message) < 500
            continue
        assert not any(value is one for one in NEVER), value
        if isinstance(step, images.ImageTransform) and not isinstance(step, images.Decode | images.Encode):
            works(step)


def works(step):
    pipeline = images.Compose([step])
    assert images.Compose.from_json(pipeline.to_json()) == pipeline
    try:
        with np.errstate(all="ignore"):
            found = pipeline(PIXELS, np.random.default_rng(0))
    except DataError as error:
        assert re.search("too (small|large)", str(error))  # noqa: PT017
    else:
        assert found.size


@pytest.mark.parametrize("name", KINDS)
def test_each_parameter_that_is_missing_is_named(name):
    arguments = needed(KINDS[name])
    for missing in arguments:
        with pytest.raises(TypeError, match=rf"^{name} needs '{missing}'.*\. It is {name}\(.*{missing}") as caught:
            KINDS[name](**{key: value for key, value in arguments.items() if key != missing})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_a_misspelt_or_superfluous_argument_is_named(name):
    kind, arguments = KINDS[name], needed(KINDS[name])
    last = dataclasses.fields(kind)[-1].name
    with pytest.raises(TypeError, match=rf"^{name} has no parameter '{last}_'; take {last}\. It is {name}\("):
        kind(**arguments, **{f"{last}_": 1})
    with pytest.raises(TypeError, match=rf"^{name} has no parameter 'xyzzy'\. It is {name}\("):
        kind(**arguments, xyzzy=1)
    with pytest.raises(TypeError, match=rf"^{name} takes (no|at most \d+) parameters without their names"):
        kind(*range(20))


def test_what_is_given_twice_is_named():
    with pytest.raises(TypeError, match="^Resize: multiple values for argument 'height'"):
        images.Resize(1, 2, height=3)


def test_an_error_inside_a_constructor_is_its_own():
    class Failing:
        def __repr__(self):
            raise TypeError("its own")

    with pytest.raises(TypeError, match="^its own$"):
        images.Resize(Failing(), 3)


def answers():
    """Each name of another library, with the transforms that answer it."""
    for key, texts in OTHER_PARAMETERS.items():
        transform, _, other = key.rpartition(".")
        for name, kind in KINDS.items():
            parameters = [one.name for one in dataclasses.fields(kind)]
            if transform in ("", name) and other not in parameters:
                answer = our_parameter(name, other, parameters)
                if answer is not None:
                    assert answer in OTHER_PARAMETERS.get(f"{name}.{other}", texts)
                    yield name, other, answer


@pytest.mark.parametrize(("name", "other", "ours"), sorted(answers()))
def test_parameters_of_other_libraries_are_answered_by_ours(name, other, ours):
    with pytest.raises(TypeError, match=re.escape(f"{name} has no parameter {other!r}; take {ours}. It is")):
        KINDS[name](**needed(KINDS[name]), **{other: 1})
    for word in re.findall(r"\b([A-Z]\w+|one_hot)\(", ours):
        assert hasattr(images, word)


NOTHING_LIKE_IT = {
    "additional_targets", "allow_shifted", "approximate", "balanced_scale", "border_mode", "brightness_by_max",
    "by_channels", "center", "clip", "color_shift", "compression_type", "crop_border", "cutoff", "direction_range",
    "ensure_safe_range", "fit_output", "ignore", "inplace", "is_check_shapes", "keep_ratio", "keep_size",
    "keypoint_remapping_method", "labels_getter", "mask", "mask_interpolation", "mask_params", "mean", "mean_range",
    "method", "mode", "n", "noise_distribution", "noise_scale_factor", "normalization", "normalized",
    "pad_height_divisor", "pad_if_needed", "pad_position", "pad_width_divisor", "per_channel", "position",
    "replace", "rotate_method", "same_dxdy", "save_applied_params", "strict", "telemetry", "transpose_mask",
    "vertical_flip",
}  # fmt: skip
"""Parameters of other libraries for which there is nothing here, not even in another transform."""


UNLIKE = {"Mosaic", "RandomIoUCrop", "ToDtype"}
"""Transforms of other libraries whose answer has other parameters."""


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_each_parameter_of_another_library_is_here_or_answered(library):
    module = pytest.importorskip(f"tests.images.test_{library}", reason=f"{library} is not installed")
    theirs = module.v2 if library == "torchvision" else module.A
    unanswered, count = [], 0
    called = {name: [name] for name in KINDS}
    for other, ours in OTHER_NAMES.items():
        if other in UNLIKE:
            continue
        for name in set(re.findall(r"[A-Z]\w+", ours)) & set(KINDS):
            called[name].append(other)
    for name, others in called.items():
        for kind in (getattr(theirs, other, None) for other in others):
            for parameter in inspect.signature(kind).parameters if isinstance(kind, type) else ():
                parameters = [one.name for one in dataclasses.fields(KINDS[name])]
                if parameter not in parameters and parameter not in NOTHING_LIKE_IT:
                    count += 1
                    if our_parameter(name, parameter, parameters) is None:
                        unanswered.append((name, kind.__name__, parameter))
    assert not unanswered
    assert count > 15


def test_each_answer_is_given():
    given = {answer for _, _, answer in answers()}
    assert {text for texts in OTHER_PARAMETERS.values() for text in texts} == given


ONE_NUMBER = {
    "CenterCrop": (images.CenterCrop(8), images.CenterCrop(8, 8)),
    "RandomCrop": (images.RandomCrop(8), images.RandomCrop(height=8, width=8)),
    "RandomResizedCrop": (images.RandomResizedCrop(8), images.RandomResizedCrop(8, 8)),
    "PaddedRandomCrop": (images.PaddedRandomCrop(8, padding=3), images.PaddedRandomCrop(8, 8, 3)),
    "FiveCrop": (images.FiveCrop(8), images.FiveCrop(8, 8)),
    "Tiles": (images.Tiles(8), images.Tiles(8, 8)),
    "Letterbox": (images.Letterbox(8), images.Letterbox(8, 8)),
    "Pad": (images.Pad(2), images.Pad(2, 2, 2, 2)),
    "RandomRotation": (images.RandomRotation(8), images.RandomRotation((-8, 8))),
    "RandomAffine": (images.RandomAffine(8, shear=5), images.RandomAffine((-8, 8), shear=(-5, 5))),
    "Normalize": (images.Normalize(1, 2), images.Normalize((1,), (2,))),
}


@pytest.mark.parametrize("name", ONE_NUMBER)
def test_one_number_stands_for_several(name):
    one, several = ONE_NUMBER[name]
    assert one == several
    assert images.Compose.from_json(images.Compose([one]).to_json()) == images.Compose([several])
    found, expected = (images.Compose([step])(PIXELS, np.random.default_rng(1)) for step in (one, several))
    np.testing.assert_array_equal(found, expected)


HINTS = {
    "one side": (lambda: images.Resize(224), r"Resize\(224, 224\) is a square, and ResizeShorterSide\(224\)"),
    "two sides of four": (lambda: images.Pad(1, 2), r"^Pad.bottom must be given: .*, or one number for all four"),
    "p by place": (lambda: images.HorizontalFlip(0.5), "^HorizontalFlip takes no parameters .*; write p=… by its"),
    "a name of another library": (lambda: images.Resize(4, 4, "bilinear"), "Got 'bilinear' instead; take 'linear'"),
    "capitals": (lambda: images.Decode("RGB"), "Got 'RGB' instead; take 'rgb'"),
    "an ending": (lambda: images.Encode(".jpg"), "Got '.jpg' instead; take 'jpeg'"),
    "a class": (lambda: images.Compose([images.Invert]), r"give an instance of it, Invert\(…\)"),
    "steps without a list": (lambda: images.Compose(images.Invert(), images.Invert()), "must be one list"),
    "a number for two": (lambda: images.RandomAffine(1, 0.1), r"Got 0.1 instead; for all alike, \(0.1, 0.1\)"),
    "pixels for shares": (
        lambda: images.Affine(translate=(20, 10)),
        r"\[-1, 1\]. Got \(20, 10\) .* Translate\(x, y\)",
    ),
    "pixels for random shares": (lambda: images.RandomAffine(9, (20, 10)), r"\[0, 1\]. Got \(20, 10\) .* fractions"),
    "a text of a number": (lambda: images.Resize("3", 3), "Got '3' instead; a number, not its text"),
    "several for one": (lambda: images.Rotate((1, 2)), r"Got \(1, 2\) instead; it is one value, not several"),
}


@pytest.mark.parametrize("name", HINTS)
def test_the_way_out_is_said(name):
    call, message = HINTS[name]
    with pytest.raises((TypeError, ParameterError), match=message):
        call()


def test_the_table_has_every_transform():
    assert {type(step).__name__ for step in ALL} <= set(KINDS)
