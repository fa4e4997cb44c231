"""The parameters of the deep estimator and its model: pyspark.ml's names where it has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasFeaturesCol,
    HasLabelCol,
    HasPredictionCol,
    HasProbabilityCol,
    HasRawPredictionCol,
    HasSeed,
    HasStepSize,
    HasWeightCol,
)

from sparkopt.blocks.invalid import HANDLE_INVALID
from sparkopt.deep.config import LAUNCHERS, PRECISIONS, STRATEGIES
from sparkopt.deep.image_pipelines import check_pipeline
from sparkopt.deep.partial_weights import SAVED
from sparkopt.deep.replica import COMPRESSIONS
from sparkopt.images import BatchMixing, Compose, mixing_from_json, mixing_to_json
from sparkopt.images.label_targets import LABEL_KINDS
from sparkopt.launch.devices import KINDS
from sparkopt.objective.local_step_params import HasLocalSteps
from sparkopt.optim import OPTIMIZERS, OUTER, schedules
from sparkopt.shards.fields import Fields, flat
from sparkopt.validation import Constraint, Interval, OneOf, check

__all__ = ["InferenceParams", "OutputParams", "StepParams", "TrainingParams", "check_params"]

T = TypeVar("T")

_COUNT, _AT_LEAST_0 = Interval(1, None, whole=True), Interval(0, None, whole=True)
_POSITIVE = Interval(0, None, closed="neither")

DOMAINS: Mapping[str, Constraint] = MappingProxyType(
    {
        "handleInvalid": OneOf(HANDLE_INVALID),
        "labelKind": OneOf(LABEL_KINDS),
        "minVisibility": Interval(0, 1),
        "epochs": _AT_LEAST_0,
        "batchSize": _COUNT,
        "numProc": _COUNT,
        "launcher": OneOf(LAUNCHERS),
        "device": OneOf(KINDS),
        "precision": OneOf(PRECISIONS),
        "accumulationSteps": _COUNT,
        "maxGradNorm": _POSITIVE,
        "strategy": OneOf(STRATEGIES),
        "compression": OneOf(COMPRESSIONS),
        "stepSize": _POSITIVE,
        "localSteps": _COUNT,
        "localStepsWarmUp": _AT_LEAST_0,
        "outerOptimizer": OneOf([*OUTER, *OPTIMIZERS]),
        "outerStepSize": _POSITIVE,
        "stepSizeSchedule": OneOf(schedules.NAMES),
        "validationFraction": Interval(0, 1, closed="left"),
        "patience": _AT_LEAST_0,
        "minDelta": Interval(0, None),
        "checkpointInterval": _AT_LEAST_0,
        "shuffleRows": _COUNT,
        "prefetch": _COUNT,
        "loaderThreads": _COUNT,
        "cacheBytes": _AT_LEAST_0,
        "streams": _COUNT,
        "maxRestarts": _AT_LEAST_0,
        "minProc": _COUNT,
        "seed": _AT_LEAST_0,
        "savedWeights": OneOf(SAVED),
    }
)


def check_params(params: Params) -> None:
    """Refuse values outside their domain, all with one wording."""
    for name, domain in DOMAINS.items():
        if params.hasParam(name) and params.isDefined(name):
            check(name, params.getOrDefault(name), domain)


def _param(name: str, doc: str, convert: Callable[[Any], T] | None = None) -> Param[T]:
    return Param(Params._dummy(), name, doc, typeConverter=convert)


def _pipeline(value: Compose | str) -> str:
    """Pipelines are kept as JSON, which pyspark.ml can save; parsing it again checks it."""
    return (value if isinstance(value, Compose) else Compose.from_json(value)).to_json()


def _mixing(value: BatchMixing | Sequence[BatchMixing] | str) -> str:
    """Steps of a batch are kept as JSON too."""
    return mixing_to_json(mixing_from_json(value) if isinstance(value, str) else value)


def _columns(value: Any) -> list[Any]:
    """Names of columns, and lists of names."""
    entries = value if isinstance(value, (list, tuple)) else None
    if entries is None or not all(isinstance(one, str) for one in flat(entries)):
        raise TypeError(f"featuresCols must be a list of names, and lists of names that are joined. Got {value!r}.")
    return [one if isinstance(one, str) else list(one) for one in entries]


def _names(value: Any) -> list[str]:
    """Names of columns, of which there may be none."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"a list of names of columns is needed. Got {value!r}.")
    return list(value)


