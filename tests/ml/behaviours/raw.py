"""Raw columns become features on Spark as they do on one machine, to the bit."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkopt.ml import LogisticRegression, Pipeline, PipelineModel, TableFeatures
from tests.ml.behaviours.kinds import World
from tests.ml.behaviours.register import behaviour


def raw_rows(n: int = 400) -> pa.Table:
    """Rows of every type that has features, with nulls, and names that need care."""
    rng = np.random.default_rng(3)
    day = datetime.date(2021, 5, 17)
    age = rng.integers(18, 80, n)
    return pa.table(
        {
            "yaş": pa.array(age, mask=rng.random(n) < 0.1),
            "城市": pa.array(rng.choice(["Bonn", "İzmir", "北京", "a, b"], n), mask=rng.random(n) < 0.1),
            "joined.on": pa.array([day + datetime.timedelta(days=int(d)) for d in rng.integers(0, 900, n)]),
            "is vip": rng.random(n) < 0.3,
            "zip": rng.integers(1, 5, n).astype(np.int32),
            "label": (age + rng.normal(0, 20, n) > 50).astype(float),
        }
    )


@behaviour()
def raw_columns_become_features_as_on_one_machine(world: World) -> None:
    path = world.path("raw", "parquet")
    Path(path).mkdir(parents=True)
    pq.write_table(raw_rows(), f"{path}/rows.parquet")
    rows, df = raw_rows(), world.spark.read.parquet(path)
    stages = [TableFeatures(categorical=["zip"], impute="median"), LogisticRegression(regParam=0.01)]
    pipeline = Pipeline(stages=stages)
    expected, found = pipeline.fit(rows), pipeline.fit(df)
    assert found.stages[0].encoder == expected.stages[0].encoder
    assert found.stages[1].coefficients == expected.stages[1].coefficients
    probability = np.stack(expected.transform(rows.to_pandas()).probability)
    found.write().overwrite().save(world.path("raw", "model"))
    for model in (found, PipelineModel.load(world.path("raw", "model"))):
        scored = model.transform(df).select("probability", "features").collect()
        assert np.array_equal([row.probability.toArray() for row in scored], probability)
        assert {row.features.size for row in scored} == {found.stages[0].numFeatures}
    vectors = found.stages[0].transform(df).where("`is vip`")  # another DataFrame: the column is computed
    again = LogisticRegression(regParam=0.01).fit(vectors)
    those = rows.filter(rows.column("is vip"))
    assert (
        again.coefficients == LogisticRegression(regParam=0.01).fit(expected.stages[0].transform(those)).coefficients
    )
