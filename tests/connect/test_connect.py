"""On Spark Connect the same calls give the same coefficients, to the last bit, without RDDs or a JVM."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml import PipelineModel

from sparkopt.blocks import sent
from sparkopt.errors import IncompatibleError
from sparkopt.ml import LogisticRegression, LogisticRegressionModel
from tests.connect.connect_data import FITS, dense, numbers, paths, scored, searched

pytestmark = pytest.mark.usefixtures("jvms")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def found(client: Callable[..., Any], folder: Path) -> dict[str, Any]:
    """What the client reports."""
    report: dict[str, Any] = client("tests.connect.connect_client", folder)
    return report


@pytest.mark.parametrize("name", FITS)
def test_coefficients_are_those_of_classic(spark, found, name):
    estimator, df = FITS[name](spark)
    estimator.setEngine("driver")
    assert found["fits"][name] == numbers(estimator.fit(df))


def test_folds_are_those_of_classic(spark, found):
    expected = searched(spark)
    assert found["searched"]["best"] == expected["best"]
    np.testing.assert_allclose(found["searched"]["metrics"], expected["metrics"], rtol=1e-12)


def test_scores_and_metrics_are_those_of_classic(spark, found, tmp_path):
    assert found["scored"] == scored(spark, str(tmp_path))


def test_paths_and_batches_are_those_of_classic(spark, found):
    for name, expected in paths(spark).items():
        np.testing.assert_allclose(found["paths"][name], expected, rtol=1e-9, err_msg=name)


def test_models_of_onnx_score_there(found):
    if found["onnx"] is None:
        pytest.skip("onnx and onnxruntime are not installed: pip install onnx onnxruntime")
    assert found["onnx"] < 1e-12


def test_saved_on_connect_and_loaded_anywhere(spark, found, folder):
    saved = found["persistence"]
    assert saved["loaded"] == saved["saved"] == numbers(LogisticRegressionModel.load(f"{folder}/model"))
    assert LogisticRegression.load(f"{folder}/estimator").getMaxIter() == 2
    assert {path.name for path in (folder / "model").iterdir()} == {"metadata", "data"}
    scored = PipelineModel.load(f"{folder}/pipeline").transform(dense(spark, 2))
    assert [row.prediction for row in scored.select("prediction").collect()] == saved["predictions"]
    assert saved["areaUnderROC"] > 0.5


def test_images(found):
    pictures = found["pictures"]
    np.testing.assert_allclose(pictures["means"], (40 + 120 * np.array(pictures["shades"])) / 255, atol=1e-6)
    assert pictures["predictions"] == pictures["shades"]
    assert pictures["mapped"] == pictures["means"]
    assert pictures["loaded"] == [True, len(pictures["shades"])]
    assert pictures["read"] == [["dark", False], ["dark", True]]
    assert pictures["mean"] == pytest.approx(np.mean(pictures["means"]))


def test_missing_files_and_killed_executors_change_nothing(found):
    survival = found["survival"]
    assert survival["mended"] == survival["calm"]
    # The executor died while it held blocks, they were built anew elsewhere, and no bit of the answer shows it.
    assert survival["before"][0] not in survival["after"]
    assert survival["killed"] == survival["calm"]


def test_a_plan_knows_what_connect_can_do(found):
    plan = found["engines"]["plan"]
    assert "1,500 x 4 features, dense" in plan
    assert "3 on 2 task slots" in plan
    assert "engine         local; " in plan


def test_nothing_is_left(found):
    assert found["leftovers"] == []


def test_what_cannot_work_is_refused_with_the_reason(found):
    assert "needs RDDs, which Spark Connect does not have. Use engine='driver'" in found["survival"]["refusal"]
    assert "engine='resident' cannot run in this Spark session: use a Spark Classic" in found["engines"]["resident"]
    with pytest.raises(
        IncompatibleError, match="the model has 121 MiB, and a message of Spark Connect holds 120 MiB"
    ):
        sent.refuse_large(121 << 20, "the model", "Score df.toArrow().")


def test_rdds_and_the_jvm_stay_in_their_modules():
    """Everything else is open to Connect sessions."""
    allowed = ["blocks/classic.py", "engines/", "launch/", "deep/"]  # ranks are the tasks of a barrier stage
    # these look for Connect first
    allowed += [
        "jobs/runtimes/hadoop.py",
        "jobs/runtimes/spark.py",
        "blocks/cancelling.py",
        "blocks/scan.py",
        "blocks/session_settings.py",
        "ml/jvm.py",
        "ml/string_labels.py",
        "shards/temporary.py",
    ]
    closed = {"rdd", "sparkContext", "_sc", "_jsc", "_jvm", "_jdf", "_jsparkSession", "parallelize"}
    for path in sorted((ROOT / "sparkopt").rglob("*.py")):
        if str(path.relative_to(ROOT / "sparkopt")).startswith(tuple(allowed)):
            continue
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not used & closed, f"{path}: {used & closed}"
