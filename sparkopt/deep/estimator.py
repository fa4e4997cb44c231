"""TorchEstimator: trains a PyTorch network on a DataFrame, in as many processes as Spark provides, or on a table.

For a table, neither is a SparkSession made nor Java looked for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyspark import keyword_only
from pyspark.ml.util import MLReadable, MLReader, MLWriter

from sparkopt.deep.builders import why_nameless
from sparkopt.deep.metrics import check_metrics
from sparkopt.deep.model import TorchModel
from sparkopt.deep.network_estimator import NetworkEstimator
from sparkopt.deep.params import check_params
from sparkopt.deep.persistence import NetworkReader, NetworkWriter
from sparkopt.deep.recipe import Recipe, check_recipe
from sparkopt.deep.setters import StepSetters
from sparkopt.deep.sharding_params import ShardingParams
from sparkopt.deep.summary import TorchTrainingSummary
from sparkopt.deep.worker import RankResult
from sparkopt.deep.written import OBJECTS, from_json, initial_weights, restored, saved_of, to_json
from sparkopt.errors import ParameterError
from sparkopt.images import BatchMixing, Compose
from sparkopt.report import DeepReceipt
from sparkopt.shards.fields import Fields, flat
from sparkopt.solver.progress import Callback

__all__ = ["TorchEstimator"]

logger = logging.getLogger(__name__)

KIND = "sparkopt.deep.estimator.TorchEstimator"


class TorchEstimator(NetworkEstimator[TorchModel], StepSetters, ShardingParams, MLReadable["TorchEstimator"]):
    """Trains a PyTorch network on a DataFrame, or without Spark on what ``sparkopt.Table.of`` takes.

    That is Arrow, pandas, paths of Parquet files, or a pair (X, y) of arrays. The rows are written once to
    ``storePath``, or for several fits to a `RowStore`, which ``fit`` takes too; every process streams its share from
    there. A step's gradient is that of the mean loss over all
    processes' rows, whatever the partitions: in an epoch's last step processes may have fewer rows, or one that is
    repeated with weight 0, so that no row is dropped and no process waits for another.

    Parameters
    ----------
    module : nn.Module or callable
        The network, or a function or class that builds it. So that a saved model can be loaded by its path alone,
        give a class (or ``functools.partial(Class, argument=value)``), or a function with ``@sparkopt.deep.builder``.
    loss : nn.Module, callable or str
        A loss of PyTorch's, a function of (output, target) with one value a row, or one of squared_error,
        absolute_error, huber, logistic, multinomial and poisson. Class weights, ``ignore_index`` and ``reduction``
        mean what they mean in PyTorch, over the rows of all processes; a loss's own parameters are trained too.
    step : callable or None, default None
        In place of ``loss``, a function of (module, batch) that gives the loss of each row, (rows,), where batch is a
        `StepBatch` with ``inputs`` and ``labels``: for several outputs and labels, contrastive and generative losses.
        It is given ``batchSize`` rows of one stream, whatever the number of processes is, and need not call the
        module itself; ``transform`` does.
    optimizer : callable or str, default "adam"
        A function from a list of parameters to a ``torch.optim.Optimizer``
        (``functools.partial(torch.optim.SGD, lr=0.1)``), or one of sgd, momentum, nesterov, adagrad, rmsprop, adam
        and adamw, with ``stepSize``. If its first argument is called ``named_parameters``, it is given pairs of name
        and parameter.
    scheduler : callable or None, default None
        A function from an optimiser to a scheduler of PyTorch; instead of ``stepSizeSchedule``. If it has an argument
        ``steps``, it is given how many steps the scheduler will take.
    schedulerInterval : {"epoch", "step"}, default "epoch"
        When ``scheduler`` takes a step.
    metrics : dict of str to str or torchmetrics.Metric
        Computed over the rows held out, of predictions on the scale of the labels (probabilities, counts or values):
        accuracy, mse, rmse, mae, or any of torchmetrics'. The metrics of a collection are called ``name.metric``.
    task : {"classes", "binary", "probability", "counts", "values"} or None, default None
        What the output means: scores of classes, the logit or the probability of class 1 (or of each label), the
        logarithm of a count, or the predicted values. None asks the loss.
    callbacks : sequence of Callback
        Called in the driver for each step: processes report every 20 steps and at the end of an epoch. A true result
        stops training at the next report after the processes have received it: immediately under the local launcher,
        otherwise within a fifth of a second. On Spark Connect only the local launcher's process can call them.
    loggers : sequence of Logger
        They run in the process of rank 0: ``TensorBoard``, ``MLflow``, or your own.
    initialModel : TorchModel, dict, bytes or None
        Weights to start from: a trained model, a ``state_dict``, or safetensors.
    featuresCol : str, default "features"
        Numbers, a Vector, an array (nested or not), a tensor, or bytes or paths of encoded images.
    featuresCols : list of str, and of lists of str
        Instead of it: each is an argument of the network's, but that columns of fractional numbers and booleans are
        joined to one, and so are those in a list of their own. Columns of whole numbers, such as ids, are int64.
    paddedCols : list of str
        Features that are lists of unlike lengths, of numbers or of arrays of one shape: they are padded with zeros to
        the longest of a batch, (rows, longest, …), and the module's next argument is a mask, (rows, longest), true
        where a list has an entry.
    labelCol : str, default "label"
        Numbers, vectors, arrays or tensors; or what ``labelKind`` says.
    labelCols : list of str
        Several labels instead, for ``step``; an empty list is none.
    outputKey : str or int
        Where the module gives a dict, a tuple or an object: the key, position or attribute of the prediction.
    labelKind : {"numbers", "mask", "boxes", "keypoints"}, default "numbers"
        What else labels are: places of the image, which its pipeline moves with the pixels, in training and in
        validation. "mask": bytes or paths of encoded masks, or tensors; the target is int64 (rows, height, width), of
        tensors of fractions float32, for losses of your own too.
        "boxes": arrays of [x_min, y_min, x_max, y_max] and any further numbers, such as a class; "keypoints": of
        [x, y], as many in each row, some perhaps [null, null]. Their target is float32 (rows, most, numbers), NaN
        where there is none, or a keypoint left the image.
    maskFill : float, default 0
        Label of pixels that a pipeline adds outside of the image, such as the loss's ``ignore_index``.
    minVisibility : float, default 0
        Boxes of which a smaller fraction of the area is left are removed.
    weightCol : str
        Row weights >= 0.
    handleInvalid : {"error", "skip", "keep"}, default "error"
        What becomes of rows with null, NaN or infinity, and of images that cannot be decoded: an error; left out and
        counted; or left out of training and given null outputs when they are scored. Unless it is "error", images
        are decoded once more before training, to find the latter.
    predictionCol, rawPredictionCol, probabilityCol : str
        Output columns of the model.
    epochs : int, default 10
        Passes over the training rows.
    batchSize : int, default 32
        Rows of a batch, on each process.
    numProc : int
        Processes; as many as Spark has task slots where it is not set, and 1 for the local launcher. Without Spark,
        as many as this machine has accelerators, or 1, which keeps all cores busy. Under Ray, as many as its cluster
        has GPUs, or nodes.
    launcher : {"torch", "horovod", "ray", "local"}, default "torch"
        PyTorch's DistributedDataParallel inside Spark's tasks, or without Spark in processes of this machine; Horovod
        on Spark, but for Spark Connect; DistributedDataParallel in actors of Ray; or this process.
    device : {"auto", "cpu", "cuda", "rocm", "mps"}, default "auto"
        One accelerator for each process, as Spark's resource scheduling assigns them.
    precision : {"fp32", "bf16", "fp16"}, default "fp32"
        Of the forward pass; fp16 scales the loss.
    accumulationSteps : int, default 1
        Batches whose gradients make a step.
    maxGradNorm : float
        Largest norm of a step's gradient; unset, it is not clipped.
    strategy : {"ddp", "fsdp"}, default "ddp"
        What each process holds of the network: all, or with "fsdp" (PyTorch's ``fully_shard``, launchers torch and
        ray) a part of each parameter, of its gradient and of the optimiser's state, so that larger networks fit.
        Checkpoints are written in parts, by all processes. Steps are the same.
    wrappedModules : list of str
        For "fsdp", the modules whose parameters are gathered by themselves while they compute: names of classes
        (``["TransformerEncoderLayer"]``), or of modules (``["layers.*"]``, without inner ones). Unset, layers that
        repeat, and others without inner modules, where they have 2**18 parameters or more.
    compression : {"none", "fp16", "bf16", "int8", "powersgd"}, default "none"
        Of gradients between processes; ``sparkopt.deep.powersgd`` describes the last. Horovod has no bf16. Of local
        updates: "fp16", "bf16" or "int8", whose errors are added to the next update (error feedback).
    localSteps : int, default 1
        Local steps: steps that each process takes on its own rows, without sending anything, before the mean of their
        updates is applied. Each keeps its own state of the optimiser. An epoch ends a round; losses are reported,
        checkpoints saved and callbacks' answers heard at the ends of rounds.
    localStepsWarmUp : int, default 0
        Number of rounds of a single step at the beginning.
    outerOptimizer : str
        What applies the mean local update, as if it were a gradient: "diloco" (Nesterov's momentum over rounds, also
        where it is unset and localSteps > 1), "average", or any optimiser with fixed steps.
    outerStepSize : float
        Its learning rate: 0.7 for "diloco" and 1 for "average" where unset.
    stepSize : float
        Learning rate of a named optimiser; its own default where unset.
    stepSizeSchedule : str, default "constant"
        One of ``sparkopt.optim.schedules``, over all steps.
    validationFraction : float, default 0
        Share of the rows held out, chosen by their content.
    validationIndicatorCol : str
        Boolean column, instead of it: true in rows held out.
    patience, minDelta : int, float, default 0
        Training ends after so many epochs whose loss (on the rows held out, where there are any) is not lower by
        minDelta; the model is then that of the best epoch. 0 never ends it.
    imagePipeline, evaluationPipeline : sparkopt.images.Compose
        How images are decoded and augmented, in training and otherwise: to one image of a row, whose channels the
        module is given first, with ``ToCHW`` at the end or without. The second is needed where the first is random.
    batchMixing : sparkopt.images.MixUp, CutMix, or list of them
        Mixes the rows of each batch in training (one of several is drawn for each). The loss is the sum of
        those of both labels, by their shares: for cross-entropy, that of soft labels. The loss in ``history`` is that
        of mixed rows; rows held out are not mixed.
    savedWeights : {"all", "trainable"}, default "all"
        "trainable" leaves parameters without ``requires_grad`` out of models and checkpoints, as adapters need it;
        the module must then be built with the same ones each time, which is checked.
    storePath : str
        A folder, or a URI of any storage that pyarrow knows, shared by driver and executors. A temporary folder in
        local mode and without Spark. Spark Connect needs one.
    checkpointDir : str
        Shared likewise; a checkpoint is saved at the end of each epoch, and ``fit`` continues from the latest.
    checkpointInterval : int, default 0
        Steps between further checkpoints within an epoch.
    resume : bool, default True
        False starts from the beginning, and deletes existing checkpoints.
    maxRestarts : int, default 0
        How often processes may be lost: ``fit`` then continues automatically from the latest checkpoint, or from the
        beginning where there is none.
    minProc : int
        Fewest processes to continue (or begin) with; unset, numProc. A step's rows stay the same, shared by fewer
        processes. The remaining processes continue immediately from their memory, and replacements join them; not on
        Spark Connect, where all are restarted.
    shuffleRows : int, default 8192
        Rows that are shuffled together, fewer where they have more than 256 MiB; groups of rows (of about 1 MiB) are
        shuffled among all.
    prefetch, loaderThreads : int, default 4 and 1
        Batches prepared in advance, and threads that prepare them.
    cacheBytes : int, default 2**28
        Decoded images that each process keeps for later epochs, where imagePipeline is not random; 0 keeps none.
    streams : int
        Parts that the rows are divided into, a multiple of numProc; numProc where unset. Runs with equal streams and
        batchSize · streams have equal batches, whatever numProc is.
    seed : int, default 0
        Determines initial weights, order of rows, augmentation and dropout.

    Examples
    --------
    >>> import functools
    >>> import torch
    >>> from sparkopt.deep import TorchEstimator
    >>> df = spark.range(200).selectExpr("array(id % 7 / 7, id % 2) AS features", "id % 2 AS label")
    >>> estimator = TorchEstimator(
    ...     module=functools.partial(torch.nn.Linear, 2, 2),
    ...     loss="multinomial", optimizer="adamw", stepSize=0.05, epochs=8, numProc=2, launcher="torch",
    ...     validationFraction=0.2, metrics={"accuracy": "accuracy"},
    ... )
    >>> model = estimator.fit(df)
    >>> model.summary.history[-1]["accuracy"]
    1.0
    >>> model.transform(df).where("prediction = label").count()
    200

    Without Spark, in this process:

    >>> import numpy as np
    >>> X = np.arange(400, dtype=np.float32).reshape(200, 2) / 400
    >>> small = TorchEstimator(module=functools.partial(torch.nn.Linear, 2, 1), epochs=1, batchSize=50)
    >>> small.fit((X, X.sum(axis=1))).summary.receipt.rows
    200
    """

    @keyword_only
    def __init__(
        self,
        *,
        module: Any = None,
        loss: Any = "squared_error",
        step: Callable[[Any, Any], Any] | None = None,
        optimizer: Any = "adam",
        scheduler: Callable[[Any], Any] | None = None,
        schedulerInterval: str = "epoch",
        metrics: Mapping[str, Any] | None = None,
        task: str | None = None,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[Any] = (),
        initialModel: TorchModel | Mapping[str, Any] | bytes | None = None,
        featuresCol: str = "features",
        featuresCols: list[Any] | None = None,
        paddedCols: list[str] | None = None,
        labelCol: str = "label",
        labelCols: list[str] | None = None,
        outputKey: str | int | None = None,
        labelKind: str = "numbers",
        maskFill: float = 0.0,
        minVisibility: float = 0.0,
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
        precision: str = "fp32",
        accumulationSteps: int = 1,
        maxGradNorm: float | None = None,
        strategy: str = "ddp",
        wrappedModules: list[str] | None = None,
        compression: str = "none",
        localSteps: int = 1,
        localStepsWarmUp: int = 0,
        outerOptimizer: str | None = None,
        outerStepSize: float | None = None,
        stepSize: float | None = None,
        stepSizeSchedule: str = "constant",
        validationFraction: float = 0.0,
        validationIndicatorCol: str | None = None,
        patience: int = 0,
        minDelta: float = 0.0,
        imagePipeline: Compose | None = None,
        evaluationPipeline: Compose | None = None,
        batchMixing: BatchMixing | Sequence[BatchMixing] | None = None,
        savedWeights: str = "all",
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
        self.schedulerInterval, self.initialModel = schedulerInterval, initialModel
        self._take(metrics, task, callbacks, loggers)

    def _recipe(self) -> Recipe:
        check_params(self)
        recipe = Recipe(
            self.value("module"),
            self.value("loss"),
            self.value("optimizer"),
            self.value("scheduler") or self.value("stepSizeSchedule"),
            self.schedulerInterval,
            self.value("stepSize"),
            self.metrics,
            self.loggers,
            initial_weights(self.initialModel),
            self.task,
            self.value("step"),
            self.value("outputKey"),
            self.value("savedWeights"),
            self.value("labelKind"),
        )
        check_recipe(recipe)
        self._check_step()
        check_metrics(self.metrics)
        nameless = why_nameless(self.value("module"))
        if nameless is not None:
            logger.warning("The model can be saved, and loaded by TorchModel.load(path, module=...): %s", nameless)
        self._check_held_out()
        return recipe

    def _check_step(self) -> None:
        if self.value("step") is None:
            if self.value("labelCols") is not None:
                raise ParameterError("labelCols are for a step of your own, step=; a loss takes one label, labelCol.")
            return
        if self.isSet(self.loss):
            raise ParameterError("loss and step are both set: a step gives the losses of rows itself. Choose one.")
        if self.value("batchMixing"):
            raise ParameterError("batchMixing mixes labels by their loss, and step has its own. Leave one out.")

    def _model(self, result: RankResult, recipe: Recipe, receipt: DeepReceipt, fields: Fields) -> TorchModel:
        model = TorchModel(self.value("module"), result.weights, recipe.task_name, result.output_shape)
        model._inputs, model._columns = fields.inputs, tuple(flat(self.features()))
        model._summary = TorchTrainingSummary(list(result.history), list(result.losses), receipt)
        return self._copyValues(model)

    def write(self) -> MLWriter:
        """Return a writer: ``estimator.write().overwrite().save(path)``. Callbacks and loggers are not saved.

        Raises
        ------
        ParameterError
            Where an object that the estimator was given cannot be saved by name.
        """
        return NetworkWriter(saved_of(self))

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``TorchEstimator.read().load(path)``."""
        return NetworkReader(KIND, functools.partial(restored, cls))

    def _value_to_json(self, name: str, value: Any) -> Any:
        """Return the value of a parameter in a grid as JSON holds it."""
        return to_json(name, value) if name in OBJECTS else value

    def _value_from_json(self, name: str, found: Any) -> Any:
        """Return the value that ``_value_to_json`` was given."""
        return from_json(name, found) if name in OBJECTS else found
