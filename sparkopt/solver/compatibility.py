"""Which choices work together: what cannot reach the optimum is refused before the first pass."""

from __future__ import annotations

from collections.abc import Iterator

from sparkopt.errors import IncompatibleError
from sparkopt.losses import Loss
from sparkopt.optim.base import Optimizer
from sparkopt.penalties import Penalty

__all__ = ["check_compatible"]

FIXED_STEPS = "an optimiser with fixed steps such as 'sgd' or 'adam'"


def check_compatible(
    optimizer: Optimizer,
    penalty: Penalty,
    *,
    is_exact: bool = True,
    is_local: bool = False,
    is_lossy: bool = False,
    loss: Loss | None = None,
    outer: Optimizer | None = None,
) -> None:
    """Refuse choices that cannot solve the problem together, naming both sides and a way out.

    Parameters
    ----------
    optimizer : Optimizer
        The optimiser.
    penalty : Penalty
        The penalty.
    is_exact : bool, default True
        Whether every step sees every row.
    is_local : bool, default False
        Whether partitions take steps of their own, and report the way instead of a gradient.
    is_lossy : bool, default False
        Whether gradients are compressed with loss.
    loss : Loss or None, default None
        The loss, where it is known already.
    outer : Optimizer or None, default None
        What joins the ways of local steps.

    Raises
    ------
    IncompatibleError
        For the first pair that does not work.

    Examples
    --------
    >>> from sparkopt import optim, penalties
    >>> check_compatible(optim.lbfgs(), penalties.L1(0.1))
    Traceback (most recent call last):
        ...
    sparkopt.errors.IncompatibleError: optimizer='lbfgs' cannot serve an L1 penalty (elasticNetParam > 0): ...
    """
    refusals = [*_of_penalty(optimizer, penalty, is_local)]
    refusals += _of_work(optimizer, is_exact, is_local, is_lossy)
    if loss is not None:
        refusals += _of_loss(optimizer, loss)
    if outer is not None:
        refusals += [f"joining local steps, {reason}" for reason in _of_work(outer, is_exact, True, is_lossy)]
    if refusals:
        raise IncompatibleError(refusals[0])


def _of_penalty(optimizer: Optimizer, penalty: Penalty, is_local: bool) -> Iterator[str]:
    if not optimizer.search.serves(penalty):
        yield (
            f"optimizer={optimizer.name!r} cannot serve {penalty.label}: its steps have no proximal form for it. Use "
            f"optimizer='fista' (all rows) or 'sgd' (mini-batches), or a penalty without kinks such as L2."
        )
    if is_local and not penalty.smooth:
        yield (
            f"local steps cannot serve {penalty.label}: the mean of what partitions find by themselves is not what "
            f"the penalty asks for. Use no local steps (localSteps=1), or a penalty without kinks such as L2."
        )


def _of_work(optimizer: Optimizer, is_exact: bool, is_local: bool, is_lossy: bool) -> Iterator[str]:
    name, search = f"optimizer={optimizer.name!r}", optimizer.search
    if not is_exact and search.needs_exact:
        yield (
            f"{name} compares objectives from step to step, which miniBatchFraction < 1 makes incomparable. Use "
            f"miniBatchFraction=1, or {FIXED_STEPS}."
        )
    if is_local and search.needs_gradient:
        yield (
            f"{name} needs gradients of all partitions' rows, but with local steps each goes its own way. Use "
            f"{FIXED_STEPS}, or no local steps (localSteps=1)."
        )
    if is_lossy and search.needs_gradient:
        yield (
            f"{name} needs exact gradients, which a lossy gradient codec does not give. Use a lossless codec or "
            f"none, or {FIXED_STEPS}."
        )


def _of_loss(optimizer: Optimizer, loss: Loss) -> Iterator[str]:
    if optimizer.search.needs_exact and not loss.smooth:
        yield (
            f"optimizer={optimizer.name!r} needs a continuous gradient, but loss {loss.name!r} has kinks. Use its "
            f"smoothed(width), or {FIXED_STEPS}."
        )
