"""What a hurried user gets wrong, by command, without Spark: one line with the way out, and nothing is written."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from sparkopt.jobs import cli
from tests.jobs.test_machine import call

N = 120


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of rows, images, and a model of each."""
    folder = tmp_path_factory.mktemp("hurried")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, N))
    rows = pa.table(
        {
            "a": a,
            "b": b,
            "amount": 2 * a - b,
            "label": (a > b).astype(float),
            "kind": rng.choice(["r", "g", "b"], N),
            "weight": np.ones(N),
        }
    )
    pq.write_table(rows, folder / "rows.parquet")
    pa.csv.write_csv(rows, folder / "rows.csv")
    pa.csv.write_csv(rows, folder / "semicolons.csv", pa.csv.WriteOptions(delimiter=";"))
    for name, text in {
        "empty.csv": "",
        "header.csv": "a,b,label\n",
        "broken.parquet": "hello",
        "table.xlsx": "x",
    }.items():
        (folder / name).write_text(text)
    (folder / "rows.svm").write_text("".join(f"{i % 2} 1:{i % 7} 2:{i % 3}\n" for i in range(N)))
    (folder / "broken.svm").write_text("1 1:2\n0 x:3\n")
    (folder / "nothing").mkdir()
    for name in ("cat", "dog", "owl"):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 255, (8, 8, 3)).astype("uint8")
            cv2.imwrite(str(folder / "images" / name / f"{i}.png"), pixels)
    (folder / "flat").mkdir()
    cv2.imwrite(str(folder / "flat" / "1.png"), np.zeros((8, 8, 3), "uint8"))
    flags = ["train", str(folder / "rows.parquet"), "--features", "a,b", "--output"]
    assert cli.main([*flags, str(folder / "model")]) == 0
    assert cli.main([*flags, str(folder / "amounts"), "--label", "amount", "--loss", "squared_error"]) == 0
    receipt = json.loads((folder / "model" / "receipt.json").read_text())
    for name, changed in {
        "list": [receipt],
        "cut": {key: value for key, value in receipt.items() if key != "steps"},
        "more": {**receipt, "note": "x"},
        "odd": {**receipt, "seconds": "long"},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(changed))
    return folder


