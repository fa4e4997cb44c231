#!/usr/bin/env python
r"""Train a small convolutional network on images, evaluate it on held-out ones, and leave model, receipt and plot.

    spark-submit --properties-file conf/local.conf jobs/train_deep.py --images out/digits --image-size 8 \
        --launcher horovod --processes 2 --output out/deep

Files are decoded and augmented while the network computes. The output folder then holds model/ (load it with
sparkopt.deep.TorchModel), receipt.json, receipt.txt, metrics.json, history.json, and loss.png.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession
from train import LABEL, Parser, check_classes, evaluate, guarded, image_files, split

from sparkopt import images
from sparkopt.cluster.devices import KINDS
from sparkopt.deep import TorchEstimator, TorchModel
from sparkopt.deep.config import PRECISIONS
from sparkopt.deep.networks import ConvNet
from sparkopt.deep.params import LAUNCHERS, check_params
from sparkopt.deep.recipe import OPTIMIZERS
from sparkopt.errors import ParameterError, SparkoptError
from sparkopt.optim import schedules

CHANNELS = {"gray": 1, "rgb": 3}


def parser() -> Parser:
    """Return the command line."""
    defaults = TorchEstimator()
    flags = Parser("train_deep.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    data = flags.add_argument_group("data")
    data.add_argument(
        "--images", metavar="FOLDER", required=True, help="image files; the name of each one's folder is its label"
    )
    data.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=int,
        default=32,
        help="width and height that images are resized to (default: %(default)s)",
    )
    data.add_argument("--color", choices=tuple(CHANNELS), default="gray", help="default: %(default)s")
    data.add_argument("--augment", action="store_true", help="turn, shift and scale images a little in training")
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
        help="share of the other images that training is watched on (default: %(default)s)",
    )

    model = flags.add_argument_group("network and training")
    model.add_argument("--widths", default="32,64,128", help="channels of each block (default: %(default)s)")
    model.add_argument("--epochs", type=int, default=12, help="default: %(default)s")
    model.add_argument("--batch-size", type=int, default=32, help="images of a process (default: %(default)s)")
    model.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="adamw", help="default: %(default)s")
    model.add_argument("--step-size", type=float, default=3e-3, help="learning rate (default: %(default)s)")
    model.add_argument("--step-size-schedule", choices=schedules.NAMES, default="cosine", help="default: %(default)s")
    model.add_argument("--patience", type=int, default=0, help="epochs without improvement that end it; 0 never")
    model.add_argument("--precision", choices=PRECISIONS, default=defaults.getOrDefault("precision"))

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
        help="keep the state there, so that the same command goes on after it was killed",
    )
    where.add_argument("--max-restarts", type=int, default=0, help="begin again so often after losing a process")

    flags.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    flags.add_argument("--output", metavar="FOLDER", default="out", help="default: %(default)s")
    return flags


def pipelines(args: argparse.Namespace) -> tuple[images.Compose, images.Compose]:
    """Return what is done with images in training, and otherwise."""
    size = args.image_size
    plain = [images.Decode(args.color), images.Resize(size, size), images.Rescale(1 / 255)]
    moved = images.RandomAffine((-10.0, 10.0), translate=(0.05, 0.05), scale=(0.95, 1.05))
    augmented = [*plain[:2], moved, *plain[2:]]
    return images.Compose(augmented if args.augment else plain), images.Compose(plain)


def estimator(args: argparse.Namespace, classes: int) -> TorchEstimator:
    """Return the estimator that the flags describe."""
    try:
        widths = [int(width) for width in args.widths.split(",")]
    except ValueError as error:
        raise ParameterError(f"--widths must be whole numbers with commas between. Got {args.widths!r}.") from error
    training, evaluation = pipelines(args)
    found = TorchEstimator(
        module=functools.partial(ConvNet, classes=classes, channels=CHANNELS[args.color], widths=widths),
        loss="multinomial",
        optimizer=args.optimizer,
        stepSize=args.step_size,
        stepSizeSchedule=args.step_size_schedule,
        metrics={"accuracy": "accuracy"},
        featuresCol="content",
        labelCol=LABEL,
        imagePipeline=training,
        evaluationPipeline=evaluation,
        epochs=args.epochs,
        batchSize=args.batch_size,
        launcher=args.launcher,
        device=args.device,
        precision=args.precision,
        validationFraction=args.validation_fraction,
        patience=args.patience,
        loaderThreads=args.loader_threads,
        maxRestarts=args.max_restarts,
        seed=args.seed,
    )
    given = {"numProc": args.processes, "storePath": args.store_path, "checkpointDir": args.checkpoint_dir}
    for name, value in given.items():
        if value is not None:
            found.set(found.getParam(name), value)
    check_params(found)
    found.module()  # refuses widths that do not fit
    return found


def save(model: TorchModel, metrics: dict[str, float], labels: list[str], output: Path) -> None:
    """Write model, metrics, history, receipt and plot below ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    model.write().overwrite().save(str(output / "model"))
    summary = model.summary
    summary.receipt.save(output / "receipt.json")
    (output / "receipt.txt").write_text(f"{summary.receipt}\n", encoding="utf-8")
    (output / "metrics.json").write_text(json.dumps({"held_out": metrics, "labels": labels}, indent=2) + "\n")
    (output / "history.json").write_text(json.dumps(summary.history, indent=2) + "\n")
    summary.plot(output / "loss.png")


def train(spark: SparkSession, args: argparse.Namespace) -> None:
    """Read, train, evaluate, save."""
    rows, labels = image_files(spark, args.images)
    check_classes(labels, args.images)
    training, held_out = split(rows, args.test_fraction, args.seed)
    model = estimator(args, len(labels)).fit(training)
    metrics = evaluate(model, held_out, LABEL)
    save(model, metrics, labels, Path(args.output))
    print(model.summary.receipt)
    print("held out  " + "  ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
    print(f"saved in {args.output}: model/ history.json metrics.json receipt.json receipt.txt loss.png")


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    flags = parser()
    args = flags.parse_args(argv)
    if not 0 < args.test_fraction < 1:
        flags.error(f"--test-fraction must lie between 0 and 1. Got {args.test_fraction:g} instead.")
    if args.image_size < 1:
        flags.error(f"--image-size must be at least 1. Got {args.image_size} instead.")
    try:
        estimator(args, 2)
    except SparkoptError as error:
        flags.error(str(error))
    return guarded("train_deep", lambda spark: train(spark, args), args.images)


if __name__ == "__main__":
    sys.exit(main())
