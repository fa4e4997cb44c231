"""The receipt: what a fit cost, in figures that its user can check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import field, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkopt.errors import MissingDependencyError
from sparkopt.report.base import BaseReceipt
from sparkopt.report.facts import Bars, Facts, Lines, Measure, Series
from sparkopt.report.facts import bytes_text as _bytes
from sparkopt.values import dataclass

if TYPE_CHECKING:  # a receipt is read without Spark
    from sparkopt.blocks.store import BlockStore
    from sparkopt.communication.sums import Pass
    from sparkopt.solver.problem import Solution

__all__ = ["Receipt"]

PHASES = ("ingest", "compute", "reduce", "schedule", "optimizer")


@dataclass(frozen=True)
class Receipt(BaseReceipt):
    """What one fit cost.

    Attributes
    ----------
    optimizer, loss, engine : str
        Their names.
    reason : str
        Why the fit stopped.
    rows, features, partitions : int
        Size of the data.
    steps, passes : int
        Steps of the optimiser, and passes over the steps' rows (a line search may take several in a step).
    rows_touched : int
        Rows read in all passes.
    seconds : dict
        ``ingest`` (reading the source and writing blocks), ``compute`` (arithmetic in the tasks), ``reduce`` (adding
        up on the driver), ``schedule`` (the rest of the passes: Spark's scheduling, transport, Python start-up),
        ``optimizer`` (between passes) and ``total``.
    bytes : dict
        ``stored`` (blocks on disk), ``sent`` (coefficients to the tasks and sums back); of the sums alone, ``raw``
        (as float64), ``encoded`` (as they were sent) and ``driver`` (those that reached the driver).
    peak_memory : int
        Largest resident memory of a Python worker, in bytes.
    objective, elapsed : list of float
        Objective after each step, the start included, and seconds since the loop's start.
    validation : list of float or None
        Loss of the validation rows after each step, the start included; None where it was not evaluated.
    chosen_step : int
        The step that the model is from: the last, or with validation rows the one with their lowest loss.
    models : int
        Models that were trained in the same passes; passes, rows, seconds and bytes are those of all together.
    resumed_at : int
        Steps of an earlier attempt, from whose checkpoint this one resumed; only ``steps`` and ``objective`` include
        them.
    sent : list of int
        Bytes sent in each step, the start included: together ``bytes["sent"]``. Steps of an earlier attempt have
        zeros; the last entry may be of a step that was rejected.
    codecs : dict of int
        Passes by the codec in which their sums were sent.
    gap : float or None
        Estimate of how far the objective of the model is above the optimum; None where the optimiser has none.
    reader : str
        What read the rows: "arrow", or "spark" and why not Arrow; empty in receipts of earlier versions.
    skipped : int
        Rows that ``handleInvalid`` left out.
    backend : str
        What ran the passes: Spark Classic, Spark Connect, or one machine; empty in receipts of earlier versions.
    startup : float
        Seconds of ``schedule`` that were in no pass: until the engine's processes could begin, and after their end.

    Examples
    --------
    >>> from sparkopt.ml import LinearRegression
    >>> df = spark.range(60).selectExpr("array(id, id % 3) AS features", "2 * id AS label")
    >>> receipt = LinearRegression(maxIter=20).fit(df).summary.receipt
    >>> receipt.rows, sum(receipt.sent) == receipt.bytes["sent"]
    (60, True)
    >>> receipt.report("report.html").name  # figures and plots in one file
    'report.html'
    >>> receipt.save("receipt.json")
    >>> Receipt.load("receipt.json") == receipt
    True
    """

    optimizer: str
    loss: str
    engine: str
    reason: str
    rows: int
    features: int
    partitions: int
    steps: int
    passes: int
    rows_touched: int
    seconds: dict[str, float]
    bytes: dict[str, int]
    peak_memory: int
    objective: list[float]
    elapsed: list[float]
    validation: list[float | None]
    chosen_step: int
    models: int = 1
    resumed_at: int = 0
    sent: list[int] = field(default_factory=list)
    codecs: dict[str, int] = field(default_factory=dict)
    gap: float | None = None
    reader: str = ""
    skipped: int = 0
    backend: str = ""
    startup: float = 0.0

    @classmethod
    def of(
        cls,
        *,
        optimizer: str,
        loss: str,
        engine: str,
        store: BlockStore,
        solution: Solution,
        passes: Sequence[Pass],
        seconds: float,
        startup: float,
        models: int = 1,
        resumed_at: int = 0,
    ) -> Receipt:
        """Return the receipt of a fit.

        Parameters
        ----------
        optimizer, loss, engine : str
            What ran.
        store : BlockStore
            The rows.
        solution : Solution
            Where the loop ended.
        passes : sequence of Pass
            What each pass over the data cost.
        seconds, startup : float
            From the written store to the model, and how much of that passed outside the loop.
        models : int, default 1
            Models that shared the passes.
        resumed_at : int, default 0
            Steps that an earlier attempt took.
        """
        in_passes = sum(p.seconds for p in passes)
        compute, reduce = sum(p.compute for p in passes), sum(p.reduce for p in passes)
        return cls(
            optimizer=optimizer,
            loss=loss,
            engine=engine,
            rows=store.moments.rows,
            features=store.moments.features,
            partitions=store.partitions,
            passes=len(passes),
            rows_touched=sum(p.rows for p in passes),
            seconds={
                "ingest": store.seconds,
                "compute": compute,
                "reduce": reduce,
                "schedule": max(0.0, in_passes - compute - reduce) + startup,
                "optimizer": max(0.0, seconds - in_passes - startup),
                "total": store.seconds + seconds,
            },
            bytes={
                "stored": store.bytes,
                "sent": sum(p.bytes_sent for p in passes),
                "raw": sum(p.bytes_raw for p in passes),
                "encoded": sum(p.bytes_encoded for p in passes),
                "driver": sum(p.bytes_driver for p in passes),
            },
            peak_memory=max((p.peak_memory for p in passes), default=0),
            models=models,
            resumed_at=resumed_at,
            reader=store.reader,
            skipped=store.skipped,
            backend=store.backend,
            startup=startup,
            sent=_by_step(passes),
            codecs=dict(Counter(p.codec for p in passes)),
            **_steps_of(solution),
        )

    def __add__(self, later: Receipt) -> Receipt:
        """Return the costs of two fits on the same blocks, of which ``later`` took up where this one ended."""
        seconds = {name: value + later.seconds[name] for name, value in self.seconds.items()}
        for name in ("ingest", "total"):  # the blocks were written once
            seconds[name] -= later.seconds["ingest"]
        counts = {name: value + later.bytes[name] for name, value in self.bytes.items()}
        return replace(
            later,
            passes=self.passes + later.passes,
            rows_touched=self.rows_touched + later.rows_touched,
            seconds=seconds,
            bytes={**counts, "stored": self.bytes["stored"]},
            peak_memory=max(self.peak_memory, later.peak_memory),
            resumed_at=self.resumed_at,
            sent=[sum(pair) for pair in zip_longest(self.sent, later.sent, fillvalue=0)],
            codecs=dict(Counter(self.codecs) + Counter(later.codecs)),
            startup=self.startup + later.startup,
        )

    def after(self, steps: int) -> Receipt:
        """Return the receipt of the same fit as the continuation of one that took ``steps`` steps."""
        return replace(self, resumed_at=steps + self.resumed_at, sent=[*[0] * steps, *self.sent])

    def idle(self, steps: int) -> Receipt:
        """Return the receipt of a model on the same blocks that an earlier attempt finished, in ``steps`` steps."""
        ingest = self.seconds["ingest"]
        return replace(
            self,
            passes=0,
            rows_touched=0,
            seconds={**dict.fromkeys(self.seconds, 0.0), "ingest": ingest, "total": ingest},
            bytes={**dict.fromkeys(self.bytes, 0), "stored": self.bytes["stored"]},
            resumed_at=steps,
            sent=[],
            codecs={},
            startup=0.0,
        )

    def with_solution(self, solution: Solution) -> Receipt:
        """Return the receipt of a fit with these costs and this solution."""
        return replace(self, **_steps_of(solution))

    def line(self) -> str:
        """Return the essentials in one line."""
        objective = self.objective[self.chosen_step]
        return (
            f"{self.loss} by {self.optimizer} on {self.engine}: objective {objective:.8g} after "
            f"{self.steps} steps ({self.reason}), {self.seconds['total']:.2f} s, "
            f"{self.rows:,} rows x {self.features:,} features"
        )

    def facts(self) -> Facts:
        """Return the contents of the report: measures, charts and notes."""
        shown = f"{self.rows:,} rows x {self.features:,} features in {self.partitions:,} partitions"
        phases = tuple(self.seconds[name] for name in PHASES)
        charts: list[Lines | Bars] = [
            Lines("Loss by step", "steps", "number", self._losses(range(len(self.objective)))),
            Lines("Loss by second", "seconds", "number", self._losses(self.elapsed)),
            Bars("Time by phase", "seconds", PHASES, (("", phases),)),
        ]
        if any(self.sent):  # the local engine sends nothing
            sent = Series.of("sent", range(len(self.sent)), self.sent)
            charts.append(Lines("Bytes by step", "steps", "bytes", (sent,), filled=True))
        return Facts(
            f"{self.loss} by {self.optimizer}",
            f"engine {self.engine}; {shown}; stopped by {self.reason}",
            self._measures(),
            tuple(charts),
            self._sentences(),
            {"loss": self.loss, "rows": f"{self.rows:,}", "features": f"{self.features:,}"},
        )

    def _sentences(self) -> tuple[str, ...]:
        """Return sentences on what not every fit has."""
        found = []
        evaluated = [loss for loss in self.validation if loss is not None]
        if evaluated:
            found.append(
                f"On the validation rows the loss fell from {evaluated[0]:.6g} to {min(evaluated):.6g}; the model is "
                f"that of step {self.chosen_step:,}."
            )
        if self.models > 1:
            found.append(f"{self.models:,} models were trained in the same passes; costs are of all together.")
        if self.resumed_at:
            found.append(f"{self.resumed_at:,} steps were taken by an earlier attempt; costs are without them.")
        return tuple(found)

    def _losses(self, x: Sequence[float]) -> tuple[Series, ...]:
        """Objective, and validation loss where there is one."""
        found = [Series.of("objective", x, self.objective)]
        if any(loss is not None for loss in self.validation):
            found.append(Series.of("validation rows", x, self.validation))
        return tuple(found)

    def _measures(self) -> tuple[Measure, ...]:
        passes = max(1, self.passes)
        measures = [
            Measure("objective", self.objective[self.chosen_step], "number", self._from()),
            Measure("total time", self.seconds["total"], "seconds", is_cost=True),
            Measure("steps", self.steps, "count", f"{self.passes:,} passes", is_cost=True),
            Measure("bytes sent", self.bytes["sent"], "bytes", f"{_bytes(self.bytes['sent'] / passes)} a pass", True),
            Measure("stored on disk", self.bytes["stored"], "bytes", "blocks of rows", True),
            Measure("peak memory", self.peak_memory, "bytes", "of a worker", True),
            Measure("rows touched", self.rows_touched, "count", f"of {self.rows:,} rows", True),
            *([Measure("rows left out", self.skipped, "count", "invalid")] if self.skipped else []),
            Measure("passes", self.passes, "count", is_cost=True),
            *(Measure(f"{name} time", self.seconds[name], "seconds", is_cost=True) for name in PHASES),
            Measure("bytes to the driver", self.bytes["driver"], "bytes", is_cost=True),
        ]
        if self._compression():
            measures.append(Measure("sums as sent", self.bytes["encoded"], "bytes", "encoded", True))
            measures.append(Measure("sums as float64", self.bytes["raw"], "bytes", "what they would have been"))
        return tuple(measures)

    def __str__(self) -> str:
        total = self.seconds["total"] or 1.0
        bars = [f"  {name:<10}{_seconds(self.seconds[name])}  {self.seconds[name] / total:6.1%}" for name in PHASES]
        return "\n".join(
            [
                f"{self.loss} by {self.optimizer}, engine {self.engine}",
                f"  rows      {self.rows:>12,}   features {self.features:,}   partitions {self.partitions:,}",
                f"  objective {self.objective[self.chosen_step]:>12.8g}   {self._from()}",
                f"  steps     {self.steps:>12,}   passes {self.passes:,}   stopped by {self.reason}",
                *([f"  left out  {self.skipped:>12,}   invalid rows"] if self.skipped else []),
                *([f"  read by   {self.reader}"] if self.reader else []),
                *([f"  run by    {self.backend}"] if self.backend else []),
                *self._notes(),
                f"  touched   {self.rows_touched:>12,} rows",
                "seconds",
                *bars,
                f"  {'total':<10}{_seconds(self.seconds['total'])}",
                "memory and network",
                f"  blocks on disk     {_bytes(self.bytes['stored']):>10}",
                f"  sent per pass      {_bytes(self.bytes['sent'] / max(1, self.passes)):>10}",
                f"  sent in all        {_bytes(self.bytes['sent']):>10}",
                *self._compression(),
                f"  peak of a worker   {_bytes(self.peak_memory):>10}",
            ]
        )

    def _from(self) -> str:
        """Return where the objective came from, and how far it is from the optimum."""
        begin = f"from {self.objective[0]:.6g}"
        return begin if self.gap is None else f"{begin}; about {self.gap:.1e} above the optimum"

    def _compression(self) -> list[str]:
        """Return lines for sums that were sent encoded."""
        raw, encoded = self.bytes["raw"], self.bytes["encoded"]
        if not 0 < encoded < raw:
            return []
        passes = ", ".join(f"{name} {count:,}" for name, count in self.codecs.items())
        return [
            f"  sums, compressed   {_bytes(encoded):>10}   instead of {_bytes(raw)}: {raw / encoded:.1f}x less",
            f"  passes by codec    {passes:>10}",
        ]

    def _notes(self) -> list[str]:
        """Return lines on what not every fit has."""
        notes = []
        evaluated = [loss for loss in self.validation if loss is not None]
        if evaluated:
            notes.append(
                f"  validation{min(evaluated):>12.8g}   from {evaluated[0]:.8g}   best at step {self.chosen_step:,}"
            )
        if self.models > 1:
            notes.append(f"  models    {self.models:>12,}   in the same passes; what follows is of all together")
        if self.resumed_at:
            notes.append(f"  resumed   {self.resumed_at:>12,} steps were taken before; what follows is without them")
        return notes

    def plot(self, path: str | Path) -> None:
        """Draw the objective by step and by second, and where the time went, into an image file.

        Raises
        ------
        MissingDependencyError
            Where matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingDependencyError.of("Receipt.plot", "matplotlib", "report") from error
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        by_step, by_second, phases = figure.subplots(1, 3, width_ratios=(3, 3, 2))
        best = min(self.objective)
        positive = best > 0 and self.objective[0] / best > 20  # a logarithm helps where there is far to fall
        for axes, x, label in ((by_step, range(len(self.objective)), "step"), (by_second, self.elapsed, "seconds")):
            axes.plot(x, self.objective, color="#1f6f8b", linewidth=2)
            axes.set(xlabel=label, yscale="log" if positive else "linear")
            axes.grid(alpha=0.25)
        by_step.set_ylabel("objective")
        by_step.set_title(f"{self.loss} by {self.optimizer}", fontsize=10, loc="left")
        phases.barh(PHASES[::-1], [self.seconds[name] for name in PHASES[::-1]], color="#e0a458")
        phases.set_xlabel("seconds")
        figure.savefig(path, dpi=130)


def _seconds(value: float) -> str:
    return f"{value:>12.3f}"


def _steps_of(solution: Solution) -> dict[str, Any]:
    """Return a receipt's fields on the steps of a fit."""
    return {
        "reason": solution.reason,
        "steps": solution.iterations,
        "objective": [record.objective for record in solution.history],
        "elapsed": [record.seconds for record in solution.history],
        "validation": [record.validation for record in solution.history],
        "chosen_step": solution.step,
        "gap": solution.gap,
    }


def _by_step(passes: Sequence[Pass]) -> list[int]:
    """Return the bytes that the passes of each step sent."""
    sent = [0] * (max((p.step for p in passes), default=-1) + 1)
    for one in passes:
        sent[one.step] += one.bytes_sent
    return sent
