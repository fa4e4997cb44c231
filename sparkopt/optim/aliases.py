"""The optimisers by their usual names: each a chain and a search.

Defaults are those of torch.optim where it has the method, but for the learning rate: the models here see
standardised features, where larger steps are safe.
"""

from __future__ import annotations

from typing import TypeAlias

from sparkopt.optim.base import GradientTransformation, Optimizer, Search, chain
from sparkopt.optim.ftrl_proximal import FollowTheRegularizedLeader
from sparkopt.optim.hessian_clipping import Sophia
from sparkopt.optim.links import add_decayed_weights
from sparkopt.optim.matrices import scale_by_muon, scale_by_soap
from sparkopt.optim.moments import Adafactor, scale_by_adan, scale_by_ademamix
from sparkopt.optim.newton import NewtonCG
from sparkopt.optim.newton_on_samples import SubsampledNewton
from sparkopt.optim.newton_with_penalty import ProximalNewton
from sparkopt.optim.proximal import AcceleratedProximal
from sparkopt.optim.proximal_quasi_newton import ProximalQuasiNewton
from sparkopt.optim.quasi_newton import InitialHessian, OrthantWise, QuasiNewton
from sparkopt.optim.schedules import as_schedule
from sparkopt.optim.search import Backtracking, Fixed
from sparkopt.optim.step_size_free import DAdaptAdam, Dog, Dowg, Prodigy, ScheduleFree
from sparkopt.optim.transforms import (
    scale_by_adadelta,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_nadam,
    scale_by_rms,
    scale_by_rss,
    scale_by_trust_ratio,
    trace,
)
from sparkopt.optim.variance import VarianceReduced
from sparkopt.typing import Schedule

__all__ = [
    "Rate",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamw",
    "adan",
    "ademamix",
    "amsgrad",
    "averaging",
    "dadapt_adam",
    "diloco",
    "dog",
    "dowg",
    "fista",
    "ftrl",
    "gd",
    "lamb",
    "lars",
    "lbfgs",
    "lion",
    "momentum",
    "muon",
    "nadam",
    "nesterov",
    "newton_cg",
    "owlqn",
    "prodigy",
    "proximal_lbfgs",
    "proximal_newton",
    "rmsprop",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "sgd",
    "soap",
    "sophia",
    "subsampled_newton",
    "svrg",
]

Rate: TypeAlias = float | Schedule
"""A learning rate: a number, or a schedule of the step number."""


def gd(learning_rate: Rate | None = None) -> Optimizer:
    """Gradient descent (Cauchy, 1847): with a learning rate a fixed step, without one a backtracking search."""
    if learning_rate is None:
        return Optimizer("gd", scale_by_learning_rate(1.0), Backtracking())
    return Optimizer("gd", scale_by_learning_rate(learning_rate), Fixed(prox_rate=learning_rate))


def sgd(learning_rate: Rate = 0.1) -> Optimizer:
    """Stochastic gradient descent (Robbins & Monro, 1951): the same step on the rows that each step draws."""
    return Optimizer("sgd", scale_by_learning_rate(learning_rate), Fixed(prox_rate=learning_rate))


def momentum(learning_rate: Rate = 0.05, decay: float = 0.9) -> Optimizer:
    """Gradient descent with heavy-ball momentum (Polyak, 1964)."""
    return _fixed("momentum", trace(decay), scale_by_learning_rate(learning_rate))


def nesterov(learning_rate: Rate = 0.05, decay: float = 0.9) -> Optimizer:
    """Gradient descent with Nesterov's momentum (Nesterov, 1983; Sutskever et al., 2013)."""
    return _fixed("nesterov", trace(decay, nesterov=True), scale_by_learning_rate(learning_rate))


def adagrad(learning_rate: Rate = 0.1, epsilon: float = 1e-10) -> Optimizer:
    """AdaGrad (Duchi, Hazan & Singer, 2011)."""
    return _fixed("adagrad", scale_by_rss(epsilon), scale_by_learning_rate(learning_rate))


