#!/usr/bin/env python
"""Time every engine on the same blocks against pyspark.ml on cached rows, and show how cost grows with rows.

    spark-submit --properties-file conf/local.conf jobs/bench/engines.py

- engines: logistic regression by L-BFGS to tol 1e-6, at equal objectives; each engine in turn, then pyspark.ml, and
  again. Overhead is the time of a pass minus the arithmetic of its slowest task: scheduling, transport, summation.
- growth: seconds of a fixed number of steps on more and more rows.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from linear import MAX_ITER, REG_PARAM, TOL, generate, theirs, timed, vectors
from pyspark.sql import SparkSession

from sparkopt import BlockStore, Columns, Trainer, losses, optim
from sparkopt.communication.encoder import Encoder
from sparkopt.engines.base import Engine, EngineRun, SessionTraits
from sparkopt.engines.selection import AutoEngine, by_name
from sparkopt.launch.session import session
from sparkopt.objective.work import Work
from sparkopt.penalties import L2
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Stop
from sparkopt.validation import Interval

COLUMNS, TARGETS = Columns("features", "label"), Interval(0, 1, whole=True)
GROWTH_STEPS = 20


@dataclass(frozen=True)
class Watched(Engine):
    """Another engine; its runs are recorded."""

    engine: Engine
    runs: list[EngineRun] = field(default_factory=list)
    name = "watched"

    def run(
        self, problems: Sequence[Problem], work: Work, store: BlockStore, encoder: Encoder | None = None
    ) -> EngineRun:
        """Run and record."""
        self.runs.append(self.engine.run(problems, work, store, encoder))
        return self.runs[-1]


@dataclass
class Measured:
    """What the runs of one engine took."""

    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    overheads: list[float] = field(default_factory=list)
    passes: int = 0
    objective: float = 0.0
    ran: str = ""

    def add(self, seconds: float, peer: float, objective: float, run: EngineRun) -> None:
        """Add one run and its peer's seconds."""
        self.seconds.append(seconds)
        self.ratios.append(peer / seconds)
        later = run.passes[1:] or run.passes  # the first one starts the workers
        self.overheads.append(statistics.median(1000 * (one.seconds - one.compute) for one in later))
        self.passes, self.objective, self.ran = len(run.passes), objective, run.engine

    def row(self, name: str, reference: float) -> str:
        """Return a row of the table."""
        ratio = f"**{statistics.median(self.ratios):.1f}x** ({min(self.ratios):.1f}-{max(self.ratios):.1f})"
        gap = (self.objective - reference) / abs(reference)
        name = name if name == self.ran else f"{name} ({self.ran})"
        seconds, overhead = statistics.median(self.seconds), statistics.median(self.overheads)
        return f"| {name} | {seconds:.2f} | {ratio} | {self.passes} | {overhead:.1f} | {gap:+.1e} |"


def engines(spark: SparkSession, rows: int, features: int, runs: int) -> None:
    """Print how each engine compares."""
    source = spark.read.parquet(str(generate(Path(".cache"), rows, features)))
    cached = vectors(source).cache()
    cached.count()
    auto = AutoEngine()
    names = [engine.name for engine in (*auto.candidates(SessionTraits.of(spark)), auto)]
    found = {name: Measured() for name in names}
    peers = []
    with BlockStore.write(source, COLUMNS, TARGETS) as store:
        stop = Stop(MAX_ITER, TOL)
        watched = {name: Watched(by_name(name)) for name in names}
        trainers = {
            name: Trainer(losses.Logistic(), penalty=L2(REG_PARAM), stop=stop, engine=engine, progress=False)
            for name, engine in watched.items()
        }
        for turn in range(runs + 1):  # the first turn warms up, and does not count
            peer, reference = timed(lambda: theirs(cached))
            peers += [peer] if turn else []
            for name, trainer in trainers.items():
                seconds, objective = timed(lambda trainer=trainer: trainer.fit(store).solution.objective)
                if turn:
                    found[name].add(seconds, peer, objective, watched[name].runs[-1])
    cached.unpersist()
    print(f"\n{rows:,} rows x {features} features, {runs} runs; pyspark.ml {statistics.median(peers):.2f} s")
    print(f"({min(peers):.2f}-{max(peers):.2f}) on cached rows\n")
    print("| engine | s | faster than pyspark.ml by (range) | passes | overhead a pass, ms | objective vs theirs |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(measured.row(name, reference) for name, measured in found.items()))


def growth(spark: SparkSession, sizes: Sequence[int], features: int, runs: int) -> None:
    """Print seconds of the same steps on more and more rows."""
    print(f"\nGrowth with rows, {features} features, {GROWTH_STEPS} steps, median of {runs} (range)\n")
    print("| rows | ingest s | fit s | fit, microseconds a row and pass | per row, of the first |")
    print("| --- | --- | --- | --- | --- |")
    first = 0.0
    for rows in sizes:
        source = spark.read.parquet(str(generate(Path(".cache"), rows, features)))
        # Fixed steps: L-BFGS would end where rounding lets it, after another number of passes for each size.
        stop = Stop(GROWTH_STEPS, 0.0)
        trainer = Trainer(losses.Logistic(), optim.gd(1.0), L2(REG_PARAM), stop, progress=False)
        with BlockStore.write(source, COLUMNS, TARGETS) as store:
            trainer.fit(store)
            seconds = []
            for _ in range(runs):
                begin = time.perf_counter()
                fit = trainer.fit(store)
                seconds.append(time.perf_counter() - begin)
            ingest = store.seconds
        each = statistics.median(seconds) / rows / fit.receipt.passes * 1e6
        first = first or each
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        print(f"| {rows:,} | {ingest:.2f} | {spread} | {each:.3f} | {each / first:.2f} |", flush=True)


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--runs", type=int, default=3)
    flags.add_argument("--sizes", default="1000000x100,100000x50", help="rows x features, one table each")
    flags.add_argument("--growth", default="250000,500000,1000000,2000000,4000000", help="rows; empty for none")
    args = flags.parse_args()
    spark = session(app_name="sparkopt bench")
    for size in args.sizes.split(",") if args.sizes else []:
        rows, features = size.split("x")
        engines(spark, int(rows), int(features), args.runs)
    if args.growth:
        growth(spark, [int(rows) for rows in args.growth.split(",")], 100, args.runs)
    spark.stop()


if __name__ == "__main__":
    main()
