"""pyspark.ml's evaluators under their names, made without a JVM: metrics of DataFrames and of tables without Spark.

A DataFrame is given to pyspark.ml's evaluator in the JVM, which is made when it is first needed. A table's metrics
are computed from the same tallies as those of a search's models.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pyspark import keyword_only
from pyspark.ml import evaluation
from pyspark.ml.util import MLReader, MLWriter

from sparkopt.blocks.rows import rows_of
from sparkopt.machine import Table
from sparkopt.ml.metrics.evaluators import check_two_classes, measure_on
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.saving import ParamsReader, ParamsWriter

__all__ = ["BinaryClassificationEvaluator", "MulticlassClassificationEvaluator", "RegressionEvaluator"]


class _EvaluatorWriter(ParamsWriter):
    """Writes an evaluator under pyspark.ml's name, so that Spark loads it, with or without sparkopt."""

    def saveImpl(self, path: str) -> None:
        """Write the metadata below ``path``."""
        named = self.instance.copy()
        named.__module__ = JAVA
        ParamsWriter(named).session(self.sparkSession).saveImpl(path)


JAVA = "org.apache.spark.ml.evaluation"


class _MadeLater(evaluation.JavaEvaluator):
    """Mixin: the JVM's evaluator is made when it is first needed."""

    in_place_of: ClassVar[type]

    def _transfer_params_to_java(self) -> None:
        self._make_java()
        super()._transfer_params_to_java()

    def _make_java(self) -> None:
        if self._java_obj is None:
            self._java_obj = self._new_java_obj(f"{JAVA}.{self.in_place_of.__name__}", self.uid)

    @illegal_arguments()
    def _evaluate(self, dataset: Any) -> float:
        rows = rows_of(dataset)
        if isinstance(rows, Table):
            return measure_on(self, rows)
        check_two_classes(self, rows.schema)
        self._make_java()
        return super()._evaluate(dataset)

    def write(self) -> MLWriter:
        """Return a writer: ``evaluator.write().overwrite().save(path)``. pyspark.ml's class can load it."""
        return _EvaluatorWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``Evaluator.read().load(path)``. It reads what pyspark.ml's class saved."""
        return ParamsReader(cls)


class BinaryClassificationEvaluator(_MadeLater, evaluation.BinaryClassificationEvaluator):  # type: ignore[misc]  # files without Spark
    """pyspark.ml's BinaryClassificationEvaluator, which needs no JVM for tables.

    Parameters
    ----------
    rawPredictionCol : str, default "rawPrediction"
        Column of scores: numbers, or Vectors whose entry for class 1 counts.
    labelCol : str, default "label"
        Column of labels, 0 or 1.
    metricName : {"areaUnderROC", "areaUnderPR"}, default "areaUnderROC"
        The metric.
    weightCol : str, optional
        Column of row weights.
    numBins : int, default 1000
        Thresholds that a curve is reduced to; 0 keeps all.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sparkopt.ml import BinaryClassificationEvaluator
    >>> rows = pa.table({"rawPrediction": [0.1, 0.4, 0.35, 0.8], "label": [0.0, 0.0, 1.0, 1.0]})
    >>> BinaryClassificationEvaluator().evaluate(rows)
    0.75
    """

    in_place_of = evaluation.BinaryClassificationEvaluator

    @keyword_only
    def __init__(
        self,
        *,
        rawPredictionCol: str = "rawPrediction",
        labelCol: str = "label",
        metricName: str = "areaUnderROC",
        weightCol: str | None = None,
        numBins: int = 1000,
    ) -> None:
        super(evaluation.BinaryClassificationEvaluator, self).__init__()  # whose constructor needs a JVM
        self._setDefault(metricName="areaUnderROC", numBins=1000)
        self._set(**self._input_kwargs)


class MulticlassClassificationEvaluator(_MadeLater, evaluation.MulticlassClassificationEvaluator):  # type: ignore[misc]  # files without Spark
    """pyspark.ml's MulticlassClassificationEvaluator, which needs no JVM for tables.

    Parameters
    ----------
    predictionCol : str, default "prediction"
        Column of predicted classes.
    labelCol : str, default "label"
        Column of classes.
    metricName : str, default "f1"
        One of f1, accuracy, weightedPrecision, weightedRecall, weightedTruePositiveRate, weightedFalsePositiveRate,
        weightedFMeasure, truePositiveRateByLabel, falsePositiveRateByLabel, precisionByLabel, recallByLabel,
        fMeasureByLabel, logLoss and hammingLoss.
    weightCol : str, optional
        Column of row weights.
    metricLabel : float, default 0
        The class of the metrics by label.
    beta : float, default 1
        How many times as much as precision recall counts in F measures.
    probabilityCol : str, default "probability"
        Column of class probabilities, for logLoss.
    eps : float, default 1e-15
        The least probability that counts, for logLoss.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sparkopt.ml import MulticlassClassificationEvaluator
    >>> rows = pa.table({"prediction": [0.0, 1.0, 2.0, 2.0], "label": [0.0, 1.0, 1.0, 2.0]})
    >>> MulticlassClassificationEvaluator(metricName="accuracy").evaluate(rows)
    0.75
    """

    in_place_of = evaluation.MulticlassClassificationEvaluator

    @keyword_only
    def __init__(
        self,
        *,
        predictionCol: str = "prediction",
        labelCol: str = "label",
        metricName: str = "f1",
        weightCol: str | None = None,
        metricLabel: float = 0.0,
        beta: float = 1.0,
        probabilityCol: str = "probability",
        eps: float = 1e-15,
    ) -> None:
        super(evaluation.MulticlassClassificationEvaluator, self).__init__()
        self._setDefault(metricName="f1", metricLabel=0.0, beta=1.0, eps=1e-15)
        self._set(**self._input_kwargs)


class RegressionEvaluator(_MadeLater, evaluation.RegressionEvaluator):  # type: ignore[misc]  # files without Spark
    """pyspark.ml's RegressionEvaluator, which needs no JVM for tables.

    Parameters
    ----------
    predictionCol : str, default "prediction"
        Column of predictions.
    labelCol : str, default "label"
        Column of targets.
    metricName : {"rmse", "mse", "r2", "mae", "var"}, default "rmse"
        The metric.
    weightCol : str, optional
        Column of row weights.
    throughOrigin : bool, default False
        Whether r2 is about zero instead of the mean.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sparkopt.ml import RegressionEvaluator
    >>> rows = pa.table({"prediction": [1.0, 2.0, 3.0], "label": [1.0, 2.0, 5.0]})
    >>> RegressionEvaluator(metricName="mae").evaluate(rows)
    0.6666666666666666
    """

    in_place_of = evaluation.RegressionEvaluator

    @keyword_only
    def __init__(
        self,
        *,
        predictionCol: str = "prediction",
        labelCol: str = "label",
        metricName: str = "rmse",
        weightCol: str | None = None,
        throughOrigin: bool = False,
    ) -> None:
        super(evaluation.RegressionEvaluator, self).__init__()
        self._setDefault(metricName="rmse", throughOrigin=False)
        self._set(**self._input_kwargs)
