"""The loop on every rank: each holds some partitions, all add up their sums, and each takes the same step.

Only sums travel, and no process sees them all: what a pass costs does not depend on a driver. One rank alone is the
engine for small data, which needs no communication at all.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from sparkopt.blocks.store import OpenPartition, Result
from sparkopt.communication.autotune import trying
from sparkopt.communication.encoding import (
    SMALL,
    SPARSE,
    THIN,
    Compressed,
    EncodedGradient,
    codec_of,
    sparse,
    thin_bytes,
)
from sparkopt.communication.sums import Pass, TaskSum, fold, pulling_back, sum_of
from sparkopt.engines.relay import CallbackProxy
from sparkopt.launch.connections import Address, connect
from sparkopt.launch.threads import task_threads
from sparkopt.objective.query import PartialSum, Query
from sparkopt.objective.work import Work
from sparkopt.solver.loop import Callback, Problem, Progress, Solution, minimise_many
from sparkopt.typing import Array, Floats

__all__ = ["Alone", "FitOnRank", "Group", "Outcome"]


class Group(Protocol):
    """The ranks of a fit; every rank calls each collective, in the same order."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def all_reduce(self, values: Array) -> Array:
        """Return the sum over all ranks, bit-equal on each."""
        ...

    def broadcast(self, values: Array, root: int = 0) -> Array:
        """Return the values of rank ``root``."""
        ...

    def all_gather(self, payload: bytes) -> list[bytes]:
        """Return the payloads of all ranks, by rank; their lengths may differ."""
        ...

    def exchange(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Send one payload to each rank, and return what each had for this one, by rank."""
        ...


class Alone:
    """A group of one."""

    rank, size = 0, 1

    def all_reduce(self, values: Array) -> Array:
        """Return them as they are."""
        return values

    def broadcast(self, values: Array, root: int = 0) -> Array:
        """Return them as they are."""
        return values

    def all_gather(self, payload: bytes) -> list[bytes]:
        """Return it as it is."""
        return [payload]

    def exchange(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Return them as they are."""
        return list(payloads)


@dataclass(frozen=True)
class Outcome:
    """What a fit on ranks brings back: from rank 0, or ``missing`` where some rank lacks blocks.

    ``seconds`` is what the loop took.
    """

    solutions: Sequence[Solution] = ()
    passes: Sequence[Pass] = ()
    missing: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class FitOnRank:
    """The whole fit, as one rank runs it.

    Parameters
    ----------
    parcel : bytes
        The problems, with the callbacks that run beside the loop, and the work.
    address : Address or None
        Where the driver's callbacks listen.
    """

    parcel: bytes
    address: Address | None

    def __call__(self, group: Group, partitions: Iterable[OpenPartition]) -> Outcome:
        """Run the loop; every rank ends with the same coefficients."""
        held = sorted(partitions, key=lambda one: one.part.index)
        lost = sum(one.blocks is None for one in held)
        if group.all_reduce(np.array([float(lost)]))[0] > 0:
            return Outcome(missing=True)
        problems: list[Problem]
        work: Work
        problems, work = pickle.loads(self.parcel)  # noqa: S301  # written by this job's own driver
        with ExitStack() as resources:
            resources.enter_context(task_threads())
            here = self.address if group.rank == 0 else None
            proxies = [CallbackProxy(resources.enter_context(connect(here)))] if here else []
            told = [
                replace(problem, callbacks=[_Agreed(group, (*problem.callbacks, *proxies))])
                if problem.callbacks or self.address
                else problem
                for problem in problems
            ]
            sums = _GroupSums(group, work, held)
            begin = time.perf_counter()
            plain = pulling_back(sums.work, sums)
            reduce = plain if group.size == 1 else trying(work, plain, sums.passes, partial(_agreed, group))
            solutions = minimise_many(reduce, told)
            return Outcome(solutions, sums.passes, seconds=time.perf_counter() - begin)


@dataclass(frozen=True)
class _Agreed:
    """A callback on each rank: what the callbacks wish, which rank 0 asks for all."""

    group: Group
    callbacks: Sequence[Callback]

    def __call__(self, progress: Progress, /) -> bool:
        wishes = [callback(progress) for callback in self.callbacks] if self.group.rank == 0 else []
        return bool(self.group.broadcast(np.array([float(any(wishes))]))[0])


def _agreed(group: Group, found: int) -> int:
    """Return what rank 0 found."""
    return int(group.broadcast(np.array([float(found)]))[0])


FEW = 2
"""Ranks that gather encoded sums whole: more of them add up a slice each."""


class _GroupSums:
    """Sums over the partitions of all ranks."""

    def __init__(self, group: Group, work: Work, held: Sequence[OpenPartition]) -> None:
        self.passes: list[Pass] = []
        self._encoding = work if isinstance(work, Compressed) and group.size > 1 else None
        self._work = work.work if isinstance(work, Compressed) else work
        self._group, self._held = group, held
        self._is_sparse: dict[bool, bool] = {}

    @property
    def work(self) -> Work:
        """What is summed, and what encodes it where anything does."""
        return self._encoding or self._work

    def __call__(self, query: Query) -> PartialSum:
        begin = time.perf_counter()
        mine = fold(self._own(query))
        packed = mine.partial if self._encoding is None else self._packed(self._encoding, mine.partial, query, "rank")
        packed = self._thinned(packed, query)
        summed = time.perf_counter()
        total, raw, sent = self._total(packed, query)
        end = time.perf_counter()
        self.passes.append(
            Pass(
                query.step,
                end - begin,
                summed - begin,
                end - summed,
                sent,
                raw,
                sent,
                0,
                total.rows,
                mine.peak_memory,
                "none" if self._encoding is None else codec_of(self._encoding, query),
            )
        )
        return total

    def _packed(self, encoding: Compressed, mine: PartialSum, query: Query, name: str) -> PartialSum:
        """Encode this rank's sum: once for all that it holds; in a slice for each rank, where there are many."""
        group, beside = self._group, next((one.blocks.beside for one in self._held if one.blocks), None)
        codec = encoding.codec_for(query)
        slices = 1 if name != "rank" or group.size <= FEW or codec is None or codec.whole else group.size
        sliced = replace(encoding, slices=slices)
        return sliced.pack(mine, query, f"{name}-{group.rank}-of-{group.size}", group.rank, beside)

    def _thinned(self, mine: PartialSum, query: Query) -> PartialSum:
        """Leave out the zeros of this rank's sum, where that is less for all ranks together.

        They find out on the first pass, for steps' own passes and for others; ``_total`` looks whether it stays so.
        """
        group, gradient, kind = self._group, mine.gradient, query.request.is_step_gradient
        if group.size == 1 or not isinstance(gradient, np.ndarray) or gradient.nbytes < SMALL:
            return mine
        slices = 1 if group.size <= FEW else group.size
        if kind not in self._is_sparse:
            bytes_of_all = group.all_reduce(np.array([float(thin_bytes(gradient, slices))]))[0]
            self._is_sparse[kind] = bool(bytes_of_all <= THIN * group.size * gradient.nbytes)
        return replace(mine, gradient=sparse(gradient, slices)) if self._is_sparse[kind] else mine  # type: ignore[arg-type]

    def _total(self, mine: PartialSum, query: Query) -> tuple[PartialSum, int, int]:
        """Return the sum over all ranks, and the bytes that they send for it: as float64, and as they travel.

        Sums are counted once on their way here; the way back is as long for both.
        """
        group, shape = self._group, mine.gradient.shape
        if group.size == 1:
            return mine, 0, 0
        gradient: object = mine.gradient
        if not isinstance(gradient, EncodedGradient):
            flat = mine.flat()
            sent = group.size * flat.nbytes
            return PartialSum.from_flat(group.all_reduce(flat), *shape), sent, sent
        bare = replace(mine, gradient=np.array([[float(gradient.nbytes)]] * shape[0])).flat()
        rest = PartialSum.from_flat(group.all_reduce(bare), shape[0], 1)
        raw, encoded = group.size * (bare.nbytes + 8 * shape[0] * shape[1]), int(rest.gradient[0, 0])
        if gradient.codec == SPARSE:
            self._is_sparse[query.request.is_step_gradient] = encoded <= THIN * group.size * 8 * shape[0] * shape[1]
        if len(gradient.slices) == 1:
            gathered = [gradient.of(payload) for payload in group.all_gather(gradient.payload)]
            total = sum(gathered[1:], gathered[0]).decoded()
        else:
            total = self._joined(gradient, replace(rest, gradient=rest.gradient[:, :0]), query)
        return replace(rest, gradient=total), raw, group.size * bare.nbytes + encoded

    def _joined(self, gradient: EncodedGradient, rest: PartialSum, query: Query) -> Floats:
        """Return the sum of gradients that are encoded in a slice for each rank.

        Each rank adds up one slice of all, and sends its sum, encoded again, to all: 2 (n − 1) / n payloads a rank,
        where gathering them whole would take n − 1. What the second encoding leaves out goes with the next step too
        (Tang et al., 2019, *DoubleSqueeze*, algorithm 1).
        """
        group, pieces = self._group, gradient.cut()
        payloads = group.exchange([piece.payload for piece in pieces])
        own = sum((pieces[group.rank].of(payload) for payload in payloads), np.zeros(pieces[group.rank].shape))
        added = own.decoded() if isinstance(own, EncodedGradient) else own
        again: object
        if gradient.codec == SPARSE:
            again = sparse(added)
        else:
            assert self._encoding is not None  # noqa: S101  # or nothing would be encoded
            again = self._packed(self._encoding, replace(rest, gradient=added), query, "joined").gradient
        assert isinstance(again, EncodedGradient)  # noqa: S101  # as the first time
        found = zip(pieces, group.all_gather(again.payload), strict=True)
        return np.concatenate([piece.of(payload).decoded() for piece, payload in found], axis=1)

    def _own(self, query: Query) -> Iterator[Result[TaskSum]]:
        yield Result(-1, TaskSum(query.zero(), 0.0, 0.0, 0))  # a rank may hold nothing
        for one in self._held:
            if one.blocks is not None:
                yield Result(one.part.index, sum_of(self._work, query, one.part, one.blocks))
