"""The block store and the driver engine: what is stored, what is refused, what is promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.ml.linalg import SparseVector, Vectors
from pyspark.sql import functions as F
from scipy import sparse

from sparkopt import BlockStore, Columns, Trainer, losses, optim
from sparkopt.blocks.files import BlockFile
from sparkopt.engines.driver import DriverEngine
from sparkopt.errors import DataError, DivergedError, IncompatibleError, ParameterError, SchemaError
from sparkopt.ml import LinearRegression, LogisticRegression
from sparkopt.penalties import L2
from sparkopt.solver.progress import Stop
from sparkopt.validation import Interval


def rows_of(part, blocks):
    """Everything a partition holds, as plain arrays."""
    found = [blocks[i] for i in range(len(blocks.starts) - 1)]
    dense = [b.X if isinstance(b.X, np.ndarray) else b.X.toarray() for b in found]
    kinds = [(b.X.dtype.name, "dense" if isinstance(b.X, np.ndarray) else "csr") for b in found]
    return part, dense, [np.array(b.y) for b in found], kinds


def store_of(df, features="features", **columns):
    return BlockStore.write(df, Columns(features, "label", **columns), Interval())


def local_files(spark):
    """What stores have left in this process's local directory."""

    def listing(_):
        import os

        roots = os.environ["SPARK_LOCAL_DIRS"].split(",")
        return sorted(str(path) for root in roots for path in Path(root).glob("sparkopt-*/*"))

    return spark.sparkContext.parallelize([0], 1).flatMap(listing).collect()


@pytest.fixture(scope="module")
def numbers(spark):
    table = spark.range(0, 3000, 1, 3).select(
        F.array(*[F.rand(seed).cast("float") for seed in range(5)]).alias("features"),
        *[F.rand(seed).cast("float").alias(f"x{seed}") for seed in range(5)],
        F.rand(9).alias("label"),
        (F.rand(10) + 0.5).alias("weight"),
    )
    return table.cache()


@pytest.mark.parametrize("features", ["features", [f"x{i}" for i in range(5)]], ids=["array", "columns"])
def test_blocks_hold_the_rows(numbers, features):
    expected = numbers.toPandas()
    with store_of(numbers, features) as store:
        found = sorted((r.value for r in store.map(rows_of).collect()), key=lambda value: value[0].index)
        X = np.concatenate([block for _, dense, _, _ in found for block in dense])
        y = np.concatenate([block for _, _, targets, _ in found for block in targets])
        assert np.array_equal(X, np.stack(expected["features"]))
        assert np.array_equal(y, expected["label"])
        assert {kind for value in found for kind in value[3]} == {("float32", "dense")}
        assert [value[0].first_row for value in found] == np.cumsum([0, *store.rows[:-1]]).tolist()


def test_compressed_blocks_take_less_room_and_change_nothing(spark):
    digits = spark.range(0, 3000, 1, 3).select(
        F.array(*[(F.rand(seed) * 3).cast("int").cast("float") for seed in range(8)]).alias("features"),
        (F.rand(9) > 0.5).cast("double").alias("label"),
    )
    trainer = Trainer(losses.Logistic(), stop=Stop(3, 0.0), progress=False)
    columns, targets = Columns("features", "label"), losses.Logistic().targets
    with BlockStore.write(digits, columns, targets) as plain:
        expected = trainer.fit(plain).coefficients.tobytes()
        for codec in ("lz4", "zstd"):
            with BlockStore.write(digits, columns, targets, codec) as small:
                assert small.bytes < 0.6 * plain.bytes, codec
                assert trainer.fit(small).coefficients.tobytes() == expected, codec
    with pytest.raises(ParameterError, match="codec must be one of"):
        BlockStore.write(digits, columns, targets, "zip")


