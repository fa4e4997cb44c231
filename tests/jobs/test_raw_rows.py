"""Commands from raw rows to scores without Spark: what a first try is, and what it says where it cannot work."""

from __future__ import annotations

import csv
import json
import re
from html import unescape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from sparkopt.jobs import cli
from sparkopt.jobs.sources import format_of
from sparkopt.ml import LinearRegression, LogisticRegression, Pipeline, PipelineModel, TableFeatures
from tests.jobs.raw_journeys import write_days, write_libsvm, write_people
from tests.jobs.test_machine import call


def run(*arguments):
    assert cli.main([str(part) for part in arguments]) == 0


def metrics(folder, part="metrics"):
    return json.loads((folder / "metrics.json").read_text())[part]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """50,000 rows, a model of them, and what they score: the first journey."""
    folder = tmp_path_factory.mktemp("people")
    write_people(folder / "people.csv", 50_000, 1)
    best = write_people(folder / "new.csv", 5_000, 2)
    run("train", folder / "people.csv", "--label", "churned", "--output", folder / "model")
    run("score", folder / "new.csv", "--model", folder / "model", "--output", folder / "scores")
    return folder, best


def test_a_csv_of_words_dates_and_nulls_is_trained_on_and_scored(people):
    folder, best = people
    scores = pq.read_table(folder / "scores")
    with (folder / "new.csv").open(encoding="utf-8", newline="") as file:
        given = list(csv.DictReader(file))
    assert scores.column_names == [*given[0], "rawPrediction", "probability", "prediction"]
    assert scores.column("şehir").to_pylist() == [row["şehir"] for row in given]
    churned = [row["churned"] == "yes" for row in given]
    probability = np.array(scores.column("probability").to_pylist())[:, 1]
    assert roc_auc_score(churned, probability) > roc_auc_score(churned, best) - 0.02  # some cells are empty
    named = np.where(probability > 0.5, "yes", "no").tolist()
    assert scores.column("prediction").to_pylist() == named
    assert json.loads((folder / "model" / "metrics.json").read_text())["labels"] == ["no", "yes"]


def test_it_is_evaluated_by_the_names_of_its_classes(people, tmp_path):
    folder, _ = people
    run("evaluate", folder / "new.csv", "--model", folder / "model", "--output", tmp_path / "gate")
    scores = pq.read_table(folder / "scores")
    right = np.mean(
        [a == b for a, b in zip(*(scores.column(c).to_pylist() for c in ("churned", "prediction")), strict=True)]
    )
    assert metrics(tmp_path / "gate")["accuracy"] == pytest.approx(right)


def test_training_goes_on_from_such_a_model(people, tmp_path):
    folder, _ = people
    flags = ["--label", "churned", "--initial-model", folder / "model", "--output", tmp_path / "more"]
    run("train", folder / "new.csv", *flags)
    first, second = (PipelineModel.load(str(path / "model")) for path in (folder / "model", tmp_path / "more"))
    assert second.stages[0].encoder == first.stages[0].encoder


