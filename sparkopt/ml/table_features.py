"""TableFeatures: raw columns (text, dates, booleans, numbers, nulls) to named features, as a stage of a pipeline."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa
from pyspark import keyword_only
from pyspark.ml import Estimator, Model
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCols, HasLabelCol, HasOutputCol
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql.types import (
    BooleanType,
    CharType,
    DataType,
    DateType,
    NullType,
    NumericType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
    VarcharType,
)

from sparkopt.blocks.columns import check_once, column_type
from sparkopt.blocks.names import plain_types
from sparkopt.blocks.rows import rows_of, rows_to_fit, schema_of
from sparkopt.blocks.tables import named_table
from sparkopt.errors import DataError, ParameterError, SchemaError
from sparkopt.features import Encoder, EncodingOptions, Formula, RawColumn, fitted_encoder
from sparkopt.features.encoder import VECTOR
from sparkopt.features.fitting import DROP, IMPUTE
from sparkopt.features.statistics import CATEGORY, DATE, NUMBER, ColumnStatistics, merged
from sparkopt.features.values import counted_from
from sparkopt.machine import Table
from sparkopt.machine.derived import derived
from sparkopt.ml.encoded_rows import with_features
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.rows import NAMES
from sparkopt.ml.saving import OwnWriter, ParamsReadable, ParamsWritable, StageReader
from sparkopt.ml.table_scoring import transformed
from sparkopt.ml.table_statistics import Learning, statistics_of
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = ["TableFeatures", "TableFeaturesModel"]

T = TypeVar("T", bound="_TableFeaturesParams")
logger = logging.getLogger(__name__)

DEFAULTS = EncodingOptions()
TEXTS = (StringType, CharType, VarcharType)


class _TableFeaturesParams(HasInputCols, HasOutputCol, HasLabelCol):
    """Parameters of the estimator and of its model."""

    categorical: Param[list[str]] = Param(
        Params._dummy(), "categorical", "columns of numbers that are categories", TypeConverters.toListString
    )
    impute: Param[str] = Param(
        Params._dummy(), "impute", f"what replaces missing numbers: {', '.join(IMPUTE)}", TypeConverters.toString
    )
    indicators: Param[bool] = Param(
        Params._dummy(), "indicators", "whether a feature says that a value is missing", TypeConverters.toBoolean
    )
    formula: Param[str] = Param(
        Params._dummy(), "formula", "the columns and products that are features, as in R", TypeConverters.toString
    )
    minCount: Param[int] = Param(
        Params._dummy(), "minCount", "rows that a category needs for a feature of its own", TypeConverters.toInt
    )
    maxCategories: Param[int] = Param(
        Params._dummy(), "maxCategories", "categories beyond which a column is hashed", TypeConverters.toInt
    )
    hashFeatures: Param[int] = Param(
        Params._dummy(), "hashFeatures", "features of a hashed column", TypeConverters.toInt
    )
    drop: Param[str] = Param(
        Params._dummy(), "drop", f"which first categories have no feature: {', '.join(DROP)}", TypeConverters.toString
    )
    exclude: Param[list[str]] = Param(
        Params._dummy(), "exclude", "columns that are not features", TypeConverters.toListString
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(
            outputCol="features",
            labelCol="label",
            categorical=[],
            impute=DEFAULTS.impute,
            indicators=DEFAULTS.indicators,
            minCount=DEFAULTS.min_count,
            maxCategories=DEFAULTS.max_categories,
            hashFeatures=DEFAULTS.buckets,
            drop=DEFAULTS.drop,
            exclude=[],
        )

    def setOutputCol(self: T, value: str) -> T:
        """Set the column of features."""
        return self._set(outputCol=value)


class TableFeaturesModel(Model, _TableFeaturesParams, MLWritable, MLReadable["TableFeaturesModel"]):
    """Adds a column of features to rows with raw columns.

    Where a linear model is trained on them, or scores them, next in a pipeline, the features are computed in the task
    that needs them, batch by batch: no pass over the rows of its own, and no column of them on Spark.

    Parameters
    ----------
    encoder : sparkopt.features.Encoder
        How the columns are encoded.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def __repr__(self) -> str:
        facts = f"columns={len(self.encoder.columns)}, numFeatures={self.numFeatures}"
        return f"{type(self).__name__}: uid={self.uid}, {facts}"

    @property
    def featureNames(self) -> list[str]:
        """Names of the features, in order."""
        return list(self.encoder.names)

    @property
    def numFeatures(self) -> int:
        """Number of features."""
        return self.encoder.width

    @illegal_arguments()
    def _transform(self, dataset: Any) -> Any:
        rows = rows_of(dataset)
        _require(schema_of(rows), self.encoder.columns, self.getOutputCol())
        if not isinstance(rows, Table):
            return with_features(rows, self.getOutputCol(), self.encoder)
        return transformed(dataset, rows, lambda table: _derived(table, self.getOutputCol(), self.encoder))

    def copy(self, extra: Any = None) -> TableFeaturesModel:
        """Return a copy, with other values of some parameters."""
        return self._copyValues(TableFeaturesModel(self.encoder)._resetUid(self.uid), extra)

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``."""
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``TableFeaturesModel.read().load(path)``."""
        return _Reader(cls)