def _key(value: Any) -> str:
    """A key, or the position of a part."""
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise TypeError(f"outputKey must be a name or a position. Got {value!r}.")
    return str(value)


_text, _whole, _real = TypeConverters.toString, TypeConverters.toInt, TypeConverters.toFloat


class InferenceParams(
    HasFeaturesCol, HasLabelCol, HasWeightCol, HasPredictionCol, HasRawPredictionCol, HasProbabilityCol
):
    """What estimator and model share: columns, images, batches, device."""

    _takes_chw: ClassVar[bool] = True
    """Whether ``ToCHW`` may end a pipeline, since batches have the channels first."""

    featuresCols: Param[list[Any]] = _param(
        "featuresCols", "several columns instead of featuresCol; those in a list of their own are joined", _columns
    )
    batchSize: Param[int] = _param("batchSize", "rows of a batch, on each process", _whole)
    device: Param[str] = _param("device", f"where to compute: {', '.join(KINDS)}", _text)
    imagePipeline: Param[str] = _param("imagePipeline", "image pipeline of training", _pipeline)
    evaluationPipeline: Param[str] = _param(
        "evaluationPipeline", "image pipeline of evaluation; default imagePipeline", _pipeline
    )

    handleInvalid: Param[str] = _param(
        "handleInvalid",
        "what becomes of rows with null, NaN, infinity or an image that cannot be decoded: "
        + ", ".join(HANDLE_INVALID),
        _text,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(
            handleInvalid="error",
            featuresCol="features",
            labelCol="label",
            predictionCol="prediction",
            rawPredictionCol="rawPrediction",
            probabilityCol="probability",
            batchSize=32,
            device="auto",
        )

    def value(self, name: str) -> Any:
        """Return a parameter's value, or None where it has none."""
        return self.getOrDefault(name) if self.hasParam(name) and self.isDefined(name) else None

    def features(self) -> str | list[Any]:
        """Return the feature column or columns."""
        return self.getOrDefault(self.featuresCols) if self.isSet(self.featuresCols) else self.getFeaturesCol()

    def evaluation_pipeline(self) -> str | None:
        """Return the image pipeline of evaluation, as JSON."""
        found: str | None = self.value("evaluationPipeline") or self.value("imagePipeline")
        return found

    def _check_pipelines(self, fields: Fields, *names: str) -> None:
        """Refuse encoded images without these pipelines, or with one whose results a network cannot take."""
        for name in names:
            check_pipeline(fields, self.value(name), name, self._takes_chw)


class TrainingParams(InferenceParams, HasStepSize, HasSeed, HasLocalSteps):
    """What only the estimator has."""

    module: Param[Any] = _param("module", "the network, or what builds it")
    loss: Param[Any] = _param("loss", "a loss of PyTorch's, a function, or a name")
    optimizer: Param[Any] = _param("optimizer", "what makes the optimiser, or a name")
    scheduler: Param[Any] = _param("scheduler", "what makes the scheduler")
    epochs: Param[int] = _param("epochs", "passes over the training rows", _whole)
    numProc: Param[int] = _param("numProc", "processes; default task slots of Spark, or accelerators", _whole)
    launcher: Param[str] = _param("launcher", f"what runs the processes: {', '.join(LAUNCHERS)}", _text)
    precision: Param[str] = _param("precision", f"of the forward pass: {', '.join(PRECISIONS)}", _text)
    accumulationSteps: Param[int] = _param("accumulationSteps", "batches whose gradients make a step", _whole)
    maxGradNorm: Param[float] = _param("maxGradNorm", "largest norm of a step's gradient", _real)
    compression: Param[str] = _param("compression", f"of gradients or updates: {', '.join(COMPRESSIONS)}", _text)
    stepSizeSchedule: Param[str] = _param(
        "stepSizeSchedule", f"how stepSize changes over the steps: {', '.join(schedules.NAMES)}", _text
    )
    validationFraction: Param[float] = _param("validationFraction", "share of the rows held out", _real)
    validationIndicatorCol: Param[str] = _param(
        "validationIndicatorCol", "boolean column that is true in rows held out", _text
    )
    patience: Param[int] = _param("patience", "epochs without improvement that end training; 0 never", _whole)
    minDelta: Param[float] = _param("minDelta", "how far the loss must fall to count as improvement", _real)
    storePath: Param[str] = _param("storePath", "where rows are put, shared by driver and executors", _text)
    batchMixing: Param[str] = _param(
        "batchMixing", "MixUp or CutMix of a batch's rows in training, or several of which one is drawn", _mixing
    )
    paddedCols: Param[list[str]] = _param("paddedCols", "features that are lists of unlike lengths", _names)
    labelKind: Param[str] = _param("labelKind", f"what labels are: {', '.join(LABEL_KINDS)}", _text)
    maskFill: Param[float] = _param("maskFill", "label of pixels outside of the image", _real)
    minVisibility: Param[float] = _param("minVisibility", "least fraction of a box that must be left", _real)
    checkpointDir: Param[str] = _param("checkpointDir", "where checkpoints are kept", _text)
    checkpointInterval: Param[int] = _param(
        "checkpointInterval", "steps between checkpoints within an epoch; 0 is one at its end only", _whole
    )
    resume: Param[bool] = _param("resume", "whether to continue from checkpointDir", TypeConverters.toBoolean)
    maxRestarts: Param[int] = _param("maxRestarts", "how often to continue after losing a process", _whole)
    minProc: Param[int] = _param("minProc", "fewest processes to continue with; default numProc", _whole)
    shuffleRows: Param[int] = _param("shuffleRows", "rows shuffled together, which bounds memory", _whole)
    prefetch: Param[int] = _param("prefetch", "batches prepared ahead", _whole)
    loaderThreads: Param[int] = _param("loaderThreads", "threads that decode batches", _whole)
    cacheBytes: Param[int] = _param("cacheBytes", "decoded images kept for later epochs, per process", _whole)
    streams: Param[int] = _param("streams", "parts the rows are cut into; default numProc", _whole)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(
            loss="squared_error",
            optimizer="adam",
            epochs=10,
            launcher="torch",
            precision="fp32",
            accumulationSteps=1,
            compression="none",
            outerOptimizer="diloco",
            stepSizeSchedule="constant",
            validationFraction=0.0,
            patience=0,
            minDelta=0.0,
            checkpointInterval=0,
            resume=True,
            maxRestarts=0,
            shuffleRows=8192,
            labelKind="numbers",
            maskFill=0.0,
            minVisibility=0.0,
            prefetch=4,
            loaderThreads=1,
            cacheBytes=2**28,
            seed=0,
        )


class OutputParams(Params):
    """What estimators and models have whose network may give more than one tensor."""

    outputKey: Param[str] = _param(
        "outputKey", "key, position or attribute of the output that is the prediction", _key
    )


class StepParams(OutputParams):
    """What only estimators have that take a step of the user's own."""

    step: Param[Any] = _param("step", "a function of (module, batch) in place of the loss")
    labelCols: Param[list[str]] = _param("labelCols", "several labels instead of labelCol, for step", _names)
    savedWeights: Param[str] = _param("savedWeights", f"which weights are saved: {', '.join(SAVED)}", _text)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(savedWeights="all")
