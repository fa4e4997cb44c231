r"""Evaluate a saved model, linear or deep, and compare it with a baseline: exit code 3 where it is worse.

    sparkopt evaluate --model out/new --parquet rows.parquet --baseline out/accepted --tolerance 0.01 \
        --output out/gate

The output folder then holds metrics.json with the gate's verdict, report.html with charts of right and wrong
predictions, and manifest.json, whether the gate is met or not.

Labels of a network that predicts a class for each pixel are masks: bytes, tensors, or arrays of arrays, of the
prediction's size. Its metrics are meanIoU, meanDice and pixelAccuracy; metrics.json has iou and dice of each class.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from sparkopt.errors import DataError, ParameterError
from sparkopt.io.fingerprint import digest
from sparkopt.io.secrets import mask
from sparkopt.jobs.charts import evaluation_charts
from sparkopt.jobs.choosing import needs_spark
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.frame import Job, JobResult, JobRun
from sparkopt.jobs.invalid_rows import invalid_flag, last_stage, mode_of, with_mode
from sparkopt.jobs.logs import event, logger
from sparkopt.jobs.masks import holds_masks, judged_masks
from sparkopt.jobs.metrics import COUNTS, LOWER_IS_BETTER, MASK_METRICS, NAMES, default_metric, measures
from sparkopt.jobs.models import find_model
from sparkopt.jobs.raw_rows import known_types, real_names, with_classes
from sparkopt.jobs.runtimes.base import Runtime
from sparkopt.jobs.score import check_features, prepared, width_of
from sparkopt.jobs.sources import LABEL, check_source, data_flags
from sparkopt.report.facts import Chart, Facts
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

__all__ = ["JOB", "Gate", "judge", "main"]


@dataclass(frozen=True)
class Gate:
    """The verdict on a model.

    Attributes
    ----------
    metric : str
        Name of the metric.
    value : float
        The model's metric.
    baseline : float or None
        The baseline's metric, if there is one.
    passed : bool
        Whether the model may be used.
    reason : str
        The verdict in one line, with both numbers.
    """

    metric: str
    value: float
    baseline: float | None
    passed: bool
    reason: str


def declare(flags: Parser) -> None:
    """Add the flags."""
    flags.add_argument("--model", metavar="PATH", help="a saved model, or the output of a training job")
    data_flags(flags, features=None, label=None)
    invalid_flag(flags, "skip and keep leave them out, and count them")
    flags.add_argument(
        "--ignore-index",
        metavar="LABEL",
        type=int,
        default=-100,
        help="of masks: pixels with this label are left out, such as 255 (default: %(default)s)",
    )
    gate = flags.add_argument_group("gate: exit code 3 where it is not met")
    gate.add_argument("--metric", choices=NAMES, help="default: accuracy of classes, meanIoU of masks, else rmse")
    gate.add_argument(
        "--baseline", metavar="PATH", help="a job's output or metrics.json, whose metric must be reached"
    )
    gate.add_argument("--baseline-optional", action="store_true", help="pass where there is no baseline yet")
    gate.add_argument("--min-value", type=float, help="least value of the metric")
    gate.add_argument("--max-value", type=float, help="greatest value of the metric")
    gate.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the baseline's value by which the model may be worse (default: %(default)s)",
    )
    flags.add_argument("--output", metavar="FOLDER", help="where to write")


def check(args: argparse.Namespace) -> None:
    """Refuse flags that cannot work."""
    missing = [f"--{name}" for name in ("model", "output") if not getattr(args, name)]
    if missing:
        raise ParameterError(f"the following arguments are required: {', '.join(missing)}.")
    check_source(args)
    if not 0 <= args.tolerance < math.inf:
        raise ParameterError(f"--tolerance must be >= 0. Got {args.tolerance:g} instead.")
    if None not in (args.min_value, args.max_value) and args.min_value > args.max_value:
        raise ParameterError(f"--min-value {args.min_value:g} is above --max-value {args.max_value:g}.")
    if args.tolerance and not args.baseline:
        raise ParameterError("--tolerance is of the value of a --baseline: give one, or --min-value.")
    if args.baseline_optional and not args.baseline:
        raise ParameterError("--baseline-optional needs --baseline, the path where a baseline will be.")


def inputs(runtime: Runtime, args: argparse.Namespace) -> dict[str, Any]:
    """Return fingerprints of model, rows and baseline."""
    model = runtime.fingerprint_of_files(find_model(runtime, args.model).uri)
    found: dict[str, Any] = {"model": model, "data": runtime.fingerprint(args.source)}
    if args.baseline:
        metrics = _metrics_at(runtime, args.baseline)
        found["baseline"] = {"digest": digest(metrics or {})}
    return found


def work(run: JobRun) -> JobResult:
    """Read, evaluate, judge, write."""
    args, runtime = run.args, run.runtime
    baselines = _metrics_at(runtime, args.baseline) if args.baseline else None
    if args.baseline and baselines is None and not args.baseline_optional:
        raise DataError(
            f"there is no baseline at {mask(args.baseline)!r}. Give --baseline-optional for a first run without one."
        )
    saved = find_model(runtime, args.model)
    loaded = saved.load(runtime)
    types = known_types(loaded, args.label, saved.labels)
    rows = runtime.read(
        args,
        labels=saved.labels,
        encoded=saved.is_deep,
        width=width_of(loaded),
        known=types,
        invalid=args.handle_invalid or mode_of(loaded),
    )
    rows = real_names(rows, runtime.schema(rows.rows))
    model = with_mode(prepared(loaded, rows), args.handle_invalid)
    check_features(model, runtime.schema(rows.rows), args)
    last = last_stage(model)
    label = rows.label or (last.getOrDefault("labelCol") if last.hasParam("labelCol") else LABEL)
    if saved.labels and (not saved.is_deep or _is_text(runtime.schema(rows.rows), label)):
        named = replace(rows, label=label, labels=saved.labels)
        rows = with_classes(args, named, runtime.schema(rows.rows), most=len(saved.labels))
    charts, warnings, by_class = tuple[Chart, ...](), tuple[str, ...](), None
    if saved.is_deep and holds_masks(runtime.schema(rows.rows), label):
        masks = judged_masks(args, model, rows.rows, label, rows.weight)
        metrics, by_class, default = masks.metrics, masks.by_class, MASK_METRICS[0]
    else:
        default = default_metric(model)
        with runtime.scored(model, rows.rows, label, rows.weight) as outcome:
            metrics = outcome.metrics()
            charts = evaluation_charts(outcome.values, rows.labels, is_classifier=outcome.is_classifier)
            warnings = outcome.warnings(metrics, rows.labels)
    event("evaluated", **metrics)
    gate = judge(args, args.metric or default, metrics, baselines)
    for warning in warnings:
        logger.warning("%s", warning)
    content = {"metrics": metrics, "gate": asdict(gate), "labels": rows.labels}
    content |= {} if by_class is None else {"by_class": by_class}
    (run.files / "metrics.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    figures = "  ".join(f"{name} {value:.6g}" for name, value in metrics.items())
    text = f"{figures}\nsaved in {mask(args.output)}: metrics.json report.html"
    outputs = {"metrics.json": "metrics, and the gate's verdict"}
    page = Facts(
        f"Evaluation of a {saved.kind.rpartition('.')[2]}",
        f"{mask(args.model)} on {mask(str(args.source))}",
        measures(metrics, baselines=baselines),
        charts,
        warnings,
        verdict=f"{gate.reason[0].upper()}{gate.reason[1:]}",
        is_bad=not gate.passed,
    )
    if gate.passed:
        return JobResult(metrics, outputs, f"{text}\n{gate.reason}", page)
    return JobResult(metrics, outputs, text, page, gate.reason)


def _is_text(schema: StructType, name: str) -> bool:
    """Whether a column has the names of classes: a network's may be those of folders, whose numbers tables have."""
    return name in schema.names and schema[name].dataType.typeName() in ("string", "varchar", "char")


