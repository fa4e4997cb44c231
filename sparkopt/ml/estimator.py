"""The base of the linear estimators: it reads the parameters, refuses what cannot be fitted, and trains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyspark.ml import Estimator
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from sparkopt.blocks.moments import Moments
from sparkopt.blocks.rows import Rows, rows_to_fit, schema_of
from sparkopt.blocks.store import BlockStore
from sparkopt.checkpoint.checkpointer import Checkpointer
from sparkopt.engines.explain import FitPlan
from sparkopt.engines.selection import by_name as engine_by_name
from sparkopt.engines.selection import check_engine, engine_on
from sparkopt.errors import ParameterError
from sparkopt.losses import Loss
from sparkopt.ml.model import LinearModel
from sparkopt.ml.online import partial_fit
from sparkopt.ml.refusals import illegal_arguments
from sparkopt.ml.rows import feature_names
from sparkopt.ml.saving import ParamsReadable, ParamsWritable
from sparkopt.ml.setters import LinearSetters
from sparkopt.ml.stream import StreamTrainer
from sparkopt.ml.training import Reading, Serial, TrainingTask, checked, stored, train
from sparkopt.ml.warm_start import coefficients_of, require_kind
from sparkopt.objective.linear import LinearObjective
from sparkopt.optim import Optimizer, by_name, schedules
from sparkopt.penalties import ElasticNet, NoPenalty, Penalty
from sparkopt.solver.compatibility import Method, check_compatible
from sparkopt.solver.progress import Callback, Stop
from sparkopt.training.coordinates import Initial
from sparkopt.training.selection import choose_optimizer
from sparkopt.training.trainer import Fit, Trainer
from sparkopt.validation import Interval, instances

if TYPE_CHECKING:
    from pyspark.sql.streaming.query import StreamingQuery

__all__ = ["LinearEstimator"]

M = TypeVar("M", bound=LinearModel[Any])
E = TypeVar("E", bound="LinearEstimator[Any]")

PER_MODEL = frozenset(
    {
        "regParam",
        "elasticNetParam",
        "stepSize",
        "stepSizeSchedule",
        "optimizer",
        "maxIter",
        "tol",
        "patience",
        "minDelta",
        "predictionCol",
        "rawPredictionCol",
        "probabilityCol",
        "linkPredictionCol",
        "maxBlockSizeInMB",
        "solver",
        "threshold",
        "thresholds",
    }
)
"""Parameters in which models that are trained together may differ."""


class LinearEstimator(
    Estimator[M], LinearSetters, ParamsWritable, ParamsReadable["LinearEstimator[Any]"], Generic[M]
):
    """Trains a linear model; subclasses choose the loss.

    Attributes
    ----------
    callbacks : sequence of Callback
        Called after each step; a true result stops the fit.
    initialModel : model of the same kind, or None
        Where to start; None starts without coefficients.

    Copies keep both, as in pipelines and searches. They are not saved: set them again after loading.
    """

    callbacks: Sequence[Callback] = ()
    initialModel: Any = None
    _input_kwargs: dict[str, Any]  # what pyspark's keyword_only leaves for a constructor

    @property
    def _model_name(self) -> str:
        """The name of its models' class."""
        return f"{type(self).__name__}Model"

    def _configure(self: E, arguments: Mapping[str, Any]) -> E:
        """Take the arguments of a constructor or setParams: parameters, and two attributes that cannot be saved."""
        values = dict(arguments)
        self.setCallbacks(values.pop("callbacks", self.callbacks))
        self.setInitialModel(values.pop("initialModel", self.initialModel))
        for name in values:
            if not self.hasParam(name):
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}")
        for name in [name for name, value in values.items() if value is None]:  # what is documented as the default
            self.clear(self.getParam(name))
            del values[name]
        self._set(**values)
        self._check_arguments()
        return self

    def _check_arguments(self) -> None:
        """Refuse arguments that contradict each other."""

    @property
    def _scale_target(self) -> bool:
        """Whether to minimise over the target divided by its standard deviation."""
        return False

    @property
    @abstractmethod
    def _targets(self) -> Interval:
        """What a label may be, as far as it is known before the data is read."""

    @property
    def _label_hint(self) -> str:
        """What to do about a label outside of ``_targets``, for errors; "" is to repair the row."""
        return ""

    @abstractmethod
    def _loss(self, moments: Moments) -> Loss:
        """Return the loss for targets like these."""

    @abstractmethod
    def _model(self, fit: Fit) -> M:
        """Return the model of what was trained."""

    def _batch_loss(self, loss: Loss, schema: StructType, outputs: int | None) -> Loss:
        """Return the loss of a batch, after others with so many outputs; None for the first."""
        return loss

    def _known(self, moments: Moments) -> Initial | None:
        """Return the optimum for rows with these moments, where it is known without a step; it may be infinite."""
        return None

    def _starting(self, trainer: Trainer) -> Trainer | None:
        """Return a trainer whose solution is where this one starts; None where it starts without coefficients."""
        return None

    def setCallbacks(self: E, value: Sequence[Callback]) -> E:
        """Set what is called after each step, in order."""
        self.callbacks = instances("callbacks", value)
        return self

    def setInitialModel(self: E, value: Any) -> E:
        """Set a model of the same kind to start from, fitted or loaded, of sparkopt or pyspark.ml; None for none.

        Raises
        ------
        ParameterError
            For a model of another kind.
        """
        if value is not None:
            require_kind(self, value)
        self.initialModel = value
        return self

    def fitMultiple(self, dataset: DataFrame, paramMaps: Sequence[Any]) -> Iterator[tuple[int, M]]:
        """Fit one model for each param map, in the same passes where possible.

        Models share passes if they differ only in regParam, elasticNetParam, optimizer, stepSize, stepSizeSchedule,
        maxIter, tol, patience, minDelta, thresholds and output columns. CrossValidator and TrainValidationSplit call
        this method.

        Parameters
        ----------
        dataset : DataFrame
            The rows.
        paramMaps : sequence of dict
            Parameters and their values, for each model.

        Returns
        -------
        iterator of (int, model)
            Number of the param map, and its model; threads may share the iterator.
        """
        rows = rows_to_fit(dataset)
        return Serial(train(rows, [self.copy(values)._task(schema_of(rows)) for values in paramMaps]))

    def partialFit(self, dataset: Any, model: M | None = None, steps: int = 1) -> M:
        """Take the optimiser's steps on one batch of rows, from where the last batch ended; return the model.

        The model keeps the optimiser's state, and saves it: the steps are those of one run over the batches in turn,
        whether or not the process ended in between. ``optimizer="auto"`` is "adam" here; one that compares objectives
        from step to step, such as "lbfgs", is refused. Features are scaled as in the first batch; with
        ``standardization=False`` steps are in their own units, as other libraries take them. A classifier knows the
        classes of the first batch, or of the label's metadata.

        Parameters
        ----------
        dataset : DataFrame, Table, or what `Table.of` takes
            The batch: all of its rows take part in each step.
        model : model of this estimator, optional
            What the last call returned; None begins, at ``initialModel`` where there is one.
        steps : int, default 1
            Steps to take.

        Raises
        ------
        IncompatibleError
            For an optimiser that cannot serve, or another one than the model's.

        Examples
        --------
        >>> from sparkopt.ml import LogisticRegression
        >>> estimator, model = LogisticRegression(optimizer="adam", stepSize=0.1), None
        >>> for batch in df.randomSplit([0.5, 0.5], seed=1):
        ...     model = estimator.partialFit(batch, model, steps=5)
        >>> model.onlineState.steps, model.onlineState.batches
        (10, 2)
        """
        found: M = partial_fit(self, dataset, model, steps)
        return found

    def fitStream(
        self, stream: DataFrame, path: str, steps: int = 1, trigger: dict[str, Any] | None = None
    ) -> StreamingQuery:
        """Learn from a structured stream by ``partialFit``, each batch exactly once; return Spark's query.

        A process that was killed goes on where it was when the same call is made again: coefficients are, bit for
        bit, those of a process that was not. `LatestModel` reads the newest model; `StreamTrainer` says what is
        written.

        Parameters
        ----------
        stream : DataFrame
            Of ``spark.readStream``.
        path : str
            A folder for the model, the stream's checkpoint and the figures of each batch.
        steps : int, default 1
            Steps on each batch.
        trigger : dict, optional
            Arguments of ``DataStreamWriter.trigger``, as ``{"availableNow": True}``.

        Examples
        --------
        >>> import tempfile
        >>> from sparkopt.ml import LatestModel, LogisticRegression
        >>> folder = tempfile.mkdtemp()
        >>> df.write.parquet(f"{folder}/arriving")
        >>> stream = spark.readStream.schema(df.schema).parquet(f"{folder}/arriving")
        >>> query = LogisticRegression().fitStream(stream, f"{folder}/online", trigger={"availableNow": True})
        >>> _ = query.awaitTermination(60)
        >>> LatestModel(f"{folder}/online").get().onlineState.batches
        1
        """
        return StreamTrainer(self, path, steps).start(stream, trigger)

    def explain(self, dataset: DataFrame) -> FitPlan:
        """Return a plan of what ``fit(dataset)`` would do: sizes, engine and advice. Print it.

        It reads the rows once, as a fit does, and refuses what a fit would refuse; nothing is trained or kept.

        Examples
        --------
        >>> from sparkopt.ml import LogisticRegression
        >>> print(LogisticRegression().explain(df))
        rows           240 x 3 features, dense
        partitions     2 on 2 task slots; the largest has ... rows
        coefficients   4
        blocks on disk ..., of which a pass reads ...
        sent per pass  ...
        sums           are not sent: one task holds all rows
        memory         driver ..., each task ... in addition to its blocks
        engine         local; seconds of ... passes: driver ..., resident ..., ...
        optimizer      proximal-newton; seconds with about as many passes as each needs: proximal-newton ..., ...
        """
        with illegal_arguments():
            rows = rows_to_fit(dataset)
            task = self._task(schema_of(rows))
            check_engine(task.engine, rows)
            with stored(rows, task.reading) as store:
                plan = self._plan(store, checked(store, task))
                names = feature_names(rows, self._features())
                return replace(plan, names=names if len(names) == store.moments.features else ())

    def _plan(self, store: BlockStore, trainer: Trainer) -> FitPlan:
        """Return what a fit on a store would do."""
        objective = LinearObjective(trainer.loss, store.moments.features, trainer.fit_intercept)
        share = self.getMiniBatchFraction() * self.getLocalSteps()
        plan = FitPlan.of(store, objective.size, trainer.engine, share, self.getCompression())
        if not self._chooses or store.validation is not None:
            return replace(plan, optimizer=trainer.optimizer.name)
        engines = engine_on(trainer.engine, store).candidates(plan.session)
        choice = choose_optimizer(objective, trainer.penalty, plan.choice.size, engines, rows=store.moments.rows)
        return replace(plan, optimizer=str(choice))

    def _fit(self, dataset: DataFrame) -> M:
        rows = rows_to_fit(dataset)
        ((_, model),) = train(rows, [self._task(schema_of(rows))])
        return model

    @illegal_arguments()
    def _task(self, schema: StructType) -> TrainingTask[M]:
        """Return what is to be trained on rows of this schema, checked."""
        self._check()
        weighs = self.hasParam("classWeights") and self.isDefined("classWeights")
        weights = self.getOrDefault("classWeights") if weighs else None
        values = {param.name: value for param, value in self.extractParamMap().items()}
        columns = replace(self._columns(), label_hint=self._label_hint)
        return TrainingTask(
            reading=Reading(columns, self._targets, weights, self.getBlockCodec()),
            engine=self.getEngine(),
            trainer=self._trainer,
            initial=None if self.initialModel is None else coefficients_of(self.initialModel),
            model=self._trained,
            known=self._known,
            starting=self._starting,
            shared={name: values[name] for name in values.keys() - PER_MODEL} if self._method.shares_passes else None,
            chooses=self._chooses,
            name=type(self).__name__,
        )

    def _trained(self, fit: Fit, rows: Rows) -> M:
        """Return the model of a fit, which keeps the rows that it was trained on for its summary."""
        model = self._copyValues(self._model(fit)._resetUid(self.uid))
        names = feature_names(rows, self._features())
        model._names = tuple(names) if len(names) == model.numFeatures else ()
        model._summarise(rows, fit)
        return model

    def _check(self) -> None:
        """Refuse parameters that cannot be fitted, before any job."""
        self._check_params()
        check_compatible(self._method)
        checkpointer = self._checkpointer()
        if checkpointer is not None:
            checkpointer.check()

    @property
    def _method(self) -> Method:
        return Method(
            self._optimizer(),
            self._penalty(),
            is_exact=self.getMiniBatchFraction() == 1.0,
            local_steps=self._local_steps(),
            is_lossy=not self._codec().lossless,
        )

    def _trainer(self, moments: Moments) -> Trainer:
        """Return the trainer that the parameters describe."""
        return Trainer(
            loss=self._loss(moments),
            optimizer=self._optimizer(),
            penalty=self._penalty_for(moments),
            stop=Stop(self.getMaxIter(), self.getTol(), patience=self.getPatience(), min_delta=self.getMinDelta()),
            fit_intercept=self.getFitIntercept(),
            standardization=self.getStandardization(),
            scale_target=self._scale_target,
            mini_batch_fraction=self.getMiniBatchFraction(),
            local_steps=self._local_steps(),
            compression=self.getCompression(),
            seed=self.getSeed(),
            engine=engine_by_name(self.getEngine(), self.getAggregationDepth()),
            callbacks=self.callbacks,
            checkpointer=self._checkpointer(),
        )

    def _checkpointer(self) -> Checkpointer | None:
        interval = self.getCheckpointInterval()
        kept = self.isDefined(self.checkpointDir) and self.getCheckpointDir() and interval > 0
        return Checkpointer(self.getCheckpointDir(), interval) if kept else None

    @property
    def _is_fixed(self) -> bool:
        """Whether steps have no line search: local ones, and those along gradients that a lossy codec decoded."""
        return self._local_steps() is not None or not self._codec().lossless

    @property
    def _chooses(self) -> bool:
        """Whether the cheapest optimiser is chosen once the rows are known."""
        is_exact = self.getMiniBatchFraction() == 1.0 and not self._is_fixed
        return self.getOptimizer() == "auto" and is_exact and not self.isDefined(self.stepSize)

    @property
    def _optimizer_name(self) -> str:
        name = self.getOptimizer()
        if name == "auto":
            others = "fista" if self.isDefined(self.stepSize) else "proximal-lbfgs"
            name = "sgd" if self._is_fixed else "lbfgs" if self._penalty().smooth else others
        return name

    def _optimizer(self) -> Optimizer:
        name = self._optimizer_name
        schedule = self.getStepSizeSchedule()
        if not self.isDefined(self.stepSize):
            if schedule != "constant":
                raise ParameterError(f"stepSizeSchedule={schedule!r} needs a stepSize to start from: set stepSize.")
            return by_name(name)
        return by_name(name, schedules.by_name(schedule, self.getStepSize(), max(1, self.getMaxIter())))

    def _penalty_for(self, moments: Moments) -> Penalty:
        """Return the penalty for rows with these moments."""
        return self._penalty()

    def _penalty(self) -> Penalty:
        strength = self.getRegParam()
        return ElasticNet(strength, self.getElasticNetParam()) if strength > 0 else NoPenalty()
