"""Learning from a structured stream, each batch exactly once, and the model that others score with meanwhile.

Spark notes the offsets of a batch before it runs it, and runs the same batch again, with the same number, where the
process was killed. A batch is learnt in one write: the file ``model`` has coefficients, the optimiser's state, the
batch's number and its offsets. So what is in that file is what was learnt, and a batch that comes again is left out.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.ml.util import DefaultParamsWriter

from sparkopt.blocks.rows import rows_of
from sparkopt.errors import CorruptDataError, DataError, IncompatibleError, ParameterError
from sparkopt.io.filesystem import STORAGE_ERRORS, UNFINISHED, Location, child_uri, resolve
from sparkopt.io.metadata import damage, digested
from sparkopt.io.saved import FileSession
from sparkopt.io.sealed import seal, unseal
from sparkopt.machine import Table
from sparkopt.ml.online import check_online
from sparkopt.ml.persistence import numbers_of, restored, table_of
from sparkopt.ml.saving import class_named
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.sql.streaming.query import StreamingQuery

__all__ = ["LatestModel", "StreamTrainer"]

logger = logging.getLogger(__name__)

MAGIC = b"sparkopt learnt stream 1\n"
MODEL, BATCHES, SPARKS = "model", "batches", "spark"
USUAL = 20
"""Batches whose losses are the usual ones."""
LEAST = 3
"""Batches from which a spread is known."""
FIGURES = ("batch", "rows", "steps", "loss", "usualLoss", "drift")
"""Of each batch: its number, its rows, steps so far, mean loss before it was learnt, the mean of those of the batches
before, and by how many of their standard deviations it is above that mean."""


@dataclass(frozen=True)
class _Learnt:
    """What the file holds in addition to the model.

    Attributes
    ----------
    batch : int
        Number of the last batch that was learnt.
    query : str or None
        The stream that numbers the batches.
    offsets : str or None
        Where the batch began and ended in its sources, as Spark noted it.
    losses : list of float
        Of the last batches, each before it was learnt.
    """

    batch: int
    query: str | None
    offsets: str | None
    losses: list[float]


class StreamTrainer:
    """Learns from batch after batch, each exactly once, whenever the process is killed.

    ``start`` runs it on a structured stream. It may also be called with batches and their numbers, from 0.

    Below ``path`` are the file ``model``, which `LatestModel` reads; the folder ``batches`` with one line of JSON for
    each batch, written before it is learnt; and the folder ``spark``, the stream's checkpoint.

    Parameters
    ----------
    estimator : LinearEstimator
        Takes the steps, by ``partialFit``; with ``initialModel`` it begins there.
    path : str
        A folder, or its URI.
    steps : int, default 1
        Steps on each batch.

    Raises
    ------
    ParameterError
        Where the path cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> from sparkopt.ml import LogisticRegression
    >>> folder = tempfile.mkdtemp()
    >>> trainer = StreamTrainer(LogisticRegression(optimizer="adam", stepSize=0.1), f"{folder}/learnt")
    >>> for number, batch in enumerate(df.randomSplit([0.5, 0.5], seed=1)):
    ...     trainer(batch, number)
    >>> trainer(df, 1)  # it is learnt already
    >>> LatestModel(f"{folder}/learnt").get().onlineState.batches
    2
    """

    def __init__(self, estimator: Any, path: str, steps: int = 1) -> None:
        self.estimator, self.path = estimator, path
        self.steps = check("steps", steps, Interval(1, None, whole=True))

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels to the server's Python on Spark Connect: a summary's rows stay with the client."""
        estimator = self.estimator
        if getattr(estimator.initialModel, "_summary", None) is not None:
            estimator = estimator.copy()
            estimator.initialModel = estimator.initialModel.copy()
            estimator.initialModel._summary = None
        return {**vars(self), "estimator": estimator}

    def start(self, stream: Any, trigger: dict[str, Any] | None = None, name: str | None = None) -> StreamingQuery:
        """Learn from a streaming DataFrame; return Spark's StreamingQuery.

        Parameters
        ----------
        stream : DataFrame
            Of ``spark.readStream``.
        trigger : dict, optional
            Arguments of Spark's ``DataStreamWriter.trigger``, as ``{"availableNow": True}``; None takes each batch as
            soon as the one before it was learnt.
        name : str, optional
            Name of the query.

        Raises
        ------
        ParameterError
            For a DataFrame that is no stream.
        """
        if not getattr(stream, "isStreaming", False):
            raise ParameterError("stream must be a DataFrame of spark.readStream. For other rows call partialFit.")
        check_online(self.estimator, stream)
        self._prepare()
        writer = stream.writeStream.foreachBatch(self).option("checkpointLocation", child_uri(self.path, SPARKS))
        writer = writer if name is None else writer.queryName(name)
        query: StreamingQuery = (writer if trigger is None else writer.trigger(**trigger)).start()
        return query

    def __call__(self, batch: Any, batchId: int) -> None:
        """Learn from a batch, unless that is done already.

        Raises
        ------
        IncompatibleError
            Where batches are missing, or of another stream than those that were learnt.
        """
        folder = resolve(self.path, "path")
        found = _read(folder.child(MODEL))
        model, learnt = found or (None, _Learnt(-1, None, None, []))
        query, offsets = _noted(folder, batchId)
        if _is_learnt(learnt, batchId, query, offsets, folder):
            logger.info("batch %d is learnt already", batchId)
            return
        losses, steps = learnt.losses, 0 if model is None else model.onlineState.steps
        record = dict.fromkeys(FIGURES) | {"batch": batchId, "rows": 0, "steps": steps}
        if not _is_empty(batch):
            model = self.estimator.partialFit(batch, model, steps=self.steps)
            record = _record(batchId, model.onlineState, losses)
            losses = [*losses, model.onlineState.loss][-USUAL:]
        logger.info("batch %d: %s", batchId, record)
        self._keep(folder, model, _Learnt(batchId, query, offsets, losses), record)

    def _keep(self, folder: Location, model: Any, learnt: _Learnt, record: dict[str, Any]) -> None:
        """Write the batch's line, and then what was learnt: a batch that comes again writes the same line."""
        try:
            folder.child(BATCHES).make_folder()
            _line(folder, learnt.batch).write(json.dumps(record).encode() + b"\n")
            if model is not None:  # there is none as long as batches are empty
                folder.child(MODEL).write(_content(model, learnt))
        except STORAGE_ERRORS as error:
            raise folder.unusable(error) from None

    def _prepare(self) -> None:
        """Delete what a killed process had begun to write."""
        folder = resolve(self.path, "path")
        try:
            folder.make_folder()
            for info in [*folder.listed(), *folder.child(BATCHES).listed()]:
                if info.path.endswith(UNFINISHED):
                    folder.filesystem.delete_file(info.path)
        except STORAGE_ERRORS as error:
            raise folder.unusable(error) from None


