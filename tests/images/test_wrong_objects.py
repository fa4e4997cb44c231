"""What is no image at all is refused in one line, which says what is: no library's own error, no other picture."""

import pathlib
import re
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError, DataError, ParameterError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
BYTES = images.encode(PIXELS, "png")
RESIZE = images.Compose([images.Resize(4, 4)])
DECODE = images.Compose([images.Decode(), images.Resize(4, 4)])

NO_IMAGES = {
    "a path": (lambda: DECODE("photos/1.jpg"), "Got str instead; of a path, give"),
    "a path's object": (lambda: images.decode(pathlib.Path("1.jpg")), "bytes of an image file. Got .*Path instead"),
    "its header": (lambda: images.read_header("1.jpg"), "bytes of an image file. Got str instead"),
    "a mask's": (lambda: images.decode_mask("1.png"), "bytes of an image file. Got str instead"),
    "a picture of Pillow": (lambda: DECODE(Image.fromarray(PIXELS)), "Got Image instead.* numpy.asarray"),
    "a list": (lambda: RESIZE([[1]]), "Got list instead"),
    "nothing": (lambda: RESIZE(np.empty((0, 4, 3), np.uint8)), r"Got \(0, 4, 3\) instead"),
    "a batch": (lambda: RESIZE(np.stack([PIXELS, PIXELS])), r"Got \(2, 8, 12, 3\) instead; .* one at a time"),
    "no steps": (lambda: images.Compose(None), "a list of image transforms. Got None"),
    "one step": (lambda: images.Compose(images.Decode()), "a list of image transforms. Got Decode"),
    "to encode, two channels": (lambda: images.encode(PIXELS[..., :2], "png"), "1, 3 or 4 channels"),
    "to encode, nothing": (lambda: images.encode(PIXELS[:0], "png"), "1, 3 or 4 channels"),
    "to encode, 16 bits": (
        lambda: images.encode(PIXELS.astype(np.uint16)),
        "must be of type uint8 to be encoded. Got",
    ),
    "to encode, floats": (lambda: images.encode(PIXELS / 255, "png"), "uint8 to be encoded, or uint16. Got float64"),
    **{
        f"values of {name}": (
            lambda name=name: RESIZE(PIXELS.astype(name)),
            f"one of the types uint8, .* Got {name} instead; convert it by astype",
        )
        for name in ("bool", "int8", "int32", "int64", "uint64", "float16", "complex64")
    },
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_refused_in_one_line(name):
    call, message = NO_IMAGES[name]
    with pytest.raises(ParameterError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


TEXTS = {
    '[["Resize", {"height": 3}]]': "parameters of Resize are not those of this version: .*'width'",
    '[["Resize", {"height": 3, "width": 3, "sides": 1}]]': "parameters of Resize are not those .*'sides'",
    '[["Resize", 3]]': "no parameters by name for Resize. Got 3",
    '[[["Resize"], {}]]': "unknown transform",
    '[["OneOf", {"transforms": [{}]}]]': "unknown transform",
    "[1]": "must be an images.Compose, or the text",
    "[" * 100_000: "must be an images.Compose, or the text",
    '{"device": "cpu", "transforms": [], "of a later version": 1}': "must be an images.Compose, or the text",
    '[["OfMine", {}]]': "unknown transform, 'OfMine'. If it is of your own, import the module",
}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:70])
def test_a_text_that_is_no_pipeline_is_refused(text):
    with pytest.raises(ParameterError, match=TEXTS[text]):
        images.Compose.from_json(text)


def test_a_class_of_ones_own_does_not_stand_for_one_of_ours():
    """It took its name, so that every pipeline that was read as JSON, and each stage, ran the user's class."""
    ours = images.Compose([images.Invert()])

    @dataclass(frozen=True)
    class Invert(images.ImageTransform):
        def apply(self, image, rng):
            return np.zeros_like(image)

    @dataclass(frozen=True)
    class Blacken(Invert):
        pass

    np.testing.assert_array_equal(images.Compose.from_json(ours.to_json())(PIXELS), 255 - PIXELS)
    mine = images.Compose([Invert()])
    assert not mine(PIXELS).any()
    with pytest.raises(ParameterError, match="Invert has the name of images.Invert, .*: rename the class"):
        mine.to_json()
    renamed = images.Compose([Blacken()])
    assert images.Compose.from_json(renamed.to_json()) == renamed


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_type_are_read(kind):
    mask = images.encode(PIXELS[..., :1], "png")
    np.testing.assert_array_equal(images.decode(kind(BYTES)), PIXELS)
    np.testing.assert_array_equal(images.decode_mask(kind(mask)), PIXELS[..., 0])
    assert images.read_header(kind(BYTES)).size == (8, 12)
    assert DECODE(kind(BYTES)).shape == (4, 4, 3)


