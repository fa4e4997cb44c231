"""Tensors of which each rank has some rows: as rows of a checkpoint, and whole."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from sparkopt.deep.partial_weights import FROZEN
from sparkopt.launch.checkpoint_rows import Rows

__all__ = ["as_rows", "collected", "divided", "gathered", "is_divided", "load_placed", "placed", "put_rows"]

_TENSORS = "torch.distributed.tensor"
"""It has the class of divided tensors: where it was not imported, there are none."""


def is_divided(tensor: torch.Tensor) -> bool:
    """Return whether ranks have rows of it."""
    if _TENSORS not in sys.modules:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def gathered(tensor: Any) -> torch.Tensor:
    """Return a divided tensor whole, on each rank; a collective. It shares no memory with it."""
    whole: torch.Tensor = tensor.full_tensor().detach().clone()
    return whole


def divided(whole: torch.Tensor, like: Any) -> Any:
    """Return this rank's rows of a tensor that all ranks have, as a divided tensor; it shares no memory with it."""
    from torch.distributed.tensor import DTensor, Shard

    mesh = like.device_mesh
    rows = Rows.span(whole.shape[0], mesh.get_local_rank(), mesh.size())
    own = whole[rows.start : rows.stop].clone()
    return DTensor.from_local(
        own, mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.contiguous().stride()
    )


def put_rows(tensor: Any, whole: torch.Tensor) -> None:
    """Set a divided tensor to this rank's rows of a whole one that all ranks have."""
    from torch.distributed.tensor import DTensor, Replicate

    same = DTensor.from_local(whole, tensor.device_mesh, [Replicate()], run_check=False)
    tensor.to_local().detach().copy_(same.redistribute(placements=tensor.placements).to_local())


def as_rows(tree: Any) -> Any:
    """Return a tree of dicts, lists and tuples in which divided tensors are `Rows`; a collective."""
    if _TENSORS not in sys.modules:
        return tree
    from torch.distributed.tensor import DTensor, Shard

    if isinstance(tree, DTensor):
        if not tree.ndim:
            return tree.full_tensor().detach()
        divided = tree if tree.placements == (Shard(0),) else tree.redistribute(placements=[Shard(0)])
        return Rows(tuple(tree.shape), divided.to_local().detach())
    if isinstance(tree, Mapping):
        return {key: as_rows(item) for key, item in tree.items()}
    return type(tree)(map(as_rows, tree)) if isinstance(tree, (list, tuple)) else tree


def placed(tree: Any, like: Iterable[torch.Tensor]) -> Any:
    """Return the tree that ``as_rows`` was given, divided as these tensors are."""
    if _TENSORS not in sys.modules:
        return tree
    from torch.distributed.tensor import DTensor, Shard

    first = next((one for one in like if isinstance(one, DTensor)), None)
    if first is None:
        return tree
    mesh, device = first.device_mesh, first.to_local().device

    def again(value: Any) -> Any:
        if isinstance(value, Rows):
            stride = torch.empty(value.shape, device="meta").stride()
            own, shape = value.local.to(device), torch.Size(value.shape)
            return DTensor.from_local(own, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
        if isinstance(value, Mapping):
            return {key: again(item) for key, item in value.items()}
        return type(value)(map(again, value)) if isinstance(value, (list, tuple)) else value

    return again(tree)


def load_placed(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load a divided module's state, or what of it was trained; its configuration has the digest of the rest."""
    found = {name: tensor for name, tensor in weights.items() if name != FROZEN}
    module.load_state_dict(found, strict=FROZEN not in weights)


def collected(weights: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """Return whole tensors in main memory on rank 0, one after the other, and nothing elsewhere; a collective."""
    if _TENSORS not in sys.modules:
        return dict(weights) if rank == 0 else {}
    from torch.distributed.tensor import DTensor

    found: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        whole = _whole(tensor) if isinstance(tensor, DTensor) else tensor
        if rank == 0 and whole is not None:
            found[name] = whole
    return found


def _whole(tensor: Any) -> torch.Tensor | None:
    """Return a divided tensor on rank 0, by a collective of tensors in main memory."""
    from torch import distributed

    size, rows = tensor.device_mesh.size(), tensor.shape[0]
    most = len(Rows.span(rows, 0, size))
    padded = torch.zeros((most, *tensor.shape[1:]), dtype=tensor.dtype)
    own = tensor.to_local().detach().cpu()
    padded[: len(own)] = own
    bare = padded.reshape(-1).view(torch.uint8)  # of any type
    is_first = distributed.get_rank() == 0
    parts = [torch.empty_like(bare) for _ in range(size)] if is_first else None
    distributed.gather(bare, parts, dst=0)
    if parts is None:
        return None
    return torch.cat([part.view(tensor.dtype).reshape(padded.shape) for part in parts])[:rows]
