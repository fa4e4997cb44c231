"""Muon for the matrices of a network, and AdamW for the rest, as one optimiser of PyTorch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from sparkopt.deep.divided_tensors import gathered, is_divided, put_rows
from sparkopt.errors import MissingDependencyError

__all__ = ["MuonWithAdamW", "muon"]


class MuonWithAdamW(Optimizer):
    """Two optimisers of PyTorch, each for its own groups of parameters; ``group["kind"]`` says for which.

    Their state and groups are those of this one, so that checkpoints and schedulers see one optimiser.

    Parameters
    ----------
    matrices, others : list of nn.Parameter
        What Muon steps, and what AdamW does.
    lr, adam_lr : float
        Their learning rates.
    weight_decay : float
        That of both.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[nn.Parameter],
        lr: float,
        adam_lr: float,
        weight_decay: float,
    ) -> None:
        kind = getattr(torch.optim, "Muon", None)
        if kind is None:
            raise MissingDependencyError("muon needs PyTorch 2.9 or newer, whose torch.optim has Muon.")
        inner: dict[str, Optimizer] = {}
        if matrices:
            inner["muon"] = kind(matrices, lr=lr, weight_decay=weight_decay)
        if others:
            inner["adamw"] = AdamW(others, lr=adam_lr, weight_decay=weight_decay)
        groups = [{**group, "kind": name} for name, one in inner.items() for group in one.param_groups]
        super().__init__(groups, {})
        self._inner = inner

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for name, one in self._inner.items():  # a checkpoint that was loaded has others than those of the start
            one.state, one.param_groups = self.state, [group for group in self.param_groups if group["kind"] == name]
            if name == "muon" and any(is_divided(p) for group in one.param_groups for p in group["params"]):
                _step_whole(one)
            else:
                one.step()
        return loss


def _step_whole(method: Optimizer) -> None:
    """Let Muon step; matrices of which each rank has rows are gathered for it, one after the other.

    PyTorch would add products of parts in bfloat16, and steps would depend on the number of ranks.
    """
    state, groups = method.state, method.param_groups
    for group in groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            whole = gathered(parameter)
            whole.grad = gathered(parameter.grad)
            method.state = defaultdict(dict, {whole: {key: gathered(one) for key, one in state[parameter].items()}})
            method.param_groups = [{**group, "params": [whole]}]
            method.step()
            put_rows(parameter, whole)
            for key, one in method.state[whole].items():
                kept = state[parameter].setdefault(key, torch.zeros_like(parameter))
                put_rows(kept, one)
    method.state, method.param_groups = state, groups


def muon(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    lr: float = 0.02,
    adam_lr: float = 0.001,
    weight_decay: float = 0.0,
) -> MuonWithAdamW:
    """Return Muon (Jordan et al., 2024) for a network's matrices, and AdamW for its biases, norms and kernels.

    For ``TorchEstimator(optimizer=muon)``, or with other rates ``functools.partial(muon, lr=0.01)``. It is
    ``torch.optim.Muon`` and ``torch.optim.AdamW``, of PyTorch 2.9 or newer. Matrices called "embedding" or "head" are
    AdamW's, as Muon's author advises.

    Parameters
    ----------
    named_parameters : iterable of (str, nn.Parameter)
        As of ``module.named_parameters()``.
    lr, adam_lr : float, default 0.02, 0.001
        Learning rates of Muon and of AdamW.
    weight_decay : float, default 0
        Decoupled decay of both.

    Raises
    ------
    MissingDependencyError
        Where PyTorch has no Muon.

    Examples
    --------
    >>> from torch import nn
    >>> optimizer = muon(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).named_parameters())
    >>> [(group["kind"], len(group["params"])) for group in optimizer.param_groups]
    [('muon', 2), ('adamw', 2)]
    """
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in named_parameters:
        is_hidden = parameter.ndim == 2 and not any(word in name for word in ("embed", "head"))
        (matrices if is_hidden else others).append(parameter)
    return MuonWithAdamW(matrices, others, lr, adam_lr, weight_decay)
