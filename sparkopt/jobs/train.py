r"""Train a model on images or on a table, evaluate it on held-out rows, and save model, receipt and plot.

    spark-submit --properties-file conf/local.conf jobs/train.py --images out/digits --output out
    sparkopt train --parquet rows.parquet --features x1,x2 --label y \
        --loss squared_error --reg-param 0.1 --elastic-net-param 0.5 --optimizer fista --output out

The output folder then holds model/ (load it with sparkopt.ml), receipt.json, receipt.txt, report.html, metrics.json,
loss.png, and manifest.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sparkopt.engines.selection import ENGINES
from sparkopt.errors import DataError, MissingDependencyError, ParameterError
from sparkopt.features import Formula
from sparkopt.io.secrets import mask
from sparkopt.jobs.charts import coefficients, evaluation_charts
from sparkopt.jobs.choosing import needs_spark
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.frame import Job, JobResult, JobRun, output_mode_flag
from sparkopt.jobs.invalid_rows import invalid_flag, last_stage
from sparkopt.jobs.logs import event, logger
from sparkopt.jobs.metrics import NoRowsError, ScoredRows, measures
from sparkopt.jobs.models import find_model
from sparkopt.jobs.raw_rows import (
    MOST_CLASSES,
    known_types,
    raw_flags,
    real_names,
    table_features,
    with_classes,
)
from sparkopt.jobs.runtimes.base import InputRows, Runtime
from sparkopt.jobs.sources import (
    FEATURES,
    IMAGES,
    LABEL,
    check_classes,
    check_not_empty,
    check_share,
    check_source,
    data_flags,
)
from sparkopt.ml import (
    GeneralizedLinearRegression,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    Pipeline,
    QuantileRegression,
    TableFeaturesModel,
)
from sparkopt.ml.estimator import LinearEstimator
from sparkopt.optim import OPTIMIZERS, schedules
from sparkopt.report.facts import Chart, Facts
from sparkopt.values import dataclass

__all__ = ["CLASSIFIERS", "ESTIMATORS", "JOB", "estimator", "main"]

ESTIMATORS: Mapping[str, Callable[[], LinearEstimator[Any]]] = MappingProxyType(
    {
        "logistic": lambda: LogisticRegression(family="binomial"),
        "multinomial": lambda: LogisticRegression(family="multinomial"),
        "hinge": lambda: LinearSVC(),
        "squared_hinge": lambda: LinearSVC(loss="squaredHinge"),
        "squared_error": lambda: LinearRegression(),
        "huber": lambda: LinearRegression(loss="huber"),
        "quantile": lambda: QuantileRegression(),
        "poisson": lambda: GeneralizedLinearRegression(family="poisson"),
        "gamma": lambda: GeneralizedLinearRegression(family="gamma"),
        "tweedie": lambda: GeneralizedLinearRegression(family="tweedie", variancePower=1.5, linkPower=0.0),
    }
)
"""The estimator of each loss."""
CLASSIFIERS = ("logistic", "multinomial", "hinge", "squared_hinge")
MANY_CLASSES = 10_000
"""Most classes of a label where --loss is multinomial."""
STEPS = 30
"""About how many passes a fit takes, for the estimate of seconds."""


def declare(flags: Parser) -> None:
    """Add the flags."""
    data_flags(flags, features=FEATURES, label=LABEL)
    raw_flags(flags)
    flags.add_argument(
        "--num-features",
        metavar="NUMBER",
        type=int,
        help="features of --libsvm, where the file may lack the last ones (default: the largest index)",
    )
    flags.add_argument(
        "--test-fraction",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="share of the rows held out for evaluation (default: %(default)s)",
    )
    invalid_flag(flags, "skip and keep leave them out, of the held-out rows too, and count them", default="error")
    _declare_model(flags, LogisticRegression())
    _declare_solver(flags, LogisticRegression())
    flags.add_argument("--output", metavar="FOLDER", default="out", help="default: %(default)s")
    output_mode_flag(flags)


def _declare_model(flags: Parser, defaults: LogisticRegression) -> None:
    model = flags.add_argument_group("model")
    model.add_argument(
        "--loss", choices=tuple(ESTIMATORS), help="default: logistic for two classes, else multinomial"
    )
    model.add_argument(
        "--reg-param",
        type=float,
        default=defaults.getRegParam(),
        help="strength of the penalty (default: %(default)s, none)",
    )
    model.add_argument(
        "--elastic-net-param",
        type=float,
        default=defaults.getElasticNetParam(),
        help="share of L1 in the penalty: 0 is L2, 1 is L1 (default: %(default)s)",
    )
    model.add_argument("--no-intercept", action="store_true", help="fit without an intercept")
    model.add_argument(
        "--no-standardization", action="store_true", help="penalise coefficients in the features' own units"
    )


def _declare_solver(flags: Parser, defaults: LogisticRegression) -> None:
    solver = flags.add_argument_group("solver")
    solver.add_argument(
        "--optimizer",
        choices=("auto", *OPTIMIZERS),
        default=defaults.getOptimizer(),
        help="auto is the cheapest for the rows; explain shows which (default: %(default)s)",
    )
    solver.add_argument("--step-size", type=float, help="learning rate (default: the optimiser's own)")
    solver.add_argument(
        "--step-size-schedule",
        choices=schedules.NAMES,
        default=defaults.getStepSizeSchedule(),
        help="default: %(default)s",
    )
    solver.add_argument(
        "--max-iter", type=int, default=defaults.getMaxIter(), help="most steps (default: %(default)s)"
    )
    solver.add_argument(
        "--tol",
        type=float,
        default=defaults.getTol(),
        help="relative change of the objective that ends the fit (default: %(default)s)",
    )
    solver.add_argument(
        "--mini-batch-fraction",
        type=float,
        default=defaults.getMiniBatchFraction(),
        help="share of the rows that a step draws (default: %(default)s)",
    )
    solver.add_argument(
        "--engine",
        choices=ENGINES,
        default=defaults.getEngine(),
        help="where the training loop runs; auto takes the cheapest (default: %(default)s)",
    )
    solver.add_argument(
        "--initial-model", metavar="PATH", help="a saved model of the same kind, or a job's output, to start from"
    )
    solver.add_argument(
        "--checkpoint-dir",
        metavar="URI",
        help="keep checkpoints there, so that the same command resumes after it was killed",
    )
    solver.add_argument("--seed", type=int, default=defaults.getSeed(), help="default: %(default)s")


def check(args: argparse.Namespace) -> None:
    """Refuse flags that cannot work."""
    check_source(args)
    check_not_empty(args, "output", "initial_model", "checkpoint_dir")
    if args.source.kind == IMAGES and args.loss not in (None, *CLASSIFIERS):
        raise ParameterError(
            f"--loss {args.loss} predicts numbers, and the labels of --images are classes. Leave it out."
        )
    check_share("--test-fraction", args.test_fraction)
    if args.num_features is not None and (args.num_features < 1 or args.source.kind != "libsvm"):
        raise ParameterError("--num-features must be at least 1, and is for --libsvm alone.")
    if args.formula:
        Formula.of(args.formula)
    estimator(args)._check()


def inputs(runtime: Runtime, args: argparse.Namespace) -> dict[str, Any]:
    """Return fingerprints of the rows and of the model to start from."""
    found: dict[str, Any] = {"data": runtime.fingerprint(args.source)}
    if args.initial_model:
        found["initial_model"] = runtime.fingerprint_of_files(find_model(runtime, args.initial_model).uri)
    return found


def estimator(args: argparse.Namespace, rows: InputRows | None = None) -> LinearEstimator[Any]:
    """Return the estimator that the flags describe; its columns are those of ``rows``, where given."""
    chosen = ESTIMATORS[args.loss]() if args.loss else LogisticRegression()
    chosen.setRegParam(args.reg_param).setElasticNetParam(args.elastic_net_param)
    intercept = not args.no_intercept and (not args.formula or Formula.of(args.formula).intercept)
    chosen.setFitIntercept(intercept).setStandardization(not args.no_standardization)
    chosen.setOptimizer(args.optimizer).setMaxIter(args.max_iter).setTol(args.tol).setSeed(args.seed)
    chosen.setMiniBatchFraction(args.mini_batch_fraction).setEngine(args.engine)
    chosen.setStepSizeSchedule(args.step_size_schedule).setHandleInvalid(args.handle_invalid)
    if args.checkpoint_dir:
        chosen.setCheckpointDir(args.checkpoint_dir)
    if args.step_size is not None:
        chosen.setStepSize(args.step_size)
    if rows is not None:
        name = rows.features or FEATURES
        chosen = chosen.setFeaturesCol(name) if isinstance(name, str) else chosen.setFeaturesCols(name)
        chosen.setLabelCol(rows.label or LABEL)
        if rows.weight:
            chosen.setWeightCol(rows.weight)
    return chosen


def work(run: JobRun) -> JobResult:
    """Read, train, evaluate, save."""
    args, runtime = run.args, run.runtime
    initial = find_model(runtime, args.initial_model) if args.initial_model else None
    start, labels = (None, []) if initial is None else (initial.load(runtime), initial.labels)
    types = known_types(start, args.label, labels) if start is not None else {}
    rows = runtime.read(args, labels=labels, width=args.num_features or 0, known=types, invalid=args.handle_invalid)
    rows = real_names(rows, runtime.schema(rows.rows))
    classifies = args.loss in (None, *CLASSIFIERS)
    if rows.labels and classifies and args.source.kind == IMAGES:
        check_classes(rows.labels, args.source.location)
    stages, rows = _stages(args, rows, runtime, start)
    if classifies:
        most = MANY_CLASSES if args.loss == "multinomial" else MOST_CLASSES
        rows = with_classes(args, rows, runtime.schema(rows.rows), most=most)
    learner = estimator(args, rows)
    if not stages:
        learner._columns().check(runtime.schema(rows.rows))
    if start is not None:
        learner.setInitialModel(last_stage(start))
    training, held_out = runtime.split(rows.rows, args.test_fraction, args.seed)
    fitted: Any = Pipeline(stages=[*stages, learner]).fit(training) if stages else learner.fit(training)
    model: Any = last_stage(fitted)
    event("trained", receipt=model.summary.receipt.line())
    with runtime.scored(fitted, held_out, rows.label or LABEL, rows.weight) as outcome:
        judged = held_out_facts(outcome, rows.labels, args.test_fraction)
    metrics = judged.metrics
    outputs = save(fitted, metrics, rows.labels, run)
    figures = "  ".join(f"{name} {value:.6g}" for name, value in metrics.items())
    text = (
        f"{model.summary.receipt}\nheld out  {figures}\nsaved in {mask(args.output)}: {' '.join(outputs)} report.html"
    )
    page = judged.on(model.summary.receipt.facts(), (coefficients(model, rows.labels),))
    return JobResult(metrics, outputs, text, page, model=fitted)


def _stages(args: argparse.Namespace, rows: InputRows, runtime: Runtime, start: Any) -> tuple[list[Any], InputRows]:
    """Return what makes features of raw columns, if any does, and the rows with the roles that it has found."""
    if args.source.kind in (IMAGES, "libsvm"):
        return [], rows
    known = [stage for stage in getattr(start, "stages", []) if isinstance(stage, TableFeaturesModel)]
    stage: Any = known[0] if known else table_features(args, rows, runtime.schema(rows.rows))
    if stage is None:
        return [], rows
    return [stage], replace(rows, features=stage.getOutputCol(), label=stage.getLabelCol())


def save(model: Any, metrics: Mapping[str, float], labels: list[str], run: JobRun) -> dict[str, str]:
    """Write model, metrics, receipt and plot; return their names and descriptions."""
    run.runtime.save(model, run.target.child("model"))
    receipt = last_stage(model).summary.receipt  # type: ignore[attr-defined]  # a linear model
    receipt.save(run.files / "receipt.json")
    (run.files / "receipt.txt").write_text(f"{receipt}\n", encoding="utf-8")
    write_metrics(run.files / "metrics.json", metrics, labels)
    outputs = {
        "model": "the model, for sparkopt.ml",
        "metrics.json": "metrics on held-out rows, and the classes' names",
        "receipt.json": "what the fit cost",
        "receipt.txt": "the same as text",
    }
    return outputs | plotted(receipt.plot, run, "objective by step and by second")


@dataclass(frozen=True)
class HeldOutFacts:
    """How good a model is on held-out rows, for a page.

    Attributes
    ----------
    metrics : mapping
        The metrics.
    charts : tuple of Chart
        Class balance, confusion matrix and ROC curve of a classifier; predictions and residuals of a regression.
    warnings : tuple of str
        Why the model is of no use, where it is not.
    """

    metrics: Mapping[str, float]
    charts: tuple[Chart, ...]
    warnings: tuple[str, ...]

    def on(self, facts: Facts, more: tuple[Chart, ...] = ()) -> Facts:
        """Return what a receipt's page shows, after these facts and ``more`` charts."""
        figures = (*measures(self.metrics, where="held-out "), *facts.measures)
        charts = (*self.charts, *more, *facts.charts)
        return replace(facts, measures=figures, charts=charts, notes=(*self.warnings, *facts.notes))