class TableFeatures(
    Estimator[TableFeaturesModel], _TableFeaturesParams, ParamsWritable, ParamsReadable["TableFeatures"]
):
    """Learn how raw columns become features, in one pass: no column has to be prepared before a model is trained.

    Text becomes a feature for each category, a date its parts, a boolean 0 or 1, a number itself, each with nulls.
    Of categories with more than ``maxCategories`` values their hashes are features. A category that was not seen in
    training is 0 in all its column's features, or "other" where there is one.

    Parameters
    ----------
    inputCols : list of str, optional
        The columns; unset, every column but ``labelCol``, ``outputCol`` and ``exclude`` that has such a type.
    outputCol : str, default "features"
        Column of the features.
    labelCol : str, default "label"
        Target, which is no feature.
    categorical : list of str, default []
        Columns of numbers or booleans that are categories, such as postal codes.
    impute : {"mean", "median", "most_frequent", "zero"}, default "mean"
        What takes the place of missing numbers. The last two of 100,000 different values and more are approximate.
    indicators : bool, default True
        Whether a feature says that a value is missing, where some were in training.
    formula : str, optional
        As in R: ``y ~ a + b + a:b``, ``y ~ . - id``. What is before ``~`` is no feature. ``- 1`` belongs to the
        estimator: set its fitIntercept to False.
    minCount : int, default 1
        Rows that a category needs for a feature of its own; rarer ones share one, "other".
    maxCategories : int, default 20000
        Categories beyond which a column is hashed.
    hashFeatures : int, default 4096
        Features of a hashed column.
    drop : {"if_binary", "first", "none"}, default "if_binary"
        Which columns have no feature for their first category: those with two, all, or none. Without a penalty, the
        coefficients are unique with "first" alone.
    exclude : list of str, default []
        Columns that are not features, such as weights and identifiers.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sparkopt.ml import LogisticRegression, Pipeline, TableFeatures
    >>> towns = ["Bonn", "Rome", "Oslo", "Rome"]
    >>> people = pa.table({"age": [21, None, 50, 33], "town": towns, "label": [0, 1, 1, 0]})
    >>> model = Pipeline(stages=[TableFeatures(), LogisticRegression(regParam=0.1)]).fit(people)
    >>> model.stages[0].featureNames
    ['age', 'age is missing', 'town=Bonn', 'town=Oslo', 'town=Rome']
    """

    _input_kwargs: dict[str, Any]

    @keyword_only
    def __init__(
        self,
        *,
        inputCols: list[str] | None = None,
        outputCol: str = "features",
        labelCol: str = "label",
        categorical: list[str] | None = None,
        impute: str = DEFAULTS.impute,
        indicators: bool = DEFAULTS.indicators,
        formula: str | None = None,
        minCount: int = DEFAULTS.min_count,
        maxCategories: int = DEFAULTS.max_categories,
        hashFeatures: int = DEFAULTS.buckets,
        drop: str = DEFAULTS.drop,
        exclude: list[str] | None = None,
    ) -> None:
        super().__init__()
        self._set(**{name: value for name, value in self._input_kwargs.items() if value is not None})

    @illegal_arguments()
    def _fit(self, dataset: Any) -> TableFeaturesModel:
        rows = rows_to_fit(dataset)
        learning = self._learning(schema_of(rows))
        return self._learnt(learning, statistics_of(rows, learning.names, learning.collect))

    def _learning(self, schema: StructType) -> Learning:
        """Return what is to be learnt of rows with these columns."""
        options = self._options()
        columns, terms = self._chosen(schema)
        types = {field.name: field.dataType.simpleString() for field in schema}
        known = {
            c.name: types.get(c.name, "") or column_type(schema, c.name, "input").simpleString() for c in columns
        }
        return Learning(columns, terms, options, known)

    def _learnt(self, learning: Learning, parts: Sequence[list[ColumnStatistics]]) -> TableFeaturesModel:
        """Return the model, given the statistics of each part of the rows."""
        encoder = fitted_encoder(learning.columns, merged(parts), learning.options, learning.terms)
        encoder = replace(encoder, types=tuple(learning.types[name] for name in encoder.columns))
        return self._copyValues(TableFeaturesModel(encoder)._resetUid(self.uid))

    def _options(self) -> EncodingOptions:
        """Return how columns are encoded, checked."""
        for name, domain in (
            ("impute", OneOf(IMPUTE)),
            ("drop", OneOf(DROP)),
            ("minCount", Interval(1, None, whole=True)),
            ("maxCategories", Interval(1, None, whole=True)),
            ("hashFeatures", Interval(1, None, whole=True)),
        ):
            check(name, self.getOrDefault(name), domain)
        impute, indicators, least, most, buckets, drop = (
            self.getOrDefault(name)
            for name in ("impute", "indicators", "minCount", "maxCategories", "hashFeatures", "drop")
        )
        return EncodingOptions(impute, indicators, least, most, buckets, drop)

    def _chosen(self, schema: StructType) -> tuple[list[RawColumn], list[tuple[str, ...]]]:
        """Return the columns that are read, and the terms that are features."""
        label, exclude = self.getLabelCol(), self.getOrDefault(self.exclude)
        categorical = self.getOrDefault(self.categorical)
        for name in exclude:
            column_type(schema, name, "excluded")
        formula = Formula.of(self.getOrDefault(self.formula)) if self.isDefined(self.formula) else None
        if formula is not None and not formula.intercept:
            raise ParameterError("formula: '- 1' belongs to the estimator. Leave it out, and set fitIntercept=False.")
        if self.isDefined(self.inputCols):
            names = list(self.getInputCols())
            if label in names:
                raise ParameterError(f"inputCols names the label, {label!r}. Leave it out.")
            check_once(schema, names, "inputCols")
        else:
            aside = {label, self.getOutputCol(), *exclude, *([formula.label] if formula else [])}
            names = _usable(schema, [name for name in schema.names if name not in aside], categorical)
        terms: list[tuple[str, ...]]
        terms = [(name,) for name in names] if formula is None else formula.terms_of(names)
        if any(label in term for term in terms):
            raise ParameterError(f"formula: the label, {label!r}, is among the features.")
        if not terms and all(isinstance(field.dataType, NullType) for field in schema):
            raise DataError("there are no rows to take features from: no column has a value.")
        if not terms:
            raise SchemaError(f"there are no columns to make features of. Columns: {', '.join(schema.names)}.")
        read = list(dict.fromkeys(name for term in terms for name in term))
        for name in categorical:
            column_type(schema, name, "categorical")
        known = plain_types(schema)
        kinds = {name: known[name] if name in known else column_type(schema, name, "input") for name in read}
        return [_raw(name, kind, name in categorical) for name, kind in kinds.items()], terms