ROWS, IMAGES = ["{rows.parquet}"], ["--images", "{images}"]
MODEL = ["--model", "{model}"]
Line = tuple[list[str], int, str]
TRAIN: dict[str, Line] = {
    "no label": (["{rows.csv}", "--label", "churned"], 1, "'churned' does not exist. Columns: a, b, amount, label"),
    "no file": (["{nowhere.parquet}"], 1, "it does not exist"),
    "an empty folder": (["{nothing}"], 1, "has no files of rows"),
    "an empty file": (["{empty.csv}"], 1, "Empty CSV file"),
    "a header alone": (["{header.csv}"], 1, "there are no rows to take features from"),
    "a broken file": (["{broken.parquet}"], 1, "cannot be read as Parquet"),
    "a spreadsheet": (["{table.xlsx}"], 2, "does not say what it is by its ending: give --csv, --parquet"),
    "semicolons": (["{semicolons.csv}"], 1, "separates columns seems to be --option 'sep=;'"),
    "two formats": ([*ROWS, "{rows.csv}"], 2, "is csv: a run reads one format"),
    "a file twice": ([*ROWS, *ROWS], 2, "rows.parquet' twice: its rows would count twice. Leave one out"),
    "a file and its folder": (["--csv", "{.}", "{rows.csv}"], 2, "which it lies in: its rows would count twice"),
    "checkpoints among the rows": (
        [*ROWS, "--checkpoint-dir", "{rows.parquet/old}"],
        2,
        "another --checkpoint-dir",
    ),
    "columns with spaces between": ([*ROWS, "--features", "a", "b"], 2, "quotation marks"),
    "a column twice missing": ([*ROWS, "--features", "a,,b"], 1, "features column '' does not exist"),
    "no features": ([*ROWS, "--features", ""], 2, "--features is empty: name a column"),
    "the label as a feature": ([*ROWS, "--features", "a,label"], 1, "--features names the label, 'label'"),
    "the label as a weight": ([*ROWS, "--weight", "label"], 2, "--weight names the label, 'label'"),
    "words as weights": ([*ROWS, "--features", "a", "--weight", "kind"], 1, "weight column 'kind' has type string"),
    "three classes for two": (
        [*ROWS, "--label", "kind", "--loss", "logistic"],
        1,
        "'kind' has more than two different values, and --loss logistic is of two classes. Leave --loss out",
    ),
    "three classes for a margin": (
        [*ROWS, "--label", "kind", "--loss", "hinge"],
        1,
        "--loss multinomial for classes",
    ),
    "amounts as classes": ([*ROWS, "--label", "amount"], 1, "more than 100 different values"),
    "words as amounts": ([*ROWS, "--label", "kind", "--loss", "squared_error"], 1, "'kind' has type string"),
    "amounts as counts": ([*ROWS, "--features", "a,b", "--label", "amount", "--loss", "poisson"], 1, "must be >= 0"),
    "another package's loss": ([*ROWS, "--loss", "logistic_regression"], 2, "(choose from 'logistic', 'multinomial'"),
    "capital letters": ([*ROWS, "--optimizer", "Adam"], 2, "invalid choice: 'Adam' (choose from 'auto'"),
    "no step size": ([*ROWS, "--optimizer", "adam", "--step-size", "0"], 2, "stepSize must be > 0"),
    "a schedule alone": ([*ROWS, "--step-size-schedule", "cosine"], 2, "needs a stepSize to start from"),
    "1e3 steps": ([*ROWS, "--max-iter", "1e3"], 2, "argument --max-iter: invalid int value: '1e3'"),
    "no penalty below zero": ([*ROWS, "--reg-param", "-0.1"], 2, "regParam must be >= 0"),
    "not a number": ([*ROWS, "--reg-param", "nan"], 2, "regParam must be >= 0. Got nan"),
    "more than all of L1": ([*ROWS, "--elastic-net-param", "2"], 2, "elasticNetParam must be in [0, 1]"),
    "per cent": ([*ROWS, "--test-fraction", "20"], 2, "--test-fraction must be between 0 and 1. Got 20"),
    "local steps": ([*ROWS, "--local-steps", "5"], 2, "of the estimators in Python: LogisticRegression(localSteps=5"),
    "a misspelt flag": ([*ROWS, "--regparam", "1"], 2, "Did you mean --reg-param?"),
    "another spelling": ([*ROWS, "--optimiser=adam"], 2, "Did you mean --optimizer?"),
    "one image": (["--image", "{images}"], 2, "Did you mean --images?"),
    "a policy that is none": ([*ROWS, "--handle-invalid", "drop"], 2, "(choose from 'error', 'skip', 'keep')"),
    "half a formula": ([*ROWS, "--formula", "label ~"], 2, "a term is missing"),
    "an unknown term": ([*ROWS, "--formula", "label ~ age"], 1, "input column 'age' does not exist"),
    "features of LIBSVM": (
        ["--libsvm", "{rows.svm}", "--features", "a"],
        2,
        "--libsvm has none: its lines begin with",
    ),
    "too narrow": (["--libsvm", "{rows.svm}", "--num-features", "1"], 1, "has feature 2, and there are to be 1"),
    "broken LIBSVM": (["--libsvm", "{broken.svm}"], 1, "line 1 is '0 x:3'; it must be a label and index:value"),
    "a label of images": ([*IMAGES, "--label", "animal"], 2, "--images has none: an image's label is its folder"),
    "amounts of images": ([*IMAGES, "--loss", "squared_error"], 2, "predicts numbers, and the labels of --images"),
    "three animals for two": (
        [*IMAGES, "--loss", "logistic"],
        1,
        "has images of 3 classes, more than 2. Leave --loss out",
    ),
    "images without folders": (["--images", "{flat}"], 1, "has images of 1 classes"),
    "a table as images": (["--images", "{rows.csv}"], 1, "has no images: there is no file that ends in png"),
    "no start": ([*ROWS, "--initial-model", "{nowhere}"], 1, "holds no saved model"),
    "another kind of start": ([*ROWS, "--features", "a,b", "--initial-model", "{amounts}"], 1, "must be a Logistic"),
    "another width of start": ([*ROWS, "--features", "a", "--initial-model", "{model}"], 1, "model has 2 features"),
    "no output": ([*ROWS, "--output", ""], 2, "--output is empty: name a path"),
    "an output with a model": ([*ROWS, "--output", "{model}"], 1, "holds a model. Give another --output"),
    "the input as output": ([*ROWS, "--output", "{rows.parquet}"], 2, "which the job reads. Give another --output"),
}
SCORE: dict[str, Line] = {
    "no model": (ROWS, 2, "the following arguments are required: --model"),
    "no data": (MODEL, 2, "one of the arguments --images --parquet"),
    "nowhere": ([*ROWS, "--model", "{nowhere}"], 1, "holds no saved model: there is neither metadata/ nor model/"),
    "data as a model": ([*ROWS, "--model", "{rows.csv}"], 1, "holds no saved model"),
    "a file of the model": ([*ROWS, "--model", "{model/metrics.json}"], 1, "holds no saved model"),
    "a column to keep": ([*ROWS, *MODEL, "--keep", "id"], 1, "--keep column 'id' does not exist. Columns: a, b"),
    "too few features": ([*ROWS, *MODEL, "--features", "a"], 1, "1 features; the model was trained on 2"),
    "too many": ([*ROWS, *MODEL, "--features", "a,b,weight"], 1, "3 features; the model was trained on 2"),
    "words": ([*ROWS, *MODEL, "--features", "a,kind"], 1, "features column 'kind' has type string"),
    "an empty file": (["{empty.csv}", *MODEL], 1, "Empty CSV file"),
    "no file": (["{nowhere.csv}", *MODEL], 1, "it does not exist"),
    "semicolons": (["{semicolons.csv}", *MODEL], 1, "separates columns seems to be --option 'sep=;'"),
    "other columns": (["{rows.svm}", *MODEL], 1, "features column 'a' does not exist. Columns: label, features"),
    "images": ([*IMAGES, *MODEL], 1, "2 features, and no square image has as many values. Name the table"),
    "a threshold": ([*ROWS, *MODEL, "--threshold", "0.3"], 2, "model.setThreshold(0.3), then model.save(path)"),
    "a spreadsheet": (
        [*ROWS, *MODEL, "--output-format", "xlsx"],
        2,
        "(choose from 'parquet', 'csv', 'json', 'delta')",
    ),
    "another mode": ([*ROWS, *MODEL, "--output-mode", "replace"], 2, "(choose from 'errorifexists', 'overwrite')"),
    "another policy": ([*ROWS, *MODEL, "--handle-invalid", "null"], 2, "(choose from 'error', 'skip', 'keep')"),
    "over the model": ([*ROWS, *MODEL, "--output", "{model}"], 2, "which the job reads"),
    "over the data": ([*ROWS, *MODEL, "--output", "{rows.parquet}"], 2, "which the job reads"),
    "into the data": (["--parquet", "{images}", *MODEL, "--output", "{images/scores}"], 2, "which the job reads"),
    "no output": ([*ROWS, *MODEL, "--output", ""], 2, "the following arguments are required: --output"),
}
EVALUATE: dict[str, Line] = {
    "no model": (ROWS, 2, "the following arguments are required: --model"),
    "no data": (MODEL, 2, "one of the arguments --images --parquet"),
    "nowhere": ([*ROWS, "--model", "{nowhere}"], 1, "holds no saved model"),
    "no label": ([*ROWS, *MODEL, "--label", "churned"], 1, "label column 'churned' does not exist. Columns: a, b"),
    "words": ([*ROWS, *MODEL, "--label", "kind"], 1, "label column 'kind' has type string; it must be numeric. Cast"),
    "words for amounts": ([*ROWS, "--model", "{amounts}", "--label", "kind"], 1, "'kind' has type string"),
    "amounts for classes": ([*ROWS, *MODEL, "--label", "amount"], 1, "label is none of the model's classes in"),
    "no weight": ([*ROWS, *MODEL, "--weight", "w"], 1, "weight column 'w' does not exist"),
    "words as weights": ([*ROWS, *MODEL, "--weight", "kind"], 1, "weight column 'kind' has type string"),
    "the label as a weight": (
        [*ROWS, *MODEL, "--label", "label", "--weight", "label"],
        2,
        "--weight names the label, 'label'",
    ),
    "another name": (
        [*ROWS, *MODEL, "--metric", "auc"],
        2,
        "(choose from 'accuracy', 'f1', 'logLoss', 'areaUnderROC'",
    ),
    "a metric of numbers": ([*ROWS, *MODEL, "--metric", "rmse"], 1, "the model has no rmse. It has accuracy"),
    "a metric of classes": (
        [*ROWS, "--model", "{amounts}", "--label", "amount", "--metric", "accuracy"],
        1,
        "the model has no accuracy. It has rmse",
    ),
    "a word as a bound": ([*ROWS, *MODEL, "--min-value", "high"], 2, "invalid float value: 'high'"),
    "bounds the wrong way": ([*ROWS, *MODEL, "--min-value", "2", "--max-value", "1"], 2, "is above --max-value 1"),
    "a tolerance of nothing": (
        [*ROWS, *MODEL, "--tolerance", "0.1"],
        2,
        "--tolerance is of the value of a --baseline",
    ),
    "a tolerance below zero": ([*ROWS, *MODEL, "--tolerance", "-1"], 2, "--tolerance must be >= 0"),
    "no baseline": ([*ROWS, *MODEL, "--baseline", "{nowhere}"], 1, "Give --baseline-optional for a first run"),
    "an optional nothing": ([*ROWS, *MODEL, "--baseline-optional"], 2, "--baseline-optional needs --baseline"),
    "too few features": ([*ROWS, *MODEL, "--features", "a"], 1, "1 features; the model was trained on 2"),
    "an empty file": (["{empty.csv}", *MODEL], 1, "Empty CSV file"),
    "a header alone": (["{header.csv}", *MODEL], 1, "there are no rows to evaluate"),
    "over the model": ([*ROWS, *MODEL, "--output", "{model}"], 2, "which the job reads"),
}
INPUT = ["--input", "{images}"]
PREPROCESS: dict[str, Line] = {
    "no input": ([], 2, "the following arguments are required: --input"),
    "a path alone": (["{images}"], 2, "unrecognized arguments"),
    "another command's flag": (["--images", "{images}"], 2, "unrecognized arguments: --images"),
    "nowhere": (["--input", "{nowhere}"], 1, "it does not exist"),
    "an empty folder": (["--input", "{nothing}"], 1, "has no images: there is no file that ends in png"),
    "a table": (["--input", "{rows.csv}"], 1, "has no images: there is no file that ends in png"),
    "no size": ([*INPUT, "--size", "0"], 2, "must be a whole number in [1, 65536]"),
    "width and height": ([*INPUT, "--size", "224x224"], 2, "argument --size: invalid int value: '224x224'"),
    "jpg": ([*INPUT, "--encoding", "jpg"], 2, "invalid choice: 'jpg' (choose from 'jpeg', 'png', 'webp')"),
    "quality of 101": ([*INPUT, "--quality", "101"], 2, "quality must be a whole number in [1, 100]"),
    "small letters": ([*INPUT, "--mode", "permissive"], 2, "(choose from 'PERMISSIVE', 'DROPMALFORMED', 'FAILFAST')"),
    "no parts": ([*INPUT, "--parts", "0"], 2, "--parts must be at least 1"),
    "half a part": ([*INPUT, "--parts", "1.5"], 2, "argument --parts: invalid int value"),
    "no pipeline": ([*INPUT, "--pipeline", "{nowhere.json}"], 2, "cannot be read: No such file or directory"),
    "a table as pipeline": (
        [*INPUT, "--pipeline", "{rows.csv}"],
        2,
        "rows.csv': a pipeline must be an images.Compose",
    ),
    "labels of nothing": ([*INPUT, "--labels", "cat,dog"], 2, "--labels is for --features, which writes the labels"),
    "other labels": (
        [*INPUT, "--features", "--labels", "cat,cow"],
        1,
        "--input has images of 'dog'; --labels are cat",
    ),
    "per cent": ([*INPUT, "--test-fraction", "20"], 2, "--test-fraction must be between 0 and 1"),
    "an epoch below zero": ([*INPUT, "--epoch", "-1"], 2, "--epoch must be >= 0. Got -1"),
    "a seed below zero": ([*INPUT, "--seed", "-1"], 2, "--seed must be >= 0. Got -1"),
    "a colour": ([*INPUT, "--color", "blue"], 2, "(choose from 'gray', 'rgb')"),
    "another format": ([*INPUT, "--output-format", "csv"], 2, "(choose from 'parquet', 'delta')"),
    "Spark's format": (
        ["--input", "{rows.parquet}", "--input-format", "parquet", "--on", "machine"],
        2,
        "is read by Spark. Give --on spark",
    ),
    "over the input": ([*INPUT, "--output", "{images}"], 2, "which the job reads"),
    "into the input": ([*INPUT, "--output", "{images/small}"], 2, "which the job reads"),
}
DEEP: dict[str, Line] = {
    "no images": ([], 2, "one of the arguments --images --parquet"),
    "two folders": (["{images}", "{images}"], 2, "hold images: name one folder that both are in"),
    "a table too": ([*IMAGES, "--parquet", "{rows.parquet}"], 2, "not allowed with argument --images"),
    "widths": ([*IMAGES, "--widths", "7"], 2, "widths must be multiples of 8"),
    "no widths": ([*IMAGES, "--widths", ""], 2, "--widths must be whole numbers with commas between"),
    "widths with spaces": ([*IMAGES, "--widths", "32 64"], 2, "--widths must be whole numbers with commas between"),
    "width zero": ([*IMAGES, "--widths", "0"], 2, "widths must be multiples of 8"),
    "epochs below zero": ([*IMAGES, "--epochs", "-1"], 2, "epochs must be a whole number >= 0"),
    "ten epochs": ([*IMAGES, "--epochs", "ten"], 2, "argument --epochs: invalid int value: 'ten'"),
    "no batch": ([*IMAGES, "--batch-size", "0"], 2, "batchSize must be a whole number >= 1"),
    "capital letters": ([*IMAGES, "--optimizer", "Adam"], 2, "invalid choice: 'Adam'"),
    "a step below zero": ([*IMAGES, "--step-size", "-1"], 2, "stepSize must be > 0"),
    "another schedule": ([*IMAGES, "--step-size-schedule", "cos"], 2, "invalid choice: 'cos'"),
    "patience below zero": ([*IMAGES, "--patience", "-1"], 2, "patience must be a whole number >= 0"),
    "another precision": ([*IMAGES, "--precision", "fp64"], 2, "invalid choice: 'fp64'"),
    "another launcher": ([*IMAGES, "--launcher", "mpi"], 2, "invalid choice: 'mpi'"),
    "no process": ([*IMAGES, "--processes", "0"], 2, "numProc must be a whole number >= 1"),
    "another device": ([*IMAGES, "--device", "gpu"], 2, "invalid choice: 'gpu' (choose from"),
    "no thread": ([*IMAGES, "--loader-threads", "0"], 2, "loaderThreads must be"),
    "restarts below zero": ([*IMAGES, "--max-restarts", "-1"], 2, "maxRestarts must be a whole number >= 0"),
    "more than there are": (
        [*IMAGES, "--min-processes", "4", "--processes", "2"],
        2,
        "--min-processes 4 is above --processes 2",
    ),
    "no pixels": ([*IMAGES, "--image-size", "0"], 2, "--image-size must be at least 1"),
    "all for the test": ([*IMAGES, "--test-fraction", "1"], 2, "--test-fraction must be between 0 and 1"),
    "validation below zero": ([*IMAGES, "--validation-fraction", "-0.1"], 2, "validation"),
    "all for validation": ([*IMAGES, "--validation-fraction", "1"], 2, "validationFraction must be in [0, 1)"),
    "no output": ([*IMAGES, "--output", ""], 2, "--output is empty"),
    "over the images": ([*IMAGES, "--output", "{images}"], 2, "which the job reads"),
}
RECEIPTS = ["{model/receipt.json}", "{amounts/receipt.json}"]
COMPARE: dict[str, Line] = {
    "no receipt": ([], 2, "the following arguments are required: first, second (--help"),
    "one receipt": (RECEIPTS[:1], 2, "the following arguments are required: second (--help"),
    "three receipts": ([*RECEIPTS, "{other}"], 2, "two receipts are compared, and 3 are given"),
    "one receipt twice": ([RECEIPTS[0]] * 2, 2, "Name another run's"),
    "a run and its receipt": (["{model}", RECEIPTS[0]], 2, "both paths are the receipt"),
    "an empty path": (["", RECEIPTS[1]], 2, "a receipt's path is empty"),
    "nowhere": ([RECEIPTS[0], "{nowhere.json}"], 1, "nowhere.json': No such file or directory"),
    "a folder of something else": ([RECEIPTS[0], "{images}"], 1, "images/receipt.json': No such file or directory"),
    "a model": ([RECEIPTS[0], "{model/model}"], 1, "model/model/receipt.json': No such file or directory"),
    "a table": ([RECEIPTS[0], "{rows.csv}"], 1, "rows.csv' holds no JSON"),
    "bytes": ([RECEIPTS[0], "{rows.parquet}"], 1, "rows.parquet' holds no JSON"),
    "an empty file": ([RECEIPTS[0], "{empty.csv}"], 1, "empty.csv' holds no JSON"),
    "a list": ([RECEIPTS[0], "{list.json}"], 1, "list.json' holds a JSON list, and no receipt"),
    "metrics": ([RECEIPTS[0], "{model/metrics.json}"], 1, "metrics.json': this is no Receipt: it lacks bytes"),
    "the manifest": ([RECEIPTS[0], "{model/manifest.json}"], 1, "manifest.json': this is no Receipt: it lacks bytes"),
    "a receipt cut by hand": ([RECEIPTS[0], "{cut.json}"], 1, "cut.json': this is no Receipt: it lacks steps"),
    "a receipt with more": (
        [RECEIPTS[0], "{more.json}"],
        1,
        "more.json': this is no Receipt: it has the unknown",
    ),
    "a receipt with other values": ([RECEIPTS[0], "{odd.json}"], 1, "odd.json' is damaged: its values are none of a"),
    "another storage": (
        [RECEIPTS[0], "s4://bucket/receipt.json"],
        1,
        "error: path='s4://bucket/receipt.json' can",
    ),
    "a misspelt flag": ([*RECEIPTS, "--htlm", "page.html"], 2, "Did you mean --html?"),
    "an output": ([*RECEIPTS, "--output", "page.html"], 2, "unrecognized arguments: --output page.html"),
    "no page": ([*RECEIPTS, "--html"], 2, "argument --html: expected one argument"),
    "an empty page": ([*RECEIPTS, "--html", ""], 2, "--html is empty: name a file"),
    "a page over a receipt": ([*RECEIPTS, "--html", RECEIPTS[1]], 2, "is a receipt, which the command reads"),
    "a page of another kind": ([*RECEIPTS, "--html", "{page.pdf}"], 2, "must end in .html: it is the page's file"),
    "a page nowhere": (
        [*RECEIPTS, "--html", "{nowhere/page.html}"],
        2,
        "is in a folder that does not exist",
    ),
}
COMMANDS = {
    "compare": COMPARE,
    "train": TRAIN,
    "score": SCORE,
    "evaluate": EVALUATE,
    "preprocess-images": PREPROCESS,
    "train-deep": DEEP,
}
CASES = [(command, name) for command, lines in COMMANDS.items() for name in lines]


