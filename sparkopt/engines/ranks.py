"""The loop on every rank: each holds some partitions, all add up their sums, and each takes the same step.

Only sums are sent, and no process receives them all: what a pass costs does not depend on a driver. One rank alone is
the engine for small data, which needs no communication at all.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from sparkopt.blocks.store import OpenPartition, Result
from sparkopt.communication.autotune import reduce_by
from sparkopt.communication.encoder import PassMessage, Sender
from sparkopt.communication.encoding import (
    SMALL_BYTES,
    SPARSE,
    SPARSE_SHARE,
    CommunicatedSum,
    EncodedGradient,
    sparse,
    sparse_bytes,
)
from sparkopt.communication.sums import Pass, Summation, TaskSum, fold
from sparkopt.engines.relay import CallbackProxy
from sparkopt.engines.worker_pool import MissingBlocks
from sparkopt.launch.connections import Address, connect
from sparkopt.launch.threads import task_threads
from sparkopt.objective.query import PartialSum
from sparkopt.solver.loop import minimise_many
from sparkopt.solver.problem import Problem, Solution
from sparkopt.solver.progress import Callback, Progress
from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["Alone", "FitOnRank", "Group", "RankFit"]


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
class RankFit:
    """What a fit on ranks returns.

    Attributes
    ----------
    solutions : sequence of Solution
        One per problem.
    passes : sequence of Pass
        What each pass cost.
    seconds : float
        What the loop took.
    """

    solutions: Sequence[Solution]
    passes: Sequence[Pass]
    seconds: float


@dataclass(frozen=True)
class FitOnRank:
    """The whole fit, as one rank runs it.

    Parameters
    ----------
    pickled : bytes
        The problems, with the callbacks that run next to the loop, and the Summation.
    address : Address or None
        Where the driver's callbacks are reached.
    """

    pickled: bytes
    address: Address | None

    def __call__(self, group: Group, partitions: Iterable[OpenPartition]) -> RankFit | MissingBlocks:
        """Run the loop; every rank ends with the same coefficients, or reports its partitions without blocks."""
        held = sorted(partitions, key=lambda one: one.part.index)
        missing = [one.part.index for one in held if one.blocks is None]
        if group.all_reduce(np.array([float(len(missing))]))[0] > 0:
            return MissingBlocks(missing)
        problems: list[Problem]
        summation: Summation
        problems, summation = pickle.loads(self.pickled)  # noqa: S301  # written by this job's own driver
        with ExitStack() as resources:
            resources.enter_context(task_threads())
            here = self.address if group.rank == 0 else None
            proxies = [CallbackProxy(resources.enter_context(connect(here)))] if here else []
            agreeing = [
                replace(problem, callbacks=[_StopVote(group, (*problem.callbacks, *proxies))])
                if problem.callbacks or self.address
                else problem
                for problem in problems
            ]
            sums = _GroupSums(group, summation, held)
            begin = time.perf_counter()
            reduce = reduce_by(sums, sums.summation, sums.passes, partial(_of_rank_0, group))
            solutions = minimise_many(reduce, agreeing)
            return RankFit(solutions, sums.passes, time.perf_counter() - begin)


@dataclass(frozen=True)
class _StopVote:
    """A callback on each rank: rank 0 calls all callbacks, and every rank stops where one of them votes to."""

    group: Group
    callbacks: Sequence[Callback]

    def __call__(self, progress: Progress, /) -> bool:
        votes = [callback(progress) for callback in self.callbacks] if self.group.rank == 0 else []
        return bool(_of_rank_0(self.group, any(votes)))


def _of_rank_0(group: Group, found: int) -> int:
    """Return what rank 0 found."""
    return int(group.broadcast(np.array([float(found)]))[0])


FEW = 2
"""Ranks that gather encoded sums whole: more of them add up a slice each."""


class _GroupSums:
    """Sums over the partitions of all ranks."""

    def __init__(self, group: Group, summation: Summation, held: Sequence[OpenPartition]) -> None:
        self.passes: list[Pass] = []
        self.summation = summation if group.size > 1 else Summation(summation.work)
        self._group, self._held = group, held
        self._is_sparse: dict[bool, bool] = {}

    def __call__(self, message: PassMessage) -> PartialSum:
        begin = time.perf_counter()
        mine = fold(self._own(message))
        sent = self._sparsified(self._encoded(mine.sums.decoded(), message, "rank"), message)
        summed = time.perf_counter()
        total, raw, encoded = self._total(sent, message)
        end = time.perf_counter()
        self.passes.append(
            Pass(
                message.query.step,
                end - begin,
                summed - begin,
                end - summed,
                encoded,
                raw,
                encoded,
                0,
                total.rows,
                mine.peak_memory,
                self.summation.codec_name(message),
            )
        )
        return total

    def _encoded(self, mine: PartialSum, message: PassMessage, name: str) -> CommunicatedSum:
        """Encode this rank's sum: once for all its partitions; in a slice for each rank, where there are many."""
        group, codec = self._group, self.summation.codec_for(message)
        path = next((one.blocks.path for one in self._held if one.blocks), None)
        slices = 1 if name != "rank" or group.size <= FEW or codec is None or codec.whole else group.size
        sender = Sender(f"{name}-{group.rank}-of-{group.size}", group.rank, path)
        return self.summation.in_slices(slices).encoded(mine, message, sender)

    def _sparsified(self, mine: CommunicatedSum, message: PassMessage) -> CommunicatedSum:
        """Leave out the zeros of this rank's sum, where that is less for all ranks together.

        The first pass decides, for the steps' own gradients and for others; ``_total`` checks whether it stays so.
        """
        group, gradient, kind = self._group, mine.gradient, message.query.request.is_step_gradient
        if group.size == 1 or not isinstance(gradient, np.ndarray) or gradient.nbytes < SMALL_BYTES:
            return mine
        slices = 1 if group.size <= FEW else group.size
        if kind not in self._is_sparse:
            bytes_of_all = group.all_reduce(np.array([float(sparse_bytes(gradient, slices))]))[0]
            self._is_sparse[kind] = bool(bytes_of_all <= SPARSE_SHARE * group.size * gradient.nbytes)
        return replace(mine, gradient=sparse(gradient, slices)) if self._is_sparse[kind] else mine

    def _total(self, mine: CommunicatedSum, message: PassMessage) -> tuple[PartialSum, int, int]:
        """Return the sum over all ranks, and the bytes that they send for it: as float64, and as communicated.

        Sums are counted once, when they are sent; receiving the total is as long for both.
        """
        group, gradient = self._group, mine.gradient
        if group.size == 1:
            return mine.decoded(), 0, 0
        if not isinstance(gradient, EncodedGradient):
            flat = mine.decoded().flat()
            sent = group.size * flat.nbytes
            return PartialSum.from_flat(group.all_reduce(flat), *gradient.shape), sent, sent
        points, size = gradient.shape
        bare = replace(mine.rest, gradient=np.array([[float(gradient.nbytes)]] * points)).flat()
        rest = PartialSum.from_flat(group.all_reduce(bare), points, 1)
        raw, encoded = group.size * (bare.nbytes + 8 * points * size), int(rest.gradient[0, 0])
        if gradient.codec == SPARSE:
            kind = message.query.request.is_step_gradient
            self._is_sparse[kind] = encoded <= SPARSE_SHARE * group.size * 8 * points * size
        if len(gradient.slices) == 1:
            total = gradient.of(group.all_gather(gradient.payload)).decoded()
        else:
            total = self._joined(gradient, rest, message)
        return replace(rest, gradient=total), raw, group.size * bare.nbytes + encoded

    def _joined(self, gradient: EncodedGradient, rest: PartialSum, message: PassMessage) -> Floats:
        """Return the sum of gradients that are encoded in a slice for each rank.

        Each rank adds up one slice of all, and sends its sum, encoded again, to all: 2 (n − 1) / n payloads a rank,
        where gathering them whole would take n − 1. What the second encoding leaves out is sent with the next step
        too (Tang et al., 2019, *DoubleSqueeze*, algorithm 1).
        """
        group, pieces = self._group, gradient.cut()
        payloads = group.exchange([piece.payload for piece in pieces])
        added = pieces[group.rank].of(payloads).decoded()
        if gradient.codec == SPARSE:
            again = sparse(added)
        else:
            sums = self._encoded(replace(rest, gradient=added), message, "joined")
            assert isinstance(sums.gradient, EncodedGradient)  # noqa: S101  # as the first time
            again = sums.gradient
        found = zip(pieces, group.all_gather(again.payload), strict=True)
        return np.concatenate([piece.of([payload]).decoded() for piece, payload in found], axis=1)

    def _own(self, message: PassMessage) -> Iterator[Result[TaskSum]]:
        """Yield the sum of each partition of this rank; they are encoded once they are added up."""
        yield Result(-1, TaskSum(CommunicatedSum.of(message.query.zero()), 0.0, 0.0, 0))  # a rank may hold nothing
        plain = Summation(self.summation.work)
        for one in self._held:
            if one.blocks is not None:
                yield Result(one.part.index, plain(message, one.part, one.blocks))
