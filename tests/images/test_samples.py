"""Masks, boxes and keypoints go where the pixels go: alone, in columns, and one step after another or all at once."""

import io
import re

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError, DataError, ParameterError, SchemaError
from sparkopt.images import sample
from sparkopt.images.arrow import ImageKernel

SIZE = (120, 160)
STEPS = {
    "resize": [images.Resize(64, 200)],
    "flips": [images.HorizontalFlip(), images.VerticalFlip()],
    "crop": [images.Crop(20, 30, 80, 90)],
    "crop and letterbox": [images.Crop(20, 30, 80, 90), images.Letterbox(100, 100)],
    "rotation": [images.Rotate(25, expand=True)],
    "right angle": [images.Rotate(90, expand=True)],
    "affine": [images.Affine(10, (0.1, 0.05), 0.9, (5, 3))],
    "perspective": [images.Perspective(((0.1, 0), (0.9, 0.1), (1, 1), (0, 0.9)))],
    "shear and translate": [images.Shear(0.2), images.Translate(-12, 7)],
    "pad": [images.Pad(5, 6, 7, 8)],
    "padded crop": [images.PaddedRandomCrop(110, 150, 6)],
    "resized crop": [images.RandomResizedCrop(90, 90, (0.5, 0.9))],
    "elastic": [images.ElasticDistortion(40, 6, "constant")],
    "grid": [images.GridDistortion(5, 0.4, "constant")],
    "many": [images.ResizeShorterSide(100), images.Rotate(10), images.CenterCrop(80, 80), images.Pad(2, 2, 2, 2)],
    "a policy": [images.RandAugment(3, 12)],
}


def scene():
    """Dots of the size of a few pixels, each of its own brightness; their mask; and where they are."""
    image, mask = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
    points = [(x, y) for x in (25, 60, 95, 130) for y in (25, 60, 95)]
    for number, (x, y) in enumerate(points):
        for one, value in ((image, (255, 255, 255)), (mask, number + 1)):
            one[y - 4 : y + 4, x - 4 : x + 4] = value
    boxes = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    return images.Sample(image, mask, boxes, np.arange(1, 13), points)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", STEPS)
def test_targets_stay_with_their_pixels(name, seed):
    sample = scene()
    result = images.Compose(STEPS[name])(sample, np.random.default_rng(seed))
    assert isinstance(result, images.Sample)
    assert result.mask.shape == result.image.shape[:2]
    assert len(result.keypoints) == 12
    if name != "a policy":  # its colours may be inverted
        lit, labelled = result.image[..., 0] > 127, result.mask > 0
        assert (lit != labelled).mean() < 0.02
    height, width = result.image.shape[:2]
    for number, (x, y) in enumerate(result.keypoints, start=1):
        rows, columns = np.nonzero(result.mask == number)
        inside = len(rows) and rows.min() > 0 and columns.min() > 0 and rows.max() < height - 1
        if not (inside and columns.max() < width - 1 and len(rows) > 20):
            continue
        # The middle of a dot's pixels is its keypoint, and its box is around them.
        assert abs(columns.mean() + 0.5 - x) < 2
        assert abs(rows.mean() + 0.5 - y) < 2
        (box,) = result.boxes[result.labels == number]
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(box, found, atol=3 if name in ("elastic", "grid", "a policy", "many") else 1.6)
    assert ((result.boxes >= 0) & (result.boxes <= (width, height) * 2)).all()
    assert len(result.boxes) == len(result.labels)
    np.testing.assert_array_equal(sample.boxes, scene().boxes)


def test_one_sampling_of_targets_equals_step_by_step():
    steps = STEPS["many"]
    once, apart = images.Compose(steps)(scene()), scene()
    for step in steps:
        apart = images.Compose([step])(apart)
    np.testing.assert_allclose(once.keypoints, apart.keypoints, atol=1e-6)
    assert once.labels.tolist() == apart.labels.tolist()


