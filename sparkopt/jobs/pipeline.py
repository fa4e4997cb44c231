"""The training pipeline as command lines: the arguments of each job for the data of one interval.

This module needs neither Spark nor a scheduler: a scheduler takes the command lines and runs them in order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from sparkopt.errors import ParameterError
from sparkopt.integrations.model_registry import Accepted, ModelRegistry
from sparkopt.validation import OneOf, check
from sparkopt.values import dataclass

__all__ = ["DataInterval", "Pipeline", "PipelinePlan", "TablePipeline"]

P = TypeVar("P", bound="_Gated")

STEPS = ("preprocess", "train", "evaluate", "score")
"""Steps that are jobs, in order; promotion is between the last two."""


@dataclass(frozen=True)
class DataInterval:
    """The interval of a run's data.

    Parameters
    ----------
    start, end : datetime
        Both with a time zone.
    """

    start: datetime
    end: datetime

    @classmethod
    def of(cls, start: datetime | None, end: datetime | None, instead: datetime) -> DataInterval:
        """Return a run's interval; for a run without one, the day before it was started."""
        last = end or instead
        return cls(start or last - timedelta(days=1), last)

    @property
    def name(self) -> str:
        """Its end as ISO 8601 in UTC: the text sorts by time."""
        return self.end.astimezone(timezone.utc).isoformat(timespec="seconds")

    def fill(self, template: str) -> str:
        """Replace ``{date}`` (the day on which it starts), ``{start}`` and ``{end}`` (2026-11-24T00-00-00, in UTC).

        Raises
        ------
        ParameterError
            For anything else in braces.
        """
        start, end = (moment.astimezone(timezone.utc) for moment in (self.start, self.end))
        stamp = "%Y-%m-%dT%H-%M-%S"
        try:
            return template.format(date=f"{start:%Y-%m-%d}", start=f"{start:{stamp}}", end=f"{end:{stamp}}")
        except (KeyError, IndexError, ValueError) as error:
            known = "{date}, {start} and {end}"
            raise ParameterError(f"{template!r} cannot be filled in: only {known} are known in braces.") from error


@dataclass(frozen=True)
class PipelinePlan:
    """One run: the arguments of each job, and the paths of its outputs.

    Attributes
    ----------
    interval : str
        End of the data, as ISO 8601 in UTC.
    candidate, evaluation : str
        Outputs of training and of evaluation.
    preprocess, train, evaluate, score : list of str
        Arguments of the jobs.
    """

    interval: str
    candidate: str
    evaluation: str
    preprocess: list[str]
    train: list[str]
    evaluate: list[str]
    score: list[str]


class _Gated(ABC):
    """What pipelines of images and of tables share: folders, and a gate that compares with the accepted model."""

    root: str  # a field of each, which has its own order
    metric: str
    tolerance: float
    min_value: float | None

    @classmethod
    def of(cls: type[P], values: Mapping[str, Any]) -> P:
        """Return the pipeline that a scheduler's parameters describe; other parameters are ignored."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # both are dataclasses
        given = {name: values[name] for name in names if name in values}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})

    @property
    def registry(self) -> ModelRegistry:
        """The accepted models."""
        return ModelRegistry(f"{self._root}/models")

    @abstractmethod
    def plan(self, interval: DataInterval) -> PipelinePlan:
        """Return one run, which starts from the last model accepted before its interval."""

    @property
    def _root(self) -> str:
        return self.root.rstrip("/")

    def _run_folder(self, interval: DataInterval) -> str:
        return f"{self._root}/runs/{interval.fill('{end}')}"

    def _gate(self, evaluation: str, accepted: Accepted | None) -> list[str]:
        """Return the flags of what must be reached; without a baseline where no model has been accepted yet."""
        flags = ["--metric", self.metric, "--output", evaluation]
        flags += ["--min-value", str(self.min_value)] if self.min_value is not None else []
        return flags + (["--baseline", accepted.evaluation, "--tolerance", str(self.tolerance)] if accepted else [])


@dataclass(frozen=True)
class Pipeline(_Gated):
    """The settings of all runs.

    Parameters
    ----------
    images : str
        Folder of image files; the folder of a file is its label. ``{date}``, ``{start}`` and ``{end}`` are filled in.
    root : str
        Folder of all outputs: ``runs/<end>/`` for each run, and ``models/`` for accepted models.
    image_size : int, default 32
        Width and height in pixels.
    color : {"gray", "rgb"}, default "gray"
        Colours of the pixels.
    labels : str, default ""
        Names of the labels 0, 1, …, separated by commas; "" is the alphabetical order of the folders, which is the
        same in all runs only where every folder always has images.
    test_fraction : float, default 0.2
        Share of the images that is used for evaluation only.
    metric : str, default "accuracy"
        The metric that the gate compares.
    tolerance : float, default 0.01
        Share of the accepted model's metric by which a new model may be worse.
    min_value : float or None, default None
        Least value of the metric, regardless of the accepted model.
    preprocess, train : tuple of str
        Additional flags of these jobs.

    Examples
    --------
    >>> pipeline = Pipeline("/data/{date}", "/models")
    >>> day = DataInterval(datetime(2026, 11, 23, tzinfo=timezone.utc), datetime(2026, 11, 24, tzinfo=timezone.utc))
    >>> pipeline.plan(day).preprocess[:2]
    ['--input', '/data/2026-11-23']
    """

    images: str
    root: str
    image_size: int = 32
    color: str = "gray"
    labels: str = ""
    test_fraction: float = 0.2
    metric: str = "accuracy"
    tolerance: float = 0.01
    min_value: float | None = None
    preprocess: tuple[str, ...] = ()
    train: tuple[str, ...] = ()

    def plan(self, interval: DataInterval) -> PipelinePlan:
        """Return one run, which starts from the last model accepted before its interval."""
        run = self._run_folder(interval)
        rows, candidate, evaluation = f"{run}/rows", f"{run}/train", f"{run}/evaluate"
        accepted = self.registry.before(interval.name)
        return PipelinePlan(
            interval.name,
            candidate,
            evaluation,
            preprocess=self._preprocess(interval, rows),
            train=self._train(rows, candidate, accepted),
            evaluate=self._evaluate(rows, candidate, evaluation, accepted),
            score=[
                "--model",
                candidate,
                "--parquet",
                rows,
                "--output",
                f"{run}/scores",
                "--output-mode",
                "overwrite",
            ],
        )

    def _preprocess(self, interval: DataInterval, rows: str) -> list[str]:
        flags = ["--input", interval.fill(self.images), "--output", rows, "--handle-invalid", "skip", "--features"]
        flags += ["--size", str(self.image_size), "--color", self.color, "--test-fraction", str(self.test_fraction)]
        return [*flags, *(["--labels", self.labels] if self.labels else []), *self.preprocess]

    def _train(self, rows: str, candidate: str, accepted: Accepted | None) -> list[str]:
        flags = ["--parquet", f"{rows}/split=train", *self.train, "--output", candidate, "--output-mode", "overwrite"]
        return flags + (["--initial-model", accepted.model] if accepted else [])

    def _evaluate(self, rows: str, candidate: str, evaluation: str, accepted: Accepted | None) -> list[str]:
        return ["--model", candidate, "--parquet", f"{rows}/split=test", *self._gate(evaluation, accepted)]


FORMATS = ("parquet", "csv", "json", "libsvm", "delta", "iceberg", "table")
"""What a table may be, by the names of the jobs' flags; "table" is one of the catalog."""


