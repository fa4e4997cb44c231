#!/usr/bin/env python
"""After a lost process: seconds until training goes on, and steps taken again, from memory and from checkpoints.

    python jobs/bench/recovery.py --torchft PYTHON

Three processes of this machine train a perceptron under the launcher torch; one kills itself in a step while the
others wait for its gradients. With ``minProc`` they continue from their memory. Otherwise all start again, from a
checkpoint of each epoch or of every few steps, or from the beginning. Where PYTHON has torchft, three of its replica
groups, of one process each, train on rows of their own by its PureDistributedDataParallel: at the defaults of its
lighthouse, and with shorter waits. There nobody replaces the lost process.

"next step" is from the signal to the end of the next step that counts, "back" to the end of the step that was lost.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from sparkopt.deep import TorchEstimator
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.events import Resumed, StepsDone, from_report
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.row_store import RowStore
from sparkopt.deep.worker import train
from sparkopt.launch.launching import Launching, Losses

FEATURES, BATCH, RANKS = 20, 16, 3
SCRIPT = Path(__file__).parent / "scripts" / "torchft_loop.py"


class Mortal(nn.Module):
    """A perceptron that notes each step that it begins, and of which one process kills itself in a given step."""

    def __init__(self, folder: str, at: int, pause: float, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, 2))
        self._folder, self._at, self._pause, self._passes = Path(folder), at, pause, 0  # they decide on no weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores (rows, 2)."""
        if self.training and len(x) > 2:  # two rows are tried before the first step
            self._begin_step()
        found: torch.Tensor = self.layers(x)
        return found

    def _begin_step(self) -> None:
        time.sleep(self._pause)
        note(self._folder / "steps", os.getpid())
        self._passes += 1
        if self._passes == self._at and not (self._folder / "killed").exists():
            try:
                os.close(os.open(self._folder / "victim", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            time.sleep(1.0)  # the others wait for this process's gradients now
            note(self._folder / "killed", os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)


def note(path: Path, text: object) -> None:
    """Add a line with the time; others do so too."""
    with path.open("a") as lines:
        lines.write(f"{time.time()} {text}\n")


def lines_of(path: Path) -> list[tuple[float, str]]:
    """Return times and texts."""
    pairs = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(float(when), text) for when, text in pairs]


@dataclass(frozen=True)
class Recovered:
    """What a loss has cost.

    Attributes
    ----------
    following, back : float
        Seconds from the signal to the end of the next step, and of the step that was lost.
    repeated : int
        Steps that were done before, and were done again.
    """

    following: float
    back: float
    repeated: int


def ours(rows: str, at: int, pause: float, hidden: int, **changes: Any) -> Recovered:
    """Train, lose a process, and read when the others, or others in its place, took their steps."""
    elastic = changes.pop("elastic", False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "checkpoint_steps" in changes:
            changes["checkpoints"] = str(folder / "checkpoints")
        config = TrainConfig(rows, 3, BATCH, RANKS, report_steps=5, **changes)
        module = functools.partial(Mortal, name, at, pause, hidden)
        recipe = Recipe(module, "multinomial", functools.partial(torch.optim.AdamW, lr=0.01))
        resumed: list[Resumed] = []
        totals: list[int] = []

        def watch(report: Any) -> None:
            event = from_report(report)
            if isinstance(event, Resumed):
                resumed.append(event)
            elif isinstance(event, StepsDone):
                totals.append(event.steps)

        launching = Launching("torch", None, RANKS, RANKS - 1 if elastic else None, 1)
        launching.run(train, config, recipe, watcher=watch, losses=Losses())
        done = resumed[0].epoch * totals[0] + resumed[0].step if resumed else 0
        return read(folder, at - 1 - done)


def read(folder: Path, repeated: int) -> Recovered:
    """Return what the notes say: a step has ended where its process begins the next one."""
    (killed, victim), *_ = lines_of(folder / "killed")
    later: dict[str, list[float]] = {}
    for when, pid in lines_of(folder / "steps"):
        if when > killed and pid != victim:
            later.setdefault(pid, []).append(when - killed)
    following = min(times[1] for times in later.values() if len(times) > 1)
    back = min(times[repeated + 1] for times in later.values() if len(times) > repeated + 1)
    return Recovered(following, back, repeated)


def torchft(python: str, at: int, pause: float, hidden: int, heartbeat: int, join: int) -> Recovered:
    """Do so by torchft, in three processes; its survivors drop the step that was lost and take the next one."""
    with tempfile.TemporaryDirectory() as name:
        flags = [name, str(at), str(pause), str(hidden), str(heartbeat), str(join), str(FEATURES), str(BATCH)]
        subprocess.run([python, str(SCRIPT), *flags], check=True, timeout=300)  # noqa: S603  # given by the user
        (killed, victim), *_ = lines_of(Path(name) / "killed")
        ends = [when - killed for when, pid in lines_of(Path(name) / "commits") if when > killed and pid != victim]
        return Recovered(min(ends), min(ends), 0)


def row(name: str, runs: list[Recovered]) -> str:
    """Return a row of the table: medians, and the range of the first."""
    first = [one.following for one in runs]
    spread = f"{statistics.median(first):.2f} ({min(first):.2f} to {max(first):.2f})"
    return f"| {name} | {spread} | {statistics.median(one.back for one in runs):.2f} | {runs[0].repeated} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each")
    parser.add_argument("--at", type=int, default=55, help="the step in which a process is lost")
    parser.add_argument("--rows", type=int, default=1920, help="rows; a step takes 48")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds that a step waits, as for its data")
    parser.add_argument("--hidden", type=int, default=1000, help="width of the network")
    parser.add_argument("--torchft", metavar="PYTHON", help="an interpreter that has torchft")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    X = rng.normal(size=(args.rows, FEATURES)).astype(np.float32)
    table = pa.table({"features": list(X), "label": (X[:, 0] > 0).astype(np.int64)})
    kinds: dict[str, dict[str, Any]] = {
        "minProc, from memory": {"elastic": True},
        "restart, a checkpoint every 5 steps": {"checkpoint_steps": 5},
        "restart, a checkpoint each epoch": {"checkpoint_steps": 0},
        "restart, no checkpoint": {},
    }
    print("| what continues | next step, s | back, s | steps repeated |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        estimator = TorchEstimator(module=nn.Linear, loss="multinomial", numProc=RANKS, batchSize=BATCH)
        store = RowStore.write(table, f"{folder}/rows", estimator)
        settings = (args.at, args.pause, args.hidden)
        for name, changes in kinds.items():
            print(row(name, [ours(store.index.uri, *settings, **changes) for _ in range(args.runs)]), flush=True)
        if args.torchft:
            for name, waits in {"at its defaults": (5000, 60000), "heartbeat 0.5 s, join 0.1 s": (500, 100)}.items():
                found = [torchft(args.torchft, *settings, *waits) for _ in range(args.runs)]
                print(row(f"torchft, {name}", found), flush=True)


if __name__ == "__main__":
    main()
