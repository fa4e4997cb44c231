"""Loggers of losses, learning rates and metrics; they run in the process of rank 0."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparkopt.errors import MissingDependencyError
from sparkopt.values import dataclass

__all__ = ["Logger", "MLflow", "TensorBoard"]


class Logger(ABC):
    """What rank 0 logs to; a frozen value that is sent there."""

    @abstractmethod
    def open(self) -> Any:
        """Return the target of ``log``; a resumed run opens it again."""

    @abstractmethod
    def log(self, opened: Any, values: Mapping[str, float], step: int) -> None:
        """Log values at a step of the optimiser, counted from the start of training."""

    @abstractmethod
    def close(self, opened: Any) -> None:
        """Finish."""


@dataclass(frozen=True)
class TensorBoard(Logger):
    """Event files for TensorBoard.

    Parameters
    ----------
    folder : str
        Where rank 0's machine writes them: shared storage, if they are to be read elsewhere.
    """

    folder: str

    def open(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError.of("TensorBoard", "tensorboard", "tensorboard") from error
        _await_a_later_second(self.folder)
        return SummaryWriter(self.folder)

    def log(self, opened: Any, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            opened.add_scalar(name, value, step)

    def close(self, opened: Any) -> None:
        opened.close()


@dataclass(frozen=True)
class MLflow(Logger):
    """An MLflow run that exists already: ``MLflow(mlflow.active_run().info.run_id, mlflow.get_tracking_uri())``.

    Parameters
    ----------
    run_id : str
        The run.
    tracking_uri : str or None, default None
        The server, as rank 0 reaches it; None is the value of MLFLOW_TRACKING_URI there.
    """

    run_id: str
    tracking_uri: str | None = None

    def open(self) -> Any:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise MissingDependencyError.of("MLflow", "mlflow", "mlflow") from error
        return MlflowClient(self.tracking_uri)

    def log(self, opened: Any, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            opened.log_metric(self.run_id, name, value, step=step)

    def close(self, opened: Any) -> None:
        """Do nothing: the run belongs to the user."""


def _await_a_later_second(folder: str) -> None:
    """Wait while an event file of this second is in the folder.

    TensorBoard reads a folder's files in the order of their names: second, host, process. A run that is resumed
    within the second in which the run before it began would be shown in the wrong order where its process sorts
    before the other's.
    """
    for _ in range(20):
        if not any(Path(folder).glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
            return
        time.sleep(0.06)