def test_moments_are_pysparks(spark, numbers):
    from pyspark.ml.functions import array_to_vector
    from pyspark.ml.stat import Summarizer

    vectors = numbers.withColumn("features", array_to_vector(F.col("features").cast("array<double>")))
    summary = vectors.select(
        Summarizer.metrics("mean", "std").summary(F.col("features"), F.col("weight")).alias("s")
    ).first()["s"]
    with store_of(vectors, weight="weight") as store:
        np.testing.assert_allclose(store.moments.mean[:-1], summary["mean"].toArray(), rtol=1e-12)
        np.testing.assert_allclose(store.moments.std[:-1], summary["std"].toArray(), rtol=1e-10)


def test_sparse_rows_stay_sparse(spark):
    rng = np.random.default_rng(0)
    X = sparse.random(500, 40, density=0.1, random_state=0, format="csr")
    rows = [
        (SparseVector(40, X[i].indices.tolist(), X[i].data.tolist()), float(y)) for i, y in enumerate(rng.random(500))
    ]
    df = spark.createDataFrame(rows, ["features", "label"]).coalesce(1)
    with store_of(df) as store:
        (result,) = store.map(rows_of).collect()
        assert set(result.value[3]) == {("float64", "csr")}
        assert np.array_equal(np.concatenate(result.value[1]), X.toarray())
        np.testing.assert_allclose(store.moments.mean[:-1], X.toarray().mean(axis=0))
        np.testing.assert_allclose(store.moments.std[:-1], X.toarray().std(axis=0, ddof=1))


def test_mixed_vectors_in_one_column(spark):
    df = spark.createDataFrame(
        [(Vectors.dense([1.0, 0.0]), 0.0), (Vectors.sparse(2, [1], [5.0]), 1.0)], ["features", "label"]
    ).coalesce(1)
    with store_of(df) as store:
        (result,) = store.map(rows_of).collect()
        assert np.concatenate(result.value[1]).tolist() == [[1.0, 0.0], [0.0, 5.0]]


def test_files_go_with_the_store(spark, numbers):
    before = local_files(spark)
    with store_of(numbers):
        assert len(local_files(spark)) > len(before)
    assert local_files(spark) == before


NAN, INFINITY = float("nan"), float("inf")
BAD = {
    "nan in features": ("array(double('nan'), 1d)", "1d", "1d", r"features column 'f', partition 0, row 1 is nan"),
    "infinity in features": ("array(1d, double('inf'))", "1d", "1d", r"row 1 is inf at feature 1"),
    "null features": ("null", "1d", "1d", r"features column 'f', partition 0, row 1 is null"),
    "null entry": ("array(1d, null)", "1d", "1d", r"features column 'f', partition 0, row 1 is null at feature 1"),
    "ragged": (
        "array(1d, 2d, 3d)",
        "1d",
        "1d",
        r"features column 'f'.* has 3 entries where the rows before it have 2",
    ),
    "nan label": ("array(1d, 2d)", "double('nan')", "1d", r"label column 'l', partition 0, row 1 is nan"),
    "null label": ("array(1d, 2d)", "null", "1d", r"label column 'l', partition 0, row 1 is null"),
    "negative weight": (
        "array(1d, 2d)",
        "1d",
        "-1d",
        r"weight column 'w', partition 0, row 1 is -1; it must be >= 0",
    ),
}


@pytest.mark.parametrize(("features", "label", "weight", "message"), BAD.values(), ids=BAD)
def test_bad_rows_are_named_and_nothing_stays(spark, features, label, weight, message):
    good = "select array(0d, 1d) as f, 0d as l, 1d as w"
    df = spark.sql(f"{good} union all select {features}, {label}, {weight}").coalesce(1)
    before = local_files(spark)
    with pytest.raises(DataError, match=message):
        LinearRegression(featuresCol="f", labelCol="l", weightCol="w").fit(df)
    assert local_files(spark) == before


