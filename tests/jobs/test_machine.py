"""Every command without Spark or Java: outputs as on Spark, from every kind of input, and errors of one line.

Tests of the first tier have no Java. ``tests/jobs/test_runtimes.py`` compares with Spark.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_svmlight_file
from sklearn.metrics import log_loss, roc_auc_score

from sparkopt.jobs import cli
from sparkopt.jobs.runtimes.libsvm import LibsvmPart, libsvm_table
from sparkopt.jobs.runtimes.machine_rows import split_table
from sparkopt.machine import Table
from sparkopt.ml import LogisticRegression
from tests.jobs.running import ROOT, SUBMIT, environment, heeding_interrupts
from tests.tiers import needs


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        code = cli.main([str(part) for part in arguments])
    except SystemExit as leaving:
        code = leaving.code
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.fixture(scope="module")
def inputs(table, digits, tmp_path_factory):
    """The same rows in each format, and images of three digits."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = pq.read_table(table)
    (folder / "csv").mkdir()
    lines = [",".join(map(str, row.values())) for row in rows.to_pylist()]
    (folder / "csv" / "rows.csv").write_text("\n".join([",".join(rows.column_names), *lines]) + "\n")
    lines = [f"{int(c)} 1:{a} 2:{b}" for a, b, c in zip(*(rows[name].to_pylist() for name in "abc"), strict=True)]
    (folder / "libsvm").write_text("\n".join(lines) + "\n")
    for name in ("3", "7", "9"):
        (folder / "images" / name).mkdir(parents=True)
        for path in sorted((digits / name).iterdir())[:60]:
            (folder / "images" / name / path.name).write_bytes(path.read_bytes())
    named = ["--features", "a,b", "--label", "c"]
    return {
        "parquet": ["--parquet", table, *named],
        "csv": ["--csv", folder / "csv", *named],
        "libsvm": ["--libsvm", folder / "libsvm"],
        "images": ["--images", folder / "images", "--image-size", "8"],
    }


MODEL = ["--reg-param", "0.05", "--tol", "1e-3"]
FILES = {"model", "metrics.json", "receipt.json", "receipt.txt", "report.html", "loss.png", "manifest.json"}


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    """A model of each kind of input."""
    folder = tmp_path_factory.mktemp("models")
    for form, flags in inputs.items():
        assert cli.main(["train", *map(str, flags), *MODEL, "--output", str(folder / form)]) == 0
    return folder


@pytest.mark.parametrize("form", ["parquet", "csv", "libsvm", "images"])
def test_a_training_leaves_what_it_leaves_on_spark(trained, inputs, form):
    assert {path.name for path in (trained / form).iterdir()} == FILES
    manifest = json.loads((trained / form / "manifest.json").read_text())
    assert manifest["spark"] == {"master": None, "application": None}
    assert manifest["status"] == "complete"
    held_out = json.loads((trained / form / "metrics.json").read_text())["held_out"]
    assert manifest["metrics"] == held_out
    receipt = json.loads((trained / form / "receipt.json").read_text())
    assert receipt["rows"] + held_out["rows"] == (180 if form == "images" else 400)
    assert held_out["accuracy"] > 0.8


def test_no_session_and_no_jvm_was_started(trained):
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    assert SparkContext._gateway is None
    assert SparkSession.getActiveSession() is None


def test_the_formats_make_one_model(trained):
    """The same rows are held out of Parquet and CSV, and the coefficients are those of the same optimum."""
    from sparkopt.ml import LogisticRegressionModel

    one, other = (LogisticRegressionModel.load(str(trained / form / "model")) for form in ("parquet", "csv"))
    np.testing.assert_allclose(one.coefficients.toArray(), other.coefficients.toArray(), rtol=1e-6)
    rows = [json.loads((trained / form / "metrics.json").read_text())["held_out"] for form in ("parquet", "csv")]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)


@pytest.mark.parametrize("form", ["parquet", "csv", "libsvm", "images"])
@pytest.mark.parametrize("written", ["parquet", "csv"])
def test_scores_are_the_models_own(capsys, trained, inputs, tmp_path, form, written):
    flags = ["--model", trained / form, *inputs[form], "--output-format", written, "--output", tmp_path / "scored"]
    code, out, err = call(capsys, "score", *flags)
    assert (code, err) == (0, "")
    assert "ran on    this machine, without Spark" in out
    rows = ds.dataset(tmp_path / "scored", format=written, exclude_invalid_files=False).to_table()
    assert rows.num_rows == (180 if form == "images" else 400)
    labels = rows["c" if form in ("parquet", "csv") else "label"].to_numpy()
    assert (rows["prediction"].to_numpy() == labels).mean() > 0.8
    probability = [json.loads(row) if written == "csv" else row for row in rows["probability"].to_pylist()]
    np.testing.assert_allclose(np.sum(probability, axis=1), 1)
    manifest = json.loads((tmp_path / "scored" / "_manifest.json").read_text())
    assert manifest["metrics"] == {"rows": rows.num_rows}
    assert [path.name for path in tmp_path.iterdir()] == ["scored"]


