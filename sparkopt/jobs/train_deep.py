r"""Train a small convolutional network on images, evaluate it on held-out ones, and leave model, receipt and plot.

    spark-submit --properties-file conf/local.conf jobs/train_deep.py --images out/digits --image-size 8 \
        --launcher horovod --processes 2 --output out/deep

Images of a table are bytes, paths, tensors or rows of Spark's image schema, as ``preprocess-images --features --form
tensor`` writes them. Labels are numbers from 0, or names of classes, which ``metrics.json`` then lists in order:

    sparkopt preprocess-images --input photos --features --form tensor --color rgb --size 64 --output out/rows
    sparkopt train-deep --parquet out/rows/split=train --output out/deep
    sparkopt evaluate --model out/deep --parquet out/rows/split=test --output out/gate

Files are decoded and augmented while the network computes. The output folder then holds model/ (load it with
sparkopt.deep.TorchModel), receipt.json, receipt.txt, report.html, metrics.json, history.json, loss.png, and
manifest.json.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparkopt.deep.config import LAUNCHERS, OPTIMIZER_SETTINGS, PRECISIONS
from sparkopt.errors import ParameterError
from sparkopt.io.secrets import mask
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.frame import Job, JobResult, JobRun, output_mode_flag
from sparkopt.jobs.image_columns import FILES, ImageColumn, found_column, labelled
from sparkopt.jobs.invalid_rows import invalid_flag
from sparkopt.jobs.logs import event
from sparkopt.jobs.raw_rows import real_names
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
from sparkopt.jobs.train import held_out_facts, plotted, write_metrics
from sparkopt.launch.devices import KINDS
from sparkopt.optim import schedules

if TYPE_CHECKING:
    from sparkopt.deep import TorchEstimator, TorchModel

__all__ = ["JOB", "estimator", "main"]


def declare(flags: Parser) -> None:
    """Add the flags."""
    data_flags(flags, features=FEATURES, label=LABEL, images_in_tables=True)
    data = flags.add_argument_group("use of the data")
    data.add_argument("--augment", action="store_true", help="rotate, shift and scale images slightly in training")
    data.add_argument(
        "--test-fraction",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="share of the images held out for evaluation (default: %(default)s)",
    )
    data.add_argument(
        "--validation-fraction",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="share of the other images for validation during training (default: %(default)s)",
    )
    meaning, what = "skip and keep leave them out, and count them", "images that cannot be decoded"
    invalid_flag(flags, meaning, default="error", what=what)
    _declare_training(flags)
    _declare_launcher(flags)
    flags.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    flags.add_argument("--output", metavar="FOLDER", default="out", help="default: %(default)s")
    output_mode_flag(flags)


def _declare_training(flags: Parser) -> None:
    model = flags.add_argument_group("network and training")
    model.add_argument("--widths", default="32,64,128", help="channels of each block (default: %(default)s)")
    model.add_argument("--epochs", type=int, default=12, help="default: %(default)s")
    model.add_argument("--batch-size", type=int, default=32, help="images of a process (default: %(default)s)")
    model.add_argument("--optimizer", choices=tuple(OPTIMIZER_SETTINGS), default="adamw", help="default: %(default)s")
    model.add_argument("--step-size", type=float, default=3e-3, help="learning rate (default: %(default)s)")
    model.add_argument("--step-size-schedule", choices=schedules.NAMES, default="cosine", help="default: %(default)s")
    model.add_argument("--patience", type=int, default=0, help="epochs without improvement that end it (0: never)")
    model.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: %(default)s")


def _declare_launcher(flags: Parser) -> None:
    where = flags.add_argument_group("where it runs")
    where.add_argument("--launcher", choices=LAUNCHERS, default="horovod", help="default: %(default)s")
    where.add_argument("--processes", type=int, help="default: as many as Spark has task slots")
    where.add_argument("--device", choices=KINDS, default="auto", help="default: %(default)s")
    where.add_argument(
        "--loader-threads", type=int, default=1, help="threads of a process that decode (default: %(default)s)"
    )
    where.add_argument(
        "--store-path", metavar="URI", help="storage that driver and executors share; set on a cluster"
    )
    where.add_argument(
        "--checkpoint-dir",
        metavar="URI",
        help="keep checkpoints there, so that the same command resumes after it was killed",
    )
    where.add_argument("--max-restarts", type=int, default=0, help="how often to resume after losing a process")
    where.add_argument("--min-processes", type=int, help="least number of processes to resume with (default: all)")


def check(args: argparse.Namespace) -> None:
    """Refuse flags that cannot work."""
    check_source(args, images_in_tables=True)
    check_not_empty(args, "output")
    check_share("--test-fraction", args.test_fraction)
    if args.processes is not None and (args.min_processes or 0) > args.processes:
        raise ParameterError(f"--min-processes {args.min_processes} is above --processes {args.processes}.")
    estimator(args, 2)


def inputs(runtime: Runtime, args: argparse.Namespace) -> dict[str, Any]:
    """Return the fingerprint of the images."""
    return {"data": runtime.fingerprint(args.source)}


def estimator(
    args: argparse.Namespace, classes: int, column: ImageColumn = FILES, rows: InputRows | None = None
) -> TorchEstimator:
    """Return the estimator that the flags describe, for images of a column, and the roles of ``rows``."""
    from sparkopt.deep import ConvNet, TorchEstimator  # --help needs no PyTorch
    from sparkopt.deep.params import check_params

    try:
        widths = [int(width) for width in args.widths.split(",")]
    except ValueError as error:
        raise ParameterError(f"--widths must be whole numbers with commas between. Got {args.widths!r}.") from error
    training, evaluation = column.pipelines(args)
    found = TorchEstimator(
        module=functools.partial(ConvNet, classes=classes, channels=column.channels_of(args), widths=widths),
        loss="multinomial",
        optimizer=args.optimizer,
        stepSize=args.step_size,
        stepSizeSchedule=args.step_size_schedule,
        metrics={"accuracy": "accuracy"} if args.validation_fraction else None,
        featuresCol=column.name,
        labelCol=LABEL if rows is None else rows.label or LABEL,
        imagePipeline=training,
        evaluationPipeline=evaluation,
        epochs=args.epochs,
        batchSize=args.batch_size,
        launcher=args.launcher,
        device=args.device,
        precision=args.precision,
        validationFraction=args.validation_fraction,
        patience=args.patience,
        handleInvalid=args.handle_invalid,
        loaderThreads=args.loader_threads,
        maxRestarts=args.max_restarts,
        seed=args.seed,
    )
    given = {
        "numProc": args.processes,
        "minProc": args.min_processes,
        "storePath": args.store_path,
        "checkpointDir": args.checkpoint_dir,
        "weightCol": None if rows is None else rows.weight,
    }
    for name, value in given.items():
        if value is not None:
            found.set(found.getParam(name), value)
    check_params(found)
    found.getOrDefault("module")()  # refuses widths that do not fit
    return found


def work(run: JobRun) -> JobResult:
    """Read, train, evaluate, save."""
    args, runtime = run.args, run.runtime
    rows = runtime.read(args, encoded=True)
    if args.source.kind == IMAGES:
        check_classes(rows.labels, args.source.location)
    rows = real_names(rows, runtime.schema(rows.rows))
    column = found_column(args, rows, runtime)
    rows, classes = labelled(args, rows, runtime)
    label = rows.label or LABEL
    training, held_out = runtime.split(rows.rows, args.test_fraction, args.seed)
    model = estimator(args, classes, column, rows).fit(training)
    event("trained", epochs=model.summary.receipt.epochs, seconds=round(model.summary.receipt.seconds["total"], 3))
    with runtime.scored(model, held_out, label, rows.weight) as outcome:
        judged = held_out_facts(outcome, rows.labels, args.test_fraction)
    metrics = judged.metrics
    outputs = save(model, metrics, rows.labels, run)
    figures = "  ".join(f"{name} {value:.6g}" for name, value in metrics.items())
    text = (
        f"{model.summary.receipt}\nheld out  {figures}\nsaved in {mask(args.output)}: {' '.join(outputs)} report.html"
    )
    return JobResult(metrics, outputs, text, judged.on(model.summary.receipt.facts()), model=model)


def save(model: TorchModel, metrics: Mapping[str, float], labels: list[str], run: JobRun) -> dict[str, str]:
    """Write model, metrics, history, receipt and plot; return their names and descriptions."""
    run.runtime.save(model, run.target.child("model"))
    summary = model.summary
    summary.receipt.save(run.files / "receipt.json")
    (run.files / "receipt.txt").write_text(f"{summary.receipt}\n", encoding="utf-8")
    write_metrics(run.files / "metrics.json", metrics, labels)
    (run.files / "history.json").write_text(json.dumps(summary.history, indent=2) + "\n", encoding="utf-8")
    outputs = {
        "model": "the model, for sparkopt.deep.TorchModel",
        "history.json": "loss and metrics by epoch",
        "metrics.json": "metrics on held-out images, and the classes' names",
        "receipt.json": "what the training cost",
        "receipt.txt": "the same as text",
    }
    return outputs | plotted(summary.plot, run, "loss by step")


JOB = Job("train-deep", __doc__ or "", declare, check, inputs, work)
main = JOB.main
