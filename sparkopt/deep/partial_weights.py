"""Weights of networks of which a part is trained: only that part is saved, with a digest of the other one.

Whoever loads such weights builds the network with the part that was not trained, from wherever that came; another one
is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import nn

from sparkopt.errors import DataError

__all__ = ["SAVED", "frozen_digest", "load_weights", "trained_weights"]

SAVED = ("all", "trainable")
"""Which weights are saved."""
FROZEN = "sparkopt.frozen"
"""Name of the digest among the tensors that are saved."""


def frozen_digest(module: nn.Module) -> torch.Tensor | None:
    """Return a digest (16,) of the parameters that are not trained, or None where all are."""
    frozen = [name for name, one in module.named_parameters(remove_duplicate=False) if not one.requires_grad]
    return _digest(module.state_dict(), frozen) if frozen else None


def trained_weights(module: nn.Module, digest: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Return a module's buffers and the parameters that are trained, with the digest of the others.

    Parameters
    ----------
    module : nn.Module
        The network.
    digest : Tensor or None
        What ``frozen_digest`` returned; with None, all parameters are trained.
    """
    state = module.state_dict()
    if digest is None:
        return state
    frozen = {name for name, one in module.named_parameters(remove_duplicate=False) if not one.requires_grad}
    return {name: tensor for name, tensor in state.items() if name not in frozen} | {FROZEN: digest}


def load_weights(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a module's state, or the part of it that was trained.

    Raises
    ------
    DataError
        Where the module was built with other weights in the part that was not trained.
    RuntimeError
        Where the state is another module's, as PyTorch has it.
    """
    found = dict(state)
    digest = found.pop(FROZEN, None)
    if digest is None:
        module.load_state_dict(found)
        return
    own = module.state_dict()
    kept = [name for name in own if name not in found]
    if not torch.equal(_digest(own, kept), digest.cpu()):
        shown = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
        raise DataError(
            f"only trained weights were saved, and the others ({shown or 'there are none'}) are not those that they "
            "were trained with. Let the module be built with the same ones each time, or set savedWeights='all'."
        )
    module.load_state_dict({**own, **found})


def _digest(state: Mapping[str, torch.Tensor], names: list[str]) -> torch.Tensor:
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(names):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8)
