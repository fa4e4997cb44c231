"""The job: directory in, Parquet out; broken files counted exactly; a second run repeats nothing."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from sparkopt import images

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("preprocess_images", ROOT / "jobs" / "preprocess_images.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    assert sheet.shape == (320, 960, 3)
    assert np.std(sheet) > 10
    (folder / "in" / "later.jpg").write_bytes((folder / "in" / "deep" / "good0.jpg").read_bytes())
    assert job.main(arguments) == 0
    again = json.loads((folder / "out-report.json").read_text())
    assert (again["processed"], again["skipped"], again["good"]) == (1, report["images"], 13)
    capsys.readouterr()


def test_a_pipeline_without_encode_is_refused(job, spark, folder, capsys):
    path = folder / "pipeline.json"
    path.write_text(images.Compose([images.Decode(), images.Resize(8, 8)]).to_json())
    assert job.main(["--input", str(folder / "in"), "--output", str(folder / "out"), "--pipeline", str(path)]) == 2
    assert "does not end in Encode" in capsys.readouterr().err