class LatestModel:
    """The newest model that a `StreamTrainer` has learnt, for functions and streams that score with it meanwhile.

    Parameters
    ----------
    path : str
        The trainer's.

    Examples
    --------
    In a stream, each batch is scored with the newest model:

    >>> import tempfile
    >>> from sparkopt.ml import LogisticRegression
    >>> folder = tempfile.mkdtemp()
    >>> StreamTrainer(LogisticRegression(), f"{folder}/newest")(df, 0)
    >>> latest = LatestModel(f"{folder}/newest")
    >>> def score(batch, number):
    ...     latest.transform(batch).select("prediction").write.mode("append").parquet(f"{folder}/scored")
    >>> score(held_out, 0)
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._content: bytes | None = None
        self._model: Any = None

    def get(self) -> Any:
        """Return the model; the file is read at each call, and made a model where it was replaced.

        Raises
        ------
        DataError
            Where nothing was learnt so far.
        CorruptDataError
            Where the file was altered.
        """
        place = resolve(self.path, "path").child(MODEL)
        content = _bytes(place)
        if content is None:
            raise DataError(f"{place.shown}: no batch was learnt there so far.")
        if content != self._content:
            self._model, self._content = _restored(content, place.path)[0], content
        return self._model

    def transform(self, dataset: Any) -> Any:
        """Return rows scored with the newest model: a batch of ``foreachBatch``, or whatever ``transform`` takes.

        Raises
        ------
        ParameterError
            For a stream itself, whose model would stay the one of now.
        """
        if getattr(dataset, "isStreaming", False):
            raise ParameterError(
                "a stream keeps the model that it began with. Call this on each batch, in writeStream.foreachBatch; "
                "get().transform(stream) scores with the model of now."
            )
        return self.get().transform(dataset)


def _is_learnt(learnt: _Learnt, batch: int, query: str | None, offsets: str | None, folder: Location) -> bool:
    """Whether a batch is part of the model, or refuse one that is not the next."""
    if learnt.batch >= 0 and query != learnt.query:
        raise IncompatibleError(
            f"{folder.shown} has learnt from another stream, which numbers its batches from 0 again: was its folder "
            f"{SPARKS!r} deleted? Give an empty folder, and initialModel=LatestModel(path).get() to go on from there."
        )
    if batch == learnt.batch and offsets != learnt.offsets:
        raise IncompatibleError(
            f"{folder.shown} has learnt batch {batch} with other rows than those that come now: its folder "
            f"{SPARKS!r} was changed. Give an empty folder."
        )
    if batch > learnt.batch + 1 and not (learnt.batch < 0 and _was_empty(folder, batch - 1)):
        raise IncompatibleError(
            f"{folder.shown} has learnt the batches up to {learnt.batch}, and batch {batch} comes: what is between "
            f"is lost. Restore the file {MODEL!r}, or give an empty folder."
        )
    return batch <= learnt.batch


def _was_empty(folder: Location, batch: int) -> bool:
    """Whether no batch up to this one had a row."""
    line = _bytes(_line(folder, batch))
    return line is not None and json.loads(line)["steps"] == 0


def _line(folder: Location, batch: int) -> Location:
    return folder.child(BATCHES, f"{batch:010d}.json")


def _noted(folder: Location, batch: int) -> tuple[str | None, str | None]:
    """Return Spark's name of the stream that has its checkpoint below a folder, and the offsets of a batch."""
    metadata = _bytes(folder.child(SPARKS, "metadata"))
    if metadata is None:
        return None, None
    offsets = _bytes(folder.child(SPARKS, "offsets", str(batch)))
    return json.loads(metadata)["id"], None if offsets is None else _sources(offsets.decode())


