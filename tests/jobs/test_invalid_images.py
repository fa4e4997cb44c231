"""Images that cannot be decoded, in the words of all commands; the words of earlier versions go on working."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from sparkopt.jobs import preprocess_images, train_deep
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


def test_a_bad_image_is_an_error_that_names_it(folder, capsys, tmp_path):
    flags = ["--handle-invalid", "error", "--on", "machine", "--output", tmp_path / "out"]
    code, _, err = call(capsys, "preprocess-images", "--input", folder, *flags)
    assert (code, "bad.png" in err) == (1, True), err


@pytest.mark.parametrize("word", ["error", "skip", "keep"])
def test_networks_take_the_same_words(word):
    pytest.importorskip("torch")
    args = train_deep.JOB.parser().read(["--images", "in", "--handle-invalid", word])
    assert train_deep.estimator(args, 2).getOrDefault("handleInvalid") == word