@dataclass(frozen=True)
class TablePipeline(_Gated):
    """The settings of all runs of a pipeline that trains on a table: there is no step before training.

    Parameters
    ----------
    rows : str
        What is trained on and scored: a path, or a table of the catalog. ``{date}``, ``{start}`` and ``{end}`` are
        filled in.
    root : str
        Folder of all outputs, as of a ``Pipeline``.
    held_out : str, default ""
        What is evaluated on, filled in likewise; "" is ``rows``, so that the gate sees rows that were trained on.
    rows_format : str, default "parquet"
        One of `FORMATS`: of both.
    label : str, default "label"
        The column of the targets.
    features : str, default ""
        Columns of the features, separated by commas; "" is all others.
    metric : str, default "accuracy"
        The metric that the gate compares.
    tolerance : float, default 0.01
        Share of the accepted model's metric by which a new model may be worse.
    min_value : float or None, default None
        Least value of the metric, regardless of the accepted model.
    train, score : tuple of str
        Additional flags of these jobs.

    Examples
    --------
    >>> pipeline = TablePipeline("/rows/{date}", "/models", held_out="/held-out/{date}", label="churned")
    >>> day = DataInterval(datetime(2026, 11, 23, tzinfo=timezone.utc), datetime(2026, 11, 24, tzinfo=timezone.utc))
    >>> pipeline.plan(day).train[:4]
    ['--parquet', '/rows/2026-11-23', '--label', 'churned']
    """

    rows: str
    root: str
    held_out: str = ""
    rows_format: str = "parquet"
    label: str = "label"
    features: str = ""
    metric: str = "accuracy"
    tolerance: float = 0.01
    min_value: float | None = None
    train: tuple[str, ...] = ()
    score: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check("rows_format", self.rows_format, OneOf(FORMATS))

    def plan(self, interval: DataInterval) -> PipelinePlan:
        """Return one run, which starts from the last model accepted before its interval."""
        run = self._run_folder(interval)
        candidate, evaluation = f"{run}/train", f"{run}/evaluate"
        accepted = self.registry.before(interval.name)
        rows = [f"--{self.rows_format}", interval.fill(self.rows)]
        held_out = [f"--{self.rows_format}", interval.fill(self.held_out or self.rows)]
        columns = [*(["--features", self.features] if self.features else []), *self.train]
        train = [*rows, "--label", self.label, *columns, "--output", candidate, "--output-mode", "overwrite"]
        scores = ["--output", f"{run}/scores", "--output-mode", "overwrite"]
        return PipelinePlan(
            interval.name,
            candidate,
            evaluation,
            preprocess=[],
            train=train + (["--initial-model", accepted.model] if accepted else []),
            evaluate=["--model", candidate, *held_out, "--label", self.label, *self._gate(evaluation, accepted)],
            score=["--model", candidate, *rows, *self.score, *scores],
        )
