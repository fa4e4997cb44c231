"""Jobs on this machine, without Spark or Java: rows are read, scored and written by its worker processes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparkopt.blocks.columns import number_type
from sparkopt.blocks.invalid import finite_numbers
from sparkopt.blocks.tables import spark_schema
from sparkopt.errors import DataError, SchemaError, SparkoptError
from sparkopt.io.filesystem import STORAGE_ERRORS, brief
from sparkopt.io.secrets import mask
from sparkopt.jobs.invalid_rows import last_stage, mode_of, with_mode
from sparkopt.jobs.locations import JobLocation, machine_location
from sparkopt.jobs.metrics import ScoredRows, is_classifier
from sparkopt.jobs.raw_rows import hidden_columns
from sparkopt.jobs.reading import arrow_types, check_columns, csv_format, has_header
from sparkopt.jobs.runtimes.base import InputRows, Runtime, Written
from sparkopt.jobs.runtimes.files import fingerprint_of
from sparkopt.jobs.runtimes.libsvm import libsvm_table
from sparkopt.jobs.runtimes.machine_files import WritePart, written_columns
from sparkopt.jobs.runtimes.machine_rows import image_table, split_table
from sparkopt.jobs.runtimes.pooled import LITTLE, for_each
from sparkopt.jobs.runtimes.values import ArrayValues, column_values
from sparkopt.jobs.sources import FEATURES, IMAGES, LABEL, DataSource, feature_columns_of, with_image_shape
from sparkopt.machine import ProcessPool, Table, TablePart
from sparkopt.typing import Floats
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from pyspark.ml import Model
    from pyspark.sql.types import StructType

    from sparkopt.images import ImageKernel
    from sparkopt.jobs.runtimes.images import ImageRows

__all__ = ["MachineRuntime"]


class MachineRuntime(Runtime):
    """A job on this machine."""

    name = "machine"
    failures = tuple(kind for kind in STORAGE_ERRORS if kind is not OSError)

    @classmethod
    @contextmanager
    def opened(cls, profile: str, app_name: str, settings: Mapping[str, str]) -> Iterator[MachineRuntime]:
        """Yield a runtime; its worker processes start when there is something to do, and end with this process."""
        yield cls()

    @staticmethod
    def essence(error: Exception) -> str:
        """Return an error as one sentence."""
        return str(error) if isinstance(error, SparkoptError) else brief(error)

    def where(self) -> Mapping[str, str | None]:
        """Return that Spark did not run."""
        return {"master": None, "application": None}

    def location(self, path: str) -> JobLocation:
        return machine_location(path)

    def fingerprint_of_files(self, *paths: str) -> dict[str, Any]:
        return fingerprint_of(*paths)

    def fingerprint(self, source: DataSource) -> dict[str, Any]:
        found = fingerprint_of(*source.paths)
        if found["bytes"] > LITTLE and source.kind != IMAGES:
            _start_workers()
        return {source.kind: mask(str(source)), **found}

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
        source: DataSource = args.source
        if source.kind == IMAGES:
            shaped = args if encoded else with_image_shape(args, width)
            table, names = image_table(shaped, labels, encoded=encoded, invalid=invalid)
            return InputRows(table, None if encoded else FEATURES, LABEL, None, names)
        try:
            table = _table(source, width, known)
        except SparkoptError as error:
            raise DataError(f"cannot read {mask(str(source))!r}: {mask(str(error))}") from error
        return InputRows(table, feature_columns_of(self.schema(table), args.features), args.label, args.weight)

    def schema(self, rows: Table) -> StructType:
        return spark_schema(rows.schema)

    def first(self, rows: Table, column: str) -> Any:
        batches = (batch for part in rows.partitions for batch in part.batches([column]))
        valid = (value for batch in batches for value in batch.column(0) if value.is_valid)
        found = next(valid, None)
        return None if found is None else found.as_py()

    def split(self, rows: Table, fraction: float, seed: int) -> tuple[Table, Table]:
        return split_table(rows, fraction, seed)

    def load(self, module: str, name: str, uri: str) -> Model:
        loaded: Model = getattr(import_module(module), name).load(uri)
        return loaded

    def save(self, model: Any, location: JobLocation) -> None:
        model.write().overwrite().save(location.uri)

    def images(self, options: argparse.Namespace, kernel: ImageKernel, output: JobLocation) -> ImageRows:
        from sparkopt.jobs.runtimes.machine_images import MachineImages

        return MachineImages(options, kernel, output)

    @contextmanager
    def scored(self, model: Any, rows: Table, label: str, weight: str | None = None) -> Iterator[ScoredRows]:
        schema = self.schema(rows)
        number_type(schema, label, "label")
        if weight is not None:
            number_type(schema, weight, "weight")
        last = last_stage(model)
        outputs = [name for name in ("prediction", "probability", "rawPrediction") if last.hasParam(f"{name}Col")]
        columns = {name: last.getOrDefault(f"{name}Col") for name in outputs}
        mode = mode_of(model)
        found = (model if mode == "error" else with_mode(model, "keep")).transform(rows)
        present = {name: column for name, column in columns.items() if column in found.schema.names}
        if "prediction" not in present:
            raise SchemaError("the model's predictionCol is empty: there is nothing to evaluate.")
        judged = is_classifier(model)
        judge = _JudgePart(label, weight, present, judged, mode != "error")
        parts = for_each(judge, found.partitions, rows.bytes, "evaluate")
        invalid = sum(part.invalid for part in parts) if judge.skips else None
        yield ScoredRows(_joined([part.arrays for part in parts]), judged, invalid)

    def write_scores(
        self,
        model: Any,
        rows: Table,
        kept: Sequence[str],
        target: JobLocation,
        *,
        form: str,
        mode: str,
        labels: Sequence[str] = (),
    ) -> tuple[list[str], Written]:
        invalid_rows = mode_of(model)
        scored = (with_mode(model, "keep") if invalid_rows == "skip" else model).transform(rows)
        hidden = hidden_columns(model)
        made = [name for name in scored.schema.names if name not in rows.schema.names and name not in hidden]
        names, last = [*kept, *made], last_stage(model)
        column = last.getOrDefault("predictionCol") if last.hasParam("predictionCol") else ""
        schema = written_columns(pa.schema([scored.schema.field(name) for name in names]), form)
        if labels and column in names:
            schema = schema.set(names.index(column), pa.field(column, pa.string()))
        target.make_folder()
        told = made[0] if made and invalid_rows != "error" else ""
        write = WritePart(
            target.uri,
            tuple(names),
            schema,
            form,
            column if column in names else "",
            told,
            invalid_rows == "skip",
            tuple(labels),
        )
        found = for_each(write, list(enumerate(scored.partitions)), rows.bytes, "score")
        count = sum(part.rows for part in found)
        invalid = sum(part.invalid for part in found) if told else None
        if not column or column not in names:
            return made, Written(count, None, invalid)
        predictions = np.concatenate([part.predictions for part in found]) if found else np.zeros(0)
        return made, Written(count, ArrayValues({"prediction": predictions}), invalid)


def _start_workers() -> None:
    """Let the worker processes start, and load what rows are read and scored with, while this process does so too."""
    with ProcessPool.shared() as pool:
        pool.start()
        pool.tell(_load)


def _load(_: None) -> None:
    import_module("sparkopt.ml")


def _table(source: DataSource, width: int, known: Mapping[str, str]) -> Table:
    """Return the rows of files."""
    if source.kind == "libsvm":
        return libsvm_table(*source.paths, width=int(source.options.get("numFeatures", width)))
    if source.kind != "csv":
        return Table.of(list(source.paths))
    header, form = has_header(source.options), csv_format(source.options)
    found = Table.of(list(source.paths), header=header, csv=form)
    check_columns(source.types, source.options, found.names)
    types = {**_types_of(known, found.schema), **source.types}
    return Table.of(list(source.paths), header=header, csv=form, types=arrow_types(types)) if types else found


def _types_of(known: Mapping[str, str], schema: pa.Schema) -> dict[str, str]:
    """Return the types of columns that are not of the type that a model knows."""
    kinds = {field.name: field.type for field in schema}
    text = [
        name
        for name, kind in known.items()
        if kind == "string" and not pa.types.is_string(kinds.get(name, pa.string()))
    ]
    numbers = [name for name, kind in known.items() if kind == "number" and kinds.get(name) == pa.null()]
    return {**dict.fromkeys(text, "string"), **dict.fromkeys(numbers, "double")}


@dataclass(frozen=True)
class _Judged:
    """Numbers of a part's rows: an array of each, with how many rows have none; and how many were left out."""

    arrays: dict[str, tuple[Floats, int]]
    invalid: int


