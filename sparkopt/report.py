"""The receipt: what a fit cost, in figures that its user can check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkopt.errors import MissingDependencyError

if TYPE_CHECKING:
    from sparkopt.blocks.store import BlockStore
    from sparkopt.cluster.sums import Pass
    from sparkopt.solve import Solution

__all__ = ["Receipt"]


@dataclass(frozen=True)
class Receipt:
    """What one fit cost.

    Attributes
    ----------
    optimizer, loss, engine : str
        What ran.
    reason : str
        Why it stopped.
    rows, features, partitions : int
        What it ran on.
    steps, passes : int
        Steps of the optimiser, and passes over the steps' rows (a line search may take several a step).
    rows_touched : int
        Rows read over all passes.
    seconds : dict
        ``ingest`` (reading the source and writing blocks), ``compute`` (arithmetic in the tasks), ``reduce`` (adding
        up on the driver), ``schedule`` (the rest of the passes: Spark's scheduling, transport, Python start-up),
        ``optimizer`` (everything between passes) and ``total``.
    bytes : dict
        ``stored`` (blocks on disk), ``sent`` (coefficients to the tasks and sums back); of the sums alone, ``raw``
        (as float64), ``encoded`` (as they travelled) and ``driver`` (what of it reached the driver).
    peak_memory : int
        Largest resident memory of a Python worker, in bytes.
    objective, elapsed : list of float
        Objective after each step, the start included, and seconds since the loop's start.
    validation : list of float or None
        Loss of the validation rows after each step, the start included; None where a step did not look at them.
    chosen_step : int
        The step that the model is from: the last, or with validation rows the one with their lowest loss.
    models : int
        Models that were trained in the same passes; passes, rows, seconds and bytes are those of all together.
    resumed_at : int
        Steps that were taken by an earlier attempt, from whose checkpoint this one went on; they are in ``steps`` and
        ``objective``, and in nothing else.
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
        """Add up one fit that took ``seconds`` after the store was written, ``startup`` of them around its loop."""
        in_passes = sum(p.seconds for p in passes)
        compute, reduce = sum(p.compute for p in passes), sum(p.reduce for p in passes)
        return cls(
            optimizer=optimizer,
            loss=loss,
            engine=engine,
            reason=solution.reason,
            rows=store.moments.rows,
            features=store.moments.features,
            partitions=store.partitions,
            steps=solution.iterations,
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
            objective=[record.objective for record in solution.history],
            elapsed=[record.seconds for record in solution.history],
            validation=[record.validation for record in solution.history],
            chosen_step=solution.step,
            models=models,
            resumed_at=resumed_at,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Receipt:
        """Return the receipt that ``to_dict`` was called on."""
        return cls(**data)

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def line(self) -> str:
        """Return the essentials in one line."""
        objective = self.objective[self.chosen_step]
        return (
            f"{self.loss} by {self.optimizer} on {self.engine}: objective {objective:.8g} after "
            f"{self.steps} steps ({self.reason}), {self.seconds['total']:.2f} s, "
            f"{self.rows:,} rows x {self.features:,} features"
        )

    def __str__(self) -> str:
        parts = ("ingest", "compute", "reduce", "schedule", "optimizer")
        total = self.seconds["total"] or 1.0
        bars = [f"  {name:<10}{_seconds(self.seconds[name])}  {self.seconds[name] / total:6.1%}" for name in parts]
        return "\n".join(
            [
                f"{self.loss} by {self.optimizer}, engine {self.engine}",
                f"  rows      {self.rows:>12,}   features {self.features:,}   partitions {self.partitions:,}",
                f"  objective {self.objective[self.chosen_step]:>12.8g}   from {self.objective[0]:.8g}",
                f"  steps     {self.steps:>12,}   passes {self.passes:,}   stopped by {self.reason}",
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

    def _compression(self) -> list[str]:
        """A line for sums that travelled encoded."""
        raw, encoded = self.bytes["raw"], self.bytes["encoded"]
        if not 0 < encoded < raw:
            return []
        return [f"  sums, compressed   {_bytes(encoded):>10}   instead of {_bytes(raw)}: {raw / encoded:.1f}x less"]

    def _notes(self) -> list[str]:
        """Lines for what not every fit has."""
        notes = []
        looked = [loss for loss in self.validation if loss is not None]
        if looked:
            notes.append(
                f"  validation{min(looked):>12.8g}   from {looked[0]:.8g}   best at step {self.chosen_step:,}"
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
        names = ["ingest", "compute", "reduce", "schedule", "optimizer"]
        phases.barh(names[::-1], [self.seconds[name] for name in names[::-1]], color="#e0a458")
        phases.set_xlabel("seconds")
        figure.savefig(path, dpi=130)


def _seconds(value: float) -> str:
    return f"{value:>12.3f}"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
