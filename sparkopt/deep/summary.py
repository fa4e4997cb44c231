"""How a training went: its history, and the receipt of what it cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparkopt.deep.index import TRAINING, VALIDATION, Index
from sparkopt.deep.worker import Outcome

__all__ = ["DeepReceipt", "TrainingSummary"]


@dataclass(frozen=True)
class DeepReceipt:
    """What a training cost.

    Attributes
    ----------
    launcher : str
        "local", "torch" or "horovod".
    devices : list of str
        Where each process computed.
    why : str
        Why there.
    processes, rows, validation_rows, epochs, steps : int
        What ran.
    seconds : dict
        ``store`` (rows to shared storage), ``start`` (from the launch to the first process's training and back),
        ``wait`` (for batches), ``train``, ``validate``, ``checkpoint``, and ``total``; those of the slowest process.
    bytes : int
        Size of the stored rows.
    peak_memory, device_memory : int
        Most resident memory of a process, and most memory of a GPU, in bytes.
    rows_per_second : float
        Training rows by second of the epochs, all processes together, waiting included.
    stopped : str
        "epochs", "patience" or "callback".
    resumed : str or None
        The checkpoint that it began with.
    restarts : int
        How often it began again since a process was lost.
    """

    launcher: str
    devices: list[str]
    why: str
    processes: int
    rows: int
    validation_rows: int
    epochs: int
    steps: int
    seconds: dict[str, float]
    bytes: int
    peak_memory: int
    device_memory: int
    rows_per_second: float
    stopped: str
    resumed: str | None
    restarts: int

    @classmethod
    def of(
        cls, launcher: str, index: Index, outcomes: Sequence[Outcome], launched: float, restarts: int
    ) -> DeepReceipt:
        """Add up one training whose processes took ``launched`` seconds from launch to end."""
        first = outcomes[0]
        slowest = dict(max((outcome.seconds for outcome in outcomes), key=lambda seconds: seconds["total"]))
        total = slowest.pop("total")
        spent = [record["seconds"] for record in first.history]
        return cls(
            launcher=launcher,
            devices=[outcome.device for outcome in outcomes],
            why=first.why,
            processes=len(outcomes),
            rows=index.rows(TRAINING),
            validation_rows=index.rows(VALIDATION),
            epochs=len(first.history),
            steps=len(first.losses),
            seconds={
                "store": index.seconds,
                "start": max(0.0, launched - total),
                **slowest,
                "total": index.seconds + launched,
            },
            bytes=index.bytes,
            peak_memory=max(outcome.peak_memory for outcome in outcomes),
            device_memory=max(outcome.device_memory for outcome in outcomes),
            rows_per_second=sum(record["rows"] for record in first.history) / sum(spent) if spent else 0.0,
            stopped=first.stopped,
            resumed=first.resumed,
            restarts=restarts,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, fit for JSON."""
        return asdict(self)

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        total = self.seconds["total"] or 1.0
        parts = [(name, value) for name, value in self.seconds.items() if name != "total"]
        memory = f"{self.peak_memory / 2**20:.0f} MiB"
        if self.device_memory:
            memory += f", {self.device_memory / 2**20:.0f} MiB of a GPU"
        return "\n".join(
            [
                f"{self.processes} x {self.launcher} on {', '.join(self.devices)} ({self.why})",
                f"  rows      {self.rows:>12,}   held out {self.validation_rows:,}",
                f"  epochs    {self.epochs:>12,}   steps {self.steps:,}   stopped by {self.stopped}",
                f"  speed     {self.rows_per_second:>12,.0f} rows/s",
                *([f"  resumed from {self.resumed}"] if self.resumed else []),
                *([f"  restarts  {self.restarts:>12,}"] if self.restarts else []),
                "seconds",
                *[f"  {name:<10}{value:>12.3f}  {value / total:6.1%}" for name, value in parts],
                f"  {'total':<10}{self.seconds['total']:>12.3f}",
                f"stored {self.bytes / 2**20:.1f} MiB, peak memory of a process {memory}",
            ]
        )


@dataclass(frozen=True)
class TrainingSummary:
    """How a training went.

    Attributes
    ----------
    history : list of dict
        One record an epoch: ``epoch``, ``loss``, ``validation`` and metrics where rows are held out, ``rate``,
        ``seconds``, ``waited``, ``rows``.
    objectiveHistory : list of float
        Mean loss of each step's rows, before the step.
    receipt : DeepReceipt
        What it cost.
    """

    history: list[dict[str, Any]]
    objectiveHistory: list[float]
    receipt: DeepReceipt

    @property
    def totalIterations(self) -> int:
        """Steps taken."""
        return len(self.objectiveHistory)

    def plot(self, path: str | Path) -> None:
        """Draw the loss by step, and by epoch where rows were held out, into an image file.

        Raises
        ------
        MissingDependencyError
            Where matplotlib is not installed.
        """
        from sparkopt.errors import MissingDependencyError

        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingDependencyError.of("TrainingSummary.plot", "matplotlib", "report") from error
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.plot(self.objectiveHistory, color="#1f6f8b", linewidth=1, label="step")
        ends = np.linspace(0, len(self.objectiveHistory), len(self.history) + 1)[1:]
        held_out = [float(record["validation"]) for record in self.history if "validation" in record]
        if len(held_out) == len(ends):
            axes.plot(ends, held_out, "o-", color="#e0a458", label="held out")
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        axes.legend()
        axes.grid(alpha=0.25)
        figure.savefig(path, dpi=130)
