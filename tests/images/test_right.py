"""What a step means does not depend on how it is combined, how its parameters are typed, or who wrote the file."""

import io

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageOps

from sparkopt import images
from sparkopt.images.arrow import ImageKernel

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(7, 5), (100, 200), (256, 384), (300, 111), (1, 1), (511, 385)])
def test_nearest_takes_the_pixels_that_pillow_and_opencv_take(photograph, size):
    ours = images.functional.resize(photograph, *size, "nearest")
    theirs = np.asarray(Image.fromarray(photograph).resize(size[::-1], Image.Resampling.NEAREST))
    exact = cv2.resize(photograph, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    np.testing.assert_array_equal(ours, exact)
    np.testing.assert_array_equal(ours, theirs)


STEPS = {
    "gray": images.Grayscale(),
    "three grays": images.Grayscale(3),
    "jitter": images.ColorJitter(0.3, 0.3, 0.3, 0.1),
    "geometry between": images.Rotate(10, fill=(1, 2, 3)),
}


@pytest.mark.parametrize("name", STEPS)
def test_blue_first_is_remembered(photograph, save, name):
    data = save(photograph, "PNG")
    fill = {"geometry between": images.Rotate(10, fill=(3, 2, 1))}
    both = [
        images.Compose([images.Decode(color), step, images.Grayscale()])(data, np.random.default_rng(3))
        for color, step in (("rgb", STEPS[name]), ("bgr", fill.get(name, STEPS[name])))
    ]
    np.testing.assert_array_equal(*both)
    encoded = images.Compose([images.Decode("bgr"), images.Encode("png")])(data)
    np.testing.assert_array_equal(images.decode(encoded), photograph)
    plain = images.Compose([images.Decode("bgr"), images.HorizontalFlip()])(data)
    np.testing.assert_array_equal(plain, photograph[:, ::-1, ::-1])


def test_blue_first_is_the_order_of_spark_s_schema_already(photograph, save):
    column = pa.array([save(photograph, "PNG")])
    found = [
        next(iter(ImageKernel(images.Compose([images.Decode(color)]), "image")(column)))[0]
        for color in ("rgb", "bgr")
    ]
    assert found[0].equals(found[1])
    assert images.Compose([images.Decode("bgr"), images.ConvertColor("bgr", "rgb")]).color == "rgb"


def test_resolution_that_is_lost_on_purpose_stays_lost(photograph):
    once = images.Compose([images.Resize(32, 48), images.Resize(256, 384)])(photograph)
    apart = images.functional.resize(images.functional.resize(photograph, 32, 48), 256, 384)
    np.testing.assert_array_equal(once, apart)
    assert np.abs(once - photograph.astype(float)).mean() > 3


def test_numpy_s_scalars_and_arrays_are_parameters(photograph):
    plain = images.Compose([images.Resize(20, 30), images.Normalize((1.0, 2.0, 3.0), 2.0)])
    numpy = images.Compose(
        [images.Resize(np.int64(20), np.int32(30)), images.Normalize(np.array([1.0, 2.0, 3.0]), np.float32(2))]
    )
    assert plain == numpy
    assert images.Compose.from_json(numpy.to_json()) == plain
    assert images.RandomRotation(20) == images.RandomRotation((-20, 20)) == images.RandomRotation([-20, 20])
    assert images.RandomAffine(5, shear=3) == images.RandomAffine((-5, 5), shear=(-3, 3))


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_of_any_kind_are_decoded(photograph, save, kind):
    data = save(photograph, "PNG")
    np.testing.assert_array_equal(images.decode(kind(data)), photograph)
    np.testing.assert_array_equal(images.Compose([images.Decode()])(kind(data)), photograph)


FILLED = {
    "letterbox": images.Letterbox(64, 64, (10, 20, 30)),
    "rotated": images.Rotate(45, fill=(10, 20, 30)),
    "padded": images.Pad(5, 5, 5, 5, fill=(10, 20, 30)),
    "by a right angle and a crop": images.Compose([images.CenterCrop(50, 50), images.Rotate(30, fill=(10, 20, 30))]),
}


@pytest.mark.parametrize("name", FILLED)
def test_each_channel_has_its_fill(photograph, name):
    white = np.full((100, 200, 3), 255, np.uint8)
    corner = images.Compose([FILLED[name]])(white)[0, 0]
    assert corner.tolist() == [10, 20, 30]


def test_a_probability_is_that_of_the_step():
    step = images.Compose([images.Pad(1, 1, 1, 1, p=0.3)])
    assert step.random
    grown = [step(np.zeros((2, 2, 1), np.uint8), images.row_rng(1, key)).shape[0] == 4 for key in range(2000)]
    assert 0.26 < np.mean(grown) < 0.34


DEPTHS = {
    "png of 16 bits": (".png", np.uint16),
    "tiff of 16 bits": (".tiff", np.uint16),
    "tiff of floats": (".tiff", np.float32),
    "png of 8 bits": (".png", np.uint8),
}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", DEPTHS)
def test_depth_is_kept_where_asked(name, channels):
    ending, dtype = DEPTHS[name]
    values = np.random.default_rng(2).random((9, 11, channels))
    values = values.astype(np.float32) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)
    stored = values if channels == 1 else values[..., [2, 1, 0, 3][:channels]]
    data = cv2.imencode(ending, stored)[1].tobytes()
    color = {1: "gray", 3: "rgb", 4: "rgba"}[channels]
    found = images.Compose([images.Decode(color, depth="keep")])(data)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)
    half = images.Compose([images.Decode(color, depth="keep"), images.Resize(5, 6), images.Rescale(2)])(data)
    reference = images.functional.resize(values, 5, 6).astype(np.float64) * 2
    np.testing.assert_allclose(half, reference, rtol=1e-5)
    opaque = images.decode(data, "rgba", depth="keep")
    if channels < 4:
        assert (opaque[..., 3] == (1 if dtype == np.float32 else np.iinfo(dtype).max)).all()