@pytest.mark.parametrize("name", ["uint8", "uint16", "int16", "float32", "float64"])
def test_values_of_these_types_are_resized(name):
    assert RESIZE(PIXELS.astype(name)).dtype == name


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_16_bits(channels):
    values = np.random.default_rng(channels).integers(0, 2**16, (9, 7, channels), np.uint16)
    data = images.encode(values, "png")
    color = {1: "gray", 3: "rgb", 4: "rgba"}[channels]
    np.testing.assert_array_equal(images.decode(data, color, depth="keep"), values)
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).reshape(values.shape)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    np.testing.assert_array_equal(read[..., order], values)


def test_grey_pixels_are_encoded_without_an_axis_of_channels():
    assert images.encode(PIXELS[..., 0], "png") == images.encode(PIXELS[..., :1], "png")


def test_one_label_where_each_box_has_one_is_its_rows_error():
    rows = pa.table({"content": [BYTES, BYTES], "boxes": [[[0.0, 0.0, 4.0, 4.0]]] * 2, "labels": [[1], [1, 2]]})
    kernel = images.ImageKernel(DECODE)
    function = images.SampleFunction(kernel, "content", "x", error_column="e", boxes="boxes", labels="labels")
    found = function.applied(rows).to_arrow()["e"].to_pylist()
    assert found == [None, "corrupt: labels must be one for each of the boxes."]


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_no_folder(path):
    kernel = images.ImageKernel(DECODE, mode="FAILFAST")
    with pytest.raises(CorruptImageError, match="unreadable: the path is empty"):
        list(kernel(pa.array([path])))


ONE_VALUE = {
    "MotionBlur.length": lambda: images.MotionBlur((3, 7)),
    "ColorJitter.brightness": lambda: images.ColorJitter(brightness=(0.8, 1.2)),
    "Solarize.threshold": lambda: images.Solarize((0.3, 0.6)),
    "Posterize.bits": lambda: images.Posterize((3, 6)),
    "GaussianNoise.std": lambda: images.GaussianNoise((0.1, 0.2)),
    "Clahe.clip_limit": lambda: images.Clahe((1, 4)),
    "Clahe.tiles": lambda: images.Clahe(4, (8, 8)),
    "Cutout.length": lambda: images.Cutout((8, 16)),
    "RandAugment.operations": lambda: images.RandAugment((1, 3)),
    "Rotate.angle": lambda: images.Rotate((10, 20)),
    "Resize.height": lambda: images.Resize((10, 20), (30, 40)),
    "PaddedRandomCrop.padding": lambda: images.PaddedRandomCrop(32, 32, (4, 4)),
    "Crop.top": lambda: images.Crop((1, 2), 0, 10, 10),
    "Rescale.scale": lambda: images.Rescale((1, 2, 3)),
    "MedianBlur.kernel_size": lambda: images.MedianBlur((3, 5)),
    "ElasticDistortion.alpha": lambda: images.ElasticDistortion((10, 50)),
    "Decode.frame": lambda: images.Decode(frame=(1, 2)),
    "Encode.quality": lambda: images.Encode(quality=(1, 2)),
}


@pytest.mark.parametrize("name", ONE_VALUE)
def test_several_values_for_one_are_refused_where_a_step_is_made(name):
    with pytest.raises(ParameterError, match=name.partition(".")[0]) as caught:
        ONE_VALUE[name]()
    assert "Got (" in str(caught.value)


@pytest.mark.parametrize("step", [images.Rotate(10), images.Brightness(2), images.Cutout(3), images.Pad(1, 1, 1, 1)])
def test_an_image_of_two_axes_has_one_channel(step):
    grey = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    found = images.Compose([step])(grey, np.random.default_rng(0))
    np.testing.assert_array_equal(found, images.Compose([step])(grey[..., None], np.random.default_rng(0)))


@pytest.mark.parametrize("rng", [3, np.random.RandomState(0), "seed"], ids=str)
def test_what_is_no_generator_is_refused(rng):
    with pytest.raises(ParameterError, match=r"rng must be a numpy.random.Generator"):
        images.Compose([images.RandomCrop(3, 3)])(np.zeros((9, 9, 3), np.uint8), rng)


@pytest.mark.parametrize("fill", [300, -1])
@pytest.mark.parametrize(
    "step",
    [
        lambda fill: images.RandomErasing((0.2, 0.3), fill=fill),
        lambda fill: images.Cutout(9, fill=fill),
        lambda fill: images.Letterbox(20, 60, fill),
        lambda fill: images.Pad(1, 1, 1, 1, fill=fill),
        lambda fill: images.Rotate(30, fill=fill),
    ],
)
def test_a_fill_outside_the_type_is_the_nearest_value(step, fill):
    image = np.full((30, 30, 3), 100, np.uint8)
    found = images.Compose([step(fill)])(image, np.random.default_rng(1))
    assert set(np.unique(found)) >= {100, 255 if fill == 300 else 0}