def adadelta(learning_rate: Rate = 1.0, decay: float = 0.9, epsilon: float = 1e-6) -> Optimizer:
    """AdaDelta (Zeiler, 2012), which chooses its own step sizes; the learning rate multiplies them."""
    return _fixed("adadelta", scale_by_adadelta(decay, epsilon), scale_by_learning_rate(learning_rate))


def rmsprop(learning_rate: Rate = 0.01, decay: float = 0.99, epsilon: float = 1e-8) -> Optimizer:
    """RMSProp (Tieleman & Hinton, 2012)."""
    return _fixed("rmsprop", scale_by_rms(decay, epsilon), scale_by_learning_rate(learning_rate))


def adam(learning_rate: Rate = 0.05, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """Adam (Kingma & Ba, 2015)."""
    return _fixed("adam", scale_by_adam(beta1, beta2, epsilon), scale_by_learning_rate(learning_rate))


def amsgrad(learning_rate: Rate = 0.05, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """Adam with the largest second moment so far (Reddi, Kale & Kumar, 2018)."""
    return _fixed(
        "amsgrad", scale_by_adam(beta1, beta2, epsilon, amsgrad=True), scale_by_learning_rate(learning_rate)
    )


def nadam(
    learning_rate: Rate = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    momentum_decay: float = 4e-3,
) -> Optimizer:
    """Adam with Nesterov's momentum (Dozat, 2016)."""
    return _fixed(
        "nadam", scale_by_nadam(beta1, beta2, epsilon, momentum_decay), scale_by_learning_rate(learning_rate)
    )


def adamw(
    learning_rate: Rate = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019). The decay is no part of the objective."""
    return _fixed(
        "adamw",
        scale_by_adam(beta1, beta2, epsilon),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(learning_rate),
    )


def lion(learning_rate: Rate = 0.01, beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0) -> Optimizer:
    """Lion (Chen et al., 2023): steps of one size, so the rate should fall. The decay is no part of the objective."""
    return _fixed(
        "lion", scale_by_lion(beta1, beta2), add_decayed_weights(weight_decay), scale_by_learning_rate(learning_rate)
    )


def lars(learning_rate: Rate = 0.02, decay: float = 0.9, trust: float = 1.0, weight_decay: float = 0.0) -> Optimizer:
    """LARS (You, Gitman & Ginsburg, 2017, algorithm 1): momentum, with steps that are a share of the coefficients.

    Only the product of ``learning_rate`` and ``trust`` matters (theirs: 0.001 · 1 to 30), and the rate should fall.
    The decay is no part of the objective.
    """
    return _fixed(
        "lars",
        add_decayed_weights(weight_decay),
        scale_by_trust_ratio(trust),
        scale_by_learning_rate(learning_rate),
        trace(decay),
    )


def lamb(
    learning_rate: Rate = 0.02,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-6,
    weight_decay: float = 0.0,
) -> Optimizer:
    """LAMB (You et al., 2020, algorithm 2): Adam, with steps that are a share of the coefficients.

    The rate should fall. The decay is no part of the objective.
    """
    return _fixed(
        "lamb",
        scale_by_adam(beta1, beta2, epsilon),
        add_decayed_weights(weight_decay),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


def ademamix(
    learning_rate: Rate = 0.02,
    beta1: float = 0.9,
    beta2: float = 0.999,
    beta3: float = 0.9999,
    alpha: float = 5.0,
    epsilon: float = 1e-8,
) -> Optimizer:
    """AdEMAMix (Pagliardini, Ablin & Grangier, 2024): Adam with a second, slow momentum."""
    return _fixed(
        "ademamix", scale_by_ademamix(beta1, beta2, beta3, alpha, epsilon), scale_by_learning_rate(learning_rate)
    )


def adan(
    learning_rate: Rate = 0.05,
    beta1: float = 0.98,
    beta2: float = 0.92,
    beta3: float = 0.99,
    epsilon: float = 1e-8,
) -> Optimizer:
    """Adan (Xie et al., 2022): Adam with Nesterov's momentum, from differences of gradients."""
    return _fixed("adan", scale_by_adan(beta1, beta2, beta3, epsilon), scale_by_learning_rate(learning_rate))


def adafactor(learning_rate: Rate = 0.05, decay: float = -0.8, least: float = 1e-3, clip: float = 1.0) -> Optimizer:
    """Adafactor (Shazeer & Stern, 2018), as torch's: steps that are a share of the coefficients, and fall."""
    return _fixed("adafactor", Adafactor(learning_rate, decay, least, clip))


def muon(
    learning_rate: Rate = 0.05, beta: float = 0.95, nesterov: bool = True, steps: int = 5, weight_decay: float = 0.0
) -> Optimizer:
    """Muon (Jordan et al., 2024), as optax's: orthogonalised momentum of the matrix of a multinomial model.

    The rate should fall, since steps do not. Intercepts, and what else is no matrix, take Adam's steps. The decay is
    no part of the objective.
    """
    return _fixed(
        "muon",
        scale_by_muon(beta, nesterov, steps),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(learning_rate),
    )


def soap(
    learning_rate: Rate = 0.05, beta1: float = 0.95, beta2: float = 0.95, epsilon: float = 1e-8, every: int = 10
) -> Optimizer:
    """SOAP (Vyas et al., 2024): Adam in the eigenbasis of Shampoo, for the matrix of a multinomial model.

    The first step only begins the basis. Of models with one output the features' basis is that of their gradients.
    """
    return _fixed("soap", scale_by_soap(beta1, beta2, epsilon, every), scale_by_learning_rate(learning_rate))


def sophia(
    learning_rate: Rate = 0.05, beta1: float = 0.965, beta2: float = 0.99, gamma: float = 0.01, update_every: int = 10
) -> Optimizer:
    """Sophia (Liu et al., 2023): momentum over the Hessian's diagonal, clipped; the rate should fall."""
    return Optimizer(
        "sophia", scale_by_learning_rate(1.0), Sophia(learning_rate, beta1, beta2, gamma, every=update_every)
    )


def ftrl(learning_rate: Rate = 0.5, beta: float = 1.0) -> Optimizer:
    """FTRL-Proximal (McMahan et al., 2013): AdaGrad for mini-batches under L1, with exact zeros."""
    return Optimizer("ftrl", scale_by_learning_rate(1.0), FollowTheRegularizedLeader(learning_rate, beta))


def schedule_free_sgd(learning_rate: Rate = 0.1, beta: float = 0.9) -> Optimizer:
    """Gradient descent whose averages stand in for a falling rate (Defazio et al., 2024)."""
    steps = scale_by_learning_rate(learning_rate)
    return _fixed("schedule-free-sgd", ScheduleFree(steps, learning_rate, beta))


def schedule_free_adamw(
    learning_rate: Rate = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> Optimizer:
    """AdamW whose averages replace a falling rate (Defazio et al., 2024). The decay is no part of the objective."""
    steps = chain(
        scale_by_adam(0.0, beta2, epsilon), add_decayed_weights(weight_decay), scale_by_learning_rate(learning_rate)
    )
    return _fixed("schedule-free-adamw", ScheduleFree(steps, learning_rate, beta1))


def prodigy(
    learning_rate: Rate = 1.0, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, first: float = 1e-6
) -> Optimizer:
    """Prodigy (Mishchenko & Defazio, 2023): Adam that finds its step size; the learning rate multiplies it."""
    return _fixed("prodigy", Prodigy(learning_rate, beta1, beta2, epsilon, first))


def dadapt_adam(
    learning_rate: Rate = 1.0, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, first: float = 1e-6
) -> Optimizer:
    """D-Adaptation (Defazio & Mishchenko, 2023): Adam that finds its step size; the learning rate multiplies it."""
    return _fixed("dadapt-adam", DAdaptAdam(learning_rate, beta1, beta2, epsilon, first))


def dog(first: float = 1e-6, epsilon: float = 1e-8) -> Optimizer:
    """Distance over gradients (Ivgi, Hinder & Carmon, 2023): SGD without a step size."""
    return _fixed("dog", Dog(first, epsilon))


def dowg(first: float = 1e-4, epsilon: float = 1e-4) -> Optimizer:
    """Distance over weighted gradients (Khaled, Mishchenko & Jin, 2023): SGD without a step size."""
    return _fixed("dowg", Dowg(first, epsilon))


def svrg(learning_rate: Rate = 0.1, snapshot_every: int = 50) -> Optimizer:
    """Stochastic variance-reduced gradient (Johnson & Zhang, 2013; nonsmooth, Xiao & Zhang, 2014).

    Every ``snapshot_every`` steps there is one pass over all rows; the papers take 2 / miniBatchFraction. The rate
    may stay constant, since the noise vanishes at the optimum.
    """
    return Optimizer("svrg", scale_by_learning_rate(1.0), VarianceReduced(learning_rate, snapshot_every))


def lbfgs(memory: int = 10, initial_hessian: InitialHessian | None = None) -> Optimizer:
    """L-BFGS with a strong Wolfe search (Liu & Nocedal, 1989): the default for smooth objectives.

    ``initial_hessian`` is where its first estimate of curvature comes from: by default, for models of up to 256
    coefficients, from one pass over a sample of the rows.
    """
    return Optimizer("lbfgs", scale_by_learning_rate(1.0), QuasiNewton(memory, initial_hessian or InitialHessian()))


def owlqn(memory: int = 10) -> Optimizer:
    """Orthant-wise L-BFGS (Andrew & Gao, 2007): for L1 penalties, as pyspark.ml has it."""
    return Optimizer("owlqn", scale_by_learning_rate(1.0), OrthantWise(memory))


def newton_cg(max_products: int = 50) -> Optimizer:
    """Newton's method by conjugate gradients (Nocedal & Wright, 2006, algorithm 7.1): few steps of many passes."""
    return Optimizer("newton-cg", scale_by_learning_rate(1.0), NewtonCG(max_products))


def proximal_newton() -> Optimizer:
    """Proximal Newton, the outer loop of glmnet, glum and H2O's IRLSM: few steps, each with the Hessian in its pass.

    For any penalty; for models of up to about a thousand coefficients, since a Hessian has their square of entries.
    """
    return Optimizer("proximal-newton", scale_by_learning_rate(1.0), ProximalNewton())


def subsampled_newton(sample: int = 30, share: float = 0.03) -> Optimizer:
    """Proximal Newton with Hessians of a sample (Roosta-Khorasani & Mahoney, 2019): a few more passes, far cheaper.

    The sample has ``sample`` rows for each coefficient, or ``share`` of all rows where that is more.
    """
    return Optimizer("subsampled-newton", scale_by_learning_rate(1.0), SubsampledNewton(sample=sample, share=share))


def proximal_lbfgs(memory: int = 10) -> Optimizer:
    """Proximal L-BFGS (Lee, Sun & Saunders, 2014): for any penalty, and for models too wide for a Hessian.

    As ``proximal_newton``, with a Hessian that the last ``memory`` steps estimate.
    """
    return Optimizer("proximal-lbfgs", scale_by_learning_rate(1.0), ProximalQuasiNewton(memory))


def fista(learning_rate: Rate | None = None) -> Optimizer:
    """Accelerated proximal gradient descent (Beck & Teboulle, 2009): for any nonsmooth penalty.

    ``learning_rate`` is the first length that the search tries.
    """
    first = 1.0 if learning_rate is None else as_schedule(learning_rate)(0)
    return Optimizer("fista", scale_by_learning_rate(1.0), AcceleratedProximal(initial=first))


def _fixed(name: str, *links: GradientTransformation) -> Optimizer:
    search: Search = Fixed()
    return Optimizer(name, chain(*links), search)


def averaging(learning_rate: Rate = 1.0) -> Optimizer:
    """Set the coefficients to the mean of the partitions' after their local steps (Stich, 2019, *Local SGD*, §2).

    A ``learning_rate`` other than 1 takes that share of the step to the mean. For ``LocalSteps.outer``.
    """
    return _fixed("average", scale_by_learning_rate(learning_rate))


def diloco(learning_rate: Rate = 0.7, decay: float = 0.9) -> Optimizer:
    """Nesterov's momentum over mean local updates (Douillard et al., 2023, *DiLoCo*, algorithm 1).

    The rate and the decay are theirs (§3.1). For ``LocalSteps.outer``.
    """
    return _fixed("diloco", trace(decay, nesterov=True), scale_by_learning_rate(learning_rate))