def test_labels_must_suit_the_loss(spark):
    df = spark.sql("select array(0d, 1d) as features, 0.5d as label")
    with pytest.raises(
        DataError, match=r"label column 'label', partition 0, row 0 is 0.5; it must be a whole number"
    ):
        LogisticRegression().fit(df)
    with pytest.raises(DataError, match=r"is 2; it must be a whole number in \[0, 1\]"):
        LogisticRegression(family="binomial").fit(spark.sql("select array(0d) as features, 2d as label"))
    with pytest.raises(DataError, match="which are 123457 classes, more than 10000"):
        LogisticRegression(family="multinomial").fit(spark.sql("select array(0d) as features, 123456d as label"))


def test_no_rows(spark):
    with pytest.raises(DataError, match="there are no rows to train on"):
        LinearRegression().fit(spark.sql("select array(0d) as features, 1d as label where 1 > 2"))


SCHEMAS = {
    "no such features": (dict(featuresCol="nope"), r"features column 'nope' does not exist. Columns: a, s, n"),
    "no such label": (dict(featuresCol="a", labelCol="nope"), "label column 'nope' does not exist"),
    "text features": (dict(featuresCol="s", labelCol="n"), "'s' has type string; it must be a Vector or an array"),
    "text label": (dict(featuresCol="a", labelCol="s"), "label column 's' has type string; it must be numeric"),
    "text among columns": (dict(featuresCols=["n", "s"], labelCol="n"), "'s' has type string; it must be numeric"),
    "no such weight": (dict(featuresCol="a", labelCol="n", weightCol="w"), "weight column 'w' does not exist"),
}


@pytest.mark.parametrize(("options", "message"), SCHEMAS.values(), ids=SCHEMAS)
def test_wrong_columns_are_refused_before_any_job(spark, options, message):
    df = spark.sql("select array(0d) as a, 'x' as s, 1 as n")
    with pytest.raises(SchemaError, match=message):
        LinearRegression(**options).fit(df)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (dict(maxIter=-1), ParameterError, "maxIter must be a whole number >= 0. Got -1 instead."),
        (dict(optimizer="sdg"), ParameterError, "optimizer must be one of 'auto', 'gd'"),
        (dict(optimizer="lbfgs", stepSize=0.1), ParameterError, "finds its own step sizes"),
        (dict(stepSizeSchedule="cosine"), ParameterError, "needs a stepSize"),
        (dict(optimizer="lbfgs", regParam=0.1, elasticNetParam=1.0), IncompatibleError, "Use optimizer='fista'"),
        (
            dict(optimizer="adam", regParam=0.1, elasticNetParam=0.5),
            IncompatibleError,
            "'adam' cannot serve an L1 penalty",
        ),
        (dict(miniBatchFraction=0.5), IncompatibleError, "miniBatchFraction < 1"),
    ],
)
def test_wrong_parameters_are_refused_before_any_job(spark, options, kind, message):
    broken = spark.range(2).select(F.raise_error(F.lit("a job ran")).cast("double").alias("label"))
    df = broken.withColumn("features", F.array(F.col("label")))
    with pytest.raises(kind, match=message):
        LogisticRegression(**options).fit(df)


def test_divergence_is_one_clear_error(numbers):
    with pytest.raises(DivergedError, match=r"'sgd' diverged at step \d+.*smaller stepSize"):
        LinearRegression(optimizer="sgd", stepSize=1e6, maxIter=400).fit(numbers)


def fit(store, **options):
    options = {"stop": Stop(6, 0.0), "engine": DriverEngine(), "progress": False, **options}
    return Trainer(losses.Logistic(), **options).fit(store)


@pytest.fixture(scope="module")
def blocks(binary):
    with store_of(binary) as store:
        yield store


@pytest.fixture(scope="module")
def binary(spark):
    table = spark.range(0, 5000, 1, 4).select(
        F.array(*[F.randn(seed) for seed in range(4)]).alias("features"), F.col("id").alias("id")
    )
    signal = F.col("features")[0] - F.col("features")[1] + F.randn(7)
    return table.withColumn("label", (signal > 0).cast("double")).cache()


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(optimizer=optim.adam(0.1), mini_batch_fraction=0.1, seed=3),
        dict(optimizer=optim.fista(), penalty=L2(0.1)),
    ],
    ids=["lbfgs", "adam on mini-batches", "fista"],
)
def test_repeated_runs_are_bit_identical(binary, blocks, options):
    """Of a store that was written anew, too."""
    with store_of(binary) as again:
        assert fit(blocks, **options).coefficients.tobytes() == fit(again, **options).coefficients.tobytes()


