"""Rows for several fits: a store that is kept, and the one that the candidates of a search share."""

from __future__ import annotations

import contextlib
import json
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pyspark.sql import SparkSession

from sparkopt.blocks.rows import Rows, rows_to_fit, schema_of
from sparkopt.blocks.tables import named_table
from sparkopt.deep.checks import check_fields, selected_fields
from sparkopt.deep.params import TrainingParams
from sparkopt.errors import DataError, ParameterError
from sparkopt.io.filesystem import resolve
from sparkopt.io.secrets import mask_uri
from sparkopt.machine import Table
from sparkopt.shards.fields import Fields, flat
from sparkopt.shards.index import Index, LabelFacts
from sparkopt.shards.missing import RowCheck
from sparkopt.shards.store import write_store
from sparkopt.shards.temporary import absolute, check_folder, log_skipped, temporary_store
from sparkopt.values import dataclass

__all__ = ["RowRequest", "RowStore", "SharedRows", "check_request", "rows_for", "session_of"]

FACTS = "store.json"
_ASKED = ("paddedCols", "labelCols", "labelKind", "weightCol", "validationIndicatorCol", "validationFraction")


def session_of(rows: Rows) -> SparkSession | None:
    """Return whose tasks read rows; None is this machine, or the framework that holds them."""
    return None if isinstance(rows, Table) else rows.sparkSession


@dataclass(frozen=True)
class RowRequest:
    """Which rows and columns of its data an estimator trains on.

    Attributes
    ----------
    asked : dict
        Parameters that decide it, as JSON holds them.
    skips : bool
        Whether invalid rows are left out.
    pipeline : str or None
        What images are decoded by.
    ignored : int or None
        The label whose rows do not count.
    """

    asked: dict[str, Any]
    skips: bool
    pipeline: str | None
    ignored: int | None

    @classmethod
    def of(cls, params: TrainingParams, ignored: int | None) -> RowRequest:
        """Return what an estimator asks for."""
        asked = {name: params.value(name) or None for name in _ASKED}
        several = params.value("labelCols")
        asked |= {"features": params.features(), "labelCols": several}
        asked["labelCol"] = params.getLabelCol() if several is None else None
        asked["seed"] = params.getSeed() if params.value("validationFraction") else None
        return cls(asked, params.value("handleInvalid") != "error", params.evaluation_pipeline(), ignored)

    @property
    def key(self) -> str:
        """A text that is equal for equal rows."""
        return json.dumps([self.asked, self.skips, self.pipeline if self.skips else None, self.ignored])

    def columns(self) -> list[str]:
        """Return the names of the columns that are read."""
        named = [self.asked[name] for name in ("labelCol", "weightCol", "validationIndicatorCol")]
        labels = self.asked["labelCols"] or []
        return [*flat(self.asked["features"]), *labels, *(name for name in named if name)]

    def check(self, fields: Fields) -> RowCheck | None:
        """Return what finds invalid rows, where these are left out."""
        return RowCheck(fields.all, self.pipeline) if self.skips else None


class RowStore:
    """Rows of a DataFrame or a table, written once: any number of fits may read them, in place of the data.

    It is ``fit`` of estimators with other networks, losses, optimisers and rates that it saves from writing the rows
    again: ``estimator.fit(store)``. What decides on rows and columns must be as it was.

    Parameters
    ----------
    index, request : object
        Of the files, and which rows and columns they are: ``write`` and ``open`` know them.
    session : SparkSession or None, default None
        Whose tasks train on them; None is this machine.

    Examples
    --------
    >>> import functools
    >>> import numpy as np
    >>> import torch
    >>> from sparkopt.deep import RowStore, TorchEstimator
    >>> X = np.arange(400, dtype=np.float32).reshape(200, 2) / 400
    >>> estimator = TorchEstimator(module=functools.partial(torch.nn.Linear, 2, 1), epochs=1, launcher="local")
    >>> store = RowStore.write((X, X.sum(axis=1)), "/data/rows-of-two-fits", estimator)
    >>> for rate in (0.01, 0.1):
    ...     print(estimator.setStepSize(rate).fit(store).summary.receipt.rows)
    200
    200
    >>> store.delete()
    """

    def __init__(self, index: Any, request: Any, session: SparkSession | None = None) -> None:
        self.index: Index = replace(index, seconds=0.0)
        self.request: RowRequest = request
        self.session = session

    @classmethod
    def write(cls, df: Any, path: str, estimator: Any) -> RowStore:
        """Write rows to a store.

        Parameters
        ----------
        df : DataFrame, or what ``sparkopt.Table.of`` takes
            The rows.
        path : str
            A folder, or URI, that does not exist yet; shared by driver and executors.
        estimator : TorchEstimator
            Its parameters say which columns are read, which rows are held out, and what becomes of invalid ones.

        Raises
        ------
        ParameterError
            Where there is something at the path.
        SchemaError, DataError
            As ``fit``; nothing stays behind.
        """
        recipe, rows = estimator._recipe(), rows_to_fit(df)
        check_folder(path, session_of(rows))
        place = resolve(path, "path")
        if place.exists():
            raise ParameterError(f"{mask_uri(path)!r} exists already: delete it, or open it by RowStore.open.")
        request = RowRequest.of(estimator, recipe.ignored)
        rows = _named(rows, request)
        fields, held_out = selected_fields(estimator, schema_of(rows))
        index = write_store(rows, fields, absolute(path), held_out, request.check(fields), request.ignored)
        log_skipped(index)
        facts = {name: getattr(request, name) for name in ("asked", "skips", "pipeline", "ignored")}
        place.child(FACTS).write(json.dumps(facts).encode())
        return cls(index, request, session_of(rows))

    @classmethod
    def open(cls, path: str, session: SparkSession | None = None) -> RowStore:
        """Return the store that was written to a path.

        Parameters
        ----------
        path : str
            Where.
        session : SparkSession or None, default None
            Whose tasks train on the rows; None is the active one, or this machine where there is none.

        Raises
        ------
        DataError
            Where there is no store, or one that was not written to its end.
        """
        try:
            facts = json.loads(resolve(path, "path").child(FACTS).read())
        except FileNotFoundError:
            raise DataError(f"there is no store at {mask_uri(path)!r}: RowStore.write writes one.") from None
        return cls(Index.load(absolute(path)), RowRequest(**facts), session or SparkSession.getActiveSession())

    def delete(self) -> None:
        """Delete the rows."""
        self.index.delete()


