"""Scripts of pyspark.ml that run unchanged with sparkopt's estimators."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyspark.ml.wrapper
import pytest
from pyspark.ml.functions import array_to_vector
from pyspark.sql.functions import array

from sparkopt import ml
from sparkopt.errors import DataError, ParameterError, SchemaError, SparkoptError
from sparkopt.integrations import replace_pyspark_ml, run_script
from sparkopt.integrations.drop_in import as_pysparks
from sparkopt.jobs.cli import main

HERE = Path(__file__).parent / "scripts"
ROOT = Path(__file__).parents[2]
TABLE = pa.table({"x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "label": [0.0, 0.0, 1.0, 0.0, 1.0, 1.0]})


def imported(line: str, file: str = "<stdin>") -> dict:
    """Return what an import gives the code of a file."""
    found = {"__name__": "__main__"}
    exec(compile(line, file, "exec"), found)
    return found


REPLACED = {
    "from pyspark.ml.classification import LogisticRegression as found": ml.LogisticRegression,
    "from pyspark.ml.classification import LogisticRegressionModel as found": ml.LogisticRegressionModel,
    "from pyspark.ml.regression import GeneralizedLinearRegression as found": ml.GeneralizedLinearRegression,
    "import pyspark.ml.regression as r; found = r.LinearRegression": ml.LinearRegression,
    "import pyspark.ml.classification; found = pyspark.ml.classification.LinearSVC": ml.LinearSVC,
    "from pyspark.ml import classification; found = classification.OneVsRest": ml.OneVsRest,
    "from pyspark.ml.regression import FMRegressor as found": ml.FMRegressor,
    "from pyspark.ml.classification import FMClassifier as found": ml.FMClassifier,
    "from pyspark.ml.classification import MultilayerPerceptronClassifier as f; found = f": (
        ml.MultilayerPerceptronClassifier
    ),
    "from pyspark.ml import Pipeline as found": ml.Pipeline,
    "from pyspark.ml.pipeline import PipelineModel as found": ml.PipelineModel,
    "from pyspark.ml.tuning import CrossValidator as found": ml.CrossValidator,
    "from pyspark.ml.tuning import *; found = TrainValidationSplit": ml.TrainValidationSplit,
}


@pytest.mark.parametrize("line", REPLACED)
def test_imports_give_our_classes_while_they_are_replaced(line):
    ours = REPLACED[line]
    with replace_pyspark_ml():
        assert imported(line)["found"] is ours
        assert imported(line, "/users/own/pyspark_jobs/module.py")["found"] is ours
        theirs = imported(line, pyspark.ml.wrapper.__file__)["found"]
    assert theirs is imported(line)["found"] is not ours
    assert theirs.__module__.startswith("pyspark.ml.")


def test_what_sparkopt_has_not_is_pysparks():
    with replace_pyspark_ml() as replaced:
        found = imported("from pyspark.ml.classification import RandomForestClassifier as found")["found"]
        assert replace_pyspark_ml() is replaced  # a second call changes nothing
    assert found.__module__ == "pyspark.ml.classification"


def test_fits_are_reported_by_their_parts():
    with replace_pyspark_ml() as replaced:
        names = imported("from pyspark.ml import Pipeline; from pyspark.ml.classification import LogisticRegression")
        estimator = names["LogisticRegression"](regParam=0.1).setFeaturesCols(["x"])
        names["Pipeline"](stages=[estimator]).fit(TABLE)
        estimator.fit(TABLE)
    ml.LogisticRegression(featuresCols=["x"], regParam=0.1).fit(TABLE)  # no longer counted
    assert {key: number for key, (number, _) in replaced.fits.items()} == {("sparkopt", "LogisticRegression"): 2}
    assert replaced.report().splitlines()[1] == "fits by pyspark.ml: none"


def test_what_is_wrong_with_a_table_is_our_error():
    with replace_pyspark_ml() as replaced:
        estimator = imported("from pyspark.ml.classification import LogisticRegression as found")["found"]()
        with pytest.raises(SchemaError, match="'y' does not exist"):
            estimator.copy().setFeaturesCols(["y"]).fit(TABLE)
        with pytest.raises(ParameterError, match="regParam must be >= 0"):
            estimator.copy().setFeaturesCols(["x"]).setRegParam(-1.0).fit(TABLE)
    assert (replaced.fits, replaced.refused) == ({}, {})


NEITHER = {
    "a null": ("x", "IF(x = 2, null, label)", {}, DataError, "label column 'label', partition 0, row 2 is null"),
    "no such column": ("x", "label", {"labelCol": "churned"}, SchemaError, "label column 'churned' does not exist"),
    "a negative class": ("x", "label - 3", {}, DataError, "row 0 is -3; it must be a whole number"),
    "no number": (
        "if(x = 0, 'NaN', x)",
        "label",
        {},
        DataError,
        "features column 'vector', partition 0, row 0 .*n",
    ),
}


@pytest.mark.parametrize("name", NEITHER)
def test_rows_that_neither_trains_on_are_our_error(spark, name, caplog):
    """It names column, partition and row; pyspark.ml's is the cause, and in the log."""
    value, label, options, error, message = NEITHER[name]
    rows = spark.createDataFrame(TABLE).coalesce(1).selectExpr(f"double({value}) AS x", f"{label} AS label")
    rows = rows.withColumn("vector", array_to_vector(array("x")))
    with replace_pyspark_ml() as replaced:
        estimator = imported("from pyspark.ml.classification import LogisticRegression as found")["found"]
        with pytest.raises(error, match=message) as caught:
            estimator(featuresCol="vector", **options).fit(rows)
    assert not isinstance(caught.value.__cause__, SparkoptError)
    assert caught.value.__cause__ is not None
    assert "pyspark.ml does not train this LogisticRegression either: " in caplog.text
    assert (replaced.fits, replaced.refused) == ({}, {})


