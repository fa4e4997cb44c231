"""What a job asks of where it runs."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.ml import Model
    from pyspark.sql.types import StructType

    from sparkopt.images import ImageKernel
    from sparkopt.jobs.locations import JobLocation
    from sparkopt.jobs.metrics import ScoredRows
    from sparkopt.jobs.runtimes.images import ImageRows
    from sparkopt.jobs.runtimes.values import RowValues
    from sparkopt.jobs.sources import DataSource

__all__ = ["InputRows", "Runtime", "Written"]


@dataclass(frozen=True)
class InputRows:
    """Rows, and the roles of their columns.

    Parameters
    ----------
    rows : DataFrame or Table
        The rows, as the runtime has them.
    features : str, list of str or None
        Feature columns; None where the flags name none.
    label, weight : str or None
        Their columns; None where the flags name none.
    labels : list of str
        Names of the classes 0, 1, …, where they are known.
    """

    rows: Any
    features: str | list[str] | None
    label: str | None
    weight: str | None = None
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Written:
    """A table that was written.

    Attributes
    ----------
    rows : int
        How many rows it has.
    values : RowValues or None
        Its predictions; None where it has none.
    invalid : int or None
        Invalid rows, which were left out or have no prediction; None where they are errors.
    """

    rows: int
    values: RowValues | None
    invalid: int | None = None


class Runtime(ABC):
    """Where a job runs: it reads, splits, scores and writes rows, and reaches files."""

    name: ClassVar[str]
    failures: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors that a job reports in one line, in addition to sparkopt's own and the operating system's."""

    @classmethod
    @abstractmethod
    def opened(cls, profile: str, app_name: str, settings: Mapping[str, str]) -> AbstractContextManager[Runtime]:
        """Return a context manager that starts what the runtime needs, and ends what it has started.

        Parameters
        ----------
        profile, app_name, settings : str, str, mapping
            Of a Spark session.
        """

    @staticmethod
    @abstractmethod
    def essence(error: Exception) -> str:
        """Return an error as one sentence."""

    @staticmethod
    def has_ended(error: Exception) -> bool:
        """Whether an error says that what had started this process, and would start it again, has ended."""
        return False

    @abstractmethod
    def where(self) -> Mapping[str, str | None]:
        """Return what the manifest says of where the job ran."""

    @abstractmethod
    def location(self, path: str) -> JobLocation:
        """Return a file or folder."""

    @abstractmethod
    def fingerprint_of_files(self, *paths: str) -> dict[str, Any]:
        """Return count, bytes and a hash of the files below some paths; only their listing is read."""

    @abstractmethod
    def fingerprint(self, source: DataSource) -> dict[str, Any] | None:
        """Return a fingerprint that changes when the data change; None where there is no way to tell.

        Files: how many, their bytes, and a hash over names, sizes and times. Delta and Iceberg: the version.

        Raises
        ------
        DataError
            Where there is nothing to read.
        """

    def folders_of(self, table: str) -> list[str]:
        """Return where the files of a table of the catalog are; none where there is no catalog, or no files."""
        return []

    @abstractmethod
    def read(
        self,
        args: argparse.Namespace,
        *,
        labels: Sequence[str] = (),
        encoded: bool = False,
        width: int = 0,
        known: Mapping[str, str] = MappingProxyType({}),
        invalid: str = "skip",
    ) -> InputRows:
        """Return the rows that the flags name.

        Parameters
        ----------
        args : Namespace
            Values of the flags of ``data_flags``.
        labels : sequence of str
            For images: the folders' names in the model's order; empty for alphabetical order.
        encoded : bool, default False
            For images: whether to leave them encoded, as deep models read them.
        width : int, default 0
            The number of features: of LIBSVM, where 0 is the largest index, and of images, where the flags say it if
            it is 0.
        known : mapping of str to {"string", "number"}, default none
            For CSV: what the model knows columns as. Text is read as it is, whatever today's cells look like; a
            column of numbers that is empty today is still one of numbers.
        invalid : {"error", "skip", "keep"}, default "skip"
            For images: whether one that cannot be decoded is an error that names it, or has no features.

        Raises
        ------
        DataError
            Where there is nothing to read.
        """

    @abstractmethod
    def schema(self, rows: Any) -> StructType:
        """Return the rows' columns, with Spark's types."""

    @abstractmethod
    def first(self, rows: Any, column: str) -> Any:
        """Return the first value of a column that is not null, a struct as a dict; None where all are."""

    @abstractmethod
    def split(self, rows: Any, fraction: float, seed: int) -> tuple[Any, Any]:
        """Return training and held-out rows; the split is the same in every run, wherever it is.

        For images it depends on the names of file and folder, not on where these are; for other rows on their
        content. Integers count as 64-bit ones.
        """

    @abstractmethod
    def load(self, module: str, name: str, uri: str) -> Model:
        """Return a saved model of a class."""

    @abstractmethod
    def save(self, model: Any, location: JobLocation) -> None:
        """Save a model."""

    @abstractmethod
    def scored(
        self, model: Any, rows: Any, label: str, weight: str | None = None
    ) -> AbstractContextManager[ScoredRows]:
        """Yield rows with a model's predictions, computed once and kept.

        Invalid rows are left out and counted, unless the model's ``handleInvalid`` is error.

        Parameters
        ----------
        model : Model
            The model.
        rows : DataFrame or Table
            Rows with the model's features.
        label : str
            Target column.
        weight : str or None, default None
            Column of row weights.

        Raises
        ------
        SchemaError
            For a missing column.
        """

    @abstractmethod
    def write_scores(
        self,
        model: Any,
        rows: Any,
        kept: Sequence[str],
        target: JobLocation,
        *,
        form: str,
        mode: str,
        labels: Sequence[str] = (),
    ) -> tuple[list[str], Written]:
        """Score rows and write some of their columns with the predictions; return the names of the latter.

        Parameters
        ----------
        model, rows : Model, DataFrame or Table
            What is scored.
        kept : sequence of str
            Columns of the rows that are written too, in front.
        target : JobLocation
            The folder.
        form : str
            Its format.
        mode : {"errorifexists", "overwrite"}
            What is done where it exists.
        labels : sequence of str, default ()
            Names of the classes, which are written in place of their numbers.
        """

    @abstractmethod
    def images(self, options: argparse.Namespace, kernel: ImageKernel, output: JobLocation) -> ImageRows:
        """Return the images of a preprocessing job, and the table that is made of them."""