@dataclass(frozen=True)
class _JudgePart:
    """The task: what metrics and charts need of a part's rows, in arrays by name."""

    label: str
    weight: str | None
    outputs: Mapping[str, str]
    is_classifier: bool
    skips: bool

    def __call__(self, part: TablePart) -> _Judged:
        numbers = [self.label, *([self.weight] if self.weight else [])]
        pieces, invalid = [], 0
        for batch in part.batches(list(dict.fromkeys([*numbers, *self.outputs.values()]))):
            valid = finite_numbers(batch, numbers, self.outputs["prediction"]) if self.skips else None
            kept = batch if valid is None else batch.filter(pa.array(valid))
            invalid += batch.num_rows - kept.num_rows
            pieces.append(self._judged(kept))
        arrays = {
            name: (np.concatenate([piece[name][0] for piece in pieces]), sum(piece[name][1] for piece in pieces))
            for name in (pieces[0] if pieces else {})
        }
        return _Judged(arrays, invalid)

    def _judged(self, batch: pa.RecordBatch) -> dict[str, tuple[Floats, int]]:
        label = column_values(batch.column(self.label))
        prediction = column_values(batch.column(self.outputs["prediction"]))
        found = {"label": label, "prediction": prediction, "residual": (prediction[0] - label[0], 0)}
        if self.weight:
            found["weight"] = column_values(batch.column(self.weight))
        if self.is_classifier:
            entries = {
                name: _matrix(batch.column(self.outputs[name]))
                for name in ("probability", "rawPrediction")
                if name in self.outputs
            }
            found |= _shares(entries, label[0])
        return found


