"""NetworkScorer: from Arrow columns to a network's output columns, in Spark's tasks and for a table's rows."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import ArrayType, DataType, DoubleType, StructType

from sparkopt.blocks.invalid import SCORING_HINT
from sparkopt.blocks.row_functions import once, row_wise
from sparkopt.deep.batch import Decoder, on_device
from sparkopt.deep.image_pipelines import network_pipeline
from sparkopt.deep.loaded import loaded_modules
from sparkopt.deep.outputs import Outputs
from sparkopt.deep.partial_weights import load_weights
from sparkopt.deep.row_step import chosen_output
from sparkopt.errors import CorruptImageError, DataError
from sparkopt.io.worker import spare_modules
from sparkopt.launch.checkpoints import module_state
from sparkopt.launch.devices import choose
from sparkopt.launch.threads import task_cores
from sparkopt.shards.dense import stored
from sparkopt.shards.fields import Field, Fields, MissingValueError
from sparkopt.shards.groups import contents
from sparkopt.shards.missing import RowCheck
from sparkopt.shards.places import paths_of
from sparkopt.shards.ragged import RowArray
from sparkopt.typing import Array
from sparkopt.values import dataclass

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["NetworkScorer", "placed"]

INPUT, SCORES = "__sparkopt_input", "__sparkopt_scores"

_Scored: TypeAlias = "Callable[[list[pa.Array], int], pa.Array]"
"""From columns, and the number of their first row, to outputs."""


@dataclass(frozen=True)
class NetworkScorer:
    """Scores rows: from feature columns to output columns."""

    build: Any
    weights: bytes = field(repr=False)
    outputs: Outputs
    fields: Fields
    pipeline: str | None
    device: str
    batch_size: int
    wanted: tuple[str, ...]
    keeps: bool
    token: str
    output_key: str | None = None

    @staticmethod
    def load(build: Any, weights: bytes) -> nn.Module:
        """Return the network with its weights, ready to evaluate."""
        from torch import nn

        module: nn.Module = copy.deepcopy(build) if isinstance(build, nn.Module) else build()
        load_weights(module, module_state(weights))
        return module.eval()

    def added(self, rows: DataFrame, names: Mapping[str, str], drops: bool = False) -> DataFrame:
        """Return a DataFrame with the outputs, each under its name; the network is evaluated once for each row.

        Filters of other columns that follow are applied before, those of outputs after the network; ``drops`` leaves
        out rows without outputs.
        """
        kinds, returned = self.outputs.types(), StructType()
        for key in self.wanted:
            # as arrays, since Spark 4.3 takes no Vectors from a function over columnar input (Parquet, cached rows)
            returned = returned.add(key, ArrayType(DoubleType()) if kinds[key] == VectorUDT() else kinds[key])
        inputs = {f"{INPUT}{number}": column for number, column in enumerate(self._inputs(rows.schema))}
        function = _over_one(self) if len(inputs) == 1 else _over_several(self)
        scores = arrow_udf(function, returned)  # type: ignore[call-overload]  # its stubs lack iterators
        scored = once(row_wise(rows, inputs).withColumn(SCORES, scores(*map(F.col, inputs))), SCORES)
        kept = scored.where(F.col(SCORES).isNotNull()) if drops else scored
        # by what they are not: several of the user's columns may have one name
        own = F.expr(f"* EXCEPT ({', '.join([*inputs, SCORES])})")
        return kept.select(own, *[_output(kinds[key], F.col(f"{SCORES}.{key}")).alias(names[key]) for key in names])

    def _inputs(self, schema: StructType) -> list[Column]:
        columns = [entry.expression(schema) for entry in self.fields.inputs]
        pairs = zip(self.fields.inputs, columns, strict=True)
        return [F.unwrap_udt(column) if entry.kind == "vector" else column for entry, column in pairs]

    @contextmanager
    def network(self) -> Iterator[tuple[Callable[..., torch.Tensor], torch.device]]:
        """Give what computes the network's outputs of columns of Arrow, and the device that they are on.

        It is given the columns, and the number of their first row, for errors. The process keeps the loaded network
        for its next task.
        """
        import torch

        context = TaskContext.get()
        if context is not None:  # other tasks use the other cores
            torch.set_num_threads(task_cores())
        spare_modules()
        gpus = context.resources().get("gpu") if context is not None else None
        device = torch.device(choose(self.device, gpus.addresses if gpus is not None else ())[0])
        decoder = Decoder(self.fields, None if self.pipeline is None else network_pipeline(self.pipeline))

        def load() -> nn.Module:
            return self.load(self.build, self.weights).to(device)

        def outputs(rows: list[pa.Array], first: int = 0) -> torch.Tensor:
            columns = {e.name: _read(e, array, first) for e, array in zip(self.fields.inputs, rows, strict=True)}
            place = functools.partial(_place, first, self.fields.inputs, rows)
            with torch.inference_mode():
                inputs = decoder.inputs(columns, place)
                found = module(*[on_device(tensor, device) for tensor in inputs])
            return chosen_output(found, self.output_key)

        with loaded_modules.lent((self.token, str(device)), len(self.weights), load) as module:
            yield outputs, device

    def __call__(self, batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        """Score Arrow batches, one or more batches of the network at a time."""
        with self.network() as (network, _):

            def scored(rows: list[pa.Array], first: int) -> pa.Array:
                found = self.outputs.columns(network(rows, first))
                return pa.StructArray.from_arrays([found[key] for key in self.wanted], list(self.wanted))

            score, first = self._valid(scored) if self.keeps else scored, 0
            for arrays in batches:
                starts = range(0, max(1, len(arrays[0])), self.batch_size)
                slices = [[array.slice(start, self.batch_size) for array in arrays] for start in starts]
                found = [score(rows, first + start) for rows, start in zip(slices, starts, strict=True)]
                first += len(arrays[0])
                yield pa.concat_arrays(found)

    def _valid(self, scored: _Scored) -> _Scored:
        """Return what gives null outputs for invalid rows; these are only looked for where scoring fails."""
        return functools.partial(self._of_valid, scored)

    def _of_valid(self, scored: _Scored, rows: list[pa.Array], first: int) -> pa.Array:
        try:
            return scored(rows, first)
        except (DataError, CorruptImageError):
            valid = RowCheck(self.fields.inputs, self.pipeline).valid(rows)
            if valid is None:
                raise
        if valid.any():
            return _with_nulls(scored([array.filter(pa.array(valid)) for array in rows], first), valid)
        import torch

        none = self.outputs.columns(torch.zeros(1, self.outputs.size))  # of their types
        return _with_nulls(pa.StructArray.from_arrays([none[key] for key in self.wanted], list(self.wanted)), valid)


def _with_nulls(found: pa.Array, valid: Array) -> pa.Array:
    """Return a struct of outputs of valid rows, with null in between for the others."""
    places = pa.array(np.maximum(np.cumsum(valid) - 1, 0), mask=~valid)
    columns = [column.take(places) for column in found.flatten()]
    return pa.StructArray.from_arrays(columns, [field.name for field in found.type], mask=pa.array(~valid))


def _output(kind: DataType, scored: Column) -> Column:
    """Return an output in its own type."""
    if kind != VectorUDT():
        return scored
    from pyspark.ml.functions import array_to_vector  # here, since it loads pandas and tasks import this module

    return F.when(scored.isNotNull(), array_to_vector(scored))


def _read(entry: Field, array: pa.Array, first: int) -> RowArray:
    """Return the rows of an input, of which the first has this number in its partition."""
    try:
        values = stored(entry, array)
    except DataError as error:
        hint = f" {SCORING_HINT}" if isinstance(error, MissingValueError) else ""
        raise DataError(f"features column {entry.title!r}, {placed(error, first)}.{hint}") from None
    if isinstance(values, pa.Array):
        return contents(values)
    return np.array(values) if isinstance(values, np.ndarray) and not values.flags.writeable else values


def placed(error: DataError, first: int) -> str:
    """Return what is wrong with a row, by its number in its partition, of which the first row here is ``first``."""
    return _partition() + re.sub(r"^row (\d+)", lambda row: f"row {int(row[1]) + first}", str(error))


def _place(first: int, fields: Sequence[Field], columns: Sequence[pa.Array], row: int) -> str:
    """Return where a row is, of columns whose first row has this number in its partition."""
    text, paths = f"{_partition()}row {first + row}", paths_of(fields, [one.slice(row, 1) for one in columns])
    return text if paths is None else f"{text} ({paths[0]})"


def _partition() -> str:
    context = TaskContext.get()
    return "" if context is None else f"partition {context.partitionId()}, "


def _over_one(scorer: NetworkScorer) -> Callable[[Iterator[pa.Array]], Iterator[pa.Array]]:
    def score(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        yield from scorer((column,) for column in columns)

    return score


def _over_several(scorer: NetworkScorer) -> Callable[[Iterator[tuple[pa.Array, ...]]], Iterator[pa.Array]]:
    def score(columns: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        yield from scorer(columns)

    return score
