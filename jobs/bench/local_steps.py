#!/usr/bin/env python
"""Bytes until a held-out loss is reached: full-batch gradient descent against local SGD, on limited links.

    python jobs/bench/local_steps.py --rate 50mbit

Four workers, each behind its own network link, train multinomial logistic regression of 2,000 features and 500
classes: 1,000,000 parameters. The features' covariance has eigenvalues 1/i, similar to natural images and learned
representations; labels follow a linear rule with noise. Gradient descent goes first, with the best step size that
``--tune`` finds; local SGD must reach its final held-out loss. Bytes are those of
the receipt, and those that the kernel counted on the links during the fit.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from network import Cluster
from pyspark.sql import SparkSession

from sparkopt import BlockStore, Columns, Stop, Trainer, errors, losses, optim
from sparkopt.engines.selection import by_name
from sparkopt.launch.session import session
from sparkopt.objective.work import LocalSteps
from sparkopt.training.trainer import Fit

ROOT = Path(__file__).parents[2]
FEATURES, CLASSES = 2_000, 500
ROWS, HELD_OUT = 12_000, 1_000
WORKERS = 4
GD_STEP, GD_STEPS = 0.3, 50
SGD_STEP, BATCH, LOCAL_STEPS, SGD_ROUNDS = 0.15, 1 / 75, 100, 3


def generate(folder: Path, rows: int = ROWS) -> Path:
    """Write the rows once, a file for each worker."""
    path = folder / f"local-steps-{rows}x{FEATURES}x{CLASSES}"
    if (path / "_SUCCESS").exists():
        return path
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(FEATURES, FEATURES)))[0]
    mixing = np.sqrt(1.0 / np.arange(1, FEATURES + 1))[:, None] * basis
    truth = 4.0 * basis.T @ rng.normal(size=(FEATURES, CLASSES))
    for number in range(WORKERS):
        count = (rows + HELD_OUT) // WORKERS
        X = rng.normal(size=(count, FEATURES)) @ mixing
        y = (X @ truth + rng.gumbel(size=(count, CLASSES))).argmax(axis=1).astype(np.float64)
        y[:CLASSES] = np.arange(CLASSES) if number == 0 else y[:CLASSES]  # every class is there
        held_out = np.arange(count) >= rows // WORKERS
        values = pa.ListArray.from_arrays(
            np.arange(0, (count + 1) * FEATURES, FEATURES, dtype=np.int32), X.astype(np.float32).ravel()
        )
        table = pa.table({"features": values, "label": y, "held_out": held_out})
        pq.write_table(table, path / f"part-{number}.parquet", compression="none")
    (path / "_SUCCESS").touch()
    return path


def full_batch(step: float = GD_STEP, steps: int = GD_STEPS) -> Trainer:
    """Gradient descent."""
    return Trainer(
        losses.Multinomial(CLASSES),
        optim.gd(step),
        stop=Stop(steps, 0.0, patience=steps + 1),
        fit_intercept=False,
        engine=by_name("allreduce"),
        progress=False,
    )


def local(step: float = SGD_STEP, rounds: int = SGD_ROUNDS) -> Trainer:
    """Local SGD, averaged."""
    return Trainer(
        losses.Multinomial(CLASSES),
        optim.sgd(step),
        stop=Stop(rounds, 0.0, patience=rounds + 1),
        fit_intercept=False,
        mini_batch_fraction=BATCH,
        local_steps=LocalSteps(LOCAL_STEPS),
        engine=by_name("allreduce"),
        progress=False,
    )


@dataclass(frozen=True)
class Measured:
    """A fit, its seconds, and what passed the links."""

    fit: Fit
    seconds: float
    links: int

    @property
    def loss(self) -> float:
        """Held-out loss at the end."""
        found = self.fit.receipt.validation[self.fit.receipt.chosen_step]
        assert found is not None  # noqa: S101  # every step evaluates
        return found

    @property
    def sent(self) -> int:
        """Bytes by the receipt."""
        return self.fit.receipt.bytes["sent"]

    def row(self, name: str) -> str:
        """Return a row of the table."""
        receipt = self.fit.receipt
        return (
            f"| {name} | {receipt.steps} | {self.loss:.4f} | {receipt.rows_touched / ROWS:.1f} | "
            f"{self.sent / 1e6:,.0f} | {self.links / 1e6:,.0f} | {self.seconds:.0f} |"
        )


def measured(cluster: Cluster, store: BlockStore, trainer: Trainer) -> Measured:
    """Fit, and count."""
    before, begin = cluster.traffic(), time.perf_counter()
    fit = trainer.fit(store)
    seconds, traffic = time.perf_counter() - begin, cluster.traffic() - before
    return Measured(fit, seconds, traffic.up + traffic.down)


def open_store(spark: SparkSession, rows: int = ROWS) -> BlockStore:
    """Write the blocks."""
    df = spark.read.parquet(str(generate(Path(".cache"), rows)))
    columns = Columns("features", "label", validation="held_out")
    return BlockStore.write(df, columns, losses.Multinomial(CLASSES).targets)


def run(rate: str, gd_step: float, sgd_step: float) -> None:
    """Print the table."""
    generate(Path(".cache"))
    with Cluster.up(WORKERS, rate) as cluster:
        spark = session(ROOT / "conf/local.conf", "sparkopt bench", {**cluster.settings, **WHOLE_FILES})
        with open_store(spark) as store:
            slow, fast = (measured(cluster, store, trainer) for trainer in (full_batch(gd_step), local(sgd_step)))
        spark.stop()
    where = f"links of {rate}" if cluster.is_limited else f"links neither limited nor counted: {cluster.why_not}"
    print(f"\n{FEATURES * CLASSES:,} parameters, {ROWS:,} rows, {WORKERS} workers, {where}\n")
    print("| schedule | rounds | held-out loss | passes over the rows | receipt MB | links MB | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(slow.row(f"full-batch GD, step {gd_step:g}"))
    print(fast.row(f"local SGD, {LOCAL_STEPS} steps of {BATCH:.1%} of the rows a round, step {sgd_step:g}"))
    links = f", by the links {slow.links / fast.links:.1f}x" if cluster.is_limited else ""
    print(
        f"\nFewer bytes by the receipt {slow.sent / fast.sent:.1f}x{links}; "
        f"fewer seconds {slow.seconds / fast.seconds:.1f}x."
    )
    if fast.loss > slow.loss:
        raise SystemExit(f"local SGD ended at a held-out loss of {fast.loss:.4f}, above {slow.loss:.4f}")


WHOLE_FILES = {"spark.sql.files.maxPartitionBytes": "1g", "spark.sql.files.openCostInBytes": "1g"}
"""A partition for each file, and so for each worker."""


def tune() -> None:
    """Print the held-out loss by step size, without links: in this machine's own session."""
    spark = session(ROOT / "conf/local.conf", "sparkopt bench", WHOLE_FILES)
    with open_store(spark) as store:
        for step in (0.075, 0.15, 0.3, 0.45):
            for name, trainer in (("GD", full_batch(step)), ("local SGD", local(step))):
                try:
                    found = [loss or 0.0 for loss in trainer.fit(store).receipt.validation]
                    print(
                        name, step, " ".join(f"{loss:.3f}" for loss in found[:6]), "…", f"{found[-1]:.4f}", flush=True
                    )
                except errors.DivergedError as error:
                    print(name, step, error)
    spark.stop()


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rate", default="50mbit", help="of each worker's link, in each direction")
    flags.add_argument("--gd-step", type=float, default=GD_STEP)
    flags.add_argument("--sgd-step", type=float, default=SGD_STEP)
    flags.add_argument("--tune", action="store_true", help="try step sizes on this machine, and end")
    args = flags.parse_args()
    tune() if args.tune else run(args.rate, args.gd_step, args.sgd_step)


if __name__ == "__main__":
    main()