@pytest.mark.parametrize(("name", "ours"), sorted(images.other_names.OTHER_NAMES.items()))
def test_names_of_other_libraries_lead_to_ours(name, ours):
    with pytest.raises(AttributeError, match=re.escape(f"take {ours}")):
        getattr(images, name)
    assert all(hasattr(images, word) for word in re.findall(r"(?<!=)\b[A-Z]\w+", ours))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Transpose", lambda x: [x.transpose(1, 0, 2)]),
        ("RandomRotate90", lambda x: [np.rot90(x, turns) for turns in range(4)]),
        ("D4", lambda x: [np.rot90(y, turns) for turns in range(4) for y in (x, x[:, ::-1])]),
    ],
)
def test_what_is_answered_for_turns_does_what_is_asked_for(name, expected):
    steps = eval(f"[{images.other_names.OTHER_NAMES[name]}]", vars(images))
    pipeline, pixels = images.Compose(steps), np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    found = {pipeline(pixels, np.random.default_rng(seed)).tobytes() for seed in range(60)}
    assert found == {np.ascontiguousarray(one).tobytes() for one in expected(pixels)}


@pytest.mark.parametrize("endings", ["png", (), [""], [".", "png"], [1]], ids=repr)
def test_endings_that_are_none_are_refused(endings, tmp_path):
    for function in (images.survey, images.read):
        with pytest.raises(ParameterError, match=r"endings must be a list of endings, such as \('png', 'jpg'\)"):
            function(tmp_path, endings=endings)


@pytest.mark.parametrize("endings", [("PNG",), (".png",), ("*.png",), ["png"]], ids=repr)
def test_endings_are_taken_as_people_write_them(endings, tmp_path):
    (tmp_path / "a.png").write_bytes(BYTES)
    (tmp_path / "b.PNG").write_bytes(BYTES)
    (tmp_path / "c.jpg").write_bytes(BYTES)
    assert images.survey(tmp_path, endings=endings).images == 2
    assert images.read(tmp_path, endings=endings).to_arrow().num_rows == 2


def struct_rows(*pictures):
    mode = {1: 0, 3: 16, 4: 24}
    return pa.array(
        [
            {
                "origin": "",
                "height": one.shape[0],
                "width": one.shape[1],
                "nChannels": one.shape[2],
                "mode": mode[one.shape[2]],
                "data": one.tobytes(),
            }
            for one in pictures
        ]
    )


@pytest.mark.parametrize(
    "step",
    [
        images.Normalize((0.5,) * 3, (0.5,) * 3),
        images.Pad(1, 1, 1, 1, fill=(1, 2, 3)),
        images.ConvertColor("rgb", "hsv"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_an_image_of_other_channels_is_one_bad_row(step):
    kernel = images.ImageKernel(images.Compose([step]))
    (result,) = kernel(struct_rows(PIXELS, PIXELS[..., :1], PIXELS))
    assert [one is None for one in result[1].to_pylist()] == [True, False, True]


def test_a_path_that_no_file_can_have_is_one_bad_row(tmp_path):
    (tmp_path / "a.png").write_bytes(BYTES)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    paths = pa.array(["x" * 300, str(tmp_path / "loop.png"), str(tmp_path / "a.png")])
    (result,) = images.ImageKernel(DECODE)(paths)
    reasons = result[1].to_pylist()
    assert [reason and reason.partition(":")[0] for reason in reasons] == ["unreadable", "unreadable", None]


def test_the_parts_of_an_image_are_bounded_together():
    pipeline = images.Compose([images.Tiles(10, 10), images.Resize(6000, 6000)])
    with pytest.raises(DataError, match="too large: the pipeline would make 16 images of 6000 x 6000 pixels"):
        pipeline(np.zeros((40, 40, 3), np.uint8))


def test_keys_of_numpy_are_numbers():
    assert images.row_rng(0, np.int64(3)).random() == images.row_rng(0, 3).random()
    with pytest.raises(ParameterError, match=r"Perspective.corners must be four of \(x, y\)"):
        images.Perspective(1)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda: images.decode(BYTES, frame="a"), "frame"),
        (lambda: images.decode(BYTES, frame=0.5), "frame"),
        (lambda: images.decode(BYTES, max_pixels=-1), "max_pixels"),
        (lambda: images.decode(BYTES, max_pixels=1.5), "max_pixels"),
        (lambda: images.decode(BYTES, reduction=3), "reduction"),
        (lambda: images.encode(PIXELS.tolist()), "image"),
        (lambda: images.encode(BYTES), "image"),
    ],
)
def test_arguments_of_functions_are_refused_by_name(function, name):
    with pytest.raises(ParameterError, match=f"^{name} must be"):
        function()


@pytest.mark.parametrize("rows", [pa.array([BYTES]), struct_rows(PIXELS)], ids=["encoded", "decoded"])
def test_a_device_that_is_not_there_is_no_images_fault(rows, monkeypatch):
    monkeypatch.setattr(images.opencl, "device_name", lambda: None)
    steps = [images.Decode(depth="keep"), images.Resize(2, 2)]
    pipeline = images.Compose(steps if pa.types.is_binary(rows.type) else steps[1:], device="opencl")
    with pytest.raises(ParameterError, match="OpenCV finds no OpenCL device here"):
        list(images.ImageKernel(pipeline)(rows))
