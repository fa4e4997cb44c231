"""Frames of animations: those that Pillow shows, one as pixels or all as rows; damage is an error."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageSequence

from sparkopt import images
from sparkopt.errors import CorruptImageError, ParameterError, SchemaError
from sparkopt.io.image_frames import count_frames

COUNT = 7


def animation(kind: str, count: int = COUNT) -> bytes:
    """A square that moves over a ground: GIF's writer stores only what changes."""
    frames = []
    for number in range(count):
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[...] = (20, 90, 160)
        pixels[5:15, 2 + 4 * number : 12 + 4 * number] = (250, 30 * number, 0)
        frames.append(Image.fromarray(pixels))
    file = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=40, **options)
    return file.getvalue()


def expected(data: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(data)) as picture:
        return [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]


KINDS = ("GIF", "WEBP")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray", "rgba"])
def test_a_chosen_frame_is_pillows(kind, color):
    data = animation(kind)
    for number in (0, 1, COUNT - 1, -1, -COUNT):
        found = images.Compose([images.Decode(color, frame=number)])(data)
        theirs = expected(data)[number]
        if color == "gray":
            theirs = images.functional.convert_color(theirs, "rgb", "gray")
        elif color == "rgba":
            theirs = np.dstack([theirs, np.full(theirs.shape[:2], 255, np.uint8)])
        np.testing.assert_array_equal(found, theirs[..., ::-1] if color == "bgr" else theirs)


def test_frames_that_are_not_there_are_named():
    for frame in (COUNT, -COUNT - 1):
        with pytest.raises(CorruptImageError, match=f"unsupported: there is no frame {frame} in a GIF of {COUNT}"):
            images.functional.decode(animation("GIF"), frame=frame)
    still = images.functional.encode(np.zeros((4, 5, 3), np.uint8), "png")
    assert images.functional.decode(still, frame=-1).shape == (4, 5, 3)
    with pytest.raises(CorruptImageError, match="there is no frame 1 in a PNG of 1"):
        images.functional.decode(still, frame=1)
    with pytest.raises(CorruptImageError, match="too large: 3 frames of 30 x 40 pixels exceed the limit of 3599"):
        images.functional.decode(animation("WEBP"), frame=2, max_pixels=3599)
    with pytest.raises(ParameterError, match=r"Decode.frame must be a whole number"):
        images.Decode(frame=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_counted_and_a_file_that_ends_early_is_not_taken_for_a_shorter_one(kind):
    data = animation(kind)
    assert count_frames(data, kind.lower()) == COUNT
    assert count_frames(animation(kind, 1), kind.lower()) == 1
    for end in range(100, len(data), 7):
        with pytest.raises(CorruptImageError, match="^(truncated|corrupt): "):
            images.functional.decode(data[:end], frame=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_damage_is_an_error_or_an_image_of_the_files_size(kind, seed):
    data, rng = animation(kind), np.random.default_rng(seed)
    for _ in range(300):
        altered = bytearray(data)
        for place in rng.integers(13, len(data), 2):
            altered[place] = rng.integers(256)
        try:
            found = images.functional.decode(bytes(altered), frame=3, max_pixels=1 << 16)
        except CorruptImageError:
            continue
        assert found.ndim == 3
        assert found.size <= 3 << 16


def rows() -> pa.Table:
    still = images.functional.encode(np.full((4, 5, 3), 9, np.uint8), "png")
    contents = [animation("GIF"), still, b"no image", None, animation("WEBP", 3), animation("GIF")[:-40]]
    return pa.table({"path": list("abcdef"), "content": pa.array(contents, pa.binary()), "label": range(6)})


def test_all_frames_become_rows(monkeypatch):
    found = images.FrameFunction().applied(rows()).to_arrow()
    assert found.column_names == ["path", "label", "content", "frame"]
    numbers = found.select(["path", "frame"]).to_pylist()
    counts = {"a": COUNT, "b": 1, "c": 1, "d": 1, "e": 3, "f": 1}
    assert [(row["path"], row["frame"]) for row in numbers] == [
        (path, frame) for path, count in counts.items() for frame in range(count)
    ]
    contents = {(row["path"], row["frame"]): row["content"] for row in found.to_pylist()}
    for frame, theirs in enumerate(expected(animation("GIF"))):
        np.testing.assert_array_equal(images.functional.decode(contents["a", frame]), theirs)
    assert contents["f", 0] is None
    for path in "bcd":  # as they were
        assert contents[path, 0] == rows()["content"][list("abcdef").index(path)].as_py()
    kernel = images.ImageKernel(images.Compose([images.Decode(), images.Resize(8, 8)]))
    decoded = images.BatchFunction(kernel, "content", "x", "error").applied(images.FrameFunction().applied(rows()))
    reasons = decoded.to_arrow()["error"].to_pylist()
    assert [reason is None for reason in reasons] == [True] * (COUNT + 1) + [False] * 2 + [True] * 3 + [False]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [({"every": 3}, [0, 3, 6]), ({"max_frames": 2}, [0, 1]), ({"every": 2, "max_frames": 3}, [0, 2, 4])],
)
def test_fewer_frames(options, numbers):
    table = rows().slice(0, 1)
    found = images.FrameFunction(**options).applied(table).to_arrow()
    assert found["frame"].to_pylist() == numbers
    for number, content in zip(numbers, found["content"].to_pylist(), strict=True):
        np.testing.assert_array_equal(images.functional.decode(content), expected(animation("GIF"))[number])


def test_batches_are_bounded(monkeypatch):
    monkeypatch.setattr("sparkopt.images.frames.BYTES", 400)
    batches = list(images.FrameFunction()(iter(rows().to_batches())))
    assert len(batches) > 5
    whole = pa.Table.from_batches(batches)
    monkeypatch.undo()
    assert whole.to_pylist() == images.FrameFunction().applied(rows()).to_arrow().to_pylist()


def test_wrong_columns_are_refused():
    with pytest.raises(SchemaError, match="column 'path' must hold encoded images"):
        images.FrameFunction("path").applied(rows())
    with pytest.raises(SchemaError, match="column 'label' is there already"):
        images.FrameFunction(frame_column="label").applied(rows())
    with pytest.raises(ParameterError, match="every must be a whole number >= 1"):
        images.FrameFunction(every=0)


@pytest.mark.usefixtures("minutes")
def test_spark_gives_the_rows_of_a_table(spark):
    function = images.FrameFunction(every=2)
    df = spark.createDataFrame(rows().to_pylist(), "path string, content binary, label long").coalesce(1)
    found = df.mapInArrow(function, function.schema(df.schema)).orderBy("path", "frame").toPandas()
    here = function.applied(rows()).to_arrow().to_pandas()
    assert found["frame"].tolist() == here["frame"].tolist()
    assert [None if x is None else bytes(x) for x in found["content"]] == here["content"].tolist()
