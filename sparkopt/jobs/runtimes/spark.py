"""Jobs on Spark: a session that runs already, spark-submit's, or one of a profile."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException, PySparkException, PythonException
from pyspark.ml import Model
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegralType, MapType, StringType, StructField, StructType

from sparkopt.blocks.backend import cached, is_connect, uncached
from sparkopt.blocks.columns import number_type
from sparkopt.blocks.failures import missing_system
from sparkopt.blocks.jvm_errors import Py4JError, Py4JJavaError, Py4JNetworkError
from sparkopt.blocks.names import quoted
from sparkopt.errors import DataError, SchemaError, SparkoptError
from sparkopt.images.spark import read_on_spark
from sparkopt.io.fingerprint import digest
from sparkopt.io.secrets import mask
from sparkopt.jobs.invalid_rows import last_stage, mode_of, with_mode
from sparkopt.jobs.locations import JobLocation
from sparkopt.jobs.logs import event
from sparkopt.jobs.metrics import ScoredRows, is_classifier
from sparkopt.jobs.raw_rows import hidden_columns
from sparkopt.jobs.reading import SPARK_TYPES, check_columns, spark_csv
from sparkopt.jobs.runtimes.base import InputRows, Runtime, Written
from sparkopt.jobs.runtimes.hadoop import path_on, spark_location
from sparkopt.jobs.runtimes.spark_values import SparkValues, scored_values
from sparkopt.jobs.signals import interruptible
from sparkopt.jobs.sources import (
    FEATURES,
    IMAGES,
    LABEL,
    TABLE,
    DataSource,
    feature_columns_of,
    image_names,
    image_pipeline,
    with_image_shape,
)
from sparkopt.launch.remote import require_server
from sparkopt.launch.session import is_classic, session
from sparkopt.launch.streams import is_submitted

if TYPE_CHECKING:
    from sparkopt.images import ImageKernel
    from sparkopt.jobs.runtimes.images import ImageRows

__all__ = ["SparkRuntime", "load", "split"]

_SAVE_MODES = {"errorifexists": "error", "overwrite": "overwrite"}
"""Modes of the writer: Spark Connect does not know the longer name of the first."""

PACKAGES = {
    "delta": "--packages io.delta:delta-spark_2.13:VERSION",
    "iceberg": "--packages org.apache.iceberg:iceberg-spark-runtime-SPARK_2.13:VERSION",
}
"""Flags of spark-submit for formats that Spark itself does not include."""


class SparkRuntime(Runtime):
    """A job on Spark.

    Parameters
    ----------
    spark : SparkSession
        The session.
    """

    name = "spark"
    failures = (PySparkException, Py4JError)

    def __init__(self, spark: SparkSession) -> None:
        self.spark = spark

    @classmethod
    @contextmanager
    def opened(cls, profile: str, app_name: str, settings: Mapping[str, str]) -> Iterator[SparkRuntime]:
        """Yield a runtime; its session is stopped afterwards unless it was running before."""
        running = SparkSession.getActiveSession() is not None
        chosen = dict(settings)
        if not is_classic(chosen):  # a server of Spark Connect has its own settings
            chosen = {key: value for key, value in chosen.items() if key == "spark.remote"}
            remote = chosen.get("spark.remote") or os.environ.get("SPARK_REMOTE", "")
            if not running and remote and not remote.startswith("local"):
                require_server(remote)
        spark = session(None if running else profile, app_name, chosen)
        try:
            with interruptible():
                yield cls(spark)
        finally:
            if not running:
                _stop(spark)

    @staticmethod
    def essence(error: Exception) -> str:
        return essence(error)

    @staticmethod
    def has_ended(error: Exception) -> bool:
        """Whether the JVM is gone that spark-submit has started this process from."""
        return is_submitted() and is_lost(error)

    def where(self) -> Mapping[str, str | None]:
        """Return the master and the application's id, by which Spark's own pages and logs name the run."""
        if is_connect(self.spark):
            return {"master": None, "application": None}
        return {"master": self.spark.sparkContext.master, "application": self.spark.sparkContext.applicationId}

    def location(self, path: str) -> JobLocation:
        return spark_location(self.spark, path)

    def fingerprint_of_files(self, *paths: str) -> dict[str, Any]:
        reached = [path_on(self.spark, path) for path in paths]
        files = self.spark.read.format("binaryFile").option("recursiveFileLookup", True).load(reached)
        one = F.xxhash64("path", "length", "modificationTime")
        row = files.agg(F.count("*"), F.sum("length"), F.bit_xor(one), F.sum(one % 1_000_003)).collect()[0]
        count, size, *hashes = (value or 0 for value in row)
        return {"files": count, "bytes": size, "digest": digest({"count": count, "bytes": size, "hashes": hashes})}

    def fingerprint(self, source: DataSource) -> dict[str, Any] | None:
        named, spark = {source.kind: mask(str(source))}, self.spark
        try:
            kind, name = source.kind, source.location
            if kind in PACKAGES:  # without its package, the statements below would be syntax errors
                load(spark, source).schema  # noqa: B018  # Connect resolves it no earlier
            if kind == TABLE:
                kind = _provider(spark, name)
            elif kind in ("delta", "iceberg"):
                name = f"{kind}.`{path_on(spark, name)}`"
            if kind == "delta":
                row = spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").collect()[0]  # a table's own name
                return {**named, "version": row["version"], "timestamp": str(row["timestamp"])}
            if kind == "iceberg":
                snapshots = _snapshots(spark, source).orderBy(F.col("committed_at").desc()).limit(1).collect()
                return {**named, "version": snapshots[0]["snapshot_id"] if snapshots else 0}
            paths = load(spark, source).inputFiles() if source.kind == TABLE else source.paths
            return {**named, **self.fingerprint_of_files(*paths)} if paths else None
        except (PySparkException, Py4JJavaError) as error:
            raise _unreadable(source, error) from error

    def folders_of(self, table: str) -> list[str]:
        try:
            rows = self.spark.sql(f"DESCRIBE EXTENDED {table}").where("col_name = 'Location'").collect()
            files = [row["data_type"] for row in rows] or self.spark.read.table(table).inputFiles()  # a view
        except (PySparkException, Py4JJavaError) as error:
            raise _unreadable(DataSource(TABLE, table), error) from error
        return files if rows else sorted({file.rpartition("/")[0] for file in files})

    def read(
        self,
        args: argparse.Namespace,
        *,
        labels: Sequence[str] = (),
        encoded: bool = False,
        width: int = 0,
        known: Mapping[str, str] = MappingProxyType({}),
        invalid: str = "skip",
    ) -> InputRows:
        source: DataSource = args.source
        try:
            if source.kind != IMAGES:
                df = load(self.spark, source, width, known)
                return InputRows(df, feature_columns_of(df.schema, args.features), args.label, args.weight)
            files, names = image_files(self.spark, source.location, labels)
        except (PySparkException, Py4JJavaError) as error:
            raise _unreadable(source, error) from error
        if encoded:
            return InputRows(files, None, LABEL, None, names)
        from sparkopt import images  # imported here: tables do not need OpenCV

        mode = "FAILFAST" if invalid == "error" else "PERMISSIVE"
        decoded = images.udf(image_pipeline(with_image_shape(args, width)), output="array", mode=mode)
        features = decoded("content", "path").alias(FEATURES)
        return InputRows(files.select(features, LABEL, "path"), FEATURES, LABEL, None, names)

    def schema(self, rows: DataFrame) -> StructType:
        return rows.schema

    def first(self, rows: DataFrame, column: str) -> Any:
        value = F.col(quoted(column))
        found = rows.where(value.isNotNull()).select(value.alias("value")).head()
        return None if found is None else found.asDict(recursive=True)["value"]

    def split(self, rows: DataFrame, fraction: float, seed: int) -> tuple[DataFrame, DataFrame]:
        return split(rows, fraction, seed)

    def load(self, module: str, name: str, uri: str) -> Model:
        loaded: Model = getattr(import_module(module), name).load(uri)
        return loaded

    def save(self, model: Any, location: JobLocation) -> None:
        model.write().overwrite().save(location.uri)

    def images(self, options: argparse.Namespace, kernel: ImageKernel, output: JobLocation) -> ImageRows:
        from sparkopt.jobs.runtimes.spark_images import SparkImages  # tables do not need OpenCV

        return SparkImages(self.spark, options, kernel, output)

    @contextmanager
    def scored(self, model: Any, rows: DataFrame, label: str, weight: str | None = None) -> Iterator[ScoredRows]:
        number_type(rows.schema, label, "label")
        wanted = [F.col(quoted(label)).cast("double").alias("label")]
        if weight is not None:
            number_type(rows.schema, weight, "weight")
            wanted.append(F.col(quoted(weight)).cast("double").alias("weight"))
        mode, last = mode_of(model), last_stage(model)
        found = (model if mode == "error" else with_mode(model, "keep")).transform(rows)
        outputs = [name for name in ("prediction", "probability", "rawPrediction") if last.hasParam(f"{name}Col")]
        columns = {name: last.getOrDefault(f"{name}Col") for name in outputs}
        present = [F.col(quoted(column)).alias(name) for name, column in columns.items() if column in found.columns]
        if "prediction" not in columns or columns["prediction"] not in found.columns:
            raise SchemaError("the model's predictionCol is empty: there is nothing to evaluate.")
        table = cached(found.select(*wanted, *present))
        judged = is_classifier(model)
        try:
            if mode == "error":
                yield ScoredRows(scored_values(table, is_classifier=judged), judged)
                return
            valid = table.where(_is_valid(table))
            invalid = table.count() - valid.count()
            yield ScoredRows(scored_values(valid, is_classifier=judged), judged, invalid)
        finally:
            uncached(table)

    def write_scores(
        self,
        model: Any,
        rows: DataFrame,
        kept: Sequence[str],
        target: JobLocation,
        *,
        form: str,
        mode: str,
        labels: Sequence[str] = (),
    ) -> tuple[list[str], Written]:
        invalid_rows = mode_of(model)
        scored = (with_mode(model, "keep") if invalid_rows == "skip" else model).transform(rows)
        hidden = hidden_columns(model)
        made = [name for name in scored.columns if name not in rows.columns and name not in hidden]
        last = last_stage(model)
        column = last.getOrDefault("predictionCol") if last.hasParam("predictionCol") else ""
        told = F.col(quoted(made[0])) if made and invalid_rows != "error" else None
        if told is not None and invalid_rows == "skip":
            scored = scored.where(told.isNotNull())
        if labels and column in made:
            place = F.col(quoted(column)).cast("int") + 1
            scored = scored.withColumn(column, F.element_at(F.array(*map(F.lit, labels)), place))
        table = scored.select(*[_plain(scored, name, form) for name in [*kept, *made]])
        options = (
            {"header": "true", "escape": '"'} if form == "csv" else {}
        )  # as RFC 4180, and one machine, write quotes
        table.write.format(form).options(**options).mode(_SAVE_MODES[mode]).save(target.uri)
        written = self.spark.read.format(form).options(**options).load(target.uri)
        count, invalid = written.count(), None
        if told is not None:
            invalid = rows.count() - count if invalid_rows == "skip" else written.where(told.isNull()).count()
        number = F.col(quoted(column)).cast("double") if column in written.columns else None
        if number is not None and labels:
            number = (F.array_position(F.array(*map(F.lit, labels)), F.col(quoted(column))) - 1).cast("double")
        return made, Written(count, None if number is None else SparkValues(written, {"prediction": number}), invalid)


def _is_valid(scored: DataFrame) -> Any:
    """Return the condition that a row has a prediction, and finite numbers as label and weight."""
    numbers = [F.col(name) for name in ("label", "weight") if name in scored.columns]
    condition = F.col("prediction").isNotNull()
    for number in numbers:  # NaN is larger than infinity in Spark
        condition &= F.coalesce(F.abs(number) < float("inf"), F.lit(False))
    return condition


def _stop(spark: SparkSession) -> None:
    """Stop a session; where its JVM has ended too, as after Ctrl-C, log that instead of hiding another error."""
    try:
        spark.stop()
    except (Py4JError, OSError) as error:
        event("Spark had ended", reason=str(error))


def is_lost(error: Exception) -> bool:
    """Whether the JVM cannot be reached any more: it has the text of its own errors."""
    try:
        str(error)
    except (Py4JError, OSError):
        return True
    return isinstance(error, (Py4JNetworkError, ConnectionError))


def essence(error: Exception) -> str:
    """Return an error as one sentence with its root cause, without plans and stacks."""
    if isinstance(error, SparkoptError):
        return str(error)
    if is_lost(error) and not isinstance(error, BrokenPipeError):  # that is of who reads this process's output
        return "Spark's JVM has ended unexpectedly: it was killed, or ran out of memory. Its log has the reason."
    absent = re.search(r"Failed to find the data source: (\w+)", str(error))
    if absent and absent[1] in PACKAGES:
        return f"Spark was started without {absent[1].title()}. Start it with {PACKAGES[absent[1]]}."
    if way := missing_system(str(error)):
        return way
    if isinstance(error, Py4JJavaError):
        return f"Spark failed: {_rooted(_first(str(error.java_exception.toString())), str(error))}"
    if isinstance(error, PySparkException):
        message = re.sub(r"\s*SQLSTATE: \w+", "", str(error)).strip()
        if isinstance(error, AnalysisException):
            return _first(message)
        if isinstance(error, PythonException):
            last = message.splitlines()[-1].strip()
            own = re.sub(r"^sparkopt\.errors\.\w+: ", "", last)
            return own if own != last else f"Spark failed: {last}"
        return f"Spark failed: {_rooted(_first(message), getattr(error, '_stackTrace', None) or '')}"
    return _first(str(error))


def _first(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason was given"


def _rooted(sentence: str, trace: str) -> str:
    """Add the root cause in a Java stack, such as a full disk, where the sentence does not contain it."""
    causes = [
        line.removeprefix("Caused by: ").strip() for line in trace.splitlines() if line.startswith("Caused by: ")
    ]
    return sentence if not causes or causes[-1] in sentence else f"{sentence} (caused by {causes[-1]})"


def _unreadable(source: DataSource, error: Exception) -> DataError:
    way = ""
    if "encoding" in source.options and "CHARSET" in str(error):
        way = " One machine reads others (--on machine), and so does Spark with spark.sql.legacy.javaCharsets=true."
    return DataError(f"cannot read {mask(str(source))!r}: {mask(essence(error))}{way}")


def load(
    spark: SparkSession, source: DataSource, width: int = 0, known: Mapping[str, str] = MappingProxyType({})
) -> DataFrame:
    """Return the rows of files or of a table.

    Parameters
    ----------
    spark, source : SparkSession, DataSource
        The session, and what is read.
    width : int, default 0
        Number of features of LIBSVM, where it is known.
    known : mapping, default none
        What a model knows columns of CSV files as.
    """
    if source.kind == TABLE:
        return spark.read.table(source.location)
    options = spark_csv(source.paths, source.options) if source.kind == "csv" else dict(source.options)
    if source.kind == "libsvm" and width:
        options = {"numFeatures": str(width), **options}
    reader, paths = spark.read.format(source.kind).options(**options), [path_on(spark, path) for path in source.paths]
    found = reader.load(paths if source.more else path_on(spark, source.location))
    if source.kind != "csv":
        return found
    check_columns(source.types, source.options, found.columns)
    types = {**_types_of(known, found), **source.types}
    return _typed(found, types, lambda schema: reader.schema(schema).load(paths)) if types else found


def _types_of(known: Mapping[str, str], found: DataFrame) -> dict[str, str]:
    """Return the types of columns that are not of the type that a model knows; an empty column comes as text."""
    types = {}
    for name, kind in known.items():
        if name not in found.columns:
            continue
        is_text = isinstance(found.schema[name].dataType, StringType)
        if kind == "string" and not is_text:
            types[name] = "string"
        if kind == "number" and is_text and not found.where(F.col(quoted(name)).isNotNull()).head(1):
            types[name] = "double"
    return types


def _typed(found: DataFrame, types: Mapping[str, str], again: Callable[[StructType], DataFrame]) -> DataFrame:
    """Return rows whose columns have other types than their text suggests; the text itself is read for that."""
    wanted = {name: SPARK_TYPES[kind] for name, kind in types.items()}
    present = {field.name: field.dataType for field in found.schema}
    other = [name for name, kind in wanted.items() if present[name].simpleString() != kind]
    if not other:
        return found
    text = [StructField(name, StringType() if name in other else kind) for name, kind in present.items()]
    columns = {name: F.col(quoted(name)).cast(wanted[name]) for name in other if wanted[name] != "string"}
    read = again(StructType(text))
    return read.withColumns(columns) if columns else read


def image_files(spark: SparkSession, folder: str, labels: Sequence[str] = ()) -> tuple[DataFrame, list[str]]:
    """Return image files as rows of content, label and path, and the labels' names in order.

    Raises
    ------
    DataError
        For a folder that is not in ``labels``, where these are given.
    """
    files = read_on_spark(spark, path_on(spark, folder))  # empty ones too, which Spark's own reader leaves out
    parent = F.element_at(F.split("path", "/"), -2)
    names = image_names(folder, [row[0] for row in files.select(parent).distinct().collect()], labels)
    return files.select("content", (F.array_position(F.lit(names), parent) - 1).alias(LABEL), "path"), names


def split(rows: DataFrame, fraction: float, seed: int) -> tuple[DataFrame, DataFrame]:
    """Return training and held-out rows, as ``Runtime.split`` says."""
    hashed = [_hashed(rows, name) for name in rows.columns]
    if "path" in rows.columns:
        hashed = [F.substring_index("path", "/", -2)]
    key = F.pmod(F.xxhash64(F.lit(seed), *hashed), F.lit(1_000_000))
    held_out = key < int(fraction * 1_000_000)
    return rows.where(~held_out), rows.where(held_out)


def _hashed(rows: DataFrame, name: str) -> Any:
    column = F.col(quoted(name))
    return column.cast("long") if isinstance(rows.schema[name].dataType, IntegralType) else column


def _plain(df: DataFrame, name: str, form: str) -> Any:
    """Return a column that the format can hold: vectors as arrays, and both as JSON in CSV, which has neither."""
    kind, column = df.schema[name].dataType, F.col(quoted(name))
    is_vector = isinstance(kind, VectorUDT)
    if is_vector:
        column = F.when(column.isNotNull(), vector_to_array(column))  # which refuses null
    if form == "csv" and (is_vector or isinstance(kind, (ArrayType, MapType, StructType))):
        column = F.to_json(column)
    return column.alias(name)


def _provider(spark: SparkSession, name: str) -> str:
    """Return a catalog table's format, in lower case; "" where the catalog does not know it."""
    described = spark.sql(f"DESCRIBE EXTENDED {name}").where("col_name = 'Provider'").collect()
    return described[0]["data_type"].lower() if described else ""


def _snapshots(spark: SparkSession, source: DataSource) -> DataFrame:
    if source.kind == TABLE:
        return spark.read.table(f"{source.location}.snapshots")
    return spark.read.format("iceberg").load(f"{source.location}#snapshots")
