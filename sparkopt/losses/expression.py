"""A loss from an expression: the user writes the loss of a row, a library differentiates and compiles it.

The libraries are in modules of their own (``on_torch``, ``on_jax``, ``on_pytensor``), which are imported where a loss
of theirs is evaluated. A compiled loss belongs to its process: what is sent to tasks is the function, by value.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from sparkopt.errors import MissingDependencyError, ParameterError
from sparkopt.losses.base import Loss
from sparkopt.losses.checks import check_loss
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = ["ExpressionLoss", "RowFunction", "of"]

BACKENDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "torch": ("on_torch", "PyTorch"),
        "jax": ("on_jax", "JAX"),
        "pytensor": ("on_pytensor", "PyTensor"),
    }
)
"""Module and library, by the backend's name."""
ANY = Interval()


@dataclass(frozen=True)
class RowFunction:
    """The loss and the prediction of one row, as a library differentiates them.

    Attributes
    ----------
    loss : callable
        From label, raw prediction or predictions, and auxiliary parameters by position, to the loss.
    prediction : callable
        From raw prediction or predictions to the prediction.
    outputs : int
        Raw predictions per row.
    auxiliary : int
        Number of auxiliary parameters.
    """

    loss: Callable[..., Any]
    prediction: Callable[[Any], Any]
    outputs: int
    auxiliary: int

    @property
    def is_single(self) -> bool:
        """Whether a row has one number, so that the raw predictions of rows are a vector."""
        return self.outputs + self.auxiliary == 1

    def columns(self, raw: Any) -> tuple[Any, ...]:
        """Return the arguments of ``loss`` after the label, for all rows: (n,) or (n, outputs), then (n,) each."""
        if self.is_single:
            return (raw,)
        first = raw[:, 0] if self.outputs == 1 else raw[:, : self.outputs]
        return (first, *(raw[:, self.outputs + number] for number in range(self.auxiliary)))


class Derivatives(Protocol):
    """A compiled loss of all rows: what a library makes of a `RowFunction`."""

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """Return losses (n,) and derivatives, of the shape of ``raw``."""
        ...

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return each row's second derivative times ``direction``."""
        ...

    def predict(self, raw: Array) -> Array:
        """Return the predictions for the outputs."""
        ...


