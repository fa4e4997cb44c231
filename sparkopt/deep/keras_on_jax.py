"""Networks of Keras on JAX, on one device or on a mesh of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sparkopt.deep.keras_losses import KerasLoss
from sparkopt.deep.keras_mesh import JaxMesh
from sparkopt.deep.keras_networks import KerasNetwork, RowArrays, argument, given
from sparkopt.typing import Array

__all__ = ["JaxNetwork"]


class JaxNetwork(KerasNetwork):
    """A model of Keras on JAX: the state is in lists of arrays, since what JAX compiles has no side effects.

    Parameters
    ----------
    model, loss, optimizer
        As in ``KerasNetwork``.
    mesh : JaxMesh or None, default None
        Devices that have the state, and parts of a batch each; None is JAX's default device. What is compiled is of
        the whole batch, so batch normalisation and dropout are too; XLA adds up over the devices.
    """

    def __init__(self, model: Any, loss: KerasLoss, optimizer: Any = None, mesh: JaxMesh | None = None) -> None:
        import jax

        super().__init__(model, loss, optimizer)
        self._mesh = mesh
        whole: dict[str, Any] = {} if mesh is None else {"out_shardings": mesh.whole}
        if mesh is not None:
            self.devices, self.is_joined = mesh.own, mesh.is_joined
        self.placed()
        self._is_ahead = False
        put = [jax.device_put] * 4 if mesh is None else [mesh.rows, mesh.rows, mesh.copied, mesh.copied]
        self._rest = [_Kept(one) for one in put]
        self._gradients = jax.jit(jax.value_and_grad(self._value, has_aux=True), donate_argnums=1, **whole)
        self._update = jax.jit(self._applied, donate_argnums=(0, 1), **whole)
        self._step = jax.jit(self._stepped, donate_argnums=(0, 1, 2), **whole)
        self._output = jax.jit(self._outputs)
        self._evaluate = jax.jit(self._evaluated)
        self._add = jax.jit(lambda first, second: [one + other for one, other in zip(first, second, strict=True)])

    def placed(self) -> None:
        states = (
            self.model.trainable_variables,
            self.model.non_trainable_variables,
            [] if self.optimizer is None else self.optimizer.variables,
        )
        self._trained, self._others, self._state = ([self._copied(one.value) for one in found] for found in states)

    def _copied(self, value: Any) -> Any:
        return value if self._mesh is None else self._mesh.copied(value)

    def collected(self) -> None:
        if not self._is_ahead:
            return
        self._is_ahead = False
        variables = [*self.model.trainable_variables, *self.model.non_trainable_variables, *self.optimizer.variables]
        for variable, value in zip(variables, [*self._trained, *self._others, *self._state], strict=True):
            variable.assign(value if self._mesh is None else self._mesh.single(value))

    def gradients(self, rows: RowArrays, scale: float, share: float) -> tuple[list[Any], Any]:
        (value, self._others), found = self._gradients(self._trained, self._others, *self._given(rows, scale, share))
        self._is_ahead = True
        return found, value

    def step(self, rows: RowArrays, scale: float, share: float) -> Any:
        state = (self._trained, self._others, self._state)
        self._trained, self._others, self._state, value = self._step(*state, *self._given(rows, scale, share))
        self._is_ahead = True
        return value

    def _given(self, rows: RowArrays, scale: float, share: float) -> tuple[Any, ...]:
        from jax.dtypes import canonicalize_dtype

        inputs, label, *rest = given(rows, scale, share)
        label = label.astype(canonicalize_dtype(label.dtype), copy=False)  # as JAX does by itself, five times slower
        if self._mesh is not None:
            inputs, label = tuple(map(self._mesh.rows, inputs)), self._mesh.rows(label)
        return (inputs, label, *(kept(value) for kept, value in zip(self._rest, rest, strict=True)))

    def _stepped(self, trained: Any, others: Any, state: Any, *given: Any) -> tuple[Any, Any, Any, Any]:
        import jax

        (value, others), found = jax.value_and_grad(self._value, has_aux=True)(trained, others, *given)
        trained, state = self._applied(trained, state, found)
        return trained, others, state, value

    def _value(
        self, trained: Any, others: Any, inputs: Any, label: Any, weight: Any, counts: Any, scale: Any, share: Any
    ) -> tuple[Any, Any]:
        from jax import numpy as jnp

        assert self._padding is not None  # noqa: S101  # networks that are trained have one
        is_empty = ~counts.any()  # then batch normalisation sees one row, and keeps its statistics
        with self._padding.rows(counts.at[0].set(counts[0] | is_empty)):
            output, found, losses = self.model.stateless_call(
                trained, others, argument(inputs), training=True, return_losses=True
            )
        value = (self._loss.rows(label, output) * weight).sum() * scale + share * self._own_losses(losses)
        held = {id(one) for one in self._seeds}
        names = self.model.non_trainable_variables
        kept = [
            new if id(name) in held else jnp.where(is_empty, old, new)
            for name, old, new in zip(names, others, found, strict=True)
        ]
        return value, kept

    def apply(self, gradients: Sequence[Any]) -> None:
        self._trained, self._state = self._update(self._trained, self._state, list(gradients))
        self._is_ahead = True

    def _applied(self, trained: Any, state: Any, gradients: Any) -> Any:
        return self.optimizer.stateless_apply(state, gradients, trained)

    def _set_rate(self, value: float) -> None:
        names = [id(one) for one in self.optimizer.variables]
        place = names.index(id(self.optimizer._learning_rate))
        self._state[place] = self._copied(np.asarray(value, self._state[place].dtype))
        self._is_ahead = True

    def output(self, inputs: tuple[Array, ...]) -> Array:
        return np.asarray(self._output(*self._here(), self._rows_here(inputs)))

    def _here(self) -> tuple[list[Any], list[Any]]:
        """Return the weights on this process's devices, since each evaluates its own rows."""
        if self._mesh is None:
            return self._trained, self._others
        trained, others = (list(map(self._mesh.local, values)) for values in (self._trained, self._others))
        return trained, others

    def _rows_here(self, arrays: Sequence[Array]) -> tuple[Any, ...]:
        return tuple(arrays if self._mesh is None else map(self._mesh.local_rows, arrays))

    def _outputs(self, trained: Any, others: Any, inputs: Any) -> Any:
        return self.model.stateless_call(trained, others, argument(inputs), training=False)[0]

    def evaluated(self, inputs: tuple[Array, ...], label: Array) -> tuple[Array, Array]:
        *given_inputs, labels = self._rows_here([*inputs, label])
        output, losses = self._evaluate(*self._here(), tuple(given_inputs), labels)
        return np.asarray(output), np.asarray(losses)

    def _evaluated(self, trained: Any, others: Any, inputs: Any, label: Any) -> tuple[Any, Any]:
        output = self._outputs(trained, others, inputs)
        return output, self._loss.rows(label, output)

    def added(self, first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
        return list(self._add(first, second))

    def of_arrays(self, values: Sequence[Array]) -> list[Any]:
        pairs = zip(values, self._trained, strict=True)
        return [self._copied(np.asarray(value, variable.dtype)) for value, variable in pairs]


class _Kept:
    """Puts an array on devices, unless it is there since the last step: most batches have the same row weights.

    Parameters
    ----------
    put : callable
        Puts an array there.
    """

    def __init__(self, put: Callable[[Array], Any]) -> None:
        self._put = put
        self._value: Array | None = None
        self._there: Any = None

    def __call__(self, value: Array) -> Any:
        if self._value is None or not np.array_equal(self._value, value):
            self._value, self._there = np.array(value), self._put(value)  # a copy: the caller may reuse its array
        return self._there