@pytest.mark.parametrize("seed", range(12))
def test_boxes_that_stay_boxes_are_those_around_their_corners(seed, monkeypatch):
    """Maps that only scale, flip and shift take a shorter way, with cuts between and without."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(-20, 180, (9, 2, 2)), axis=1)
    boxes = corners.reshape(9, 4)
    given = images.Sample(np.zeros((*SIZE, 1), np.uint8), boxes=boxes, labels=range(9), min_visibility=0.1)
    steps = [
        images.Resize(90, 130), images.HorizontalFlip(), images.Crop(5, 8, 40, 41), images.VerticalFlip(),
        images.Letterbox(64, 64), images.Translate(7, -9), images.ResizeShorterSide(50),
    ]  # fmt: skip
    pipeline = images.Compose([steps[place] for place in rng.permutation(len(steps))[: rng.integers(1, 6)]])
    found = pipeline(given)
    monkeypatch.setattr(sample, "_scaling", lambda geometry: None)
    expected = pipeline(given)
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-9)


def test_boxes_are_clipped_and_filtered():
    boxes = [[0, 0, 10, 10], [35, 0, 55, 10], [50, 50, 60, 60]]
    crop = images.Compose([images.Crop(0, 0, 40, 40)])
    image = np.zeros((100, 100, 1), np.uint8)
    kept = crop(images.Sample(image, boxes=boxes, labels=["a", "b", "c"]))
    assert kept.boxes.tolist() == [[0, 0, 10, 10], [35, 0, 40, 10]]
    assert kept.labels.tolist() == ["a", "b"]
    assert crop(images.Sample(image, boxes=boxes, min_visibility=0.3)).boxes.tolist() == [[0, 0, 10, 10]]
    assert crop(images.Sample(image, boxes=boxes, min_area=60)).boxes.tolist() == [[0, 0, 10, 10]]
    assert crop(images.Sample(image, boxes=[])).boxes.shape == (0, 4)
    gone = crop(images.Sample(image, keypoints=[[5, 6], [70, 1]])).keypoints
    np.testing.assert_array_equal(gone, [[5, 6], [np.nan, np.nan]])
    # What a crop cut off does not come back by padding.
    wide = images.Compose([images.Crop(0, 0, 40, 40), images.Letterbox(40, 80)])
    assert wide(images.Sample(image, boxes=[[30, 0, 60, 10]])).boxes.tolist() == [[50, 0, 60, 10]]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_targets_are_those_of_the_upright_image(orientation):
    sample, exif = scene(), Image.Exif()
    exif[274] = orientation
    turn = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = Image.fromarray(sample.image)
    stored = stored if turn[orientation] is None else stored.transpose(turn[orientation])
    file = io.BytesIO()
    stored.save(file, "JPEG", exif=exif, quality=95)
    pipeline = [images.Resize(60, 80), images.HorizontalFlip()]
    expected = images.Compose(pipeline)(sample)
    encoded = images.Sample(file.getvalue(), sample.mask, sample.boxes, sample.labels, sample.keypoints)
    for reduced in (True, False):
        found = images.Compose([images.Decode(reduced=reduced), *pipeline])(encoded)
        np.testing.assert_array_equal(found.mask, expected.mask)
        np.testing.assert_allclose(found.boxes, expected.boxes)
        np.testing.assert_allclose(found.keypoints, expected.keypoints)
        assert np.abs(found.image.astype(float) - expected.image).mean() < 6


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_mask_s_labels_are_those_that_are_stored(bits):
    labels = np.random.default_rng(0).integers(0, 1 << bits, (9, 13), np.uint8)
    picture = Image.fromarray(labels, "P")
    picture.putpalette(np.random.default_rng(1).integers(0, 256, 3 << bits, np.uint8).tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", bits=bits)
    np.testing.assert_array_equal(images.decode_mask(file.getvalue()), labels)
    np.testing.assert_array_equal(images.decode_mask(images.encode(labels[..., None], "png")), labels)
    wide = cv2.imencode(".png", labels.astype(np.uint16) * 300)[1].tobytes()
    np.testing.assert_array_equal(images.decode_mask(wide), labels.astype(np.uint16) * 300)
    with pytest.raises(CorruptImageError, match="a mask of 3 channels"):
        images.decode_mask(images.encode(np.zeros((2, 2, 3), np.uint8), "png"))


def table():
    sample = scene()
    picture, mask = images.encode(sample.image, "png"), images.encode(sample.mask[..., None], "png")
    rows = 4
    return pa.table(
        {
            "id": [1, 2, 3, 4],
            "content": [picture, picture[:50], picture, picture],
            "mask": pa.array([mask, mask, None, mask], pa.binary()),
            "boxes": [sample.boxes.tolist()] * rows,
            "labels": pa.array([[f"dot {one}" for one in sample.labels]] * rows),
            "points": pa.array([*[sample.keypoints.tolist()] * (rows - 1), None]),
        }
    )


PIPELINE = images.Compose([images.Decode(), images.RandomRotation(20), images.CenterCrop(90, 90)])
COLUMNS = {"mask": "mask", "boxes": "boxes", "labels": "labels", "keypoints": "points"}


def function(mode="PERMISSIVE", **columns):
    kernel = ImageKernel(PIPELINE, mode=mode, seed=5)
    return images.SampleFunction(
        kernel, "content", "image", **(columns or COLUMNS), error_column="error", key_column="id"
    )


def test_columns_in_columns_out_equal_the_function():
    rows = function().applied(table()).to_arrow().to_pylist()
    one = scene()
    encoded = images.Sample(images.encode(one.image, "png"), one.mask, one.boxes, one.labels, one.keypoints)
    expected = PIPELINE(encoded, images.row_rng(5, 1))
    assert [row["error"] and row["error"].split(":")[0] for row in rows] == [None, "truncated", "null", "null"]
    first = rows[0]
    for column, value in (("image", expected.image), ("mask", expected.mask)):
        found = np.frombuffer(first[column]["data"], first[column]["dtype"]).reshape(first[column]["shape"])
        np.testing.assert_array_equal(found, value)
    np.testing.assert_allclose(first["boxes"], expected.boxes)
    np.testing.assert_allclose(first["points"], expected.keypoints)
    assert first["labels"] == [f"dot {label}" for label in expected.labels]
    for row in rows[1:]:
        assert {row[name] for name in ("image", "mask", "boxes", "labels", "points")} == {None}
    kept = function("DROPMALFORMED").applied(table()).to_arrow()
    assert kept["id"].to_pylist() == [1]


def test_masks_are_those_of_their_rows():
    """What is wrong with a mask is its own row's."""
    count, shape = 24, (8, 9)
    picture = images.encode(np.zeros((*shape, 3), np.uint8), "png")
    masks = [images.encode(np.full((*shape, 1), row, np.uint8), "png") for row in range(count)]
    contents = [None if row % 5 == 0 else picture for row in range(count)]
    stored = [None if row % 7 == 1 else masks[row][:40] if row % 7 == 2 else masks[row] for row in range(count)]
    rows = pa.table({"content": pa.array(contents, pa.binary()), "mask": pa.array(stored, pa.binary())})
    pipeline = images.Compose([images.Decode(), images.HorizontalFlip()])
    both = images.SampleFunction(ImageKernel(pipeline), "content", "image", mask="mask", error_column="error")
    for row, found in enumerate(both.applied(rows).to_arrow().to_pylist()):
        if row % 5 == 0:
            assert found["error"] == "null: the row holds no image"
        elif row % 7 in (1, 2):
            assert found["error"].partition(":")[0] == ("null" if row % 7 == 1 else "truncated")
        else:
            assert found["mask"] == {"shape": [*shape], "dtype": "uint8", "data": bytes([row]) * 72}
    strict = images.SampleFunction(ImageKernel(pipeline, mode="FAILFAST"), "content", "image", mask="mask")
    with pytest.raises(CorruptImageError, match=r"null: the row holds no mask \(row 2 of its batch\)"):
        strict.applied(rows.slice(6)).to_arrow()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: images.Sample(b"", boxes=[[1, 2, 3]]), ParameterError, r"boxes must be numbers of shape \(n, 4\)"),
        (lambda: images.Sample(b"", boxes=[[0, 0, 1, 1]], labels=[]), ParameterError, "one for each of the boxes"),
        (lambda: images.Sample(b"", mask=np.zeros(3)), ParameterError, "mask must have the shape"),
        (
            lambda: images.Compose([images.Grayscale()])(
                images.Sample(np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4)))
            ),
            DataError,
            "corrupt: the mask has 3 x 4 pixels, and the image 4 x 4",
        ),
        (lambda: images.Compose([images.FiveCrop(2, 2)])(scene()), ParameterError, "has no place for targets"),
        (lambda: function(labels="labels"), ParameterError, "labels needs boxes"),
        (lambda: function(boxes="nowhere").applied(table()), SchemaError, "there is no column 'nowhere'"),
    ],
)
def test_mistakes_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