def _shares(entries: Mapping[str, Floats], label: Floats) -> dict[str, tuple[Floats, int]]:
    """Return share, score and margin, as ``ScoredRows`` has them."""
    found = {}
    if "probability" in entries:
        shares = entries["probability"]
        place = np.nan_to_num(label, nan=-1.0).astype(np.intp)
        inside = (place >= 0) & (place < shares.shape[1])
        share = np.where(inside, shares[np.arange(len(place)), np.where(inside, place, 0)], np.nan)
        found["share"] = (share, int((~inside).sum()))
    first = next(iter(entries.values()), None)
    if first is not None and first.shape[1] > 1:
        found["score"] = (first[:, 1], 0)
    if "rawPrediction" in entries and entries["rawPrediction"].shape[1] == 2:
        found["margin"] = (entries["rawPrediction"][:, 1], 0)
    return found


def _matrix(column: pa.Array) -> Floats:
    """Return lists of one length as a matrix."""
    values = column.flatten().to_numpy(zero_copy_only=False)
    found: Floats = values.reshape(len(column), -1) if len(column) else values.reshape(0, 0)
    return found


def _joined(parts: Sequence[Mapping[str, tuple[Floats, int]]]) -> ArrayValues:
    """Return the values of all parts."""
    some = [part for part in parts if part and len(part["label"][0])]
    if not some:
        return ArrayValues({"label": np.zeros(0)})
    arrays = {name: np.concatenate([part[name][0] for part in some]) for name in some[0]}
    return ArrayValues(arrays, {name: sum(part[name][1] for part in some) for name in some[0]})
