"""What a fit would do, from one cheap look at the data: sizes, the engine, and what would make it cheaper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkopt.blocks import classic, connect
from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.columns import SPARSE_BELOW, Columns, feature_matrix, features_type, quoted
from sparkopt.codecs.gradient import gradient_codec
from sparkopt.communication.autotune import CANDIDATES, LEAST_BYTES
from sparkopt.communication.encoding import SPARSE
from sparkopt.engines.resident import APART_BYTES
from sparkopt.engines.selection import ENGINES, PASSES, Choice, Sizes, available, choose
from sparkopt.errors import DataError

__all__ = ["Look", "Plan"]

SAMPLE = 256
"""Rows of features that are looked at."""

SKEW = 2.0
"""How many times the mean a partition may hold before it is worth a word: all others wait for it."""

LENGTH = 1 << 16
"""Numbers that are encoded to see how many bytes a codec takes for each."""

WIDE_TREE = 50
"""Sums that one process should add at most; more of them ask for a deeper tree."""


@dataclass(frozen=True)
class Look:
    """What is seen of a DataFrame: the labels of all rows, and the features of a few.

    Attributes
    ----------
    rows : list of int
        Rows of each partition that has any.
    partitions : int
        Number of partitions, empty ones included (on Spark Connect, but for empty ones at the end).
    features : int
        Number of features.
    row_bytes : float
        Bytes that a row takes in blocks.
    is_sparse : bool
        Whether blocks would be sparse.
    target_max : float
        Largest label.
    row_entries : float, default 0
        Entries of a row that are stored: without zeros where rows are sparse.
    """

    rows: Sequence[int]
    partitions: int
    features: int
    row_bytes: float
    is_sparse: bool
    target_max: float
    row_entries: float = 0.0

    @classmethod
    def at(cls, df: DataFrame, columns: Columns) -> Look:
        """Look: one aggregation over the label column, and the first rows of the features.

        Raises
        ------
        SchemaError
            For a wrong column.
        DataError
            Where there are no rows.
        """
        columns.check(df.schema)
        label = F.col(quoted(columns.label)).cast("double")
        counted = df.select(label.alias("label"), F.spark_partition_id().alias("partition"))
        totals = F.count(F.lit(1)).alias("rows"), F.max("label").alias("top")
        found = counted.groupBy("partition").agg(*totals).collect()
        if not found:
            raise DataError("there are no rows to train on: the DataFrame is empty.")
        first = columns.select(df).select("features").limit(SAMPLE).toArrow().column("features")
        X = feature_matrix(pa.concat_arrays(first.chunks) if first.num_chunks != 1 else first.chunk(0))
        narrow = features_type(df.schema, columns.features) == "float"
        number = 4 if narrow else 8
        stored = X.size if isinstance(X, np.ndarray) else X.nnz
        is_sparse = not isinstance(X, np.ndarray) and stored < SPARSE_BELOW * X.shape[0] * X.shape[1]
        per_row = stored / X.shape[0] * (number + 4) if is_sparse else X.shape[1] * number
        beside = 8 * (1 + sum(name is not None for name in (columns.weight, columns.offset)))
        last = max(row["partition"] for row in found)
        partitions = 1 + last if is_connect(df) else df.rdd.getNumPartitions()
        tops = [row["top"] for row in found if row["top"] is not None]
        return cls(
            [row["rows"] for row in found],
            partitions,
            X.shape[1],
            per_row + beside,
            is_sparse,
            max(tops, default=0.0),
            stored / X.shape[0],
        )


@dataclass(frozen=True)
class Plan:
    """What a fit would do. Print it.

    Attributes
    ----------
    look : Look
        The data.
    coefficients : int
        Length of a coefficient vector.
    choice : Choice
        The engine, and what each one would take.
    depth : int
        Levels of the driver engine's tree.
    has_rdds : bool, default True
        Whether the session has what all engines but the driver's need.
    compression : str, default "none"
        How sums travel.
    """

    look: Look
    coefficients: int
    choice: Choice
    depth: int
    has_rdds: bool = True
    compression: str = "none"

    @classmethod
    def of(
        cls,
        df: DataFrame,
        look: Look,
        coefficients: int,
        engine: str,
        share: float,
        depth: int,
        compression: str = "none",
    ) -> Plan:
        """Plan a fit.

        Parameters
        ----------
        df : DataFrame
            The rows.
        look : Look
            What was seen of them.
        coefficients : int
            Length of a coefficient vector.
        engine : str
            The engine that was asked for.
        share : float
            Share of the rows that a step reads.
        depth : int
            Levels of the driver engine's tree.
        compression : str, default "none"
            The compression that was asked for.
        """
        context = None if is_connect(df) else df.sparkSession.sparkContext
        slots = connect.slots_of(df.sparkSession) if context is None else classic.slots_of(context)
        stored = round(sum(look.rows) * look.row_bytes * share)
        sizes = Sizes(stored, 8 * coefficients, look.partitions, slots)
        allowed = available(context) if engine == "auto" else [engine]
        return cls(look, coefficients, choose(sizes, allowed), depth, context is not None, compression)

    @property
    def advice(self) -> list[str]:
        """What would make the fit cheaper, each in a sentence."""
        look, sizes = self.look, self.choice.sizes
        found = []
        if look.partitions < sizes.slots and self.choice.engine != "local":
            found.append(
                f"{look.partitions} partitions leave {sizes.slots - look.partitions} of {sizes.slots} task slots "
                f"idle: df.repartition({2 * sizes.slots})."
            )
        mean = sum(look.rows) / look.partitions
        if max(look.rows) > SKEW * mean and look.partitions > 1:
            found.append(
                f"the largest partition holds {max(look.rows):,} rows, {max(look.rows) / mean:.1f} times the mean, "
                f"and every pass waits for it: df.repartition({max(look.partitions, sizes.slots)})."
            )
        fastest = choose(sizes, ENGINES[1:])
        gain = self.choice.seconds[self.choice.engine] / fastest.seconds[fastest.engine]
        if gain > 1.5:
            how = "install PyTorch" if fastest.engine == "allreduce" else f"engine={fastest.engine!r}"
            how = how if self.has_rdds else "use a Spark Classic session"
            found.append(f"engine {fastest.engine} would be about {gain:.1f} times faster: {how}.")
        if self.choice.engine == "driver" and look.partitions ** (1 / self.depth) > WIDE_TREE:
            found.append(f"{look.partitions} partitions ask for a deeper tree: aggregationDepth={self.depth + 1}.")
        return found

    @property
    def senders(self) -> int:
        """How many sums leave a process in a pass: of partitions, or of tasks that add theirs up first."""
        engine, sizes = self.choice.engine, self.choice.sizes
        tasks = min(sizes.slots, sizes.partitions)
        if engine == "local":
            return 0
        is_apart = engine == "resident" and sizes.partitions * sizes.summed <= tasks * APART_BYTES
        return sizes.partitions if engine == "driver" or is_apart else tasks

    def encoded_bytes(self, name: str) -> int:
        """Return the bytes of one sum as a gradient codec writes it: measured on numbers of that length."""
        codec = gradient_codec(name)
        most = self.coefficients if codec.whole else min(self.coefficients, LENGTH)
        numbers = np.random.default_rng(0).normal(size=most)
        payload, _ = codec.encode(numbers, codec.init(most), np.random.default_rng(0))
        return round(len(payload) * self.coefficients / most)

    @property
    def sums(self) -> str:
        """How sums travel, and in how many bytes a pass."""
        raw = self.senders * self.choice.sizes.summed
        if not raw:
            return "do not travel: one task holds all rows"
        if self.compression == "auto":
            tried = ", ".join(f"{name} {_bytes(self.senders * self.encoded_bytes(name))}" for name in CANDIDATES)
            if self.choice.sizes.summed < LEAST_BYTES:
                return f"{_bytes(raw)} a pass, as float64: auto tries nothing below {_bytes(LEAST_BYTES)} a sum"
            return f"{_bytes(raw)} a pass; if the first steps wait for them, auto times {tried}"
        if self.compression != "none":
            sent = self.senders * self.encoded_bytes(self.compression)
            return f"{_bytes(sent)} a pass by {self.compression} instead of {_bytes(raw)}: {raw / sent:.1f}x less"
        if self.look.is_sparse:
            least = self.senders * self.sparse_bytes()
            return f"{_bytes(raw)} a pass as float64, at most {_bytes(min(least, raw))} of them without zeros"
        return f"{_bytes(raw)} a pass, as float64"

    def sparse_bytes(self) -> int:
        """Return the most bytes of one sum without its zeros: as if no two rows had an entry of the same feature."""
        outputs = max(1, self.coefficients // (self.look.features + 1))
        entries = outputs * (sum(self.look.rows) / max(1, self.senders) * self.look.row_entries + 1)
        return SPARSE.packed_bytes(self.coefficients, min(self.coefficients, round(entries)))

    def __str__(self) -> str:
        look, sizes, engine = self.look, self.choice.sizes, self.choice.engine
        kind = "sparse" if look.is_sparse else "dense"
        tasks = 1 if engine == "local" else min(sizes.slots, sizes.partitions)
        seconds = ", ".join(f"{name} {cost:.2f}" for name, cost in self.choice.seconds.items())
        memory = f"driver {_bytes(tasks * sizes.summed)}, each task {_bytes(3 * sizes.summed)} beside its blocks"
        most = f"the largest has {max(look.rows):,} rows"
        lines = [
            f"rows           {sum(look.rows):,} x {look.features:,} features, {kind}",
            f"partitions     {look.partitions:,} on {sizes.slots:,} task slots; {most}",
            f"coefficients   {self.coefficients:,}",
            f"blocks on disk {_bytes(sum(look.rows) * look.row_bytes)}, of which a pass reads {_bytes(sizes.stored)}",
            f"sent per pass  {_bytes(2 * tasks * sizes.summed if engine != 'local' else 0)}",
            f"sums           {self.sums}",
            f"memory         {memory}",
            f"engine         {engine}; seconds of {PASSES} passes: {seconds}",
        ]
        return "\n".join(lines + [f"advice         {sentence}" for sentence in self.advice])


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