def _usable(schema: StructType, names: Sequence[str], categorical: Sequence[str]) -> list[str]:
    """Return the columns that have features, and log which have none."""
    kinds = {field.name: field.dataType for field in schema}
    found = [name for name in names if _kind(kinds[name], name in categorical) is not None]
    for name in names:
        if name not in found and not isinstance(kinds[name], NullType):
            logger.warning("column %r of type %s is left out", name, kinds[name].simpleString())
    return found


def _kind(kind: DataType, is_category: bool) -> str | None:
    """Return what a column is taken for; None where it has no features."""
    if isinstance(kind, TEXTS):
        return CATEGORY
    if isinstance(kind, (DateType, TimestampType, TimestampNTZType)):
        return CATEGORY if is_category else DATE
    if isinstance(kind, (NumericType, BooleanType)):
        return CATEGORY if is_category else NUMBER
    return None


def _raw(name: str, kind: DataType, is_category: bool) -> RawColumn:
    found = _kind(kind, is_category)
    if isinstance(kind, NullType):
        found = CATEGORY
    if found is None:
        raise SchemaError(
            f"input column {name!r} has type {kind.simpleString()}; it must be text, a date, a timestamp, a boolean "
            f"or a number."
        )
    return RawColumn(name, found, has_time=not isinstance(kind, DateType))


