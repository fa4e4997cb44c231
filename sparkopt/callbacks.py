"""Callbacks: what can watch a fit, step by step."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tqdm.auto import tqdm

from sparkopt.solve import Progress

__all__ = ["ProgressBar"]


class ProgressBar:
    """A progress bar with the current objective, on standard error or in the notebook.

    It appears after ``delay`` seconds, so that quick fits stay silent, and not at all where standard error is a file.

    Parameters
    ----------
    title : str, default "fit"
        What stands before the bar.
    delay : float, default 2
        Seconds before it appears.
    """

    def __init__(self, title: str = "fit", delay: float = 2.0) -> None:
        self.title, self.delay = title, delay
        self._bar: tqdm | None = None

    def __call__(self, progress: Progress, /) -> None:
        """Move the bar to this step."""
        if self._bar is None:
            silent = not (_in_notebook() or _someone_watches())
            self._bar = tqdm(total=progress.max_iter, desc=self.title, unit="step", delay=self.delay, disable=silent)
        self._bar.set_postfix_str(f"objective {progress.record.objective:.6g}", refresh=False)
        self._bar.update(progress.record.step - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it stands; harmless when repeated."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


def _someone_watches() -> bool:
    """Whether standard error ends at a terminal, also where spark-submit stands in between and passes it on."""
    if sys.stderr.isatty():
        return True
    submitter = Path(f"/proc/{os.getppid()}/fd/1")  # spark-submit sends its job's streams there
    if "PYSPARK_GATEWAY_PORT" not in os.environ or not submitter.exists():
        return False
    try:
        with submitter.open("wb") as stream:
            return stream.isatty()
    except OSError:  # it belongs to somebody else: then nobody here watches it
        return False