def test_the_seed_changes_mini_batches(blocks):
    options = dict(optimizer=optim.sgd(0.1), mini_batch_fraction=0.1)
    one, other = (fit(blocks, seed=seed, **options) for seed in (1, 2))
    assert not np.array_equal(one.coefficients, other.coefficients)


def test_partitions_do_not_matter(binary):
    """Step by step where the path is the optimiser's own; at the optimum where a sample of rows shapes the path."""
    for options, rtol in (
        (dict(optimizer="momentum", stepSize=0.3, tol=0.0, maxIter=8), 1e-9),
        (dict(tol=0.0), 1e-6),
    ):
        one = LogisticRegression(**options).fit(binary.coalesce(1))
        many = LogisticRegression(**options).fit(binary.repartition(7))
        np.testing.assert_allclose(one.coefficients, many.coefficients, rtol=rtol)
        assert one.summary.objectiveHistory[-1] == pytest.approx(many.summary.objectiveHistory[-1], rel=1e-10)


def test_empty_partitions_are_harmless(binary):
    sparse_rows = binary.where("id < 1250").union(binary.where("id < 0"))  # most partitions are empty
    dense_rows = binary.where("id < 1250").coalesce(1)
    with store_of(sparse_rows) as several, store_of(dense_rows) as one:
        np.testing.assert_allclose(fit(several).coefficients, fit(one).coefficients, rtol=1e-9)


def test_a_missing_file_is_read_from_the_source(binary, caplog):
    """To the bits of each reduction; of as many partitions as give a tree a level."""
    engines = {how: DriverEngine(2, how) for how in ("collect", "tree", "sharded")}
    with store_of(binary.repartition(6)) as store:
        whole = {how: fit(store, engine=engine, stop=Stop(1, 0.0)) for how, engine in engines.items()}
        for how, engine in engines.items():
            located = store.located()
            for handle in (located.handles[2], *located.known.copies.get(2, ())):
                Path(handle.path).unlink(missing_ok=True)
            caplog.clear()
            for _ in range(2):
                repaired = fit(store, engine=engine, stop=Stop(1, 0.0))
                assert repaired.coefficients.tobytes() == whole[how].coefficients.tobytes(), how
            assert caplog.text.count("partitions [2] are missing") == 1, how  # later passes find the new file


def test_a_cache_that_somebody_empties_is_filled_once(binary, caplog):
    """``for rdd in getPersistentRDDs(): rdd.unpersist()`` is in many scripts."""
    with store_of(binary) as store:
        before = fit(store).coefficients.tobytes()
        folders = {Path(handle.path).parent for handle in store.located().handles}
        store._backend._handles._jrdd.unpersist()
        assert fit(store).coefficients.tobytes() == before
        assert sum(len([*folder.glob("*.arrow")]) for folder in folders) == 2 * store.partitions
        assert caplog.text.count("the cache of a fit was emptied") == 1


def test_block_file_names_what_it_misses(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.arrow"):
        BlockFile(str(tmp_path / "gone.arrow"), (0, 5))


def test_a_minibatch_step_touches_its_share_only(binary):
    model = LogisticRegression(optimizer="sgd", miniBatchFraction=0.01, maxIter=10, tol=0.0).fit(binary)
    receipt = model.summary.receipt  # and at the end, all rows once, so that the objective compares with any other
    assert receipt.rows_touched == pytest.approx(11 * 50 + 5000, abs=11)
    assert receipt.passes == 12


def test_the_smallest_batch_is_checked(binary):
    with pytest.raises(ParameterError, match="less than one row a step. Use at least 0.0002"):
        LogisticRegression(optimizer="sgd", miniBatchFraction=1e-5).fit(binary)