@pytest.mark.parametrize(("command", "name"), CASES, ids=[f"{command}: {name}" for command, name in CASES])
def test_a_mistake_is_one_line_with_the_way_out(command, name, place, tmp_path, capsys):
    arguments, code, message = COMMANDS[command][name]
    given = [str(place / part[1:-1]) if part.startswith("{") else part for part in arguments]
    if "--output" not in given and command != "compare":
        given += ["--output", str(tmp_path / "out")]
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    found, out, err = call(capsys, command, *given)
    lines = [line for line in err.splitlines() if " WARNING " not in f" {line} " and "identifier" not in line]
    assert (found, out) == (code, ""), err
    assert message in err, err
    assert len(lines) == 1, err
    assert lines[0].startswith(f"sparkopt {command}: error: ")
    assert not (tmp_path / "out").exists()
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_each_command_has_twenty():
    assert COMMANDS.keys() == cli.COMMANDS.keys()
    assert all(len(lines) >= 20 for lines in COMMANDS.values())


def test_labels_are_named_in_any_case(place, tmp_path, capsys):
    flags = ["--features", "A,b", "--label", "LABEL", "--weight", "Weight"]
    code, _, err = call(capsys, "train", place / "rows.parquet", *flags, "--output", tmp_path / "out")
    assert (code, err) == (0, "")
    code, _, err = call(
        capsys,
        "evaluate",
        place / "rows.parquet",
        "--model",
        tmp_path / "out",
        "--label",
        "Label",
        "--output",
        tmp_path / "gate",
    )
    assert (code, err) == (0, "")
