"""A training on its ranks: what is called with their reports, and how often they were lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sparkopt.deep.config import TrainConfig
from sparkopt.deep.progress import CallbackListener, GroupLog, ReportReceiver
from sparkopt.deep.trainable import LearnerRecipe
from sparkopt.deep.worker import RankResult, train
from sparkopt.launch.launching import Launching, Losses
from sparkopt.solver.callbacks import close
from sparkopt.solver.progress import Callback

__all__ = ["trained"]


def trained(
    launching: Launching,
    config: TrainConfig,
    recipe: LearnerRecipe,
    callbacks: Sequence[Callback],
    function: Callable[..., RankResult] = train,
) -> tuple[list[RankResult], float, int]:
    """Train by ``function`` on each rank; return the ranks' results, the seconds, and how often ranks were lost."""
    begin, losses = time.perf_counter(), Losses()
    called = CallbackListener(callbacks, config.epochs)
    receiver = ReportReceiver([GroupLog(losses), called])
    try:
        results = launching.run(function, config, recipe, watcher=receiver, losses=losses, on_loss=called.raise_error)
        called.raise_error()
        return results, time.perf_counter() - begin, losses.total
    finally:
        close(callbacks)
