"""KerasEstimator: trains a network of Keras, on PyTorch, JAX or TensorFlow, as TorchEstimator trains PyTorch's.

Design: the training loop, store, launchers, checkpoints, receipts and scoring are those of `TorchEstimator`. What
differs is the learner of a rank (``keras_learner``), which the same loop trains: it turns batches into arrays,
computes gradients on the backend (``keras_networks``), sums them over the ranks by our communicator, and takes the
same step on every rank. No launcher knows a backend, and no collective of JAX's or TensorFlow's is needed.

On JAX and TensorFlow the last batches of an epoch are padded to the shape of the others, so that a step is traced
once. Rows that pad have weight 0, and batch normalisation sees them as masked. Losses that layers add for a batch,
which no weight reaches, are refused. Each rank normalises its own batch, as under `TorchEstimator`, and running
statistics are averaged at the end of an epoch and for a checkpoint.

The module is a function that builds a model: each process calls it, and a saved model names it. Weights are saved by
the order of the model's variables, so that a model trained on one backend is scored on another.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pyspark import keyword_only
from pyspark.ml.util import MLReadable, MLReader, MLWriter

from sparkopt.deep.builders import why_nameless
from sparkopt.deep.keras_arrays import named_weights
from sparkopt.deep.keras_backends import keras_on
from sparkopt.deep.keras_model import KerasModel
from sparkopt.deep.keras_params import KerasTrainingParams
from sparkopt.deep.keras_recipe import KerasRecipe, check_keras_recipe, optimizer_maker
from sparkopt.deep.keras_worker import train_keras
from sparkopt.deep.keras_written import restored_estimator, saved_estimator
from sparkopt.deep.metrics import check_metrics
from sparkopt.deep.network_estimator import NetworkEstimator
from sparkopt.deep.params import check_params
from sparkopt.deep.persistence import NetworkReader, NetworkWriter
from sparkopt.deep.summary import TorchTrainingSummary
from sparkopt.deep.worker import RankResult
from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.images import Compose
from sparkopt.launch.checkpoints import module_bytes
from sparkopt.report import DeepReceipt
from sparkopt.shards.fields import Fields, flat
from sparkopt.solver.progress import Callback

__all__ = ["KerasEstimator"]

logger = logging.getLogger(__name__)

KIND = "sparkopt.deep.keras_estimator.KerasEstimator"

INSTEAD = {
    "precision": ("fp32", "set a dtype policy in the function that builds the model"),
    "batchMixing": (None, "mix images in imagePipeline, or rows in the network"),
    "paddedCols": (None, "give lists of one length, for batches have one shape, and mask their ends in the network"),
    "labelKind": ("numbers", "labels are numbers, vectors, arrays or tensors"),
    "scheduler": (None, "give the optimizer a schedule of Keras's as its learning_rate, or set stepSizeSchedule"),
}
"""Parameters that networks of PyTorch have, the value they may have here, and what to do instead."""


class KerasEstimator(NetworkEstimator[KerasModel], KerasTrainingParams, MLReadable["KerasEstimator"]):
    """Trains a network of Keras on a DataFrame, or without Spark on what ``sparkopt.Table.of`` takes.

    Rows, processes, checkpoints, restarts and results are those of `TorchEstimator`; what is not described here
    means what it means there.

    Parameters
    ----------
    module : callable
        Builds the keras.Model, in every process: a class that derives from it, ``functools.partial`` of one, or a
        function with ``@sparkopt.deep.builder``. Other functions do too, but ``KerasModel.load`` must then be given
        them.
    loss : keras.losses.Loss, callable or str
        A loss of Keras's, or its name; a function of (target, output) with one value a row; or one of
        squared_error, absolute_error, huber, logistic, multinomial and poisson, of scores, logits and logarithms.
        Rows count by their weight: the mean is over the total weight of the rows of all processes.
    optimizer : callable, keras.optimizers.Optimizer or str, default "adam"
        What makes an optimiser (``functools.partial(keras.optimizers.SGD, 0.1)``); an optimiser, of which every
        process makes its own by its settings; or one of sgd, momentum, nesterov, adagrad, rmsprop, adam and adamw,
        with ``stepSize``.
    backend : {"torch", "jax", "tensorflow"}
        Keras's backend, in this process and the ranks; where it is not set, the one that Keras has here.
    mesh : {"process", "ranks"}, default "process"
        Under JAX, the devices that a step is compiled for, which divide its rows: those of each process, or of all
        ranks, so that JAX itself sums the gradients, and batch normalisation is over the rows of all.
    metrics : dict of str to str or torchmetrics.Metric
        Computed over the rows held out: accuracy, mse, rmse, mae, or any of torchmetrics'.
    task : {"classes", "binary", "probability", "counts", "values"} or None, default None
        What the output means. None asks the loss.
    callbacks : sequence of Callback
        Called in the driver for each step.
    loggers : sequence of Logger
        They run in the process of rank 0.
    initialModel : KerasModel, list of arrays, bytes or None
        Weights to start from: a trained model, what ``get_weights`` of a model returns, or safetensors.
    featuresCol : str, default "features"
        Numbers, a Vector, an array (nested or not), a tensor, or bytes or paths of encoded images, which have their
        channels last, unless Keras is configured otherwise.
    featuresCols : list of str, and of lists of str
        Instead of it: several inputs, which the model is called with as one list.
    labelCol : str, default "label"
        Numbers, vectors, arrays or tensors.
    weightCol : str
        Row weights >= 0.
    handleInvalid : {"error", "skip", "keep"}, default "error"
        What becomes of invalid rows.
    predictionCol, rawPredictionCol, probabilityCol : str
        Output columns of the model.
    epochs : int, default 10
        Passes over the training rows.
    batchSize : int, default 32
        Rows of a batch, on each process.
    numProc : int
        Processes; as many as Spark has task slots where it is not set, and 1 for the local launcher.
    launcher : {"torch", "horovod", "ray", "local"}, default "torch"
        What starts the processes, and sums gradients: ``torch.distributed`` or Horovod, whatever the backend is.
    device : {"auto", "cpu", "cuda", "rocm", "mps"}, default "auto"
        Under the backend torch as for `TorchEstimator`; JAX and TensorFlow take their own device, or "cpu".
    accumulationSteps : int, default 1
        Batches whose gradients make a step.
    maxGradNorm : float
        Largest norm of a step's gradient; unset, it is not clipped.
    localSteps, localStepsWarmUp : int, default 1 and 0
        Steps that each process takes on its own rows before the mean of their updates is applied.
    outerOptimizer, outerStepSize : str, float
        What applies it: "diloco" where unset.
    compression : {"none", "fp16", "bf16", "int8"}, default "none"
        Of local updates; gradients are summed as they are.
    stepSize : float
        Learning rate of a named optimiser; its own default where unset.
    stepSizeSchedule : str, default "constant"
        One of ``sparkopt.optim.schedules``, over all steps.
    validationFraction : float, default 0
        Share of the rows held out, chosen by their content.
    validationIndicatorCol : str
        Boolean column, instead of it: true in rows held out.
    patience, minDelta : int, float, default 0
        Training ends after so many epochs whose loss is not lower by minDelta.
    imagePipeline, evaluationPipeline : sparkopt.images.Compose
        How images are decoded and augmented, in training and otherwise.
    storePath : str
        Where rows are put, shared by driver and executors.
    checkpointDir : str
        Where checkpoints are kept, shared likewise.
    checkpointInterval : int, default 0
        Steps between further checkpoints within an epoch.
    resume : bool, default True
        False starts from the beginning, and deletes existing checkpoints.
    maxRestarts : int, default 0
        How often processes may be lost.
    minProc : int
        Fewest processes to continue with; unset, numProc.
    shuffleRows : int, default 8192
        Rows that are shuffled together.
    prefetch, loaderThreads : int, default 4 and 1
        Batches prepared in advance, and threads that prepare them.
    cacheBytes : int, default 2**28
        Decoded images that each process keeps for later epochs.
    streams : int
        Parts that the rows are divided into, a multiple of numProc; numProc where unset.
    seed : int, default 0
        Determines initial weights, order of rows, augmentation and dropout.
    """

    _function: ClassVar[Callable[..., RankResult]] = staticmethod(train_keras)
    _input_kwargs: dict[str, Any]  # set by keyword_only

    @keyword_only
    def __init__(
        self,
        *,
        module: Any = None,
        loss: Any = "squared_error",
        optimizer: Any = "adam",
        backend: str | None = None,
        mesh: str = "process",
        metrics: Mapping[str, Any] | None = None,
        task: str | None = None,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[Any] = (),
        initialModel: KerasModel | Sequence[Any] | bytes | None = None,
        featuresCol: str = "features",
        featuresCols: list[Any] | None = None,
        labelCol: str = "label",
        weightCol: str | None = None,
        handleInvalid: str = "error",
        predictionCol: str = "prediction",
        rawPredictionCol: str = "rawPrediction",
        probabilityCol: str = "probability",
        epochs: int = 10,
        batchSize: int = 32,
        numProc: int | None = None,
        launcher: str = "torch",
        device: str = "auto",
        accumulationSteps: int = 1,
        maxGradNorm: float | None = None,
        localSteps: int = 1,
        localStepsWarmUp: int = 0,
        outerOptimizer: str | None = None,
        outerStepSize: float | None = None,
        compression: str = "none",
        stepSize: float | None = None,
        stepSizeSchedule: str = "constant",
        validationFraction: float = 0.0,
        validationIndicatorCol: str | None = None,
        patience: int = 0,
        minDelta: float = 0.0,
        imagePipeline: Compose | None = None,
        evaluationPipeline: Compose | None = None,
        storePath: str | None = None,
        checkpointDir: str | None = None,
        checkpointInterval: int = 0,
        resume: bool = True,
        maxRestarts: int = 0,
        minProc: int | None = None,
        shuffleRows: int = 8192,
        prefetch: int = 4,
        loaderThreads: int = 1,
        cacheBytes: int = 2**28,
        streams: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._setDefault(mesh="process")
        self.initialModel = initialModel
        self._take(metrics, task, callbacks, loggers)

    def _recipe(self) -> KerasRecipe:
        check_params(self)
        for name, (only, instead) in INSTEAD.items():
            if self.value(name) not in (only, None):
                raise ParameterError(f"KerasEstimator has no {name}={self.value(name)!r}: {instead}.")
        if self.value("compression") != "none" and self._local_steps() is None:
            raise ParameterError(
                f"KerasEstimator has no compression={self.value('compression')!r} of gradients: their sums go over "
                "the ranks as they are. Local updates can be compressed: set localSteps."
            )
        backend = keras_on(self.value("backend")).backend.backend()
        if backend != "torch" and self.value("device") not in ("auto", "cpu"):
            raise IncompatibleError(
                f"device={self.value('device')!r} is for backend='torch'; {backend} takes its own device. Set 'auto'."
            )
        self._check_mesh(backend)
        recipe = KerasRecipe(
            self.value("module"),
            self.value("loss"),
            optimizer_maker(self.value("optimizer")),
            backend,
            self.value("stepSizeSchedule"),
            self.value("stepSize"),
            self.metrics,
            self.loggers,
            _initial_weights(self.initialModel),
            self.task,
            self.value("mesh"),
        )
        check_keras_recipe(recipe)
        check_metrics(self.metrics)
        self._check_held_out()
        nameless = why_nameless(recipe.module, (keras_on().Model,))
        if nameless is not None:
            logger.warning("The model can be saved, and loaded by KerasModel.load(path, module=...): %s", nameless)
        return recipe

    def _check_mesh(self, backend: str) -> None:
        if self.value("mesh") == "process":
            return
        if backend != "jax":
            raise IncompatibleError(f"mesh='ranks' is for backend='jax', and this one is {backend!r}. Set 'process'.")
        chosen = {"localSteps": self._local_steps() is not None, "minProc": self.value("minProc") is not None}
        for name, is_chosen in chosen.items():
            if is_chosen:
                raise IncompatibleError(
                    f"mesh='ranks' makes one runtime of all processes, where none takes a step without the others: "
                    f"{name}={self.value(name)!r} needs mesh='process'."
                )

    def _model(self, result: RankResult, recipe: KerasRecipe, receipt: DeepReceipt, fields: Fields) -> KerasModel:
        loss = recipe.build_loss()
        model = KerasModel(recipe.module, result.weights, loss.task, result.output_shape, loss.of_probabilities)
        model._inputs, model._columns = fields.inputs, tuple(flat(self.features()))
        model._summary = TorchTrainingSummary(list(result.history), list(result.losses), receipt)
        return self._copyValues(model)

    def write(self) -> MLWriter:
        """Return a writer: ``estimator.write().overwrite().save(path)``. Callbacks and loggers are not saved.

        Raises
        ------
        ParameterError
            Where the module or the loss cannot be saved by name.
        """
        return NetworkWriter(saved_estimator(self, _initial_weights(self.initialModel)))

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``KerasEstimator.read().load(path)``."""
        return NetworkReader(KIND, functools.partial(restored_estimator, cls))


def _initial_weights(initial: Any) -> bytes | None:
    if initial is None or isinstance(initial, bytes):
        return initial
    if isinstance(initial, KerasModel):
        return initial.weights
    if isinstance(initial, (list, tuple)):
        return module_bytes(named_weights(initial))
    raise ParameterError(
        f"initialModel must be a KerasModel, a list of arrays, or safetensors. Got a {type(initial).__name__}."
    )