def held_out_facts(outcome: ScoredRows, names: Sequence[str], share: float) -> HeldOutFacts:
    """Return how good a model is on held-out rows; a warning where it is no better than a constant is logged too.

    Raises
    ------
    DataError
        Where none is held out.
    """
    try:
        metrics = outcome.metrics()
    except NoRowsError as error:
        raise DataError(
            f"--test-fraction {share:g} holds out no row: {error} Equal rows are held out together; raise it, or "
            "give more rows."
        ) from error
    charts = evaluation_charts(
        outcome.values, names, is_classifier=outcome.is_classifier, balance="Held-out rows by class"
    )
    warnings = outcome.warnings(metrics, names)
    for warning in warnings:
        logger.warning("%s", warning)
    return HeldOutFacts(metrics, charts, warnings)


def plotted(plot: Callable[[Path], None], run: JobRun, content: str) -> dict[str, str]:
    """Draw ``loss.png`` and return its name and description; without matplotlib, warn that it is left out."""
    try:
        plot(run.files / "loss.png")
    except MissingDependencyError as error:
        logger.warning("loss.png is left out: %s", error)
        return {}
    return {"loss.png": content}


def write_metrics(path: Path, metrics: Mapping[str, float], labels: list[str]) -> None:
    """Write the metrics on held-out rows and the names of the classes."""
    path.write_text(json.dumps({"held_out": dict(metrics), "labels": labels}, indent=2) + "\n", encoding="utf-8")


def needs(args: argparse.Namespace) -> str:
    """Return why the flags need Spark, or "" where they do not."""
    return needs_spark(args.source)


JOB = Job("train", __doc__ or "", declare, check, inputs, work, needs=needs, steps=STEPS)
main = JOB.main