def test_a_column_that_is_empty_is_scored_as_it_was_trained(people, tmp_path):
    folder, _ = people
    lines = (folder / "new.csv").read_text(encoding="utf-8").splitlines()[:200]
    rows = list(csv.reader(lines))
    with (tmp_path / "today.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *([row[0], "", row[2], "", *row[4:]] for row in rows[1:])])
    run("score", tmp_path / "today.csv", "--model", folder / "model", "--output", tmp_path / "scores")
    assert pq.read_table(tmp_path / "scores").column("prediction").null_count == 0


def test_a_libsvm_pair_of_unequal_widths(tmp_path):
    train, test = write_libsvm(tmp_path)
    run("train", "--libsvm", train, "--output", tmp_path / "model")
    run("score", test, "--model", tmp_path / "model", "--output", tmp_path / "scores")
    run("evaluate", test, "--model", tmp_path / "model", "--output", tmp_path / "gate")
    scores = pq.read_table(tmp_path / "scores")
    assert set(scores.column("prediction").to_pylist()) == {"-1", "1"}
    signs = [line.split()[0] for line in test.read_text().splitlines()]
    right = np.mean(
        [f"{int(sign)}" == name for sign, name in zip(signs, scores.column("prediction").to_pylist(), strict=True)]
    )
    assert metrics(tmp_path / "gate")["accuracy"] == pytest.approx(right)
    assert right > 0.75


def test_a_table_by_day_whose_newest_day_has_a_new_column_and_nulls(tmp_path):
    folder = write_days(tmp_path / "days")
    old = folder / "day=2026-11-2[67]"
    run("train", "--parquet", old, "--formula", "label ~ . - id", "--output", tmp_path / "model")
    run(
        "score",
        folder / "day=2026-11-28",
        "--model",
        tmp_path / "model",
        "--keep",
        "id",
        "--output",
        tmp_path / "scores",
    )
    scores = pq.read_table(tmp_path / "scores")
    assert scores.num_rows == 300
    assert scores.column("prediction").null_count == 0
    assert PipelineModel.load(str(tmp_path / "model" / "model")).stages[0].encoder.columns == ("amount", "channel")
    run("evaluate", folder / "day=2026-11-28", "--model", tmp_path / "model", "--output", tmp_path / "gate")
    assert metrics(tmp_path / "gate")["accuracy"] > 0.55


def test_flags_choose_categories_filling_and_terms(tmp_path):
    rng = np.random.default_rng(0)
    rows = {"zip": rng.integers(0, 4, 300), "x": np.where(rng.random(300) < 0.2, np.nan, rng.normal(size=300))}
    pq.write_table(pa.table({**rows, "y": rng.normal(size=300)}), tmp_path / "rows.parquet")
    flags = [
        "--loss",
        "squared_error",
        "--categorical",
        "zip",
        "--impute",
        "zero",
        "--formula",
        "y ~ zip + x:zip - 1",
    ]
    run("train", tmp_path / "rows.parquet", *flags, "--output", tmp_path / "model")
    features, last = PipelineModel.load(str(tmp_path / "model" / "model")).stages
    assert features.featureNames[:5] == ["zip=0", "zip=1", "zip=2", "zip=3", "x:zip=0"]
    assert features.encoder.encodings[1].fill == 0.0
    assert last.intercept == 0.0


def test_regressions_take_raw_rows_too(tmp_path):
    frame = pa.table({"town": ["a", "b"] * 50, "age": list(range(100)), "amount": [float(i) for i in range(100)]})
    pq.write_table(frame, tmp_path / "rows.parquet")
    flags = ["--label", "amount", "--loss", "squared_error"]
    run("train", tmp_path / "rows.parquet", *flags, "--output", tmp_path / "model")
    assert metrics(tmp_path / "model", "held_out")["r2"] > 0.999


@pytest.mark.parametrize("kind", ["pipeline", "searched"])
def test_models_that_were_saved_in_python_are_scored(kind, tmp_path):
    from pyspark.ml.tuning import ParamGridBuilder

    from sparkopt.ml import CrossValidator, RegressionEvaluator

    frame = pa.table(
        {"town": ["a", "b"] * 50, "age": [float(i) for i in range(100)], "label": [float(i) for i in range(100)]}
    )
    pq.write_table(frame, tmp_path / "rows.parquet")
    if kind == "pipeline":
        model = Pipeline(stages=[TableFeatures(), LinearRegression()]).fit(frame)
    else:
        learner = LinearRegression(featuresCols=["age"])
        grid = ParamGridBuilder().addGrid(learner.regParam, [0.0, 0.1]).build()
        search = CrossValidator(
            estimator=learner, estimatorParamMaps=grid, evaluator=RegressionEvaluator(), numFolds=2
        )
        model = search.fit(frame)
    model.write().overwrite().save(str(tmp_path / "model"))
    run("score", tmp_path / "rows.parquet", "--model", tmp_path / "model", "--output", tmp_path / "scores")
    assert np.allclose(pq.read_table(tmp_path / "scores").column("prediction"), np.arange(100), atol=0.01)


def test_a_saved_part_of_another_library_is_refused(tmp_path, capsys):
    frame = pa.table({"town": ["a", "b"] * 50, "label": [0.0, 1.0] * 50})
    pq.write_table(frame, tmp_path / "rows.parquet")
    Pipeline(stages=[TableFeatures(), LogisticRegression(regParam=0.1)]).fit(frame).save(str(tmp_path / "model"))
    (part,) = (tmp_path / "model" / "stages").glob("0_*/metadata/part-*")
    part.write_text(part.read_text().replace("sparkopt.ml.table_features", "os.evil"))
    code, _, err = call(
        capsys, "score", tmp_path / "rows.parquet", "--model", tmp_path / "model", "--output", tmp_path / "s"
    )
    assert code == 1
    assert "which is neither of sparkopt nor of pyspark.ml" in err


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.CSV", "csv"),
        ("a.csv.gz", "csv"),
        ("a.tsv", "csv"),
        ("a9a.t", "libsvm"),
        ("s3://b/x", "parquet"),
        ("x.jsonl", "json"),
        ("photos/*.JPG", "images"),
        ("one.png", "images"),
    ],
)
def test_the_format_is_that_of_the_ending(path, kind):
    assert format_of(path) == kind


def test_a_folder_of_images_needs_no_flag(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "0.JPEG").write_bytes(b"")
    assert format_of(str(tmp_path)) == "images"