POINTS = {
    "infinity": ([[5.0, 6.0], [np.inf, 3.0]], "Keypoint 1 is [inf, 3.0]; both numbers must be finite, or both NaN"),
    "below": ([[-np.inf, 3.0]], "Keypoint 0 is [-inf, 3.0]; both numbers must be finite"),
    "one NaN": ([[5.0, 6.0], [7.0, np.nan], [1.0, 2.0]], "Keypoint 1 is [7.0, nan]; both numbers must be finite"),
    "one null": ([[None, 6.0]], "Keypoint 0 is [nan, 6.0]; both numbers must be finite"),
    "a null point": ([[5.0, 6.0], None], "keypoints must be numbers of shape (n, 2)"),
    "three numbers": ([[5.0, 6.0, 1.0]], "keypoints must be numbers of shape (n, 2)"),
}


@pytest.mark.parametrize("name", POINTS)
def test_keypoints_that_are_none_are_a_bad_row(name):
    """As boxes are whose sides are the wrong way round: null, left out or an error, by the mode."""
    points, message = POINTS[name]
    with pytest.raises(ParameterError, match=f"^.*{re.escape(message)}"):
        images.Sample(scene().image, keypoints=points)
    rows = table().take([0, 0, 0])
    lists = pa.array([[[5, 6]], points, []], pa.list_(pa.list_(pa.float64())))
    rows = rows.set_column(rows.column_names.index("points"), "points", lists)
    pipeline = images.Compose([images.Decode(), images.HorizontalFlip()])

    def applied(mode):
        kernel = ImageKernel(pipeline, mode=mode)
        both = images.SampleFunction(kernel, "content", "image", keypoints="points", error_column="error")
        return both.applied(rows).to_arrow()

    found = applied("PERMISSIVE")
    assert [row and row.partition(":")[0] for row in found["error"].to_pylist()] == [None, "corrupt", None]
    assert message in found["error"][1].as_py()
    assert found["points"].to_pylist() == [[[155.0, 6.0]], None, []]
    assert applied("DROPMALFORMED")["points"].to_pylist() == [[[155.0, 6.0]], []]
    with pytest.raises(CorruptImageError, match=re.escape(message) + r".*\(row 1 of its batch\)"):
        applied("FAILFAST")


