"""Which choices work together: what cannot reach the optimum is refused before the first pass."""

from __future__ import annotations

from collections.abc import Iterator

from sparkopt.errors import IncompatibleError
from sparkopt.losses import Loss
from sparkopt.objective.work import LocalSteps
from sparkopt.optim.base import Optimizer
from sparkopt.penalties import NoPenalty, Penalty
from sparkopt.values import dataclass

__all__ = ["Method", "check_compatible"]

FIXED_STEPS = "an optimiser with fixed steps such as 'sgd' or 'adam'"


@dataclass(frozen=True)
class Method:
    """What is combined to solve a problem, as far as it is known.

    Parameters
    ----------
    optimizer : Optimizer
        Takes the steps; with local steps, those within a round.
    penalty : Penalty, default none
        Added to the mean loss.
    loss : Loss or None, default None
        The loss that is minimised; None where it is not known yet, or will be smoothed where it has to be.
    is_exact : bool, default True
        Whether every step sees every row.
    local_steps : LocalSteps or None, default None
        The schedule of local steps, with the outer optimizer; None without local steps.
    is_lossy : bool, default False
        Whether gradients are communicated by a lossy codec.
    """

    optimizer: Optimizer
    penalty: Penalty = NoPenalty()
    loss: Loss | None = None
    is_exact: bool = True
    local_steps: LocalSteps | None = None
    is_lossy: bool = False

    @property
    def is_local(self) -> bool:
        """Whether partitions take local steps."""
        return self.local_steps is not None

    @property
    def shares_passes(self) -> bool:
        """Whether several models may share passes: local updates and error-feedback residuals are one model's own."""
        return not self.is_local and not self.is_lossy


def check_compatible(method: Method) -> None:
    """Refuse choices that cannot solve the problem together, naming both sides and a way out.

    Raises
    ------
    IncompatibleError
        For the first pair that does not work.

    Examples
    --------
    >>> from sparkopt import optim, penalties
    >>> check_compatible(Method(optim.lbfgs(), penalties.L1(0.1)))
    Traceback (most recent call last):
        ...
    sparkopt.errors.IncompatibleError: optimizer='lbfgs' cannot serve an L1 penalty (elasticNetParam > 0): ...
    """
    for refusal in _refusals(method):
        raise IncompatibleError(refusal)


def _refusals(method: Method) -> Iterator[str]:
    yield from _by_penalty(method)
    yield from _by_gradients(method.optimizer, method)
    if method.loss is not None and method.optimizer.search.needs_exact and not method.loss.smooth:
        yield (
            f"optimizer={method.optimizer.name!r} needs a continuous gradient, but loss {method.loss.name!r} is "
            f"nonsmooth. Use its smoothed(smoothing), or {FIXED_STEPS}."
        )
    if method.is_local and method.optimizer.transform.learns_length:
        yield (
            f"optimizer={method.optimizer.name!r} needs the steps before to learn how its own are taken, but with "
            f"local steps every round starts over. Use an optimiser with a learning rate such as 'sgd' or 'adam', or "
            f"no local steps (localSteps=1)."
        )
    if method.local_steps is not None:
        for refusal in _by_gradients(method.local_steps.outer, method):
            yield f"as outer optimizer, {refusal}"


def _by_penalty(method: Method) -> Iterator[str]:
    label = method.penalty.label
    search, transform = method.optimizer.search, method.optimizer.transform
    if not search.serves(method.penalty) or (method.penalty.is_bounds and not transform.keeps_bounds):
        yield (
            f"optimizer={method.optimizer.name!r} cannot serve {label}: its steps have no proximal form for it. Use "
            f"optimizer='fista', 'proximal-newton' or 'proximal-lbfgs' (all rows) or 'sgd' (mini-batches), or a "
            f"smooth penalty such as L2."
        )
    if method.is_local and not method.penalty.smooth:
        yield (
            f"local steps cannot serve {label}: the mean of the partitions' solutions does not have the form that "
            f"the penalty asks for. Use no local steps (localSteps=1), or a smooth penalty such as L2."
        )


def _by_gradients(optimizer: Optimizer, method: Method) -> Iterator[str]:
    name, search = f"optimizer={optimizer.name!r}", optimizer.search
    if not method.is_exact and search.needs_exact:
        yield (
            f"{name} compares objectives from step to step, which miniBatchFraction < 1 makes incomparable. Use "
            f"miniBatchFraction=1, or {FIXED_STEPS}."
        )
    if method.is_local and search.needs_gradient:
        yield (
            f"{name} needs gradients of all partitions' rows, but local steps return local updates instead. Use "
            f"{FIXED_STEPS}, or no local steps (localSteps=1)."
        )
    if method.is_lossy and search.needs_gradient:
        yield (
            f"{name} needs exact gradients, which a lossy gradient codec does not give. Use a lossless codec or "
            f"none, or {FIXED_STEPS}."
        )