def test_a_script_has_its_arguments_and_its_folder(tmp_path, capsys):
    (tmp_path / "helper.py").write_text("from pyspark.ml.regression import LinearRegression\n")
    (tmp_path / "script.py").write_text(
        "import sys\nfrom helper import LinearRegression as Found\nprint(__name__, sys.argv[1:], Found.__module__)\n"
    )
    before = list(sys.path), list(sys.argv)
    assert main([str(tmp_path / "script.py"), "a", "--b"]) == 0
    sys.modules.pop("helper")
    found = capsys.readouterr()
    assert found.out == "__main__ ['a', '--b'] sparkopt.ml.regression\n"
    assert found.err.splitlines() == ["sparkopt: fits by sparkopt:   none", "sparkopt: fits by pyspark.ml: none"]
    assert (sys.path, sys.argv) == before


def test_a_scripts_own_error_and_exit_are_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(7)\n")
    with pytest.raises(SystemExit) as found:
        main([str(script)])
    assert found.value.code == 7
    script.write_text("from sparkopt.ml import LinearRegression\nLinearRegression(maxIter=-1)._check()\n")
    with pytest.raises(ParameterError, match="maxIter"):
        main([str(script)])


def test_a_missing_script_is_one_line(capsys, tmp_path):
    missing = str(tmp_path / "missing.py")
    assert main([missing]) == 2
    assert capsys.readouterr().err == f"sparkopt: error: there is no file {missing!r} to run.\n"
    with pytest.raises(ParameterError, match="no file"):
        run_script(missing)


def results(script: Path, *arguments: object, by: tuple[str, ...] = ()) -> tuple[dict, str]:
    """Return what a script prints in a fresh process, and its standard error."""
    command = [sys.executable, *by, str(script), *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stderr[-4000:]
    (line,) = [line for line in found.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT ")), found.stderr


CASES = {
    ROOT / "jobs" / "bench" / "scripts" / "churn.py": (
        (2000,),
        ["fits by sparkopt:   CrossValidator 1", "OneHotEncoder", "RandomForestClassifier"],
    ),
    HERE / "prices.py": (
        (),
        ["LogisticRegression by pyspark.ml, since sparkopt refuses it:", "DecisionTreeRegressor"],
    ),
}
LOOSE = {"rest": 1e-2}
"""Where pyspark.ml's method stops further from the optimum: the hinge loss by OWL-QN."""


@pytest.mark.usefixtures("jvms", "minutes")
@pytest.mark.parametrize("script", CASES, ids=lambda script: script.stem)
def test_a_script_gives_the_same_with_both_libraries(script, tmp_path):
    arguments, lines = CASES[script]
    theirs, _ = results(script, *arguments, tmp_path / "theirs")
    ours, report = results(script, *arguments, tmp_path / "ours", by=("-m", "sparkopt"))
    for line in lines:
        assert line in report
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        tolerance = LOOSE.get(name, 1e-6 if name in ("metrics", "again", "area", "validation") else 1e-4)
        np.testing.assert_allclose(ours[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def test_conversion_keeps_parameters_and_uid(spark):
    with replace_pyspark_ml():
        estimator = ml.LogisticRegression(regParam=0.5, maxIter=3, lowerBoundsOnIntercepts=[0.5], family="binomial")
        search = ml.CrossValidator(estimator=ml.Pipeline(stages=[estimator]), numFolds=4)
        found = as_pysparks(search)
    (inner,) = found.getEstimator().getStages()
    assert type(found).__module__ == "pyspark.ml.tuning"
    assert type(inner).__module__ == "pyspark.ml.classification"
    assert (found.uid, inner.uid, found.getNumFolds()) == (search.uid, estimator.uid, 4)
    assert (inner.getRegParam(), inner.getMaxIter(), inner.getFamily()) == (0.5, 3, "binomial")
    assert inner.getLowerBoundsOnIntercepts().toArray().tolist() == [0.5]
