"""Invalid rows in commands: the flag ``--handle-invalid``, and what a model then makes of such rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sparkopt.blocks.invalid import HANDLE_INVALID
from sparkopt.jobs.flags import Parser
from sparkopt.report.facts import Measure

if TYPE_CHECKING:
    from pyspark.ml import Model

__all__ = [
    "INVALID",
    "by_flags",
    "invalid_flag",
    "invalid_measures",
    "invalid_text",
    "last_stage",
    "mode_of",
    "with_mode",
]

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


BAD_IMAGE = r"^(.*) \(the row of key '([^']*)'\)\. Mode PERMISSIVE.*"
NO_NUMBER = r"(column '.*', row \d+ is '(.*)', which is no number\.)$"
BY_FLAGS = (
    (BAD_IMAGE, r"\2 is no good image: \1. Give --handle-invalid skip to leave such images out, or keep."),
    (r"Set handleInvalid='keep' (for a null prediction), or 'skip'", r"Give --handle-invalid keep \1, or skip"),
    (r"\bset handleInvalid='skip'", "give --handle-invalid skip"),
    (NO_NUMBER, r"\1 Of CSV, --option 'nullValue=\2' takes it as missing."),
    (r"\bSet handleInvalid='skip'", "Give --handle-invalid skip"),
)
"""What errors advise to users of estimators, and the same for users of commands."""


def by_flags(error: str) -> str:
    """Return an error with the flags of commands in place of the parameters of estimators."""
    for advice, other in BY_FLAGS:
        error = re.sub(advice, other, error)
    return error


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
