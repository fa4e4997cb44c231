"""A rank's batches of tensors: read from the store, shuffled, and prepared while the network computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from sparkopt.deep.batch import Batch, Decoder
from sparkopt.deep.mixing import BatchMixer
from sparkopt.shards.groups import Columns, RowGroups
from sparkopt.shards.sampler import EpochSampler
from sparkopt.shards.stream import Parts, prepared_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["load_batches"]


def load_batches(
    groups: RowGroups,
    sampler: EpochSampler,
    streams: range,
    decoder: Decoder,
    *,
    first_step: int = 0,
    mixer: BatchMixer | None = None,
    ahead: int = 4,
    threads: int = 1,
    pin: bool = False,
) -> AbstractContextManager[Iterator[Batch]]:
    """Give the batches of an epoch, as ``prepared_batches`` does: those of all streams are one.

    Parameters
    ----------
    groups, sampler, streams, first_step, ahead, threads
        As there.
    decoder : Decoder
        How rows become tensors.
    mixer : BatchMixer or None, default None
        Mixes the rows of each stream's batch.
    pin : bool, default False
        Whether to put them into pinned memory.
    """
    parts = _maker(decoder, mixer, streams)
    is_slow = decoder.pipeline is not None or mixer is not None or pin

    def make(found: Parts, step: int) -> Batch:
        batches = parts(found, step)
        whole = batches[0] if len(batches) == 1 else _one(batches)
        return whole.pinned() if pin else whole

    return prepared_batches(
        groups, sampler, streams, make, first_step=first_step, ahead=ahead, threads=threads if is_slow else 0
    )


def _maker(decoder: Decoder, mixer: BatchMixer | None, streams: range) -> Callable[[Parts, int], list[Batch]]:
    def made(stream: int, step: int, columns: Columns, counted: int) -> Batch:
        batch = decoder.batch(columns, counted)
        return batch if mixer is None else mixer(batch, stream, step)

    def make(parts: Parts, step: int) -> list[Batch]:
        numbered = list(zip(streams, parts, strict=True))
        chosen = [one for one in numbered if one[1][1]] or numbered[:1]
        return [made(stream, step, columns, counted) for stream, (columns, counted) in chosen]

    return make


def _one(batches: list[Batch]) -> Batch:
    inputs = tuple(torch.cat(_as_long(list(parts))) for parts in zip(*[one.inputs for one in batches], strict=True))
    labels = [batch.label for batch in batches if batch.label is not None]
    weight = torch.cat([batch.weight for batch in batches])
    label = torch.cat(_alike(labels)) if labels else None
    several = tuple(torch.cat(parts) for parts in zip(*[one.labels for one in batches], strict=True))
    parts = tuple(len(batch.weight) for batch in batches)
    return Batch(inputs, label, weight, sum(batch.counted for batch in batches), several, parts)


def _as_long(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return inputs of streams, whose lists were padded to the longest of each stream, and their masks."""
    if parts[0].ndim < 2 or len({part.shape[1] for part in parts}) == 1:
        return parts
    most = max(part.shape[1] for part in parts)
    return [torch.cat([part, part.new_zeros(len(part), most - part.shape[1], *part.shape[2:])], 1) for part in parts]


def _alike(labels: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return labels of streams, boxes or keypoints of which may be fewer in one than in the other."""
    if labels[0].ndim != 3 or not labels[0].is_floating_point() or len({one.shape[1] for one in labels}) == 1:
        return labels
    most = max(one.shape[1] for one in labels)
    return [torch.nn.functional.pad(one, (0, 0, 0, most - one.shape[1]), value=math.nan) for one in labels]
