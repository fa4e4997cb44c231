"""Images that cannot be decoded, in the words of all commands; the words of earlier versions go on working."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from sparkopt.jobs import preprocess_images, train_deep
from tests.jobs.test_machine import call

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


@pytest.mark.parametrize(("word", "rows", "nulls"), [("keep", 9, 2), ("skip", 7, 0)])
def test_bad_images_are_kept_and_counted_or_left_out(word, rows, nulls, folder, capsys, tmp_path):
    flags = ["--size", "8", "--handle-invalid", word, "--on", "machine", "--output", tmp_path / "out"]
    code, _, err = call(capsys, "preprocess-images", "--input", folder, *flags)
    assert code == 0, err
    found = ds.dataset(tmp_path / "out", format="parquet").to_table()["image"]
    report = json.loads(Path(f"{tmp_path / 'out'}-report.json").read_text())
    assert (len(found), found.null_count, sum(report["failures"].values())) == (rows, nulls, nulls)


def test_a_bad_image_is_an_error_that_names_it(folder, capsys, tmp_path):
    flags = ["--handle-invalid", "error", "--on", "machine", "--output", tmp_path / "out"]
    code, _, err = call(capsys, "preprocess-images", "--input", folder, *flags)
    assert (code, "bad.png" in err) == (1, True), err


@pytest.mark.parametrize("word", ["error", "skip", "keep"])
def test_networks_take_the_same_words(word):
    pytest.importorskip("torch")
    args = train_deep.JOB.parser().read(["--images", "in", "--handle-invalid", word])
    assert train_deep.estimator(args, 2).getOrDefault("handleInvalid") == word
