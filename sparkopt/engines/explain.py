"""What a fit would do with the rows of a store: sizes, the engine, and what would make it cheaper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sparkopt.blocks.store import BlockStore
from sparkopt.codecs.gradient import gradient_codec
from sparkopt.communication.autotune import CANDIDATES, LEAST_BYTES
from sparkopt.communication.encoding import SPARSE
from sparkopt.engines.base import Engine, FitSize, SessionTraits
from sparkopt.engines.profile import DataProfile
from sparkopt.engines.selection import PASSES, EngineChoice, choose, engine_on, every_engine
from sparkopt.values import dataclass

__all__ = ["FitPlan"]

SKEW = 2.0
"""How many times the mean a partition may hold before the plan mentions it: all others wait for it."""

IDLE_BYTES = 8 << 20
"""Bytes of a pass from which a machine's idle cores are worth mentioning."""

LENGTH = 1 << 16
"""Numbers that are encoded to see how many bytes a codec takes for each."""
SHOWN = 10
"""Most names of features that are shown."""


@dataclass(frozen=True)
class FitPlan:
    """What a fit would do. Print it.

    Attributes
    ----------
    data : DataProfile
        The data.
    coefficients : int
        Length of a coefficient vector.
    choice : EngineChoice
        The engine, and the estimated seconds of each one.
    session : SessionTraits, default one with everything
        What the session offers to engines.
    compression : str, default "none"
        How sums are encoded.
    optimizer : str, default ""
        The optimiser, and why it was chosen.
    needs_spark : bool, default True
        Whether Spark would run the fit; that of a table is run by this machine alone.
    """

    data: DataProfile
    coefficients: int
    choice: EngineChoice
    session: SessionTraits = SessionTraits()
    compression: str = "none"
    optimizer: str = ""
    needs_spark: bool = True
    names: Sequence[str] = ()

    @classmethod
    def of(
        cls, store: BlockStore, coefficients: int, engine: Engine, share: float, compression: str = "none"
    ) -> FitPlan:
        """Plan a fit.

        Parameters
        ----------
        store : BlockStore
            The rows.
        coefficients : int
            Length of a coefficient vector.
        engine : Engine
            The engine that was asked for.
        share : float
            Share of the rows that a step reads.
        compression : str, default "none"
            The compression that was asked for.
        """
        size, session = FitSize.of(store, 8 * coefficients, share), SessionTraits.of_store(store)
        choice = choose(size, engine_on(engine, store).candidates(session))
        return cls(DataProfile.of(store), coefficients, choice, session, compression, needs_spark=store.needs_spark)

    @property
    def engine(self) -> Engine:
        """The engine that would run the fit."""
        return self.choice.engine

    @property
    def advice(self) -> list[str]:
        """What would make the fit cheaper, each in a sentence."""
        return [*self._partitioning(), *self._faster_engine(), *self.engine.advice(self.choice.size)]

    def _partitioning(self) -> Iterator[str]:
        """Recommend another number of partitions, where slots are idle or one partition is much too large."""
        data, slots = self.data, self.choice.size.slots
        if not self.needs_spark:
            if data.partitions < slots and self.choice.size.stored > IDLE_BYTES:
                yield (
                    f"{data.partitions} partitions leave {slots - data.partitions} of {slots} processes idle: write "
                    f"the files with smaller row groups, of {max(1, sum(data.rows) // (2 * slots)):,} rows."
                )
            return
        if data.partitions < slots and not self.engine.in_one_task:
            yield (
                f"{data.partitions} partitions leave {slots - data.partitions} of {slots} task slots idle: "
                f"df.repartition({2 * slots})."
            )
        mean, most = sum(data.rows) / data.partitions, max(data.rows)
        if most > SKEW * mean and data.partitions > 1:
            yield (
                f"the largest partition holds {most:,} rows, {most / mean:.1f} times the mean, and every pass waits "
                f"for it: df.repartition({max(data.partitions, slots)})."
            )

    def _faster_engine(self) -> Iterator[str]:
        """Recommend an engine that is clearly faster, and what it needs."""
        if not self.needs_spark:
            return
        fastest = choose(self.choice.size, every_engine())
        gain = self.choice.seconds[self.engine.name] / fastest.seconds[fastest.engine.name]
        if gain > 1.5:
            name = fastest.engine.name
            how = fastest.engine.remedy(self.session) or f"engine={name!r}"
            yield f"engine {name} would be about {gain:.1f} times faster: {how}."

    @property
    def senders(self) -> int:
        """How many sums leave a process in a pass."""
        return self.engine.senders(self.choice.size)

    def encoded_bytes(self, name: str) -> int:
        """Return the bytes of one sum as a gradient codec writes it: measured on numbers of that length."""
        codec = gradient_codec(name)
        most = self.coefficients if codec.whole else min(self.coefficients, LENGTH)
        numbers = np.random.default_rng(0).normal(size=most)
        payload, _ = codec.encode(numbers, codec.init(most), np.random.default_rng(0))
        return round(len(payload) * self.coefficients / most)

    @property
    def sums(self) -> str:
        """How sums are sent, and in how many bytes a pass."""
        raw = self.senders * self.choice.size.summed
        if not raw:
            return "are not sent: one task holds all rows"
        if self.compression == "auto":
            tried = ", ".join(f"{name} {_bytes(self.senders * self.encoded_bytes(name))}" for name in CANDIDATES)
            if self.choice.size.summed < LEAST_BYTES:
                return f"{_bytes(raw)} a pass, as float64: auto tries nothing below {_bytes(LEAST_BYTES)} a sum"
            return f"{_bytes(raw)} a pass; if the first steps wait for them, auto times {tried}"
        if self.compression != "none":
            sent = self.senders * self.encoded_bytes(self.compression)
            return f"{_bytes(sent)} a pass by {self.compression} instead of {_bytes(raw)}: {raw / sent:.1f}x less"
        if self.data.is_sparse:
            least = self.senders * self.sparse_bytes()
            return f"{_bytes(raw)} a pass as float64, at most {_bytes(min(least, raw))} of them without zeros"
        return f"{_bytes(raw)} a pass, as float64"

    def sparse_bytes(self) -> int:
        """Return the most bytes of one sum without its zeros: as if no two rows had an entry of the same feature."""
        outputs = max(1, self.coefficients // (self.data.features + 1))
        entries = outputs * (sum(self.data.rows) / max(1, self.senders) * self.data.row_entries + 1)
        return SPARSE.packed_bytes(self.coefficients, min(self.coefficients, round(entries)))

    def __str__(self) -> str:
        data, size = self.data, self.choice.size
        kind = "sparse" if data.is_sparse else "dense"
        tasks = self.engine.tasks(size)
        seconds = ", ".join(f"{name} {cost:.2f}" for name, cost in self.choice.seconds.items())
        driver, task = _bytes(tasks * size.summed), _bytes(3 * size.summed)
        most = f"the largest has {max(data.rows):,} rows"
        slots = "task slots" if self.needs_spark else "processes" if size.slots > 1 else "process"
        lines = [
            f"rows           {sum(data.rows):,} x {data.features:,} features, {kind}",
            f"partitions     {data.partitions:,} on {size.slots:,} {slots}; {most}",
            f"coefficients   {self.coefficients:,}",
            f"blocks on disk {_bytes(sum(data.rows) * data.row_bytes)}, of which a pass reads {_bytes(size.stored)}",
            f"sent per pass  {_bytes(2 * tasks * size.summed if self.senders else 0)}",
            f"sums           {self.sums}",
            f"memory         driver {driver}, each task {task} in addition to its blocks",
            f"engine         {self.engine.name}; seconds of {PASSES} passes: {seconds}",
        ]
        if self.names:
            more = f" and {len(self.names) - SHOWN:,} more" if len(self.names) > SHOWN else ""
            lines.insert(1, f"names          {', '.join(self.names[:SHOWN])}{more}")
        if data.reader:
            lines.append(f"reader         {data.reader}")
        if self.optimizer:
            lines.append(f"optimizer      {self.optimizer}")
        return "\n".join(lines + [f"advice         {sentence}" for sentence in self.advice])


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