def check_request(store: RowStore, params: TrainingParams, ignored: int | None) -> None:
    """Refuse an estimator that would train on other rows or columns than a store has.

    Raises
    ------
    ParameterError
        Naming the parameter, with both values.
    """
    now, then = RowRequest.of(params, ignored), store.request
    for name, value in now.asked.items():
        if value != then.asked[name]:
            raise ParameterError(
                f"the store was written with {name}={then.asked[name]!r}; the estimator has {name}={value!r}: "
                "set it alike, or write another store."
            )
    has_images = any(entry.is_image for entry in store.index.fields.all)
    if now.skips and has_images and (not then.skips or then.pipeline != now.pipeline):
        raise ParameterError(
            f"handleInvalid={params.value('handleInvalid')!r} needs a store in which invalid images were looked "
            "for, with the same evaluationPipeline. Write another one."
        )
    if now.ignored != then.ignored and _has_label(store.index.labels, now.ignored):
        raise ParameterError(
            f"the store was written for a loss that ignores the label {then.ignored}, and this one ignores "
            f"{now.ignored}. Write another store."
        )
    check_fields(params, store.index.fields)


def _has_label(labels: LabelFacts | None, ignored: int | None) -> bool:
    """Whether what is known of the labels would differ if this one were ignored."""
    if labels is None:
        return False
    return labels.has_ignored or (ignored is not None and labels.least <= ignored <= labels.most)


def _named(rows: Rows, request: RowRequest) -> Rows:
    return named_table(rows, request.columns()) if isinstance(rows, Table) else rows


@contextlib.contextmanager
def rows_for(rows: Rows, estimator: Any, request: RowRequest) -> Iterator[RowStore]:
    """Give the rows that an estimator asks for, as a store that is deleted at the end."""
    read = _named(rows, request)
    fields, held_out = selected_fields(estimator, schema_of(read))
    folder, check = estimator.value("storePath"), request.check(fields)
    with temporary_store(read, fields, folder, held_out, check, request.ignored) as index:
        store = RowStore(index, request, session_of(rows))
        store.index = index  # with the seconds that it took to write
        yield store


class SharedRows:
    """The rows of candidates that are fitted one by one, perhaps on several threads: written once for those alike.

    Parameters
    ----------
    rows : DataFrame or Table
        The rows.
    estimators : sequence of NetworkEstimator
        One for each candidate.
    """

    def __init__(self, rows: Rows, estimators: Sequence[Any]) -> None:
        self.rows, self._estimators, self._left = rows, estimators, len(estimators)
        self._stores: dict[str, RowStore] = {}
        self._lock, self._stack = threading.Lock(), contextlib.ExitStack()

    def fit(self, number: int) -> Any:
        """Return the model of a candidate; after the last one, the rows are deleted."""
        estimator = self._estimators[number]
        try:
            recipe, _, _ = estimator._checked(self.rows)
            return estimator.fit(self._store(estimator, RowRequest.of(estimator, recipe.ignored)))
        finally:
            with self._lock:
                self._left -= 1
                if not self._left:
                    self._stack.close()

    def _store(self, estimator: Any, request: RowRequest) -> RowStore:
        with self._lock:
            if request.key not in self._stores:
                entered = rows_for(self.rows, estimator, request)
                self._stores[request.key] = self._stack.enter_context(entered)
            return self._stores[request.key]

    def deleted_with(self, owner: Any) -> None:
        """Delete the rows at the latest when ``owner`` is gone: who asked for candidates may not fit all of them."""
        weakref.finalize(owner, self._stack.close)