def judge(args: argparse.Namespace, name: str, metrics: dict[str, float], baselines: dict[str, float] | None) -> Gate:
    """Return whether the model is within all the bounds that are given.

    Parameters
    ----------
    args : Namespace
        With ``min_value``, ``max_value``, ``tolerance`` and ``baseline``.
    name : str
        The metric.
    metrics, baselines : dict
        The model's metrics and those it must reach; None where there is no baseline.

    Raises
    ------
    DataError
        Where the model or the baseline does not have the metric.
    """
    if name not in metrics:
        raise DataError(f"the model has no {name}. It has {', '.join(key for key in metrics if key not in COUNTS)}.")
    value, baseline, failures = metrics[name], None, []
    if math.isnan(value):
        failures.append("is not a number")
    if baselines is not None:
        if name not in baselines:
            raise DataError(f"the baseline {mask(args.baseline)!r} has no {name}. It has {', '.join(baselines)}.")
        baseline = baselines[name]
        slack = args.tolerance * abs(baseline)
        bound = baseline + slack if name in LOWER_IS_BETTER else baseline - slack
        worse = value > bound if name in LOWER_IS_BETTER else value < bound
        if worse:
            allowed = f" with a tolerance of {args.tolerance:g}" if args.tolerance else ""
            failures.append(f"{value:.6g} is worse than the baseline's {baseline:.6g}{allowed}")
    if args.min_value is not None and not value >= args.min_value:
        failures.append(f"{value:.6g} is below --min-value {args.min_value:.6g}")
    if args.max_value is not None and not value <= args.max_value:
        failures.append(f"{value:.6g} is above --max-value {args.max_value:.6g}")
    if failures:
        return Gate(name, value, baseline, False, f"gate not met: {name} {'; '.join(failures)}.")
    if baseline is not None:
        return Gate(name, value, baseline, True, f"gate met: {name} {value:.6g}, baseline {baseline:.6g}.")
    if args.baseline:
        return Gate(name, value, None, True, f"gate met: {name} {value:.6g}; there is no baseline yet.")
    return Gate(name, value, None, True, f"gate met: {name} {value:.6g}.")


def _metrics_at(runtime: Runtime, location: str) -> dict[str, float] | None:
    """Return the metrics in a job's output or a metrics.json; None where there is neither."""
    place = runtime.location(location)
    if not place.name.endswith(".json"):
        place = place.child("metrics.json")
    if not place.exists():
        return None
    try:
        content = json.loads(place.read())
    except ValueError as error:
        raise DataError(f"the baseline {mask(location)!r} is no JSON: {error}.") from error
    for part in ("metrics", "held_out"):
        if isinstance(content, dict) and isinstance(content.get(part), dict):
            content = content[part]
    found = content if isinstance(content, dict) else {}
    return {name: float(found[name]) for name in NAMES if isinstance(found.get(name), (int, float))}


def needs(args: argparse.Namespace) -> str:
    """Return why the flags need Spark, or "" where they do not."""
    return needs_spark(args.source)


JOB = Job("evaluate", __doc__ or "", declare, check, inputs, work, needs=needs)
main = JOB.main