def test_keypoints_that_left_the_image_are_taken_again():
    """What one pipeline returns is a sample of the next, and rows may have unlike numbers of keypoints."""
    crop = images.Compose([images.Decode(), images.Crop(0, 0, 40, 40)])
    once = images.SampleFunction(ImageKernel(crop), "content", "image", keypoints="points", drop_input=False)
    rows = table().select(["content", "points"]).take([0, 0])
    rows = rows.set_column(1, "points", pa.array([[[5, 6], [70, 1]], [[1, 2]]], pa.list_(pa.list_(pa.float64()))))
    first = once.applied(rows).to_arrow()
    again = once.applied(first.drop_columns("image")).to_arrow()
    for found in (first, again):
        np.testing.assert_array_equal(found["points"][0].as_py(), [[5, 6], [np.nan, np.nan]])
        assert found["points"][1].as_py() == [[1, 2]]


def test_a_bad_image_is_named_by_its_path_where_it_has_one(tmp_path):
    file = tmp_path / "no image.png"
    file.write_bytes(b"no image")
    rows = ImageKernel(images.Compose([images.Grayscale()]), "image", mode="FAILFAST")
    one = {
        "origin": "s3://key:secret@photos/1.png",
        "height": 2,
        "width": 2,
        "nChannels": 3,
        "mode": 16,
        "data": b"1",
    }
    columns = {
        f"row 0 of its batch, '{file}'": pa.array([str(file), str(file)]),
        "row 0 of its batch, 's3://key:***@photos/1.png'": pa.array([one, one]),
        "row 0 of its batch)": pa.array([b"no image", b"no image"]),
        "row 0 of its batch). ": pa.array([{**one, "origin": ""}] * 2),
    }
    for place, column in columns.items():
        kernel = rows if pa.types.is_struct(column.type) else ImageKernel(PIPELINE, mode="FAILFAST")
        with pytest.raises(CorruptImageError, match=re.escape(place)):
            list(kernel(column))


