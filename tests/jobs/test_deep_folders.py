"""Commands with a network, on folders of pictures: with their defaults, and where some files are no pictures."""

from __future__ import annotations

import functools
import json

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sparkopt import images
from tests.jobs.test_machine import call
from tests.tiers import needs

torch = pytest.importorskip("torch")

DIGITS = ("3", "7")
ONES = [pytest.param("machine"), pytest.param("spark", marks=needs("minutes"))]


@pytest.fixture(scope="module")
def pictures(digits, tmp_path_factory):
    """Twelve pictures in two folders."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in DIGITS:
        (folder / name).mkdir()
        for path in sorted((digits / name).iterdir())[:6]:
            (folder / name / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def mixed(pictures, tmp_path):
    """The same, with a file that is empty and one that is damaged."""
    for path in pictures.rglob("*.png"):
        target = tmp_path / "mixed" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "mixed" / "3" / "empty.png").write_bytes(b"")
    (tmp_path / "mixed" / "7" / "damaged.png").write_bytes(b"no image")
    return tmp_path / "mixed"


@pytest.fixture(scope="module")
def model(pictures, tmp_path_factory):
    """What train-deep leaves: the model, and the names of its classes next to it."""
    from sparkopt.deep import ConvNet, TorchEstimator

    output = tmp_path_factory.mktemp("trained")
    paths = sorted(pictures.rglob("*.png"))
    rows = {"content": [path.read_bytes() for path in paths], "label": [DIGITS.index(p.parent.name) for p in paths]}
    pipeline = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])
    trained = TorchEstimator(
        module=functools.partial(ConvNet, classes=2, channels=1, widths=[8]),
        loss="multinomial",
        featuresCol="content",
        imagePipeline=pipeline,
        epochs=30,
        stepSize=1e-2,
        launcher="local",
    ).fit(pa.table(rows))
    trained.write().save(str(output / "model"))
    (output / "metrics.json").write_text(json.dumps({"held_out": {}, "labels": list(DIGITS)}))
    return output


def started(request, on):
    if on == "spark":
        request.getfixturevalue("spark")


def scored_rows(output):
    return ds.dataset(output, format="parquet").to_table().to_pylist()


@pytest.mark.parametrize("flags", [(), ("--on", "machine"), pytest.param(("--on", "spark"), marks=needs("minutes"))])
def test_networks_are_scored_and_evaluated_on_a_folder_with_the_defaults(
    flags, model, pictures, request, capsys, tmp_path
):
    started(request, flags[-1] if flags else "")
    given = ["--model", model, "--images", pictures, *flags]
    code, _, err = call(capsys, "score", *given, "--output", tmp_path / "scored")
    assert code == 0, err
    rows = scored_rows(tmp_path / "scored")
    assert len(rows) == 12
    right = sum(row["prediction"] == DIGITS.index(row["path"].split("/")[-2]) for row in rows)
    code, _, err = call(capsys, "evaluate", *given, "--output", tmp_path / "evaluated")
    assert code == 0, err
    metrics = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())["metrics"]
    assert (metrics["rows"], metrics["accuracy"]) == (12, pytest.approx(right / 12))


@pytest.mark.parametrize("on", ONES)
@pytest.mark.parametrize(("word", "rows"), [("keep", 14), ("skip", 12)])
def test_empty_files_are_invalid_rows_as_damaged_are(word, rows, on, model, mixed, request, capsys, tmp_path):
    started(request, on)
    given = ["--model", model, "--images", mixed, "--on", on, "--handle-invalid", word]
    code, _, err = call(capsys, "score", *given, "--output", tmp_path / "scored")
    assert code == 0, err
    found = scored_rows(tmp_path / "scored")
    bad = sorted(row["path"].rpartition("/")[2] for row in found if row["prediction"] is None)
    assert (len(found), bad) == (rows, ["damaged.png", "empty.png"] if word == "keep" else [])
    metrics = json.loads((tmp_path / "scored" / "_manifest.json").read_text())["metrics"]
    assert (metrics["rows"], metrics["invalid"]) == (rows, 2)
    code, _, err = call(capsys, "evaluate", *given, "--output", tmp_path / "evaluated")
    assert code == 0, err
    metrics = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())["metrics"]
    assert (metrics["rows"], metrics["invalid"]) == (12, 2)


@pytest.mark.parametrize("on", ONES)
def test_an_empty_file_is_an_error_where_no_flag_says_otherwise(on, model, mixed, request, capsys, tmp_path):
    started(request, on)
    (mixed / "7" / "damaged.png").unlink()
    code, _, err = call(
        capsys, "score", "--model", model, "--images", mixed, "--on", on, "--output", tmp_path / "out"
    )
    assert (code, "Traceback" in err) == (1, False), err
    assert "Give --handle-invalid skip" in err


@needs("minutes")
@pytest.mark.parametrize("word", ["error", "skip", "keep"])
def test_training_counts_empty_files(word, mixed, spark, capsys, tmp_path):
    options = ["--image-size", "8", "--launcher", "local", "--epochs", "1", "--validation-fraction", "0"]
    where = ["--images", mixed, "--handle-invalid", word, "--output", tmp_path / "out", "--test-fraction", "0.4"]
    code, _, err = call(capsys, "train-deep", *where, *options)
    if word == "error":
        assert code == 1, err
        assert "Give --handle-invalid skip" in err
        return
    assert code == 0, err
    receipt = json.loads((tmp_path / "out" / "receipt.json").read_text())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["held_out"]
    assert receipt["rows"] + metrics["rows"] == 12
    assert receipt["skipped"] + metrics["invalid"] == 2


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_a_table_of_images_with_another_name_is_told_how_to_name_it(command, model, pictures, capsys, tmp_path):
    paths = sorted(pictures.rglob("*.png"))
    rows = {"path": list(map(str, paths)), "image": [path.read_bytes() for path in paths]}
    pq.write_table(pa.table(rows | {"label": [0, 1] * 6}), tmp_path / "rows.parquet")
    given = [command, "--model", model, "--parquet", tmp_path / "rows.parquet", "--output", tmp_path / "out"]
    code, _, err = call(capsys, *given)
    assert code == 1
    assert "features column 'content' does not exist" in err
    assert "give --features image." in err
    code, _, err = call(capsys, *given, "--features", "image")
    assert code == 0, err
