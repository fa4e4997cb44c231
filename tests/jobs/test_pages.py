"""The page of every job, which a browser shows all of."""

from __future__ import annotations

import json
import re

import pytest

from sparkopt.jobs import cli
from sparkopt.ml import LinearRegression
from tests.report import browser

TRAIN = ["--features", "a,b", "--label", "c", "--loss", "logistic", "--reg-param", "0.05", "--tol", "1e-2"]
PAGES = {  # output: (charts, pictures, text of the page)
    "train": (6, 0, "held-out accuracy"),
    "gate": (3, 0, "Gate not met: accuracy"),
    "numbers": (2, 0, "baseline 100"),
    "scored": (1, 0, "rows a second"),
    "values": (1, 0, "400"),
    "images": (1, 1, "First"),
}


@pytest.fixture(scope="module")
def outputs(spark, table, digits, tmp_path_factory):
    """What each job leaves."""
    folder = tmp_path_factory.mktemp("outputs")

    def call(code: int, job: str, *flags: object) -> None:
        assert cli.main([job, *map(str, flags)]) == code

    rows = spark.read.parquet(table)
    LinearRegression(featuresCols=["a", "b"], labelCol="y", regParam=0.5).fit(rows).save(str(folder / "model"))
    (folder / "accepted.json").write_text('{"rmse": 100.0, "r2": 0.5}')
    (folder / "in").mkdir()
    for path in sorted((digits / "3").iterdir())[:7]:
        (folder / "in" / path.name).write_bytes(path.read_bytes())
    (folder / "in" / "odd {a} [b].png").write_bytes(path.read_bytes())
    (folder / "in" / "bad.png").write_bytes(b"no image")
    data = ["--parquet", table]
    call(0, "train", *data, *TRAIN, "--output", folder / "train")
    call(3, "evaluate", "--model", folder / "train", *data, "--min-value", "2", "--output", folder / "gate")
    accepted = ["--baseline", folder / "accepted.json"]
    call(0, "evaluate", "--model", folder / "model", *data, *accepted, "--output", folder / "numbers")
    call(0, "score", "--model", folder / "train", *data, "--output", folder / "scored")
    csv = ["--output-format", "csv"]
    call(0, "score", "--model", folder / "model", *data, *csv, "--output", folder / "values")
    small = ["--size", "16", "--parts", "1", "--encoding", "png"]
    call(0, "preprocess-images", "--input", folder / "in", *small, "--output", folder / "images")
    return folder


def page_of(folder):
    return next(path for path in folder.iterdir() if path.name in ("report.html", "_report.html"))


@pytest.mark.parametrize(("name", "expected"), PAGES.items(), ids=PAGES)
def test_every_job_leaves_a_page(outputs, name, expected):
    page = page_of(outputs / name)
    manifest = json.loads((outputs / name / page.name.replace("report.html", "manifest.json")).read_text())
    assert page.name in manifest["outputs"]
    text = page.read_text(encoding="utf-8")
    assert expected[2] in text
    assert re.search(rf"<pre>.*\nsparkopt {manifest['job']}\n.*  output .*{name}\n.*</pre>", text, re.DOTALL)
    assert text.count('<svg role="img"') == expected[0]
    assert text.count("<img ") == expected[1]


def test_samples_are_found_whatever_their_names_are(outputs):
    """Characters that are patterns elsewhere are only themselves."""
    report = json.loads((outputs / "images-report.json").read_text())
    assert (report["good"], sum(report["failures"].values())) == (8, 1)


@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_it(tab, outputs, name):
    charts, pictures, _ = PAGES[name]
    browser.look(tab, page_of(outputs / name), charts, pictures)
