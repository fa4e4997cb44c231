"""Muon and SOAP for the matrices of a network, and Adam for the rest, each as one optimiser of PyTorch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from sparkopt.deep.divided_tensors import divided, gathered, is_divided, put_rows
from sparkopt.errors import MissingDependencyError, ParameterError
from sparkopt.validation import Interval, check

__all__ = ["MuonWithAdamW", "SoapWithAdam", "muon", "soap"]


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


class SoapWithAdam(Optimizer):
    """SOAP for tensors of two dimensions and more, and Adam for the rest, as the authors' code has them.

    Vyas et al. (2024), *SOAP: Improving and Stabilizing Shampoo using Adam*, algorithm 3, for a matrix with gradient
    G, whose basis is Q_L of its rows and Q_R of its columns:

    - M ← β₁ M + (1 − β₁) G, and G' = Q_Lᵀ G Q_R;
    - V ← β₂ V + (1 − β₂) G' ⊙ G';
    - W ← W − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · Q_L (Q_Lᵀ M Q_R ⊘ (√V + ε)) Q_Rᵀ, then W ← (1 − η λ) W;
    - L ← β₂ L + (1 − β₂) G Gᵀ, and R ← β₂ R + (1 − β₂) Gᵀ G;
    - every few steps Q_L ← QR(L Q_L) and Q_R ← QR(R Q_R), a step of orthogonal iteration, the largest first.

    The basis is that of gradients before the step: the first step of a parameter only begins it, by eigenvectors, and
    moves nothing. A tensor of more dimensions, such as a convolution's kernel, has a basis of each. Without a basis
    these are the steps of Adam with decoupled decay, which biases and norms take, the first one left out as well.

    Each rank computes the bases itself. Where gradients lack rank, eigenvectors depend on rounding: let ranks run on
    processors of one kind, with equal numbers of threads, or their weights drift apart.

    Parameters
    ----------
    matrices, others : list of nn.Parameter
        What SOAP steps, and what Adam does; ``group["kind"]`` is "soap" or "adam".
    lr : float
        Learning rate η.
    betas : (float, float)
        Decay of the mean of G, and of the means of G' ⊙ G', G Gᵀ and Gᵀ G, in [0, 1).
    eps : float
        Added to the root.
    weight_decay : float
        λ, of all parameters.
    every : int
        Steps between changes of a basis.
    most : int
        A side that is longer keeps its own basis: a basis costs its square in memory, and its cube in arithmetic
        each time that it changes.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        every: int,
        most: int,
    ) -> None:
        check("lr", lr, Interval(0, None))
        for name, beta in zip(("betas[0]", "betas[1]"), betas, strict=True):
            check(name, beta, Interval(0, 1, closed="left"))
        check("eps", eps, Interval(0, None, closed="neither"))
        check("weight_decay", weight_decay, Interval(0, None))
        check("every", every, Interval(1, None, whole=True))
        check("most", most, Interval(0, None, whole=True))
        settings = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        bases = {"every": every, "most": most}
        kinds = {"soap": (matrices, bases), "adam": (others, {})}
        groups = [{"params": own, "kind": kind, **settings, **more} for kind, (own, more) in kinds.items() if own]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.is_sparse:
                    raise ParameterError(
                        "soap needs gradients that are dense, and that of an embedding is sparse. Take "
                        "nn.Embedding(sparse=False)."
                    )
                if group["kind"] == "soap" and is_divided(parameter):
                    self._step_whole(parameter, group)
                else:
                    _step_of_soap(parameter, parameter.grad, self.state[parameter], group)
        return loss

    def _step_whole(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        """Step a matrix of which each rank has rows, gathered; afterwards each keeps its rows of all state."""
        own = self.state[parameter]
        whole = gathered(parameter)
        state = {key: gathered(one) if isinstance(one, torch.Tensor) else one for key, one in own.items()}
        _step_of_soap(whole, gathered(parameter.grad), state, group)
        put_rows(parameter, whole)
        for key, one in state.items():
            own[key] = divided(one, parameter) if isinstance(one, torch.Tensor) else one


def _step_of_soap(
    parameter: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
) -> None:
    """Change a parameter and its state; a group without ``most`` has no bases."""
    beta1, beta2 = group["betas"]
    sides = [side for side, length in enumerate(parameter.shape) if length <= group.get("most", -1)]
    is_first = not state
    if is_first:
        state["step"] = 0
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state |= {f"mean_{side}": parameter.new_zeros([parameter.shape[side]] * 2) for side in sides}
    else:
        state["step"] += 1
        bases = {side: state[f"basis_{side}"] for side in sides}
        momentum = state["exp_avg"].lerp_(gradient, 1 - beta1)
        squares = state["exp_avg_sq"].lerp_(_into(gradient, bases).square(), 1 - beta2)
        rate = group["lr"] * (1 - beta2 ** state["step"]) ** 0.5 / (1 - beta1 ** state["step"])
        turned = _into(momentum, bases) / (squares.sqrt() + group["eps"])
        parameter.sub_(_out_of(turned, bases), alpha=rate).mul_(1 - group["lr"] * group["weight_decay"])
    for side in sides:
        rows = gradient.movedim(side, 0).flatten(1)
        mean = state[f"mean_{side}"].lerp_(rows @ rows.T, 1 - beta2)
        if is_first:
            state[f"basis_{side}"] = _eigenvectors(mean)
        elif state["step"] % group["every"] == 0:
            _follow(state, side)


def _into(tensor: torch.Tensor, bases: dict[int, torch.Tensor]) -> torch.Tensor:
    """Return a tensor in a basis of each of these sides."""
    for side, basis in bases.items():
        tensor = torch.tensordot(basis, tensor, dims=([0], [side])).movedim(0, side)
    return tensor


def _out_of(tensor: torch.Tensor, bases: dict[int, torch.Tensor]) -> torch.Tensor:
    """Return what ``_into`` was given."""
    return _into(tensor, {side: basis.T for side, basis in bases.items()})


def _eigenvectors(mean: torch.Tensor) -> torch.Tensor:
    """Return those of a symmetric matrix, the largest first; of one that is not finite, nothing that is."""
    if not mean.isfinite().all():  # the training then says at which step the loss was not
        return torch.full_like(mean, torch.nan)
    exact = mean.to(torch.promote_types(mean.dtype, torch.float32))
    try:
        found: torch.Tensor = torch.linalg.eigh(exact)[1]
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # too many equal values for single precision
        found = torch.linalg.eigh(exact.double())[1]
    return found.flip(1).to(mean.dtype).contiguous()


def _follow(state: dict[str, Any], side: int) -> None:
    """Take a step of orthogonal iteration on the basis of a side, and order the squares as its columns."""
    mean, basis = state[f"mean_{side}"], state[f"basis_{side}"]
    product = mean @ basis
    order = (basis * product).sum(0).argsort(descending=True, stable=True)
    state["exp_avg_sq"] = state["exp_avg_sq"].index_select(side, order)
    exact = product[:, order].to(torch.promote_types(mean.dtype, torch.float32))
    state[f"basis_{side}"] = torch.linalg.qr(exact)[0].to(mean.dtype).contiguous()


def soap(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    lr: float = 0.003,
    betas: tuple[float, float] = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    every: int = 10,
    most: int = 2048,
) -> SoapWithAdam:
    """Return SOAP (Vyas et al., 2024) for a network's matrices and kernels, and Adam for its biases and norms.

    For ``TorchEstimator(optimizer=soap)``, or with another rate ``functools.partial(soap, lr=0.01)``. Steps, and the
    defaults but for ``most``, are those of the authors' code; :class:`SoapWithAdam` has the equations.

    Parameters
    ----------
    named_parameters : iterable of (str, nn.Parameter)
        As of ``module.named_parameters()``.
    lr : float, default 0.003
        Learning rate.
    betas : (float, float), default (0.95, 0.95)
        Decay of the mean of the gradient, and of the means of its squares and products.
    eps : float, default 1e-8
        Added to the root.
    weight_decay : float, default 0
        Decoupled decay of all parameters; 0.01 in the authors' code.
    every : int, default 10
        Steps between changes of the basis.
    most : int, default 2048
        A side that is longer keeps its own basis; 10,000 in the authors' code.

    Examples
    --------
    >>> from torch import nn
    >>> optimizer = soap(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).named_parameters())
    >>> [(group["kind"], len(group["params"])) for group in optimizer.param_groups]
    [('soap', 2), ('adam', 2)]
    """
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for _, parameter in named_parameters:
        (matrices if parameter.ndim >= 2 else others).append(parameter)
    return SoapWithAdam(matrices, others, lr, betas, eps, weight_decay, every, most)