def _sources(text: str) -> str:
    """Return the lines of the sources: the first two are a version and the moment."""
    return "\n".join(text.splitlines()[2:])


def _is_empty(batch: Any) -> bool:
    rows = rows_of(batch)
    if isinstance(rows, Table):
        return not any(found.num_rows for part in rows.partitions for found in part.batches())
    return bool(rows.isEmpty())


def _record(batch: int, state: Any, losses: list[float]) -> dict[str, Any]:
    """Return the figures of a batch; ``losses`` are those of the batches before it."""
    usual, spread = (float(np.mean(losses)), float(np.std(losses))) if losses else (None, 0.0)
    drift = (state.loss - usual) / spread if usual is not None and len(losses) >= LEAST and spread > 0 else None
    return dict(zip(FIGURES, (batch, state.rows, state.steps, state.loss, usual, drift), strict=True))


def _content(model: Any, learnt: _Learnt) -> bytes:
    session: Any = FileSession()
    facts = digested(model, session, numbers_of(model))
    text = DefaultParamsWriter._get_metadata_to_save(model, session, facts)
    metadata = {b"metadata": text.encode(), b"learnt": json.dumps(vars(learnt)).encode()}
    table, body = table_of(model).replace_schema_metadata(metadata), pa.BufferOutputStream()
    with pa.ipc.new_stream(body, table.schema) as stream:
        stream.write_table(table)
    return seal(MAGIC, body.getvalue().to_pybytes())


def _read(place: Location) -> tuple[Any, _Learnt] | None:
    content = _bytes(place)
    return None if content is None else _restored(content, place.path)


def _restored(content: bytes, path: str) -> tuple[Any, _Learnt]:
    with damage(path):
        table: pa.Table = pa.ipc.open_stream(unseal(MAGIC, content)).read_all()
        known = table.schema.metadata or {}
        if table.num_rows != 1 or {b"metadata", b"learnt"} - known.keys():
            raise CorruptDataError("it has no model")
        metadata = json.loads(known[b"metadata"])
        (row,) = table.to_pylist()
        return restored(class_named(metadata["class"]), metadata, row), _Learnt(**json.loads(known[b"learnt"]))


def _bytes(place: Location) -> bytes | None:
    """Return a file's content, or None where there is no file."""
    try:
        return place.read() if place.exists() else None
    except STORAGE_ERRORS as error:
        raise place.unusable(error) from None
