"""Imports that are postponed: nothing of them is loaded before it is used, and others find the modules themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sparkopt.io.imports import postponed


def run(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


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


def test_one_that_does_not_exist_is_missed_where_it_is_used():
    with postponed("no_such_module"):
        import no_such_module
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = no_such_module.anything


@pytest.mark.parametrize("package", ["sparkopt.ml", "sparkopt.blocks.machine"])
def test_what_linear_models_do_not_need_is_not_imported(package):
    kinds = "{'pandas', 'numpy.f2py', 'numpy.testing', 'scipy.special'}"
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
