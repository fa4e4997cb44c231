"""OneVsRest over a classifier that reads several columns: the models of one column that holds them all."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sparkopt import ml
from sparkopt.errors import DataError, ParameterError

NAMES = ["a", "b", "c"]
N = 240


def _rows() -> pa.Table:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(N, 3))
    label = (X @ np.array([[2.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 1.0]])).argmax(axis=1)
    columns = {name: X[:, place] for place, name in enumerate(NAMES)}
    return pa.table({**columns, "features": list(X), "label": label.astype(float), "weight": rng.integers(1, 4, N)})


def _rest(**classifier: object) -> ml.OneVsRest:
    return ml.OneVsRest(classifier=ml.LogisticRegression(regParam=0.01, **classifier), weightCol="weight")


def _arrays(model: ml.OneVsRestModel) -> np.ndarray:
    return np.array([[*one.coefficients.toArray(), one.intercept] for one in model.models])


def test_columns_on_one_machine(tmp_path):
    rows = _rows()
    model, expected = _rest(featuresCols=NAMES).fit(rows), _rest().fit(rows)
    np.testing.assert_allclose(_arrays(model), _arrays(expected), rtol=1e-9)
    model.save(str(tmp_path / "model"))
    scored = ml.OneVsRestModel.load(str(tmp_path / "model")).transform(rows)
    assert scored["prediction"] == expected.transform(rows)["prediction"]
    assert scored.column_names == [*rows.column_names, "rawPrediction", "prediction"]


def test_columns_on_spark(spark):
    rows = _rows()
    df = spark.createDataFrame(rows.drop_columns("features").to_pandas()).repartition(3)
    expected = _rest().fit(rows)
    model = _rest(featuresCols=NAMES).fit(df)
    np.testing.assert_allclose(_arrays(model), _arrays(expected), rtol=1e-6, atol=1e-8)
    scored = model.transform(df)
    assert scored.columns == [*df.columns, "rawPrediction", "prediction"]
    found = scored.toPandas().sort_values("a")["prediction"]
    theirs = expected.transform(rows).select(["a", "prediction"]).to_pandas().sort_values("a")["prediction"]
    assert list(found) == list(theirs)


def test_both_are_refused():
    rest = _rest(featuresCols=NAMES).setFeaturesCol("features")
    with pytest.raises(ParameterError, match="featuresCol='features' and the classifier's featuresCols are both set"):
        rest.fit(_rows())


def test_no_rows():
    with pytest.raises(DataError, match="no rows to train on"):
        _rest(featuresCols=NAMES).fit(_rows().slice(0, 0))