@pytest.mark.usefixtures("minutes")
def test_spark_gives_what_the_function_gives(spark):
    rows = table()
    df = spark.createDataFrame(rows)
    both = function()
    found = sorted(df.mapInArrow(both, both.schema(df.schema)).collect(), key=lambda row: row.id)
    for theirs, ours in zip(found, both.applied(rows).to_arrow().to_pylist(), strict=True):
        assert theirs.error == ours["error"]
        assert theirs.labels == ours["labels"]
        if theirs.error is None:
            np.testing.assert_array_equal(theirs.boxes, ours["boxes"])
            assert bytes(theirs.mask.data) == ours["mask"]["data"]


CHAINS = {
    "kept whole": [images.HorizontalFlip(), images.Resize(64, 200)],
    "cut between": [images.CenterCrop(60, 60), images.VerticalFlip(), images.Pad(3, 4, 5, 6)],
    "turned": [images.Rotate(90, expand=True), images.Crop(10, 10, 50, 50)],
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("limits", [(0.0, 1.0), (0.3, 0.0), (0.0, 400.0)], ids=["any", "visible", "large"])
def test_a_few_boxes_are_moved_as_many_are(name, limits, monkeypatch):
    rng = np.random.default_rng(len(name))
    corners = rng.uniform(-20, 150, (40, 2))
    boxes = np.hstack([corners, corners + rng.uniform(0, 60, (40, 2))])
    if name != "turned":  # NumPy warns of infinities in a product of matrices
        boxes[3, 2], boxes[7] = np.inf, (-np.inf, 5, np.inf, 60)
    one = images.Sample(np.zeros((*SIZE, 3), np.uint8), None, boxes, np.arange(40), None, *limits)
    pipeline = images.Compose(CHAINS[name])
    many = pipeline(one)
    monkeypatch.setattr(sample, "_FEW", 40)
    few = pipeline(one)
    assert 0 < len(many.boxes) < 40
    np.testing.assert_array_equal(few.boxes, many.boxes)
    np.testing.assert_array_equal(few.labels, many.labels)


MOVES = [images.ElasticDistortion(), images.GridDistortion(), images.Rotate(10), images.PaddedRandomCrop(50, 50)]


@pytest.mark.parametrize(
    "move", [*MOVES, images.HorizontalFlip(), images.Pad(1, 1, 1, 1)], ids=lambda one: type(one).__name__
)
def test_an_image_without_boxes_or_points_is_moved(move):
    one = images.Sample(scene().image, boxes=[], labels=[], keypoints=[])
    found = images.Compose([move])(one, np.random.default_rng(0))
    assert (found.boxes.shape, found.labels.shape, found.keypoints.shape) == ((0, 4), (0,), (0, 2))


@pytest.mark.parametrize("move", [*MOVES, images.HorizontalFlip()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "float32"])
def test_masks_of_any_type_are_moved_as_bytes_are(kind, move):
    picture, labels = scene().image, (scene().mask > 0).astype(kind)
    found = images.Compose([move])(images.Sample(picture, labels), np.random.default_rng(0)).mask
    bytes_ = images.Compose([move])(images.Sample(picture, labels.astype(np.uint8)), np.random.default_rng(0)).mask
    assert found.dtype == {"bool": "uint8", "uint32": "int32", "int64": "int32"}.get(kind, kind)
    assert np.count_nonzero(found != bytes_) <= 2  # OpenCV rounds positions halfway otherwise by type


def test_the_label_of_pixels_outside_is_kept_whatever_the_masks_type():
    """-100 is what PyTorch's losses leave out."""
    one = images.Sample(scene().image, scene().mask.astype(np.uint8), mask_fill=-100)
    found = images.Compose([images.Rotate(45)])(one).mask
    assert found.dtype == np.int32
    assert found[0, 0] == found[-1, -1] == -100
    with pytest.raises(ParameterError, match="mask must have labels of 32 bits. Got 0 to 1099511627776"):
        images.Sample(scene().image, np.array([[0, 2**40]]))


def test_columns_after_the_targets_keep_their_places():
    one = scene()
    rows = pa.table(
        {
            "content": [images.encode(one.image, "png")],
            "boxes": [one.boxes.tolist()],
            "name": ["a"],
            "mask": [images.encode(one.mask[..., None].astype(np.uint8), "png")],
            "more": [1],
        }
    )
    kernel = ImageKernel(images.Compose([images.Decode(), images.HorizontalFlip()]))
    found = images.SampleFunction(kernel, "content", "image", boxes="boxes", mask="mask").applied(rows)
    assert found.to_arrow().column_names == found.names == ["boxes", "name", "mask", "more", "image"]
    assert found.to_arrow()["name"].to_pylist() == ["a"]


@pytest.mark.parametrize("box", [[30, 40, 10, 50], [30, 40, 50, 20], [np.nan, 0, 1, 1], [0, 0, 1, np.nan]], ids=repr)
def test_boxes_that_are_none_are_refused(box):
    """Width and height in place of the far corner, or no number: they vanished in some steps, and not in others."""
    with pytest.raises(
        ParameterError, match=r"boxes must be \[x_min, y_min, x_max, y_max\].*of \[x, y, width, height\]"
    ):
        images.Sample(scene().image, boxes=[[0, 0, 4, 4], box])
    rows = pa.table({"content": [images.encode(scene().image, "png")] * 2, "boxes": [[box], [[0, 0, 4.0, 4]]]})
    kernel = ImageKernel(images.Compose([images.Decode(), images.HorizontalFlip()]))
    both = images.SampleFunction(kernel, "content", "image", boxes="boxes", error_column="error")
    reasons = both.applied(rows).to_arrow()["error"].to_pylist()
    assert reasons[0].startswith("corrupt: boxes must be")
    assert reasons[1] is None


SIZES = [(1, 1), (1, 9), (8, 1), (7, 13), (64, 48), (33, 100)]
TURNS = {
    "as it is": ([], lambda x: x),
    "mirrored": ([images.HorizontalFlip()], lambda x: x[:, ::-1]),
    "upside down": ([images.VerticalFlip()], lambda x: x[::-1]),
    "half turn": ([images.Rotate(180)], lambda x: x[::-1, ::-1]),
    "quarter turn": ([images.Rotate(90, expand=True)], np.rot90),
    "quarter turn, mirrored": (
        [images.Rotate(90, expand=True), images.HorizontalFlip()],
        lambda x: np.rot90(x)[:, ::-1],
    ),
    "three quarters": ([images.Rotate(-90, expand=True)], lambda x: np.rot90(x, -1)),
}


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resized_and_turned_labels_are_opencv_s_nearest(size, name, kind):
    steps, turned = TURNS[name]
    for height, width in SIZES:
        mask = np.random.default_rng(height).integers(0, 250, (height, width)).astype(kind)
        expected = turned(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
        one = images.Sample(np.zeros((height, width, 3), np.uint8), mask=mask)
        found = images.Compose([images.Resize(*size), *steps])(one).mask
        np.testing.assert_array_equal(found, expected, err_msg=f"{height} x {width}")
