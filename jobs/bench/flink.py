#!/usr/bin/env python
"""Measure what PyFlink carries: a fit and scores of a Table, and learning from a stream in a Python function.

    .venv-flink/bin/python jobs/bench/flink.py --rows 200000

Rows are those of a pandas DataFrame: float32 and a label. The fits are a logistic regression of the Table, and
of the DataFrame on one machine; ``transform`` is the sum of its predictions. A stream goes through a keyed Python
function (DataStream API) that learns by mini-batches of 1,000 rows and emits the coefficients of each, its model in
Flink's state; and through the same function without learning: what PyFlink takes to hand over the rows. Seconds are
those of the job, its start included.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

BATCH = 1000


def frame(rows: int, features: int) -> pd.DataFrame:
    """Return float32 columns and a label."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, features)).astype(np.float32)
    label = X @ rng.normal(size=features) / np.sqrt(features) + rng.logistic(size=rows) > 0
    return pd.DataFrame({**{f"x{j}": X[:, j] for j in range(features)}, "label": label.astype(np.float64)})


def batch_tables() -> Any:
    """Return an environment in batch mode."""
    with warnings.catch_warnings():  # of what PyFlink imports
        warnings.simplefilter("ignore")
        from pyflink.table import EnvironmentSettings, TableEnvironment

        tables = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    settings = {
        "parallelism.default": "1",
        "python.executable": sys.executable,
        "python.fn-execution.bundle.size": "10000",
        "python.fn-execution.arrow.batch.size": "10000",
    }
    for name, value in settings.items():
        tables.get_config().set(name, value)
    return tables


def of_tables(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Yield the seconds of fits and of scores."""
    from sparkopt.ml import LogisticRegression

    names = [name for name in rows.columns if name != "label"]
    estimator = LogisticRegression(featuresCols=names, regParam=1e-4)
    estimator.fit(rows)  # the workers have started
    begin = time.perf_counter()
    alone = estimator.fit(rows)
    yield "fit, one machine, of the DataFrame", time.perf_counter() - begin
    table = batch_tables().from_pandas(rows, splits_num=8)
    begin = time.perf_counter()
    model = estimator.fit(table)
    yield "fit of the Table", time.perf_counter() - begin
    np.testing.assert_allclose(model.coefficients.toArray(), alone.coefficients.toArray(), rtol=1e-4, atol=1e-6)
    begin = time.perf_counter()
    scored = model.transform(table)
    with scored.select(scored.prediction.sum).execute().collect() as found:
        (total,) = next(iter(found))
    yield "transform in its jobs", time.perf_counter() - begin
    np.testing.assert_allclose(total, alone.transform(rows)["prediction"].sum(), atol=0.001 * len(rows))


def learner(learn: bool, features: int) -> Any:
    """Return the function of the stream: it emits the first coefficients after each batch."""
    from pyflink.common import Types
    from pyflink.datastream import KeyedProcessFunction, RuntimeContext
    from pyflink.datastream.state import ValueStateDescriptor

    class Learner(KeyedProcessFunction):  # type: ignore[misc]  # PyFlink is not typed
        def open(self, context: RuntimeContext) -> None:
            from sparkopt.ml import LogisticRegression

            self.estimator = LogisticRegression(optimizer="adam")
            self.saved = context.get_state(ValueStateDescriptor("model", Types.PICKLED_BYTE_ARRAY()))
            self.model: Any = None
            self.rows: list[Any] = []

        def process_element(self, value: Any, context: Any) -> Iterator[list[float]]:
            self.rows.append(value[1])
            if len(self.rows) < BATCH:
                return
            found = np.array(self.rows)
            self.rows = []
            if not learn:
                yield found[0, :3].tolist()
                return
            self.model = self.estimator.partialFit((found[:, :-1], found[:, -1]), self.model)
            self.saved.update(pickle.dumps([array.tolist() for array in self.model.arrays]))
            yield self.model.coefficients.toArray()[:3].tolist()

    return Learner()


def of_stream(rows: pd.DataFrame, learn: bool) -> float:
    """Return the seconds of a job that takes the rows through the function."""
    from pyflink.common import Types
    from pyflink.datastream import StreamExecutionEnvironment

    stream = StreamExecutionEnvironment.get_execution_environment()
    stream.set_parallelism(1)
    stream.set_python_executable(sys.executable)
    X = rows.to_numpy(np.float64)
    kind = Types.TUPLE([Types.INT(), Types.PRIMITIVE_ARRAY(Types.DOUBLE())])
    source = stream.from_collection([(0, row) for row in X.tolist()], type_info=kind)
    begin = time.perf_counter()
    keyed = source.key_by(lambda value: value[0], key_type=Types.INT())
    found = keyed.process(learner(learn, X.shape[1] - 1), output_type=Types.PICKLED_BYTE_ARRAY())
    with found.execute_and_collect() as batches:
        number = sum(1 for _ in batches)
    np.testing.assert_equal(number, len(X) // BATCH)
    return time.perf_counter() - begin


def main() -> None:
    """Print the table."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=200_000)
    flags.add_argument("--stream-rows", type=int, default=20_000)
    flags.add_argument("--features", type=int, default=100)
    args = flags.parse_args()
    print(f"{args.features} features\n\n| | rows | s | rows a second |\n| --- | --- | --- | --- |")
    rows = frame(args.rows, args.features)
    for name, seconds in of_tables(rows):
        print(f"| {name} | {args.rows:,} | {seconds:.1f} | {args.rows / seconds:,.0f} |", flush=True)
    few = rows.head(args.stream_rows)
    for name, learn in (("pass a stream through a Python function", False), ("learn from a stream", True)):
        seconds = of_stream(few, learn)
        print(f"| {name} | {len(few):,} | {seconds:.1f} | {len(few) / seconds:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
