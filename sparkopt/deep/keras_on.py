"""Networks of Keras on each backend: PyTorch, JAX and TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparkopt.deep.keras_losses import KerasLoss
from sparkopt.deep.keras_networks import KerasNetwork, RowArrays, argument
from sparkopt.typing import Array

__all__ = ["JaxNetwork", "TensorFlowNetwork", "TorchNetwork", "network_of"]


class TorchNetwork(KerasNetwork):
    """A model of Keras on PyTorch, which is a module of PyTorch too."""

    pads = False

    def gradients(self, rows: RowArrays, scale: float, share: float) -> tuple[list[Any], Any]:
        import torch
        from keras import ops

        variables = [one.value for one in self.model.trainable_variables]
        before = [one.value.clone() for one in self.model.non_trainable_weights] if not rows.counts.any() else []
        output = self._called(self._tensors(rows.inputs), True)
        losses = self._loss.rows(ops.convert_to_tensor(rows.label), output)
        value = (losses * ops.convert_to_tensor(rows.weight)).sum() * scale
        value = value + share * self._own_losses(self.model.losses)
        found = torch.autograd.grad(value, variables, allow_unused=True)
        with torch.no_grad():
            for variable, old in zip(self.model.non_trainable_weights, before, strict=False):
                variable.assign(old)  # of a batch without rows
        pairs = zip(found, variables, strict=True)
        return [torch.zeros_like(one) if own is None else own for own, one in pairs], value.detach()

    def apply(self, gradients: Sequence[Any]) -> None:
        import torch

        with torch.no_grad():
            self.optimizer.apply(list(gradients), self.model.trainable_variables)

    def output(self, inputs: tuple[Array, ...]) -> Array:
        import torch

        with torch.no_grad():
            found: Array = self._called(self._tensors(inputs), False).cpu().numpy()
        return found

    def evaluated(self, inputs: tuple[Array, ...], label: Array) -> tuple[Array, Array]:
        import torch
        from keras import ops

        with torch.no_grad():
            output = self._called(self._tensors(inputs), False)
            losses = self._loss.rows(ops.convert_to_tensor(label), output)
        return output.cpu().numpy(), losses.cpu().numpy()

    def added(self, first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
        return [one + other for one, other in zip(first, second, strict=True)]

    def of_arrays(self, values: Sequence[Array]) -> list[Any]:
        from keras import ops

        pairs = zip(values, self.model.trainable_variables, strict=True)
        return [ops.convert_to_tensor(value, dtype=variable.dtype) for value, variable in pairs]

    @staticmethod
    def _tensors(inputs: tuple[Array, ...]) -> list[Any]:
        from keras import ops

        return [ops.convert_to_tensor(values) for values in inputs]


class JaxNetwork(KerasNetwork):
    """A model of Keras on JAX: the state is in lists of arrays, since what JAX compiles has no side effects."""

    def __init__(self, model: Any, loss: KerasLoss, optimizer: Any = None) -> None:
        import jax

        super().__init__(model, loss, optimizer)
        self.placed()
        self._is_ahead = False
        self._gradients = jax.jit(jax.value_and_grad(self._value, has_aux=True), donate_argnums=1)
        self._update = jax.jit(self._applied, donate_argnums=(0, 1))
        self._step = jax.jit(self._stepped, donate_argnums=(0, 1, 2))
        self._output = jax.jit(self._outputs)
        self._evaluate = jax.jit(self._evaluated)
        self._add = jax.jit(lambda first, second: [one + other for one, other in zip(first, second, strict=True)])

    def placed(self) -> None:
        self._trained = [one.value for one in self.model.trainable_variables]
        self._others = [one.value for one in self.model.non_trainable_variables]
        self._state = [] if self.optimizer is None else [one.value for one in self.optimizer.variables]

    def collected(self) -> None:
        if not self._is_ahead:
            return
        self._is_ahead = False
        variables = [*self.model.trainable_variables, *self.model.non_trainable_variables, *self.optimizer.variables]
        for variable, value in zip(variables, [*self._trained, *self._others, *self._state], strict=True):
            variable.assign(value)

    def gradients(self, rows: RowArrays, scale: float, share: float) -> tuple[list[Any], Any]:
        (value, self._others), found = self._gradients(self._trained, self._others, *_given(rows, scale, share))
        self._is_ahead = True
        return found, value

    def step(self, rows: RowArrays, scale: float, share: float) -> Any:
        state = (self._trained, self._others, self._state)
        self._trained, self._others, self._state, value = self._step(*state, *_given(rows, scale, share))
        self._is_ahead = True
        return value

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
        with self._padding.rows(counts.at[0].set(True)):
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
        self._state[place] = np.asarray(value, self._state[place].dtype)
        self._is_ahead = True

    def output(self, inputs: tuple[Array, ...]) -> Array:
        return np.asarray(self._output(self._trained, self._others, inputs))

    def _outputs(self, trained: Any, others: Any, inputs: Any) -> Any:
        return self.model.stateless_call(trained, others, argument(inputs), training=False)[0]

    def evaluated(self, inputs: tuple[Array, ...], label: Array) -> tuple[Array, Array]:
        output, losses = self._evaluate(self._trained, self._others, inputs, label)
        return np.asarray(output), np.asarray(losses)

    def _evaluated(self, trained: Any, others: Any, inputs: Any, label: Any) -> tuple[Any, Any]:
        output = self._outputs(trained, others, inputs)
        return output, self._loss.rows(label, output)

    def added(self, first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
        return list(self._add(first, second))

    def of_arrays(self, values: Sequence[Array]) -> list[Any]:
        pairs = zip(values, self._trained, strict=True)
        return [np.asarray(value, variable.dtype) for value, variable in pairs]


def _given(rows: RowArrays, scale: float, share: float) -> tuple[Any, ...]:
    """Return what a compiled step takes in addition to the state."""
    return rows.inputs, rows.label, rows.weight, rows.counts, np.float32(scale), np.float32(share)


class TensorFlowNetwork(KerasNetwork):
    """A model of Keras on TensorFlow, whose variables change in place."""

    def __init__(self, model: Any, loss: KerasLoss, optimizer: Any = None) -> None:
        import tensorflow as tf

        super().__init__(model, loss, optimizer)
        self._gradients = tf.function(self._computed, autograph=False)
        self._step = tf.function(self._stepped, autograph=False)
        self._update = tf.function(self._applied, autograph=False)
        self._output = tf.function(self._outputs, autograph=False)
        self._evaluate = tf.function(self._evaluated, autograph=False)

    def gradients(self, rows: RowArrays, scale: float, share: float) -> tuple[list[Any], Any]:
        import tensorflow as tf

        is_empty = not rows.counts.any()
        before = [one.value + 0 for one in self.model.non_trainable_weights] if is_empty else []
        counts = rows.counts.copy()
        counts[0] = True  # of a batch without rows batch normalisation sees one, and keeps its statistics
        given = _given(replace(rows, counts=counts), scale, share)
        found, value = self._gradients(*tf.nest.map_structure(tf.convert_to_tensor, given))
        for variable, old in zip(self.model.non_trainable_weights, before, strict=False):
            variable.assign(old)
        return list(found), value

    def step(self, rows: RowArrays, scale: float, share: float) -> Any:
        import tensorflow as tf

        if not rows.counts.any():
            return super().step(rows, scale, share)
        return self._step(*tf.nest.map_structure(tf.convert_to_tensor, _given(rows, scale, share)))

    def _stepped(self, *given: Any) -> Any:
        found, value = self._computed(*given)
        self._applied(found)
        return value

    def _computed(self, inputs: Any, label: Any, weight: Any, counts: Any, scale: Any, share: Any) -> Any:
        import tensorflow as tf

        assert self._padding is not None  # noqa: S101  # networks that are trained have one
        variables = [one.value for one in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            with self._padding.rows(counts):
                output = self._called(inputs, True)
            value = tf.reduce_sum(self._loss.rows(label, output) * weight) * scale
            value = value + share * self._own_losses(self.model.losses)
        found = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(one) for one in found], value

    def apply(self, gradients: Sequence[Any]) -> None:
        self._update(list(gradients))

    def _applied(self, gradients: Any) -> None:
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def output(self, inputs: tuple[Array, ...]) -> Array:
        import tensorflow as tf

        found: Array = self._output(tf.nest.map_structure(tf.convert_to_tensor, inputs)).numpy()
        return found

    def _outputs(self, inputs: Any) -> Any:
        return self._called(inputs, False)

    def evaluated(self, inputs: tuple[Array, ...], label: Array) -> tuple[Array, Array]:
        import tensorflow as tf

        output, losses = self._evaluate(*tf.nest.map_structure(tf.convert_to_tensor, (inputs, label)))
        return output.numpy(), losses.numpy()

    def _evaluated(self, inputs: Any, label: Any) -> tuple[Any, Any]:
        output = self._outputs(inputs)
        return output, self._loss.rows(label, output)

    def added(self, first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
        return [one + other for one, other in zip(first, second, strict=True)]

    def of_arrays(self, values: Sequence[Array]) -> list[Any]:
        import tensorflow as tf

        pairs = zip(values, self.model.trainable_variables, strict=True)
        return [tf.convert_to_tensor(value, dtype=variable.dtype) for value, variable in pairs]


def network_of(model: Any, loss: KerasLoss, optimizer: Any = None) -> KerasNetwork:
    """Return a network on the backend that this process has."""
    import keras

    kinds: dict[str, Callable[..., KerasNetwork]] = {
        "torch": TorchNetwork,
        "jax": JaxNetwork,
        "tensorflow": TensorFlowNetwork,
    }
    return kinds[keras.backend.backend()](model, loss, optimizer)
