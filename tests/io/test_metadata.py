"""Metadata of saved models, against pyspark.ml's own reader."""

from __future__ import annotations

import json

import pyspark
import pytest
from pyspark.ml.util import DefaultParamsReader

from sparkopt.errors import DataError
from sparkopt.io.metadata import read_metadata, write_metadata
from sparkopt.ml import LogisticRegression


def test_it_is_what_sparks_reader_expects(tmp_path):
    estimator = LogisticRegression(regParam=0.5)
    write_metadata(estimator, tmp_path, {"extra": [1, 2]})
    (file,) = (tmp_path / "metadata").iterdir()
    found = DefaultParamsReader._parseMetaData(file.read_text(), f"{type(estimator).__module__}.LogisticRegression")
    assert read_metadata(tmp_path) == found == json.loads(file.read_text())
    assert (found["uid"], found["sparkVersion"], found["extra"]) == (estimator.uid, pyspark.__version__, [1, 2])
    assert found["paramMap"] == {"regParam": 0.5}
    assert found["defaultParamMap"]["maxIter"] == estimator.getMaxIter()


def test_sparks_empty_parts_are_passed_over(tmp_path):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "part-00000.txt").write_text("\n")
    (tmp_path / "metadata" / "part-00001.txt").write_text('{"class": "x"}\n')
    assert read_metadata(str(tmp_path)) == {"class": "x"}


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no saved model"):
        read_metadata(tmp_path)
