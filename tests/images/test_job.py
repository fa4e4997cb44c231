"""The job: directory in, Parquet out; broken files counted exactly; a second run repeats nothing."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt import images
from sparkopt.jobs import preprocess_images
from sparkopt.jobs.runtimes.spark_images import SparkImages, steps
from tests.tiers import needs


@pytest.fixture(scope="module")
def job():
    return preprocess_images


@pytest.fixture
def folder(tmp_path, photograph, broken):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for i in range(12):
        part = photograph[i : i + 90, : 120 + i]
        (tmp_path / "in" / "deep" / f"good{i}.jpg").write_bytes(images.encode(part))
    for i, (data, _) in enumerate(broken.values()):
        if data is not None:
            (tmp_path / "in" / f"bad{i}.jpg").write_bytes(data)
    return tmp_path


def test_counts_are_exact_and_a_second_run_goes_on(job, spark, folder, broken, capsys):
    arguments = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--size", "64", "--parts", "2"]
    assert job.main(arguments) == 0
    report = json.loads((folder / "out-report.json").read_text())
    expected: dict[str, int] = {}
    for data, reason in broken.values():
        if data is not None:
            expected[reason] = expected.get(reason, 0) + 1
    assert report["failures"] == expected
    assert (report["good"], report["skipped"], report["images"]) == (12, 0, 12 + sum(expected.values()))
    rows = spark.read.parquet(str(folder / "out")).where("image is not null").collect()
    assert all(images.decode(bytes(row.image)).shape == (64, 64, 3) for row in rows)
    sheet = images.decode((folder / "out-samples.png").read_bytes())
    assert sheet.shape == (44 + 2 * 264, 84 + 6 * 238, 3)
    assert np.std(sheet) > 10
    assert report["failed_first"].keys() == expected.keys()
    (folder / "in" / "later.jpg").write_bytes((folder / "in" / "deep" / "good0.jpg").read_bytes())
    assert job.main(arguments) == 0
    again = json.loads((folder / "out-report.json").read_text())
    assert (again["processed"], again["skipped"], again["good"]) == (1, report["images"], 13)
    capsys.readouterr()


def test_a_run_that_was_stopped_goes_on_with_what_is_missing(job, spark, folder, capsys, monkeypatch):
    """The random crops of both runs are those of one: a row's key is its path."""
    path = folder / "pipeline.json"
    random = [images.Decode(), images.RandomCrop(50, 60), images.RandomHorizontalFlip(), images.Encode("png")]
    path.write_text(images.Compose(random).to_json())
    arguments = ["--input", str(folder / "in"), "--parts", "3", "--pipeline", str(path)]
    whole = SparkImages.steps

    def interrupted(self):
        yield whole(self)[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(SparkImages, "steps", interrupted)
    assert job.main([*arguments, "--output", str(folder / "out")]) == 130
    first = {row.path for row in spark.read.parquet(str(folder / "out")).collect()}
    assert json.loads((folder / "out" / "_manifest.json").read_text())["status"] == "unfinished"
    monkeypatch.undo()
    assert job.main([*arguments, "--output", str(folder / "out")]) == 0
    report = json.loads((folder / "out-report.json").read_text())
    assert 0 < len(first) == report["skipped"] < report["images"] == report["skipped"] + report["processed"]
    assert job.main([*arguments, "--output", str(folder / "whole")]) == 0
    parted, whole = (sorted(spark.read.parquet(str(folder / name)).collect()) for name in ("out", "whole"))
    assert parted == whole
    assert len({row.path for row in parted}) == report["images"]
    capsys.readouterr()


def test_tables_and_globs_are_read_too(job, spark, folder, photograph, capsys):
    def counts(location, kind):
        output = folder / f"out of {kind}"
        arguments = ["--input", location, "--input-format", kind, "--output", str(output), "--size", "8"]
        assert job.main([*arguments, "--parts", "1"]) == 0, capsys.readouterr().err
        report = json.loads((folder / f"out of {kind}-report.json").read_text())
        return report["good"], report["failures"], (folder / f"out of {kind}-samples.png").exists()

    assert counts(str(folder / "in" / "deep" / "good1*.jpg"), "binaryFile") == (3, {}, True)
    content = [images.encode(photograph[:30, :40], kind) for kind in ("jpeg", "png", "webp")] + [None, b""]
    table = pa.table({"path": list("abcde"), "content": pa.array(content, pa.binary()), "more": range(5)})
    (folder / "tables").mkdir()
    pq.write_table(table, folder / "tables" / "table.parquet")
    expected = (3, {"null": 1, "empty": 1}, True)
    assert counts(str(folder / "tables" / "table.parquet"), "parquet") == expected
    spark.read.parquet(str(folder / "tables" / "table.parquet")).createOrReplaceTempView("pictures")
    try:
        assert counts("pictures", "table") == expected
    finally:
        spark.catalog.dropTempView("pictures")
    arguments = [
        "--input",
        str(folder / "tables" / "table.parquet"),
        "--input-format",
        "parquet",
        "--output",
        str(folder / "x"),
    ]
    pq.write_table(table.drop_columns(["content"]), folder / "tables" / "table.parquet")
    assert job.main(arguments) == 1
    assert "--input: the table has no column content" in capsys.readouterr().err


def test_one_output_is_made_in_one_way(job, spark, folder, capsys):
    """Other sizes are refused, or replace the output; the same flags again do nothing."""
    arguments = ["--input", str(folder / "in" / "deep"), "--output", str(folder / "out"), "--parts", "1"]
    assert job.main([*arguments, "--size", "16"]) == 0
    capsys.readouterr()
    assert job.main([*arguments, "--size", "16"]) == 0
    assert capsys.readouterr().out.startswith("nothing to do")
    assert job.main([*arguments, "--size", "8"]) == 1
    assert "was made with another pipeline. Give another --output, or --force" in capsys.readouterr().err
    assert job.main([*arguments, "--size", "8", "--force"]) == 0
    rows = spark.read.parquet(str(folder / "out")).collect()
    assert [images.decode(bytes(row.image)).shape for row in rows] == [(8, 8, 3)] * 12
    assert json.loads((folder / "out" / "_manifest.json").read_text())["status"] == "complete"


def test_a_pipeline_without_encode_is_refused(job, spark, folder, capsys):
    path = folder / "pipeline.json"
    path.write_text(images.Compose([images.Decode(), images.Resize(8, 8)]).to_json())
    assert job.main(["--input", str(folder / "in"), "--output", str(folder / "out"), "--pipeline", str(path)]) == 2
    assert "does not end in Encode" in capsys.readouterr().err


def test_labels_come_from_folders_and_a_part_opens_only_its_own_files(job, spark, folder):
    rows = images.read(spark, str(folder / "in"))
    labels = {row.label: row.count for row in rows.groupBy("label").count().collect()}
    assert set(labels) == {"deep", "in"}
    assert rows.where("length = 0").count() == 1  # the empty file is there
    conditions = steps(rows, 4)
    counts = [rows.where(condition).count() for condition in conditions]
    assert sum(counts) == rows.count()
    assert len(counts) == 4
    plan = rows.where(conditions[1])._jdf.queryExecution().executedPlan().toString()
    assert "PushedFilters: [IsNotNull(length), GreaterThan(length," in plan


@pytest.mark.parametrize("total", [600, pytest.param(10_000, marks=needs("minutes"))])
def test_one_in_twenty_is_broken_and_nothing_is_lost(job, spark, tmp_path, photograph, save, broken, total):
    odd = {
        "cmyk.jpg": save(photograph[:40, :50], "JPEG", "CMYK"),
        "palette.png": save(photograph[:40, :50], "PNG", "P"),
        "alpha.png": save(photograph[:40, :50], "PNG", "RGBA"),
        "deep.png": save(np.full((9, 8), 40_000, np.uint16), "PNG"),
        "moving.gif": save(photograph[:40, :50], "GIF", save_all=True),
    }
    bad = [(data, reason) for data, reason in broken.values() if data is not None]
    expected: dict[str, int] = {}
    (tmp_path / "in").mkdir()
    for index in range(total):
        if index % 20 == 7:
            data, reason = bad[index // 20 % len(bad)]
            expected[reason] = expected.get(reason, 0) + 1
            name = f"{index}.jpg"
        else:
            name, data = list(odd.items())[index % len(odd)]
            name = f"{index}-{name}"
        (tmp_path / "in" / name).write_bytes(data)
    output = tmp_path / "out"
    arguments = ["--input", str(tmp_path / "in"), "--output", str(output), "--size", "24", "--parts", "2"]
    assert job.main(arguments) == 0
    report = json.loads((tmp_path / "out-report.json").read_text())
    assert report["images"] == total
    assert report["failures"] == expected
    assert sum(expected.values()) * 20 == total
    assert report["good"] == total - sum(expected.values())
    assert spark.read.parquet(str(output)).select("path").distinct().count() == total
    assert spark.read.parquet(str(output)).where("image is null and error is null").count() == 0