def test_orientation_of_a_png_and_the_default_image_of_an_animation(photograph):
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    Image.fromarray(photograph).save(
        file, "PNG", exif=exif, save_all=True, append_images=[Image.fromarray(255 - photograph)], default_image=True
    )
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    np.testing.assert_array_equal(images.decode(file.getvalue()), expected)


NAMES = {
    "a.jpg": None, "b.JPG": None, "c.Png": None, "with space.tif": None, "percent%20.png": None, "sharp#1.png": None,
    "übung.jpeg": None, "empty.png": None, "notes.txt": "ending", "README": "ending", "_hidden.png": "hidden",
    ".dot.jpg": "hidden", "_folder/x.jpg": "hidden", "kind=cat/_y.jpg": "hidden", "kind=cat/z.jpg": None,
}  # fmt: skip


@pytest.fixture
def names(tmp_path):
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"" if name == "empty.png" else b"x")
    return tmp_path


def test_what_is_no_image_is_counted_with_its_reason(names, caplog):
    table = images.read(str(names))
    taken = sorted(f"file:{names}/{name}" for name, reason in NAMES.items() if reason is None)
    assert table.to_arrow()["path"].to_pylist() == taken
    found = images.survey(str(names))
    assert (found.images, found.empty) == (len(taken), 1)
    assert found.left_out == {"hidden": 4, "ending": 2}
    assert str(found) in caplog.text
    assert "left out of 15 files: " in str(found)
    assert images.read(str(names), endings=("*",)).rows == len(taken) + 2
    assert images.survey(str(names / "*.jpg")).images == 1


def test_spark_s_pattern_takes_the_same_names():
    """Hadoop's patterns of one name are those of a shell but for braces, which are alternatives."""
    import fnmatch

    from sparkopt.io.image_header import endings_glob, is_image_name

    start, _, rest = endings_glob().partition("{")
    patterns = [start + one for one in rest.rstrip("}").split(",")]
    for name in (name.rpartition("/")[2] for name in NAMES):
        assert any(fnmatch.fnmatchcase(name, one) for one in patterns) == is_image_name(name), name
