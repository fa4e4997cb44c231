"""Invalid rows in commands: the flag ``--handle-invalid``, and what a model then makes of such rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparkopt.blocks.invalid import HANDLE_INVALID
from sparkopt.jobs.flags import Parser
from sparkopt.report.facts import Measure

if TYPE_CHECKING:
    from pyspark.ml import Model

__all__ = ["INVALID", "invalid_flag", "invalid_measures", "invalid_text", "last_stage", "mode_of", "with_mode"]

INVALID = "invalid"
"""Name of their number among metrics, where ``--handle-invalid`` is not error."""
NAME = "handleInvalid"


def invalid_flag(
    flags: Parser, meaning: str, *, default: str | None = None, what: str = "rows with null, NaN or infinity"
) -> None:
    """Add the flag; without it, a model's own ``handleInvalid`` counts, and ``default`` where there is no model."""
    flags.add_argument(
        "--handle-invalid",
        choices=HANDLE_INVALID,
        default=default,
        help=f"what becomes of {what}: error names the first; {meaning} "
        f"(default: {default or 'as the model was trained'})",
    )


def mode_of(model: Model) -> str:
    """Return a model's ``handleInvalid``; that of a pipeline is its last stage's, and models without it refuse."""
    stage = last_stage(model)
    return str(stage.getOrDefault(NAME)) if stage.hasParam(NAME) else "error"


def with_mode(model: Model, mode: str | None) -> Any:
    """Return a copy of a model with another ``handleInvalid``; None leaves it as it is."""
    copied = model.copy()
    stage = last_stage(copied)
    if mode is not None and stage.hasParam(NAME):
        stage.set(stage.getParam(NAME), mode)
    return copied


def last_stage(model: Model) -> Model:
    """Return the model itself, or the last stage of a pipeline."""
    stages = getattr(model, "stages", None)
    return last_stage(stages[-1]) if stages else model


def invalid_text(count: int | None, mode: str) -> str:
    """Return how many invalid rows there were, as the end of a sentence; "" where they are errors."""
    if count is None:
        return ""
    what = "got no prediction" if mode == "keep" else "left out"
    return f"; {count:,} invalid rows {what} (--handle-invalid {mode})"


def invalid_measures(count: int | None, note: str, what: str = "rows") -> tuple[Measure, ...]:
    """Return the measure of a page; none where invalid rows are errors."""
    return () if count is None else (Measure(f"invalid {what}", count, "count", note),)