@dataclass(frozen=True)
class ExpressionLoss(Loss):
    """A loss that was written as a function of one row; `of` makes it.

    Two are equal where their functions are the same object. Pickled, it holds the functions by value, as Spark's
    cloudpickle sends them to tasks. Checkpoints and models hold numbers only; a checkpoint knows the function by the
    digest of its code and of what it captures.
    """

    function: Callable[..., Any] = lambda y, raw: raw - y
    backend: str = "torch"
    outputs: int = 1
    parameters: tuple[str, ...] = ()
    targets: Interval = ANY
    prediction: Callable[[Any], Any] | None = None
    curvature: float | None = None
    name: str = "expression"  # type: ignore[misc]  # a class variable elsewhere

    def __post_init__(self) -> None:
        check("backend", self.backend, OneOf(list(BACKENDS)))
        check("outputs", self.outputs, Interval(1, None, whole=True))
        if self.curvature is not None:
            check("curvature", self.curvature, Interval(0, None, closed="neither"))
        from pyspark.cloudpickle import dumps  # here, since losses need no Spark; this part of it needs no JVM

        object.__setattr__(self, "_sent", dumps((self.function, self.prediction)))

    @property
    def auxiliary(self) -> int:
        """Number of auxiliary parameters."""
        return len(self.parameters)

    def value_gradient(self, y: Array, raw: Array) -> tuple[Array, Array]:
        """The function and its derivatives by raw predictions and auxiliary parameters."""
        return self._derivatives.value_gradient(*self._as_floats(y, raw))

    def hessian_product(self, y: Array, raw: Array, direction: Array) -> Array:
        """Return each row's second derivative times ``direction``."""
        return self._derivatives.hessian_product(*self._as_floats(y, raw, direction))

    def predict(self, raw: Array) -> Array:
        """Return ``predict`` of the outputs; the raw predictions where there is none."""
        if self.prediction is None:
            return raw
        return self._derivatives.predict(*self._as_floats(raw))

    @property
    def _derivatives(self) -> Derivatives:
        found: Derivatives | None = vars(self).get("_program")
        if found is None:  # looked up once: a call for a small block takes as long
            found = _compiled(self)
            object.__setattr__(self, "_program", found)
        return found

    def _as_floats(self, *arrays: Array) -> list[Array]:
        """Return arrays of the raw predictions' type, or of doubles, which a library may take as its own."""
        kind = np.float32 if arrays[-1].dtype == np.float32 else np.float64
        found = (np.asarray(array, dtype=kind) for array in arrays)
        return [array if array.flags.writeable else array.copy() for array in found]

    def remedy(self, method: str) -> str:
        """Return what to do about a derivative that differs from finite differences."""
        return (
            f"Write the function in {BACKENDS[self.backend][1]}'s differentiable operations, with nothing detached, "
            f"and without jumps."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("backend", "outputs", "parameters", "targets", "curvature", "name")
        return _restored, (vars(self)["_sent"], tuple((name, getattr(self, name)) for name in names))


@lru_cache(maxsize=64)
def _restored(sent: bytes, facts: tuple[tuple[str, Any], ...]) -> ExpressionLoss:
    """Return the loss that was sent: one object however often a task is sent, so that it is compiled once."""
    from pyspark.cloudpickle import loads

    function, prediction = loads(sent)
    loss = ExpressionLoss(function=function, prediction=prediction, **dict(facts))
    object.__setattr__(loss, "_sent", sent)  # pickled again, it would be other bytes
    return loss


_programs: dict[tuple[Any, ...], Derivatives] = {}


def _compiled(loss: ExpressionLoss) -> Derivatives:
    """Return this process's program of a loss."""
    key = (hashlib.sha256(vars(loss)["_sent"]).digest(), loss.backend, loss.outputs, loss.parameters)
    if key not in _programs:
        by_position = _by_position(loss.function, loss.parameters)
        row = RowFunction(by_position, loss.prediction or _itself, loss.outputs, loss.auxiliary)
        _programs[key] = _module(loss.backend).compiled(row)
    return _programs[key]


def _by_position(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    """Return the function with its auxiliary parameters by position."""

    def loss(y: Any, raw: Any, *values: Any) -> Any:
        return function(y, raw, **dict(zip(names, values, strict=True)))

    return loss


def _itself(raw: Any) -> Any:
    return raw


def _module(backend: str) -> Any:
    """Return the module of a backend.

    Raises
    ------
    MissingDependencyError
        Where its library is not installed.
    """
    name, feature = BACKENDS[backend][0], f"losses.of(backend={backend!r})"
    try:
        return import_module(f"sparkopt.losses.{name}")
    except ModuleNotFoundError as error:
        if error.name != backend:
            raise
        if backend == "jax":
            raise MissingDependencyError.of(feature, "JAX", "jax") from None
        if backend == "pytensor":
            raise MissingDependencyError.of(feature, "PyTensor", "pytensor") from None
        raise MissingDependencyError.of(feature, "PyTorch", "deep") from None


def of(
    function: Callable[..., Any],
    backend: str = "torch",
    *,
    outputs: int = 1,
    targets: Interval = ANY,
    predict: Callable[[Any], Any] | None = None,
    curvature: float | None = None,
    name: str = "",
) -> ExpressionLoss:
    """Return a loss from the expression of one row; derivatives follow by automatic differentiation.

    The function is differentiated (twice, for methods that use curvature), compiled and vectorised over the rows of a
    block, and compared once with finite differences. Workers need the library too. In rows of float32 it computes in
    float32.

    Parameters
    ----------
    function : callable
        ``function(y, raw)`` or ``function(y, raw, name, ...)``: from the label of a row and its raw prediction, a
        number, to the loss, in operations of the backend. With ``outputs`` > 1, ``raw`` is a vector. Further
        parameters without a default are auxiliary parameters of the loss: numbers that are the same for every row,
        fitted along with the coefficients from 0 on and never penalised.
    backend : {"torch", "jax", "pytensor"}, default "torch"
        The library: PyTorch (``torch.func``), JAX, or PyTensor, Theano's successor.
    outputs : int, default 1
        Raw predictions per row.
    targets : Interval, default every finite number
        The labels for which it is defined, such as ``Interval(0, 1, whole=True)``; others are refused.
    predict : callable, optional
        From raw prediction, or the vector of them, to the prediction; by default they are the same.
    curvature : float, optional
        Upper bound of the second derivative, where you know one: it bounds the step of gradient descent.
    name : str, optional
        Name in receipts and errors; by default the function's.

    Raises
    ------
    ParameterError
        Where the function cannot be differentiated, does not return one number a row, or its derivatives are not
        those that finite differences give.
    MissingDependencyError
        Where the library is not installed.

    Examples
    --------
    Logistic regression, and a robust one with a scale of the residuals that is fitted too:

    >>> import torch
    >>> from sparkopt import losses
    >>> from sparkopt.validation import Interval
    >>> def logistic(y, raw):
    ...     return torch.nn.functional.softplus(raw) - y * raw
    >>> loss = losses.of(logistic, targets=Interval(0, 1, whole=True), predict=torch.sigmoid)
    >>> import numpy as np
    >>> value, gradient = loss.value_gradient(np.array([1.0]), np.array([0.0]))
    >>> value.round(4).tolist(), gradient.tolist()
    ([0.6931], [-0.5])
    >>> def student(y, raw, log_scale):  # with 3 degrees of freedom
    ...     return 2 * torch.log1p((raw - y) ** 2 * torch.exp(-2 * log_scale) / 3) + log_scale
    >>> losses.of(student).auxiliary
    1
    """
    loss = ExpressionLoss(
        function=function,
        backend=backend,
        outputs=outputs,
        parameters=_auxiliary_names(function),
        targets=targets,
        prediction=predict,
        curvature=curvature,
        name=name or getattr(function, "__name__", "expression"),
    )
    derivatives = _module(backend)
    try:
        check_loss(loss)
        if predict is not None:
            shape = (3,) if outputs == 1 else (3, outputs)
            _check_prediction(loss, shape)
    except ParameterError:
        raise
    except derivatives.ERRORS as error:
        reason = str(error).strip().split("\n")[0][:300].rstrip(".")
        raise ParameterError(
            f"loss {loss.name!r}: {BACKENDS[backend][1]} cannot compile it: {type(error).__name__}: {reason}. "
            f"Write a function of one row that returns one number, {derivatives.HINT}."
        ) from error
    return loss


def _check_prediction(loss: ExpressionLoss, shape: tuple[int, ...]) -> None:
    found = loss.predict(np.zeros(shape))
    if found.shape not in (shape, shape[:1]):
        raise ParameterError(
            f"loss {loss.name!r}: predict returns the shape {found.shape[1:]} for a row; it must be {shape[1:]}."
        )


def _auxiliary_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters after label and raw prediction that have no default."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ParameterError(f"function must be a callable with a signature. Got {function!r} instead.") from None
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) < 2 or any(parameter.kind not in plain for parameter in parameters[:2]):
        raise ParameterError(
            "function must take the label and the raw prediction of a row: function(y, raw). Got "
            f"{getattr(function, '__name__', 'function')}{inspect.signature(function)} instead."
        )
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(
        parameter.name
        for parameter in parameters[2:]
        if parameter.kind in named and parameter.default is inspect.Parameter.empty
    )
