"""A rank's data loader: batches of the store's rows, and the time spent waiting for them."""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import torch

from sparkopt.deep.batch import Batch, Decoder
from sparkopt.deep.cache import ImageCache
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.image_pipelines import network_pipeline
from sparkopt.deep.labels import mask_facts
from sparkopt.deep.mixing import BatchMixer
from sparkopt.deep.stream import load_batches
from sparkopt.images import Compose, mixing_from_json
from sparkopt.images.label_targets import LabelTarget
from sparkopt.launch import Communicator
from sparkopt.shards.groups import RowGroups
from sparkopt.shards.index import TRAINING, VALIDATION, Index, LabelFacts
from sparkopt.shards.sampler import EpochSampler
from sparkopt.typing import Array

__all__ = ["RankDataLoader"]


class RankDataLoader:
    """The batches of one rank.

    Parameters
    ----------
    config : TrainConfig
        Where the store is, and how its rows are divided.
    communicator : Communicator
        Which share is this rank's.
    device : torch.device
        Where batches go: for CUDA they wait in pinned memory.

    Attributes
    ----------
    waited : float
        Seconds that were spent waiting for batches, or reading them between steps.
    look : callable or None
        Is given each mask of later batches, and refuses it: see `Decoder`.
    """

    def __init__(self, config: TrainConfig, communicator: Communicator, device: torch.device) -> None:
        self.index = Index.load(config.store)
        self.waited = 0.0
        self.look: Callable[[Array, str], None] | None = None
        self._config, self._device = config, device
        self._rank, self._size = communicator.rank, communicator.size
        self._caches = _caches(config)
        self._groups = {split: RowGroups(self.index, split) for split in (TRAINING, VALIDATION)}

    @property
    def has_validation(self) -> bool:
        """Whether rows were held out."""
        return bool(self.index.validation)

    @cached_property
    def steps(self) -> int:
        """Steps of the optimiser in an epoch."""
        return -(-self.sampler(0).steps // self._config.accumulation)

    def sampler(self, epoch: int) -> EpochSampler:
        """Return the order of an epoch."""
        config, sizes = self._config, self._groups[TRAINING].sizes
        return EpochSampler(sizes, config.streams, config.batch_size, config.seed, epoch, True, self._window_rows)

    @cached_property
    def _window_rows(self) -> int:
        """Rows that are shuffled together: fewer where they are large, for a window is in memory."""
        return self.index.window_rows(self._config.window_rows)

    def counted(self, sampler: EpochSampler, step: int) -> int:
        """Return how many rows count in a step of the optimiser, on all ranks."""
        first = step * self._config.accumulation
        return sum(
            sampler.total_counted(s) for s in range(first, min(first + self._config.accumulation, sampler.steps))
        )

    @contextmanager
    def training(self, epoch: int, first_step: int) -> Iterator[Iterator[Batch]]:
        """Give this rank's batches of an epoch, starting at a step of the optimiser."""
        first, last = (rank * self._config.streams // self._size for rank in (self._rank, self._rank + 1))
        decoder = self._decoder(self._config.pipeline, epoch)
        skipped = first_step * self._config.accumulation
        mixer = None
        if self._config.mixing is not None:
            mixer = BatchMixer(mixing_from_json(self._config.mixing), self._config.seed, epoch)
        sampler = self.sampler(epoch)
        with self._batches(TRAINING, sampler, range(first, last), decoder, skipped, mixer) as batches:
            yield batches

    @contextmanager
    def validation(self) -> Iterator[Iterator[Batch]]:
        """Give this rank's batches of the rows that were held out."""
        sizes = self._groups[VALIDATION].sizes
        sampler = EpochSampler(
            sizes, self._size, self._config.batch_size, shuffle=False, window_rows=1
        )  # a group at a time
        decoder = self._decoder(self._config.evaluation_pipeline, 0)
        streams, ahead = range(self._rank, self._rank + 1), max(self._config.prefetch, 1)  # an output is waited for
        with self._batches(VALIDATION, sampler, streams, decoder, 0, ahead=ahead) as batches:
            yield batches

    def sample(self, ignored: int | None = None) -> tuple[Batch, LabelFacts | None]:
        """Return two rows, as evaluation sees them, and what labels there are; ``ignored`` does not count.

        Masks are decoded as they are needed, so of these it is what labels the two have.
        """
        sampler = EpochSampler(self._groups[TRAINING].sizes, 1, 2, shuffle=False, window_rows=1)
        known = [LabelFacts() if self.index.labels is None else self.index.labels]

        def look(mask: Array, place: str) -> None:
            known.append(mask_facts(mask, place, ignored, self._config.mask_fill))

        decoder = replace(self._decoder(self._config.evaluation_pipeline, 0), look=look)
        with self._batches(TRAINING, sampler, range(1), decoder, 0) as batches:
            found = next(batches)
        return found, None if self.index.labels is None else functools.reduce(operator.add, known)

    def _decoder(self, pipeline: str | None, epoch: int) -> Decoder:
        if pipeline is None:
            return Decoder(self.index.fields)
        chosen, cache = network_pipeline(pipeline), self._caches.get(pipeline)
        label, target = self.index.fields.label, None
        if label is not None and label.target is not None:
            facts, config = self.index.labels, self._config
            width = (facts.size or 0) if facts is not None and label.target == "boxes" else 0
            target = LabelTarget(label.target, config.mask_fill, config.min_visibility, width)
        return Decoder(self.index.fields, chosen, self._config.seed, epoch, cache, target, self.look)

    @contextmanager
    def _batches(
        self,
        split: str,
        sampler: EpochSampler,
        streams: range,
        decoder: Decoder,
        first: int,
        mixer: BatchMixer | None = None,
        ahead: int | None = None,
    ) -> Iterator[Iterator[Batch]]:
        with load_batches(
            self._groups[split],
            sampler,
            streams,
            decoder,
            first_step=first,
            mixer=mixer,
            ahead=self._config.prefetch if ahead is None else ahead,
            threads=self._config.decode_threads,
            pin=self._device.type == "cuda",
        ) as batches:
            yield self._timed(batches)

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            begin = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - begin
            if batch is None:
                return
            yield batch


def _caches(config: TrainConfig) -> dict[str, ImageCache]:
    """Return a cache for each pipeline that gives the same image again; two of them share the memory."""
    if config.epochs < 2 or not config.cache_bytes:
        return {}
    pipelines = {one for one in (config.pipeline, config.evaluation_pipeline) if one is not None}
    fixed = [one for one in pipelines if not Compose.from_json(one).random]
    return {one: ImageCache(config.cache_bytes // len(fixed)) for one in fixed}