def _require(schema: StructType, columns: Sequence[str], output: str) -> None:
    """Refuse rows without the columns that were trained on, or with the output's."""
    for name in columns:
        column_type(schema, name, "input")
    if output in schema.names:
        raise SchemaError(f"output column {output!r} exists already. Rename it, or set another outputCol.")


def _derived(rows: Table, output: str, encoder: Encoder) -> Table:
    """Return a table with the features, which are computed as they are read."""
    schema = rows.schema.append(pa.field(output, VECTOR, metadata={NAMES: json.dumps(encoder.names)}))
    return derived(
        named_table(rows, encoder.columns), AddFeatures(encoder, output), schema, encoder.columns, [output]
    )


@dataclass(frozen=True)
class AddFeatures:
    """The function that adds the features to batches of rows."""

    encoder: Encoder
    output: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in batches:
            try:
                features = self.encoder.vectors([batch.column(name) for name in self.encoder.columns])
            except DataError as error:
                raise DataError(counted_from(error, first)) from None
            first += batch.num_rows
            yield pa.RecordBatch.from_arrays([*batch.columns, features], [*batch.schema.names, self.output])


class _Writer(OwnWriter):
    """Writes parameters, and the encoder as JSON."""

    def __init__(self, model: TableFeaturesModel) -> None:
        super().__init__()
        self.model = model

    def saveImpl(self, path: str) -> None:
        """Write ``metadata`` and ``data`` below ``path``."""
        spark = self.sparkSession
        DefaultParamsWriter.saveMetadata(self.model, path, spark)
        table = pa.table({"encoder": [self.model.encoder.to_json()]})
        spark.createDataFrame(table).coalesce(1).write.parquet(f"{path}/data")


class _Reader(StageReader[TableFeaturesModel]):
    """Reads such a model."""

    def _load(self, path: str) -> TableFeaturesModel:
        metadata = self._metadata(path)
        row = self.sparkSession.read.parquet(f"{path}/data").first()
        if row is None:
            raise DataError(f"{path!r} has no encoder: it was not written completely. Save the model again.")
        found = TableFeaturesModel(Encoder.from_json(row["encoder"]))
        found._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(found, metadata)
        return found