@pytest.mark.parametrize("form", ["parquet", "csv", "libsvm", "images"])
def test_an_evaluation_agrees_with_scikit_learn(capsys, trained, inputs, tmp_path, form):
    known = ["--model", trained / form, *inputs[form]]
    code, _, _ = call(capsys, "evaluate", *known, "--min-value", "1.5", "--output", tmp_path / "gate")
    assert code == 3
    found = json.loads((tmp_path / "gate" / "metrics.json").read_text())
    assert not found["gate"]["passed"]
    page = (tmp_path / "gate" / "report.html").read_text()
    assert "<svg" in page
    assert 'class="verdict bad" role="status">Gate not met: accuracy' in page
    assert "  tolerance 0.0" in page  # a flag that is 0 is shown too
    manifest = json.loads((tmp_path / "gate" / "manifest.json").read_text())
    assert f"UTC; fingerprint of the data: {manifest['data']['data']['digest']}" in page
    assert call(capsys, "score", *known, "--output", tmp_path / "scored")[0] == 0
    rows = ds.dataset(tmp_path / "scored", format="parquet").to_table()
    y = rows["c" if form in ("parquet", "csv") else "label"].to_numpy()
    probability = np.array(rows["probability"].to_pylist())
    expected = {"rows": len(y), "accuracy": (rows["prediction"].to_numpy() == y).mean()}
    expected["logLoss"] = log_loss(y, probability)
    if probability.shape[1] == 2:
        expected["areaUnderROC"] = roc_auc_score(y, probability[:, 1])
    assert {name: found["metrics"][name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_preprocessing_resumes(capsys, inputs, tmp_path):
    """Rows of features with labels and splits, and a second run that adds what is new."""
    folder = tmp_path / "photos"
    source = Path(inputs["images"][1])
    for name in ("3", "7"):
        (folder / name).mkdir(parents=True)
        for path in sorted((source / name).iterdir())[:20]:
            (folder / name / path.name).write_bytes(path.read_bytes())
    (folder / "3" / "bad.png").write_bytes(b"no image")
    (folder / "7" / "empty.png").write_bytes(b"")
    flags = ["preprocess-images", "--input", folder, "--size", "8", "--parts", "3"]
    for more, columns in ((["--features"], {"features", "label", "split"}), (["--encoding", "png"], {"image"})):
        output = tmp_path / f"out{len(more)}"
        assert call(capsys, *flags, *more, "--output", output)[0] == 0
        report = json.loads(Path(f"{output}-report.json").read_text())
        assert (report["images"], report["good"], report["skipped"]) == (42, 40, 0)
        rows = ds.dataset(output, format="parquet", partitioning="hive").to_table()
        assert set(rows.schema.names) == {"path", "error"} | columns
        assert sorted(rows["path"].to_pylist())[0] == f"file:{folder}/3/{sorted(os.listdir(folder / '3'))[0]}"
        assert call(capsys, *flags, *more, "--output", output)[1].startswith("nothing to do")
    (folder / "7" / "later.png").write_bytes(path.read_bytes())
    assert call(capsys, *flags, "--encoding", "png", "--output", tmp_path / "out2")[0] == 0
    report = json.loads(Path(f"{tmp_path}/out2-report.json").read_text())
    assert (report["processed"], report["skipped"], report["good"]) == (1, 42, 41)
    assert (tmp_path / "out2-samples.png").read_bytes().startswith(b"\x89PNG")
    assert call(capsys, *flags, "--features", "--mode", "DROPMALFORMED", "--output", tmp_path / "good")[0] == 0
    train = ["train", "--parquet", tmp_path / "good" / "split=train", "--reg-param", "0.1", "--tol", "1e-2"]
    assert call(capsys, *train, "--output", tmp_path / "model")[0] == 0


def test_outputs_are_replaced_only_where_that_is_asked_for(capsys, trained, inputs, tmp_path):
    base = ["score", "--model", trained / "parquet", *inputs["parquet"], "--output", tmp_path / "out"]
    assert call(capsys, *base)[0] == 0
    assert call(capsys, *base)[1].startswith("nothing to do")
    code, _, err = call(capsys, *base, "--keep", "id")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "exists. Give another --output, or --output-mode overwrite" in err
    assert call(capsys, *base, "--keep", "id", "--output-mode", "overwrite")[0] == 0
    rows = ds.dataset(tmp_path / "out", format="parquet").to_table()
    assert rows.schema.names == ["id", "rawPrediction", "probability", "prediction"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_second_training_starts_from_the_first(capsys, trained, inputs, tmp_path):
    flags = ["train", *inputs["parquet"], *MODEL, "--initial-model", trained / "parquet"]
    assert call(capsys, *flags, "--output", tmp_path / "warm")[0] == 0
    cold, warm = (
        json.loads((path / "receipt.json").read_text()) for path in (trained / "parquet", tmp_path / "warm")
    )
    assert warm["steps"] < cold["steps"]
    assert warm["objective"][0] == pytest.approx(cold["objective"][-1], rel=1e-4)


TRAIN = ["train", "--features", "a,b", "--label", "y", "--loss", "squared_error"]
HURRIED = {
    "missing input": (["train", "--parquet", "/nowhere/rows"], 1, "cannot read '/nowhere/rows': "),
    "missing column": ([*TRAIN, "--parquet", "{table}", "--label", "z"], 1, "label column 'z' does not exist"),
    "text to predict": (
        [*TRAIN, "--csv", "{texts}", "--features", "y", "--label", "word"],
        1,
        "label column 'word' has type string",
    ),
    "no images": (["train", "--images", "{table}"], 1, "has no images: there is no file that ends in png, jpg"),
    "missing model": (["score", "--parquet", "{table}", "--model", "/nowhere"], 1, "'/nowhere' holds no saved model"),
    "missing images": (["preprocess-images", "--input", "/nowhere"], 1, "cannot read '/nowhere': it does not exist"),
    "null label": (
        ["train", "--csv", "{holes}", "--features", "a,b", "--label", "y", "--loss", "squared_error"],
        1,
        "features column 'a', partition 0",
    ),
    "bad sparse row": (["train", "--libsvm", "{bad}"], 1, "line 1 is '1 2:x'; it must be a label and index:value"),
    "unknown file system": (["train", "--parquet", "nowhere://x/y"], 1, "nowhere"),
    "a table of a catalogue": (["train", "--table", "sales"], 1, "Spark is needed (--table names a table of Spark's"),
    "on machine": (["train", "--table", "sales", "--on", "machine"], 2, "--on machine cannot be: --table names"),
    "delta on machine": (
        ["train", "--delta", "x", "--on", "machine"],
        2,
        "--on machine cannot be: --delta is read by",
    ),
    "json output": (
        ["score", "--model", "m", "--parquet", "{table}", "--output-format", "json", "--on", "machine"],
        2,
        "--on machine cannot be: --output-format json is written by Spark",
    ),
    "images of a table": (
        ["preprocess-images", "--input", "x", "--input-format", "table", "--on", "machine"],
        2,
        "--on machine cannot be: --input-format table is read by Spark",
    ),
    "on spark": (["train", "--parquet", "{table}", "--on", "spark"], 1, "Spark is needed (--on spark), and it needs"),
    "on nothing": (["train", "--parquet", "{table}", "--on", "laptop"], 2, "invalid choice: 'laptop'"),
}


@pytest.mark.parametrize("case", HURRIED)
def test_a_mistake_is_one_line(capsys, table, tmp_path, case):
    arguments, code, message = HURRIED[case]
    (tmp_path / "words.csv").write_text("word,y\nmany,1\nfew,2\n")
    holes = [f"{i % 7},{i},{i}" for i in range(40)] + [f",{i},{i}" for i in range(4)]
    (tmp_path / "holes.csv").write_text("\n".join(["a,b,y", *holes]) + "\n")
    (tmp_path / "bad").write_text("0 1:3 2:4\n1 2:x\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    names = {
        "table": table,
        "texts": tmp_path / "words.csv",
        "holes": tmp_path / "holes.csv",
        "bad": tmp_path / "bad",
    }
    filled = [part.format(**names) for part in arguments]
    found, out, err = call(capsys, *filled, "--output", tmp_path / "out")
    assert found == code, err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not out
    assert sorted(path.name for path in tmp_path.iterdir()) == before


SIGNALS = {signal.SIGTERM: (143, "terminated"), signal.SIGINT: (130, "interrupted")}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_one_line_and_leaves_nothing(number, tmp_path):
    """While the model is trained; the worker processes end too."""
    n = 20_000
    rng = np.random.default_rng(0)
    columns = {"x": rng.normal(size=n), "y": rng.normal(size=n)}
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "rows" / "part.parquet")
    flags = ["--features", "x", "--label", "y", "--loss", "huber", "--optimizer", "sgd", "--step-size", "1e-9"]
    flags += ["--max-iter", "1000000", "--tol", "0", "--mini-batch-fraction", "0.5", "--on", "machine"]
    line = [sys.executable, "-m", "sparkopt.jobs.cli", "train", "--parquet", str(tmp_path / "rows"), *flags]
    process = subprocess.Popen(
        [*line, "--log-format", "json", "--output", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_interrupts,
    )
    assert process.stderr is not None
    assert '"begins"' in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    code, word = SIGNALS[number]
    assert (process.returncode, out) == (code, "")
    assert word in err.splitlines()[-1]
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


@pytest.mark.parametrize("submitted", [False, pytest.param(True, marks=needs("jvms"))])
def test_one_script_runs_on_a_laptop_and_on_a_cluster(tmp_path, submitted):
    """That of the documentation: by python where there is no Java, and by spark-submit; to the same coefficients."""
    page = (ROOT / "docs" / "one-machine.md").read_text().partition("## One script for both")[2]
    (tmp_path / "script.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3))
    features = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 3)
    rows = pa.table({"features": features, "label": (X[:, 0] > 0.1 * rng.normal(size=500)).astype(float)})
    pq.write_table(rows, tmp_path / "people.parquet")
    conf = ["--properties-file", "conf/local.conf"]
    line = [str(SUBMIT), *conf] if submitted else [sys.executable]
    run = subprocess.run(
        [*line, str(tmp_path / "script.py"), str(tmp_path / "people.parquet")],
        cwd=ROOT,
        env={**(environment() if submitted else os.environ), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    model = LogisticRegression(regParam=0.01).fit(rows)
    assert run.stdout.splitlines()[-1] == str(model.coefficients)


def test_sparse_rows_are_those_of_scikit_learn(tmp_path):
    """Whatever the bytes at which a file is cut; comments, empty rows and blank lines too."""
    rng = np.random.default_rng(1)
    lines = ["# a comment"]
    for row in range(200):
        chosen = np.flatnonzero(rng.random(30) < 0.2)
        lines.append(
            f"{row % 3} " + " ".join(f"{i + 1}:{rng.normal():.6g}" for i in chosen) + "  # odd" * (row % 50 == 0)
        )
        lines += [""] * (row % 40 == 0)
    (tmp_path / "rows.txt").write_text("\n".join(lines))
    X, y = load_svmlight_file(str(tmp_path / "rows.txt"))
    table = libsvm_table(str(tmp_path / "rows.txt"))
    (whole,) = table.partitions
    size = (tmp_path / "rows.txt").stat().st_size
    cuts = [0, 1, 500, 501, 502, 2000, size - 1, size]
    pieces = [LibsvmPart(whole.file, a, b, whole.width) for a, b in itertools.pairwise(cuts)]
    for parts in ((whole,), tuple(pieces)):
        rows = pa.Table.from_batches([batch for part in parts for batch in part.batches()])
        np.testing.assert_array_equal(rows["label"].to_numpy(), y)
        dense = np.zeros(X.shape)
        for number, vector in enumerate(rows["features"].to_pylist()):
            assert vector["size"] == X.shape[1]
            dense[number, vector["indices"]] = vector["values"]
        np.testing.assert_array_equal(dense, X.toarray())


def ids_of(rows: Table) -> list[int]:
    return [
        number for part in rows.partitions for batch in part.batches(["id"]) for number in batch["id"].to_pylist()
    ]


def test_rows_are_held_out_whatever_their_files(table, tmp_path):
    """One file, two files, other types of integers: the same rows."""
    rows = pq.read_table(table)
    pq.write_table(rows.set_column(0, "id", rows["id"].cast(pa.int32())), tmp_path / "one.parquet")
    found = []
    for path in (table, str(tmp_path / "one.parquet")):
        parts = split_table(Table.of(path), 0.2, 7)
        ids = [
            [i for part in half.partitions for b in part.batches(["id"]) for i in b["id"].to_pylist()]
            for half in parts
        ]
        assert sorted(ids[0] + ids[1]) == list(range(400))
        found.append(sorted(ids[1]))
    assert found[0] == found[1]
    assert 50 < len(found[0]) < 110
