"""Callbacks: what can watch a fit, step by step."""

from __future__ import annotations

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
            self._bar = tqdm(total=progress.max_iter, desc=self.title, unit="step", delay=self.delay, disable=None)
        self._bar.set_postfix_str(f"objective {progress.record.objective:.6g}", refresh=False)
        self._bar.update(progress.record.step - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it stands; harmless when repeated."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
