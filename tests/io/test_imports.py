"""Imports that are postponed: nothing of them is loaded before it is used, and others find the modules themselves."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkopt.io.imports import postponed


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_module_is_imported_when_something_of_it_is_used():
    sys.modules.pop("wave", None)
    with postponed("wave"):
        import wave as early

        assert "wave" in sys.modules
    assert "wave" not in sys.modules
    assert early.WAVE_FORMAT_PCM == 1
    import wave

    assert wave is not early
    assert wave.open is early.open


def test_a_module_that_is_used_inside_the_block_is_imported_there():
    sys.modules.pop("wave", None)
    with postponed("wave"):
        from wave import WAVE_FORMAT_PCM

        assert WAVE_FORMAT_PCM == 1
        real = sys.modules["wave"]
        assert real.__spec__ is not None
    assert sys.modules["wave"] is real


def test_one_that_is_imported_already_stays():
    import json

    with postponed("json"):
        assert sys.modules["json"] is json


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_after_the_block_as_before(collects):
    script = f"""
import gc
from sparkopt.io.imports import postponed
gc.enable() if {collects} else gc.disable()
with postponed("wave"):
    print(gc.isenabled())
print(gc.isenabled())
"""
    assert run(script).split() == ["False", str(collects)]


def test_one_that_does_not_exist_is_missed_where_it_is_used():
    with postponed("no_such_module"):
        import no_such_module
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = no_such_module.anything


UNUSED = "'pandas', 'numpy.f2py', 'numpy.testing', 'scipy.special'"


def test_an_estimator_imports_nothing_that_its_fit_may_not_need():
    script = f"""
import sys
from sparkopt.ml import LogisticRegression
print(sorted(set(sys.modules) & {{{UNUSED}, 'scipy.sparse', 'pyarrow.compute'}}))
"""
    assert run(script) == "[]"


@pytest.mark.parametrize("package", ["sparkopt.ml", "sparkopt.blocks.machine"])
def test_what_linear_models_do_not_need_is_not_imported(package):
    kinds = f"{{{UNUSED}}}"
    assert run(f"import {package}, sys; print(sorted(set(sys.modules) & {kinds}))") == "[]"


def test_others_find_the_modules_themselves():
    script = """
import sparkopt.ml, pyspark.ml.functions, numpy
import pandas, pandas.core.frame
from numpy import f2py, testing
assert pyspark.ml.functions.pd.DataFrame is pandas.DataFrame is pandas.core.frame.DataFrame
assert type(pandas) is type(f2py) is type(testing) is type(numpy)
print(testing.assert_equal(1, 1), callable(f2py.run_main))
"""
    assert run(script) == "None True"


JOURNEY = """
import sys
from sparkopt.jobs.cli import main
from sparkopt.ml import LogisticRegression

path, model, scores = sys.argv[1:]
LogisticRegression(regParam=0.1).fit(path).save(model)
code = main(["score", "--on", "machine", "--model", model, "--parquet", path, "--output", scores])
print(code, "pandas" in sys.modules)
"""


@pytest.mark.parametrize("kind", ["lists", "sparse vectors"])
def test_rows_are_fitted_saved_and_scored_without_pandas(kind, tmp_path):
    """It takes longer to load than a small table to score."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 2))
    if kind == "lists":
        features = pa.array(values.tolist())
    else:
        rows = [{"type": 0, "size": 9, "indices": [1, 4], "values": row} for row in values.tolist()]
        kinds = [pa.int8(), pa.int32(), pa.list_(pa.int32()), pa.list_(pa.float64())]
        features = pa.array(rows, pa.struct(list(zip(["type", "size", "indices", "values"], kinds, strict=True))))
    table = pa.table({"features": features, "label": (values[:, 0] > 0) + 0.0})
    pq.write_table(table, tmp_path / "rows.parquet")
    paths = [str(tmp_path / name) for name in ("rows.parquet", "model", "scores")]
    assert run(JOURNEY, *paths).endswith("0 False")


def test_flags_are_read_without_the_estimators():
    script = "import sparkopt.jobs.score, sparkopt.jobs.runtimes.machine, sys; print('sparkopt.ml' in sys.modules)"
    assert run(script) == "False"


def test_stages_that_are_not_used_are_not_imported():
    """Whoever names one, by its package or itself, has the module of pyspark.ml."""
    code = """
import sys
from sparkopt.ml import LogisticRegression
others = ("clustering", "feature", "recommendation", "tuning")
assert not [name for name in others if f"pyspark.ml.{name}" in sys.modules]
import pyspark.ml
assert "StringIndexer" in dir(pyspark.ml.feature)
from pyspark.ml.clustering import KMeans
from pyspark.ml import tuning
assert pyspark.ml.clustering.KMeans is KMeans
assert pyspark.ml.feature.StringIndexer is sys.modules["pyspark.ml.feature"].StringIndexer
assert tuning.CrossValidator is sys.modules["pyspark.ml.tuning"].CrossValidator
import pyspark.ml.recommendation
assert pyspark.ml.recommendation is sys.modules["pyspark.ml.recommendation"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
