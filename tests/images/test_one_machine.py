"""Images without Spark: folders as tables, pipelines on tables, files that appear whole; rows are those of Spark."""

from __future__ import annotations

import functools
import gc
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt import images
from sparkopt.errors import CorruptImageError, DataError, ParameterError, SchemaError
from sparkopt.images import files, transform
from sparkopt.images.folder import FILES
from sparkopt.io.listing import FileBelow
from sparkopt.machine import Table
from sparkopt.ml.image import ImageNormalizer, ImageTransformer

SMALL = images.Compose([images.Decode(), images.Resize(12, 10), images.Rescale(1 / 255)])
SHRINK = images.Compose([images.Decode(), images.Resize(12, 10), images.Encode("png")])
AUGMENT = images.Compose([images.Decode(), images.RandomCrop(10, 12), images.Encode("png")])


@pytest.fixture
def folder(tmp_path, photograph, broken):
    """Twelve good images in a folder below, and one broken file of each kind."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number in range(12):
        part = photograph[number : number + 90, : 120 + number]
        (tmp_path / "in" / "deep" / f"good {number}.jpg").write_bytes(images.encode(part))
    for number, (data, _) in enumerate(broken.values()):
        if data is not None:
            (tmp_path / "in" / f"bad{number}.jpg").write_bytes(data)
    (tmp_path / "in" / "_hidden.jpg").write_bytes(b"")
    return tmp_path


def reasons(broken):
    return Counter(reason for data, reason in broken.values() if data is not None)


def written(output):
    """The rows of an output by path: images, or errors."""
    rows = pq.read_table(output).to_pylist()
    return {row["path"]: (row["image"], row["error"]) for row in rows}


def test_a_folder_is_read_as_spark_reads_it(folder):
    table = images.read(str(folder / "in"))
    assert table.names == ["path", "length", "label", "content"]
    rows = table.to_arrow().to_pylist()
    assert {row["label"] for row in rows} == {"in", "deep"}
    for row in rows:
        path = Path(row["path"].removeprefix("file:"))
        assert (row["length"], row["content"]) == (path.stat().st_size, path.read_bytes())
        assert path.parent.name == row["label"]
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert table.rows == len(rows) == len([*(folder / "in").rglob("[!_]*.jpg")])
    assert images.read(str(folder / "in" / "deep" / "good 1*.jpg")).rows == 3
    with pytest.raises(DataError, match="does not exist"):
        images.read(str(folder / "nowhere"))
    with pytest.raises(ParameterError, match="give a path, or a SparkSession and a path. Got a list"):
        images.read([str(folder)])


def test_files_are_listed_in_order_and_kept_in_little_memory(tmp_path, monkeypatch, caplog, capsys):
    names = ["b.png", "a.png", "a-1/x.png", "a/z.jpg", "a/b/c.png", "a.b/c.png", "a/_x.png", "a/note.txt", "_c/d.png"]
    for number, name in enumerate([*names, *(f"many/{place:03}.jpg" for place in range(300))]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(bytes(number % 3))
    alive = []
    walk = files.walk_below

    def watched(*arguments):
        for number, file in enumerate(walk(*arguments)):
            if number % 50 == 49:
                gc.collect()
                alive.append(sum(type(one) is FileBelow for one in gc.get_objects()))
            yield file

    monkeypatch.setattr(files, "walk_below", watched)
    monkeypatch.setattr(files, "LONG", 0)
    table = images.read(str(tmp_path))
    assert 2 < max(alive) <= FILES + 2
    paths = table.to_arrow()["path"].to_pylist()
    expected = [f"file:{path}" for path in tmp_path.rglob("*.*g") if "/_" not in str(path)]
    assert paths == sorted(expected)
    assert len(paths) == 306
    assert "306 images, 102 empty; left out of 309 files: 2 hidden (" in caplog.text
    assert "1 ending (" in caplog.text
    assert "listing: 306 images" in capsys.readouterr().err
    images.read(str(tmp_path), progress=False)
    assert images.survey(str(tmp_path), progress=False).left_out == {"hidden": 2, "ending": 1}
    assert capsys.readouterr().err == ""


def test_files_are_opened_where_content_is_used(folder, monkeypatch):
    table = images.read(str(folder / "in"))
    monkeypatch.setattr("builtins.open", functools.partial(pytest.fail, "a file was opened"))
    assert (
        sum(batch.num_rows for part in table.partitions for batch in part.batches(["label", "length"])) == table.rows
    )


def test_partitions_and_batches_are_bounded(folder, monkeypatch):
    monkeypatch.setattr("sparkopt.images.folder.FILES", 4)
    monkeypatch.setattr("sparkopt.images.folder.BATCH_BYTES", 1)
    table = images.read(str(folder / "in" / "deep"))
    assert [part.rows for part in table.partitions] == [4, 4, 4]
    assert [batch.num_rows for batch in table.partitions[0].batches()] == [1] * 4
    monkeypatch.setattr("sparkopt.images.folder.BYTES", 1)
    assert len(images.read(str(folder / "in" / "deep")).partitions) == 12


def test_counts_are_exact_and_a_second_run_goes_on(folder, broken, capsys):
    run = functools.partial(images.preprocess, str(folder / "in"), SHRINK, str(folder / "out"))
    first = run()
    assert "preprocess: 100%" in capsys.readouterr().err
    expected = reasons(broken)
    assert (first.images, first.good, first.skipped) == (12 + expected.total(), 12, 0)
    assert dict(first.failures) == dict(expected)
    rows = written(folder / "out")
    assert len(rows) == first.images
    for path, (image, error) in rows.items():
        content = Path(path.removeprefix("file:")).read_bytes()
        assert (image is None) == (error is not None) == ("bad" in path)
        assert image is None or image == SHRINK(content)
    for reason, path in first.first.items():
        assert path == min(one for one, (_, error) in rows.items() if error and error.startswith(f"{reason}:"))
    (folder / "in" / "later.jpg").write_bytes((folder / "in" / "deep" / "good 0.jpg").read_bytes())
    again = run(progress=False)
    assert (again.images, again.good, again.skipped, dict(again.failures)) == (1, 1, first.images, {})
    assert f"1 images, 1 good, {first.images} of earlier runs" in str(again)
    assert len(written(folder / "out")) == first.images + 1


def test_failfast_names_the_image_and_leaves_no_half_file(folder, monkeypatch):
    monkeypatch.setattr("sparkopt.images.folder.FILES", 3)
    with pytest.raises(CorruptImageError, match=r"row of key 'file:.*/bad\d+.jpg'.* Mode PERMISSIVE"):
        images.preprocess(str(folder / "in"), SHRINK, str(folder / "out"), mode="FAILFAST", progress=False)
    left = os.listdir(folder / "out")
    assert all(re.fullmatch(r"part-[0-9a-f]{32}\.parquet", name) for name in left)
    assert all(error is None for _, error in (written(folder / "out") if left else {}).values())


def test_malformed_images_are_dropped_and_counted(folder, broken):
    found = images.preprocess(str(folder / "in"), SHRINK, str(folder / "out"), mode="DROPMALFORMED", progress=False)
    assert (found.good, dict(found.failures)) == (12, dict(reasons(broken)))
    rows = written(folder / "out")
    assert (len(rows), {error for _, error in rows.values()}) == (12, {None})
    kept = images.preprocess(str(folder / "in"), SHRINK, str(folder / "kept"), progress=False)
    assert dict(found.first) == dict(kept.first)  # the files themselves, by reason, and no part that has them


def test_randomness_belongs_to_the_path(folder, monkeypatch):
    source = str(folder / "in" / "deep")
    run = functools.partial(images.preprocess, source, AUGMENT, seed=3, epoch=2, progress=False)
    run(str(folder / "one"))
    monkeypatch.setattr("sparkopt.images.folder.FILES", 5)
    run(str(folder / "two"))
    assert written(folder / "one") == written(folder / "two")
    path, (image, _) = next(iter(written(folder / "one").items()))
    content = Path(path.removeprefix("file:")).read_bytes()
    assert image == AUGMENT(content, images.row_rng(3, path, 2))


def test_rows_are_processed_too(folder, photograph):
    content = [images.encode(photograph[:30, :40], kind) for kind in ("jpeg", "png", "webp")] + [None, b""]
    rows = pa.table({"path": list("abcde"), "content": pa.array(content, pa.binary()), "more": range(5)})
    output = str(folder / "out")
    assert images.preprocess(rows.slice(0, 2), SMALL, output, progress=False).images == 2
    found = images.preprocess(rows, SMALL, output, progress=False)
    assert (found.images, found.good, found.skipped) == (3, 1, 2)
    assert dict(found.failures) == {"null": 1, "empty": 1}
    tensors = {path: image for path, (image, _) in written(output).items()}
    expected = SMALL(content[1])
    np.testing.assert_array_equal(np.frombuffer(tensors["b"]["data"], np.float32).reshape(12, 10, 3), expected)
    with pytest.raises(SchemaError, match="there is no column 'content'"):
        images.preprocess(rows.drop_columns("content"), SMALL, output)


def test_a_run_does_not_go_on_with_what_another_pipeline_made(folder):
    """It skipped all images as done, and so a folder held some of the one size and some of the other."""
    source, output = folder / "in" / "deep", folder / "out"
    assert images.preprocess(source, AUGMENT, output, progress=False).good == 12
    assert images.preprocess(source, AUGMENT, output, progress=False, mode="DROPMALFORMED").skipped == 12
    before = written(output)
    for pipeline, options in ((SHRINK, {}), (AUGMENT, {"seed": 1}), (AUGMENT, {"epoch": 1})):
        with pytest.raises(DataError, match="holds images of another pipeline, seed or epoch. Give another folder"):
            images.preprocess(source, pipeline, output, progress=False, **options)
    assert written(output) == before
    assert images.preprocess(source, SHRINK, folder / "small", progress=False).good == 12
    assert images.preprocess(source, SHRINK, folder / "small", progress=False, seed=1).skipped == 12


def test_steps_of_ones_own_that_json_does_not_hold_are_run_and_resumed(tmp_path, photograph):
    @dataclass(frozen=True)
    class Chosen(images.ImageTransform):
        wanted: object = None

        def apply(self, image, rng):
            return image[:4, :4]

    rows = pa.table({"path": ["a"], "content": [images.encode(photograph[:9, :9])]})
    pipeline = images.Compose([images.Decode(), Chosen(wanted={1, 2}), images.Encode("png")])
    found = [images.preprocess(rows, pipeline, tmp_path / "out", progress=False) for _ in range(2)]
    assert [(one.good, one.skipped) for one in found] == [(1, 0), (0, 1)]


def test_rows_without_a_path_are_processed_and_counted(tmp_path):
    rows = pa.table({"path": pa.array([None, "a", None]), "content": pa.array([b"x", b"y", None], pa.binary())})
    found = images.preprocess(rows, SHRINK, tmp_path / "out", progress=False)
    assert (found.images, dict(found.failures)) == (3, {"not an image": 2, "null": 1})
    assert pq.read_table(tmp_path / "out").num_rows == 3


@pytest.fixture
def table(photograph, broken):
    good = [images.encode(photograph[i : i + 60, 2 * i : 2 * i + 80], "png") for i in range(6)]
    content = [*good, *(data for data, _ in broken.values())]
    return pa.table({"id": range(len(content)), "content": pa.array(content, pa.binary())})


@pytest.mark.parametrize("output", ["vector", "array", "tensor", "image"])
def test_a_stage_runs_on_a_table(table, broken, output):
    stage = ImageTransformer(pipeline=images.Compose(SMALL.transforms[:-1]), inputCol="content", output=output)
    found = stage.transform(table)
    assert found.column_names == ["id", "content", "features", "features_error"]
    kernel = images.ImageKernel(stage.getPipeline(), output)
    (values, errors), *rest = kernel(table["content"].combine_chunks())
    assert not rest
    assert found["features"].combine_chunks() == values
    assert found["features_error"].combine_chunks() == errors
    assert errors.null_count == 6
    reason = dict(zip(range(6, 6 + len(broken)), (reason for _, reason in broken.values()), strict=True))
    for row in found.slice(6).to_pylist():
        assert row["features_error"].startswith(f"{reason[row['id']]}:")


def test_a_stage_gives_rows_back_as_they_came(table, folder):
    stage = ImageTransformer(pipeline=SMALL, inputCol="content", output="array", mode="DROPMALFORMED")
    assert stage.transform(table)["id"].to_pylist() == list(range(6))
    frame = stage.transform(table.to_pandas())
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["id", "content", "features"]
    lazy = stage.transform(images.read(str(folder / "in")))
    assert isinstance(lazy, Table)
    assert (lazy.rows, lazy.to_arrow().num_rows) == (None, 12)
    strict = stage.copy({stage.mode: "FAILFAST"})
    with pytest.raises(CorruptImageError, match="Mode PERMISSIVE gives null"):
        strict.transform(table)
    for options, message in (
        (dict(inputCol="id"), "column 'id' must hold encoded images .* Got int64"),
        (dict(inputCol="picture"), "there is no column 'picture'"),
        (dict(inputCol="content", outputCol="id"), "column 'id' is there already"),
        (dict(inputCol="content", keyCol="name"), "keyCol: there is no column 'name'"),
    ):
        with pytest.raises(SchemaError, match=message):
            ImageTransformer(pipeline=SMALL, **options).transform(table)


def test_a_stage_that_was_saved_with_a_step_of_ones_own_says_what_is_missing(tmp_path):
    """It said that the file was altered, and to copy it again."""
    kind = type("StepOfMine", (images.Invert,), {"__module__": "mine"})
    ImageTransformer(pipeline=images.Compose([kind()])).save(str(tmp_path / "stage"))
    assert ImageTransformer.load(str(tmp_path / "stage")).getPipeline() == images.Compose([kind()])
    del transform._REGISTRY["StepOfMine"]
    with pytest.raises(DataError, match="cannot be used here: .*'StepOfMine'. If it is of your own, import") as error:
        ImageTransformer.load(str(tmp_path / "stage"))
    assert "altered" not in str(error.value)


def test_the_normalizer_learns_from_a_table(table):
    pixels = np.concatenate([SMALL(data).reshape(-1, 3) for data in table["content"].to_pylist()[:6]]).astype(float)
    model = ImageNormalizer(pipeline=SMALL, inputCol="content").fit(table)
    np.testing.assert_allclose(model.normalization.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(model.normalization.std, pixels.std(axis=0), rtol=1e-6)
    values = np.array([row for row in model.transform(table)["features"].to_pylist() if row is not None])
    assert len(values) == 6


@pytest.mark.usefixtures("minutes")
def test_rows_and_bytes_are_those_of_spark(spark, folder):
    here, there = images.read(str(folder / "in")), images.read(spark, str(folder / "in"))
    shrink = images.BatchFunction(images.ImageKernel(AUGMENT, "bytes", seed=4), "content", "image", "error", "path")
    rows = shrink.applied(here).to_arrow().sort_by("path").to_pylist()
    expected = there.mapInArrow(shrink, shrink.schema(there.schema)).orderBy("path").collect()
    assert rows == [row.asDict() | {"image": row.image and bytes(row.image)} for row in expected]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{a,b}/*.png", ["a/1.png", "b/1.png"]),
        ("{a,b}/{1,2}.png", ["a/1.png", "b/1.png"]),
        ("[ab]/?.png", ["a/1.png", "b/1.png"]),
        ("{a,{b,c}}", ["a/1.png", "a/2.jpg", "b/1.png", "c/1.png"]),
        ("*/1.{png,gif}", ["a/1.png", "b/1.png", "c/1.png"]),
    ],
)
def test_patterns_with_braces_are_hadoops(pattern, expected, tmp_path):
    for name in ("a/1.png", "a/2.jpg", "b/1.png", "c/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    found = images.read(f"{tmp_path}/{pattern}").to_arrow()["path"].to_pylist()
    assert [path.removeprefix(f"file:{tmp_path}/") for path in found] == expected
