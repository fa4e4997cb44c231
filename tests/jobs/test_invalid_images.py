"""Images that cannot be decoded, in the words of all commands; the words of earlier versions go on working."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from sparkopt.jobs import cli, preprocess_images, train_deep
from tests.jobs.test_machine import call
from tests.tiers import needs

WORDS = {
    (): "PERMISSIVE",
    ("--handle-invalid", "keep"): "PERMISSIVE",
    ("--handle-invalid", "skip"): "DROPMALFORMED",
    ("--handle-invalid", "error"): "FAILFAST",
    ("--mode", "PERMISSIVE"): "PERMISSIVE",
    ("--mode", "DROPMALFORMED"): "DROPMALFORMED",
    ("--mode", "FAILFAST"): "FAILFAST",
    ("--mode", "FAILFAST", "--handle-invalid", "error"): "FAILFAST",
}


@pytest.mark.parametrize(("flags", "mode"), WORDS.items(), ids=lambda value: " ".join(value) or "none")
def test_the_words_are_those_of_the_images(flags, mode):
    args = preprocess_images.JOB.parser().read(["--input", "in", "--output", "out", *flags])
    preprocess_images.check(args)
    assert preprocess_images.kernel_of(args).mode == mode


def test_two_words_that_differ_are_one_line(capsys, tmp_path):
    flags = ["--input", tmp_path, "--output", tmp_path / "out", "--mode", "FAILFAST", "--handle-invalid", "skip"]
    code, _, err = call(capsys, "preprocess-images", *flags)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--mode FAILFAST is --handle-invalid error, and --handle-invalid is skip: give one of them." in err


@pytest.fixture
def folder(digits, tmp_path):
    """Seven images, and two that are none."""
    target = tmp_path / "in" / "3"
    target.mkdir(parents=True)
    for path in sorted((digits / "3").iterdir())[:7]:
        (target / path.name).write_bytes(path.read_bytes())
    for name in ("bad.png", "worse.png"):
        (target / name).write_bytes(b"no image")
    return tmp_path / "in"


@pytest.mark.parametrize("on", ["machine", pytest.param("spark", marks=needs("minutes"))])
@pytest.mark.parametrize(("word", "rows", "nulls"), [("keep", 9, 2), ("skip", 7, 0)])
def test_bad_images_are_kept_or_left_out_and_counted(word, rows, nulls, on, folder, request, capsys, tmp_path):
    """In report, manifest, page and log: of those that are left out, the table has no row."""
    if on == "spark":
        request.getfixturevalue("spark")
    output = tmp_path / "out"
    flags = ["--size", "8", "--handle-invalid", word, "--on", on, "--parts", "2", "--output", output]
    for seen in (2, 3):  # what the first run has left out is looked at again, and not counted twice
        code, _, err = call(capsys, "preprocess-images", "--input", folder, *flags)
        assert code == 0, err
        found = ds.dataset(output, format="parquet").to_table()["image"]
        assert (len(found), found.null_count) == (rows + (seen - 2 if nulls else 0), nulls and seen)
        metrics = json.loads((output / "_manifest.json").read_text())["metrics"]
        report = json.loads(Path(f"{output}-report.json").read_text())
        assert (metrics["images"], metrics["good"], metrics["invalid"]) == (7 + seen, 7, seen)
        assert (report["invalid"], sum(report["failures"].values())) == (seen, nulls and seen)
        assert "invalid images" in (output / "_report.html").read_text()
        line = f"sparkopt preprocess-images: {folder}: {seen} images cannot be decoded and are left out, such as "
        assert (line in err) == (word == "skip")
        (folder / "3" / "later.png").write_bytes(b"none either")
    assert word == "keep" or report["failed_first"]["left out"].endswith("/3/bad.png")


def test_a_folder_of_nothing_but_bad_images_is_one_line(capsys, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    flags = ["--handle-invalid", "skip", "--on", "machine", "--output", tmp_path / "out"]
    code, _, err = call(capsys, "preprocess-images", "--input", tmp_path / "in", *flags)
    assert (code, "Traceback" in err) == (1, False), err
    assert "none of 1 images can be decoded, such as" in err.splitlines()[-1]
    flags = ["--handle-invalid", "keep", *flags[2:-1], tmp_path / "kept"]
    code, _, err = call(capsys, "preprocess-images", "--input", tmp_path / "in", *flags)
    assert code == 0, err
    (row,) = ds.dataset(tmp_path / "kept", format="parquet").to_table().to_pylist()
    assert row["image"] is None
    assert row["error"].startswith("not an image")
    assert "invalid images" in (tmp_path / "kept" / "_report.html").read_text()


def test_a_run_that_a_bad_image_ended_goes_on_as_its_error_says(folder, capsys, tmp_path):
    """Give --handle-invalid skip, it says; that was refused as another pipeline, and the work was to do again."""
    flags = ["--input", folder, "--output", tmp_path / "out", "--size", "8", "--on", "machine", "--parts", "9"]
    code, _, err = call(capsys, "preprocess-images", *flags, "--handle-invalid", "error")
    assert (code, "Give --handle-invalid skip to leave such images out" in err) == (1, True)
    (folder / "3" / "bad.png").unlink()
    for word, rows in (("skip", 7), ("error", 7), ("keep", 8)):
        code, _, err = call(capsys, "preprocess-images", *flags, "--handle-invalid", word)
        assert (code == 0) == (word != "error"), err
        assert ds.dataset(tmp_path / "out", format="parquet").count_rows() == rows
    for word in ("skip", "error"):  # nulls are there now
        code, _, err = call(capsys, "preprocess-images", *flags, "--handle-invalid", word)
        assert (code, "made with another pipeline" in err) == (1, True)


def test_a_bad_image_is_an_error_that_names_it(folder, capsys, tmp_path):
    flags = ["--handle-invalid", "error", "--on", "machine", "--output", tmp_path / "out"]
    code, _, err = call(capsys, "preprocess-images", "--input", folder, *flags)
    assert (code, "bad.png" in err) == (1, True), err


MACHINE, SPARK = "machine", pytest.param("spark", marks=needs("minutes"))


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """Dark and light images, the same with one that is none, and models of them in gray and in colours."""
    folder = tmp_path_factory.mktemp("shades")
    for name in ("whole", "broken"):
        rng = np.random.default_rng(0)
        for shade, label in ((30, "dark"), (220, "light")):
            (folder / name / label).mkdir(parents=True)
            for number in range(12):
                pixels = np.full((12, 12, 3), shade + rng.integers(0, 20), np.uint8)
                cv2.imwrite(str(folder / name / label / f"{number}.png"), pixels)
    (folder / "broken" / "dark" / "bad.png").write_bytes(b"no image")
    for color in ("gray", "rgb"):
        flags = ["--image-size", "6", "--color", color, "--reg-param", "0.1", "--output", str(folder / color)]
        assert cli.main(["train", "--images", str(folder / "whole"), "--on", "machine", *flags]) == 0
    return folder


def flags_of(command: str, model: Path) -> list[object]:
    return ["--image-size", "6", "--reg-param", "0.1"] if command == "train" else ["--model", model]


@pytest.mark.parametrize("on", [MACHINE, SPARK])
@pytest.mark.parametrize("command", ["train", "score", "evaluate"])
def test_of_many_images_the_bad_one_is_named(command, on, shades, request, capsys, tmp_path):
    if on == "spark":
        request.getfixturevalue("spark")
    flags = ["--images", shades / "broken", *flags_of(command, shades / "gray"), "--on", on]
    code, out, err = call(capsys, command, *flags, "--output", tmp_path / "out")
    assert (code, out, len(err.splitlines())) == (1, "", 1), err
    assert re.search(r"error: \S*/dark/bad.png is no good image: not an image.* Give --handle-invalid skip to", err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("on", [MACHINE, SPARK])
@pytest.mark.parametrize("word", ["skip", "keep"])
@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_or_the_results_are_those_of_the_others(color, word, on, shades, request, capsys, tmp_path):
    """Size and colours are those of the model."""
    if on == "spark":
        request.getfixturevalue("spark")
    made = {}
    for name in ("whole", "broken"):
        run = ["--images", shades / name, "--handle-invalid", word, "--on", on]
        for command in ("train", "score", "evaluate"):
            output = tmp_path / name / command
            more = ["--color", color] if command == "train" else []
            code, _, err = call(capsys, command, *run, *flags_of(command, shades / color), *more, "--output", output)
            assert code == 0, err
        made[name] = _results(tmp_path / name)
    (none, whole, expected), (counts, broken, scores) = made.values()
    assert (none, counts) == ([0, 0, 0], [1, 1, 1])
    assert broken == pytest.approx(whole, rel=1e-6)  # of sums in another order
    good = scores.filter(pc.is_valid(scores["prediction"]))
    assert scores.num_rows == good.num_rows + (word == "keep") == 24 + (word == "keep")
    assert good["prediction"].to_pylist() == expected["prediction"].to_pylist()


def _results(folder: Path) -> tuple[list[int], list[float], pa.Table]:
    """Return how many images each command left out, the metrics, and the scores."""
    gate = json.loads((folder / "evaluate" / "metrics.json").read_text())["metrics"]
    manifest = json.loads((folder / "score" / "_manifest.json").read_text())["metrics"]
    receipt = json.loads((folder / "train" / "receipt.json").read_text())
    held_out = json.loads((folder / "train" / "metrics.json").read_text())["held_out"]
    files = [str(path) for path in (folder / "score").glob("part-*")]
    invalid = [gate.pop("invalid"), manifest["invalid"], receipt["skipped"] + held_out.pop("invalid")]
    metrics = [*gate.values(), receipt["objective"][-1]]
    return invalid, metrics, ds.dataset(files, format="parquet").to_table().sort_by("path")


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_a_size_that_the_model_has_not_is_one_line(command, shades, capsys, tmp_path):
    flags = [
        "--images",
        shades / "whole",
        "--model",
        shades / "rgb",
        "--image-size",
        "8",
        "--output",
        tmp_path / "out",
    ]
    code, out, err = call(capsys, command, *flags, "--image-size", "8")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "trained on 108 features, and --image-size 8 --color gray makes 64 of an image. Leave both out." in err


@pytest.mark.parametrize("word", ["error", "skip", "keep"])
def test_networks_take_the_same_words(word):
    pytest.importorskip("torch")
    args = train_deep.JOB.parser().read(["--images", "in", "--handle-invalid", word])
    assert train_deep.estimator(args, 2).getOrDefault("handleInvalid") == word
