"""The receipt of a network's training. It does not import PyTorch, so any machine can read it."""

from __future__ import annotations

from dataclasses import field

from sparkopt.report.base import BaseReceipt
from sparkopt.report.facts import Bars, Facts, Lines, Measure, Series, bytes_text
from sparkopt.values import dataclass

__all__ = ["DeepReceipt"]


@dataclass(frozen=True)
class DeepReceipt(BaseReceipt):
    """What the training of a network cost.

    Attributes
    ----------
    launcher : str
        "local", "torch", "horovod" or "ray".
    devices : list of str
        Where each process computed.
    why : str
        Why there.
    processes, rows, validation_rows, epochs, steps : int
        How many of each.
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
        The checkpoint that it resumed from.
    restarts : int
        How often a process was lost: the others continued, or all restarted.
    objective, validation : list of float
        Mean loss of each epoch's training rows, and of the rows that were held out after it, where there are any.
    skipped : int
        Rows that ``handleInvalid`` left out.
    sent : int
        Bytes that a process sent to others: gradients, or local updates (localSteps). An all-reduce of n bytes counts
        as 2 n (p - 1) / p, what a ring of p processes sends.
    elapsed : list of float
        Seconds of training until each epoch's end, those of earlier attempts included.
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
    objective: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)
    skipped: int = 0
    sent: int = 0

    def facts(self) -> Facts:
        """Return the contents of the report: measures, charts and notes."""
        epochs = [self.steps / max(1, self.epochs) * (number + 1) for number in range(len(self.objective))]
        return Facts(
            f"A network on {self.processes} x {self.launcher}",
            f"{', '.join(sorted(set(self.devices)))} ({self.why}); {self.epochs:,} epochs, stopped by {self.stopped}",
            self._measures(),
            (
                Lines("Loss by step", "steps", "number", self._losses(epochs)),
                Lines("Loss by second", "seconds", "number", self._losses(self.elapsed)),
                Bars("Time by phase", "seconds", tuple(self._parts), (("", tuple(self._parts.values())),)),
            ),
            self._notes(),
            {"rows": f"{self.rows:,}", "held-out rows": f"{self.validation_rows:,}"},
        )

    @property
    def _parts(self) -> dict[str, float]:
        return {name: value for name, value in self.seconds.items() if name != "total"}

    def _losses(self, x: list[float]) -> tuple[Series, ...]:
        """Training and held-out loss over the ends of the epochs."""
        found = [Series.of("training rows", x, self.objective, dots=True)]
        if self.validation:
            found.append(Series.of("held-out rows", x, self.validation, dots=True))
        return tuple(found)

    def _measures(self) -> tuple[Measure, ...]:
        measures = [
            Measure("total time", self.seconds["total"], "seconds", is_cost=True),
            Measure("rows a second", self.rows_per_second, "count", "all processes together"),
            Measure("steps", self.steps, "count", f"{self.epochs:,} epochs", is_cost=True),
            Measure("stored on disk", self.bytes, "bytes", is_cost=True),
            Measure("peak memory", self.peak_memory, "bytes", "of a process", is_cost=True),
            *([Measure("sent", self.sent, "bytes", "by a process", is_cost=True)] if self.sent else []),
            Measure("rows", self.rows, "count", f"and {self.validation_rows:,} held out"),
            *([Measure("rows left out", self.skipped, "count", "invalid")] if self.skipped else []),
            *(Measure(f"{name} time", value, "seconds", is_cost=True) for name, value in self._parts.items()),
            Measure("restarts", self.restarts, "count"),
        ]
        if self.device_memory:
            measures.insert(5, Measure("device memory", self.device_memory, "bytes", "of a GPU", is_cost=True))
        if self.objective:
            measures.insert(0, Measure("loss", self.objective[-1], "number", f"from {self.objective[0]:.6g}"))
        if self.validation:
            measures.insert(
                1, Measure("held-out loss", self.validation[-1], "number", f"best {min(self.validation):.6g}")
            )
        return tuple(measures)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.resumed:
            notes.append(f"Resumed from {self.resumed}.")
        if self.restarts:
            notes.append(f"A process was lost {self.restarts:,} times, after which training continued.")
        return tuple(notes)

    def __str__(self) -> str:
        total = self.seconds["total"] or 1.0
        memory = bytes_text(self.peak_memory)
        if self.device_memory:
            memory += f", {bytes_text(self.device_memory)} of a GPU"
        return "\n".join(
            [
                f"{self.processes} x {self.launcher} on {', '.join(self.devices)} ({self.why})",
                f"  rows      {self.rows:>12,}   held out {self.validation_rows:,}",
                *([f"  left out  {self.skipped:>12,}   invalid rows"] if self.skipped else []),
                f"  epochs    {self.epochs:>12,}   steps {self.steps:,}   stopped by {self.stopped}",
                f"  speed     {self.rows_per_second:>12,.0f} rows/s",
                *([f"  resumed from {self.resumed}"] if self.resumed else []),
                *([f"  restarts  {self.restarts:>12,}"] if self.restarts else []),
                *([f"  sent      {bytes_text(self.sent):>12}   by a process"] if self.sent else []),
                "seconds",
                *[f"  {name:<10}{value:>12.3f}  {value / total:6.1%}" for name, value in self._parts.items()],
                f"  {'total':<10}{self.seconds['total']:>12.3f}",
                f"stored {bytes_text(self.bytes)}, peak memory of a process {memory}",
            ]
        )