WRONG = {
    "too many classes": (["--label", "id"], 1, "label column 'id' has more than 100 different values"),
    "numbers as classes": (["--label", "amount"], 1, "label column 'amount' has more than 100 different values"),
    "halves as classes": (["--label", "half"], 1, "which are no classes. Predict numbers with --loss squared_error"),
    "one class": (["--label", "same"], 1, "label column 'same' is 'x' in every row: there is nothing to learn"),
    "label among features": (["--features", "amount,y", "--label", "y"], 1, "--features names the label, 'y'"),
    "no such label": (
        ["--label", "churned"],
        1,
        "'churned' does not exist. Columns: id, amount, half, word, same, y. Name one of them by --label.",
    ),
    "no label": ([], 1, "label column 'label' does not exist. Columns: "),
    "no such column": (["--features", "amount,age", "--label", "y"], 1, "column 'age' does not exist"),
    "text to predict": (["--label", "word", "--loss", "squared_error"], 1, "label column 'word' has type string"),
    "formula": (["--formula", "y ~ a ^ 2"], 2, "^ is not supported"),
    "formula and label": (
        ["--formula", "y ~ amount", "--label", "word"],
        1,
        "--formula predicts 'y', and --label is",
    ),
    "no held-out rows": (
        ["--features", "half", "--label", "y", "--test-fraction", "0.00001"],
        1,
        "--test-fraction 1e-05 holds out no row",
    ),
    "categorical": (["--label", "y", "--categorical", "zip"], 1, "categorical column 'zip' does not exist"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_label_or_column_is_one_line(case, tmp_path, capsys):
    n = 150
    rows = {
        "id": [f"id {i}" for i in range(n)],
        "amount": [i / 7 for i in range(n)],
        "half": [i % 3 / 2 for i in range(n)],
        "word": ["a", "b", "c"] * 50,
        "same": ["x"] * n,
        "y": [i % 2 for i in range(n)],
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    flags, code, message = WRONG[case]
    found, out, err = call(capsys, "train", tmp_path / "rows.parquet", *flags, "--output", tmp_path / "out")
    assert (found, out) == (code, ""), err
    assert message in err
    assert len([line for line in err.splitlines() if "left out" not in line and "identifier" not in line]) == 1
    assert not (tmp_path / "out").exists()


def test_what_names_no_data_or_two_is_refused(capsys, tmp_path):
    code, _, err = call(capsys, "train", "rows.parquet", "--csv", "rows.csv", "--output", tmp_path / "out")
    assert (code, "both name the data" in err) == (2, True)
    code, _, err = call(capsys, "train", "rows.xlsx", "--output", tmp_path / "out")
    assert (code, "does not say what it is by its ending" in err) == (2, True)


def test_labels_that_the_model_does_not_know_are_named(tmp_path, capsys):
    known = pa.table({"x": [float(i % 7) for i in range(90)], "y": ["a", "b", "c"] * 30})
    pq.write_table(known, tmp_path / "known.parquet")
    pq.write_table(pa.table({"x": [1.0, 2.0], "y": ["a", "z"]}), tmp_path / "other.parquet")
    run("train", tmp_path / "known.parquet", "--label", "y", "--output", tmp_path / "model")
    code, _, err = call(
        capsys, "evaluate", tmp_path / "other.parquet", "--model", tmp_path / "model", "--output", tmp_path / "o"
    )
    assert code == 1
    assert "row 1: 'z' is none of the model's classes: a, b, c." in err


def test_a_word_among_numbers_and_a_missing_label_are_named_with_the_flag(tmp_path, capsys):
    """Rows are counted from the first of a file, whose batches are shorter."""
    lines = [f"{i / 8},{'yes' if i % 9 > 4 else 'no'}" for i in range(40_000)]
    for name, changed in {"whole": {}, "word": {39_000: "n/a,yes"}, "label": {39_000: "3,"}}.items():
        rows = [changed.get(number, line) for number, line in enumerate(lines)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    run("train", tmp_path / "whole.csv", "--label", "y", "--reg-param", "0.1", "--output", tmp_path / "model")
    known = ["--model", tmp_path / "model", "--output"]
    code, _, err = call(capsys, "score", tmp_path / "word.csv", *known, tmp_path / "out")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "column 'x', row 39000 is 'n/a', which is no number. Of CSV, --option 'nullValue=n/a' takes it as" in err
    run("score", tmp_path / "word.csv", *known, tmp_path / "out", "--option", "nullValue=n/a")
    code, _, err = call(capsys, "evaluate", tmp_path / "label.csv", *known, tmp_path / "gate")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "1 of 40000 rows have no label. Filter or repair such rows, or give --handle-invalid skip." in err
    run("evaluate", tmp_path / "label.csv", *known, tmp_path / "gate", "--handle-invalid", "skip")


def test_the_page_of_a_training_is_what_one_looks_for(people):
    """Class balance, confusion and ROC of held-out rows, and the largest coefficients by name, words escaped."""
    folder, _ = people
    text = (folder / "model" / "report.html").read_text(encoding="utf-8")
    for title in ("Held-out rows by class", "Rows by true and predicted class", "ROC", "Coefficients, the largest"):
        assert title in text
    model = PipelineModel.load(str(folder / "model" / "model")).stages[-1]
    names = re.findall(r'<th scope="row">([^<]*)</th><td>-?[0-9.e-]+</td></tr>', text)
    assert [unescape(name) for name in names] == [one.feature for one in model.namedCoefficients[:20]]
    assert "  reg_param 0.0\n" in text
    assert "option" not in text
