"""A network of Keras on its backend: gradients of a batch, steps of the optimiser, outputs, and its state as arrays.

On JAX and TensorFlow what a step computes is compiled. All batches have one shape, so it is traced once: rows that
pad a batch have weight 0, and batch normalisation sees them as masked. PyTorch runs step by step, unpadded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparkopt.deep.keras_backends import Padding
from sparkopt.deep.keras_losses import KerasLoss
from sparkopt.errors import IncompatibleError
from sparkopt.typing import Array

__all__ = ["KerasNetwork", "RowArrays", "network_of"]


@dataclass(frozen=True)
class RowArrays:
    """Rows as arrays.

    Attributes
    ----------
    inputs : tuple of ndarray
        (rows, …).
    label : ndarray or None
        (rows, …).
    weight : ndarray of shape (rows,)
        float32; 0 for rows that pad.
    counts : ndarray of shape (rows,)
        Which rows do not pad.
    """

    inputs: tuple[Array, ...]
    label: Array | None
    weight: Array
    counts: Array

    def padded(self, rows: int) -> RowArrays:
        """Return at least so many rows, the first one repeated with weight 0."""
        missing = rows - len(self.weight)
        if missing <= 0:
            return self
        inputs = tuple(_repeated(values, missing) for values in self.inputs)
        label = None if self.label is None else _repeated(self.label, missing)
        return RowArrays(inputs, label, _zeros(self.weight, missing), _zeros(self.counts, missing))


def _repeated(values: Array, missing: int) -> Array:
    return np.concatenate([values, np.broadcast_to(values[:1], (missing, *values.shape[1:]))])


def _zeros(values: Array, missing: int) -> Array:
    return np.concatenate([values, np.zeros(missing, values.dtype)])


class KerasNetwork(ABC):
    """A model of Keras and its optimiser.

    Parameters
    ----------
    model : keras.Model
        Built.
    loss : KerasLoss
        Losses of rows.
    optimizer : keras.optimizers.Optimizer or None
        None for a network that is only evaluated.

    Attributes
    ----------
    pads : bool
        Whether batches must have one shape.
    """

    pads = True

    def __init__(self, model: Any, loss: KerasLoss, optimizer: Any = None) -> None:
        self.model, self.optimizer, self._loss = model, optimizer, loss
        if optimizer is not None:
            optimizer.build(model.trainable_variables)
        kept = {id(one) for one in model.weights}
        self._seeds = [one for one in model.non_trainable_variables if id(one) not in kept]
        self._padding = Padding(model) if self.pads and optimizer is not None else None
        self._regularised = sum(one.regularizer is not None for one in model.trainable_weights)

    @abstractmethod
    def gradients(self, rows: RowArrays, scale: float, share: float) -> tuple[list[Any], float]:
        """Return the gradients of ``scale`` times the sum of the rows' losses by weight, and that value.

        ``share`` times the regularisers of weights is added to both.
        """

    @abstractmethod
    def apply(self, gradients: Sequence[Any]) -> None:
        """Take a step of the optimiser."""

    @abstractmethod
    def output(self, inputs: tuple[Array, ...]) -> Array:
        """Return the outputs of rows, as at evaluation."""

    @abstractmethod
    def evaluated(self, inputs: tuple[Array, ...], label: Array) -> tuple[Array, Array]:
        """Return the outputs and the losses of rows."""

    @abstractmethod
    def added(self, first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
        """Return the sums of gradients."""

    @abstractmethod
    def of_arrays(self, values: Sequence[Array]) -> list[Any]:
        """Return gradients as the backend holds them."""

    def arrays(self, gradients: Sequence[Any]) -> list[Array]:
        """Return gradients as arrays."""
        from keras import ops

        return [np.asarray(ops.convert_to_numpy(one)) for one in gradients]

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Raise what padding has refused as it was."""
        try:
            yield
        except Exception as error:
            found = None if self._padding is None else self._padding.refusal
            if found is None:
                raise
            raise found from error

    def collected(self) -> None:  # noqa: B027  # only what is apart from the variables has to be
        """Bring the variables of model and optimiser up to date."""

    def placed(self) -> None:  # noqa: B027  # as above
        """Take the variables of model and optimiser as they are now."""

    def weights(self) -> list[Array]:
        """Return weights in the order of the model's variables."""
        return self._read(self.model.weights)

    def load_weights(self, values: Sequence[Array]) -> None:
        """Set the weights."""
        self._write(self.model.weights, values)

    def seeds(self) -> list[Array]:
        """Return the states of the model's random generators."""
        return self._read(self._seeds)

    def load_seeds(self, values: Sequence[Array]) -> None:
        """Set them."""
        self._write(self._seeds, values)

    def optimizer_state(self) -> list[Array]:
        """Return the variables of the optimiser."""
        return self._read(self.optimizer.variables)

    def load_optimizer_state(self, values: Sequence[Array]) -> None:
        """Set them."""
        self._write(self.optimizer.variables, values)

    @property
    def rate(self) -> float:
        """The learning rate now."""
        from keras import ops

        self.collected()
        return float(ops.convert_to_numpy(ops.convert_to_tensor(self.optimizer.learning_rate)))

    @rate.setter
    def rate(self, value: float) -> None:
        self.collected()
        self.optimizer.learning_rate = value
        self.placed()

    def _read(self, variables: Sequence[Any]) -> list[Array]:
        from keras import ops

        self.collected()
        return [np.array(ops.convert_to_numpy(one.value)) for one in variables]

    def _write(self, variables: Sequence[Any], values: Sequence[Array]) -> None:
        self.collected()
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.placed()

    def _called(self, inputs: Sequence[Any], training: bool) -> Any:
        return self.model(_argument(inputs), training=training)

    def _own_losses(self, losses: Sequence[Any]) -> Any:
        """Return the sum of the regularisers of weights.

        Raises
        ------
        IncompatibleError
            Where layers add losses of a batch, rows that pad it included.
        """
        if len(losses) > self._regularised:
            raise IncompatibleError(
                "a layer adds a loss of its own (add_loss, activity_regularizer), which is of a batch, not of rows. "
                "Compute it in the loss, from outputs; regularisers of weights are taken as they are."
            )
        return sum(losses)


def _argument(inputs: Sequence[Any]) -> Any:
    """Return what a model is called with: Keras passes several inputs as one list."""
    return inputs[0] if len(inputs) == 1 else list(inputs)


class _Torch(KerasNetwork):
    pads = False

    def gradients(self, rows: RowArrays, scale: float, share: float) -> tuple[list[Any], float]:
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
        return [torch.zeros_like(one) if own is None else own for own, one in pairs], float(value.detach())

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


class _Jax(KerasNetwork):
    """The state is in lists of arrays, since what JAX compiles has no side effects."""

    def __init__(self, model: Any, loss: KerasLoss, optimizer: Any = None) -> None:
        import jax

        super().__init__(model, loss, optimizer)
        self.placed()
        self._is_ahead = False
        self._step = jax.jit(jax.value_and_grad(self._value, has_aux=True))
        self._update = jax.jit(self._applied)
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

    def gradients(self, rows: RowArrays, scale: float, share: float) -> tuple[list[Any], float]:
        given = (rows.inputs, rows.label, rows.weight, rows.counts, np.float32(scale), np.float32(share))
        (value, self._others), found = self._step(self._trained, self._others, *given)
        self._is_ahead = True
        return found, float(value)

    def _value(
        self, trained: Any, others: Any, inputs: Any, label: Any, weight: Any, counts: Any, scale: Any, share: Any
    ) -> tuple[Any, Any]:
        from jax import numpy as jnp

        assert self._padding is not None  # noqa: S101  # networks that are trained have one
        is_empty = ~counts.any()  # then batch normalisation sees one row, and keeps its statistics
        with self._padding.rows(counts.at[0].set(True)):
            output, found, losses = self.model.stateless_call(
                trained, others, _argument(inputs), training=True, return_losses=True
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

    def output(self, inputs: tuple[Array, ...]) -> Array:
        return np.asarray(self._output(self._trained, self._others, inputs))

    def _outputs(self, trained: Any, others: Any, inputs: Any) -> Any:
        return self.model.stateless_call(trained, others, _argument(inputs), training=False)[0]

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


class _TensorFlow(KerasNetwork):
    def __init__(self, model: Any, loss: KerasLoss, optimizer: Any = None) -> None:
        import tensorflow as tf

        super().__init__(model, loss, optimizer)
        self._step = tf.function(self._gradients)
        self._update = tf.function(self._applied)
        self._output = tf.function(self._outputs)
        self._evaluate = tf.function(self._evaluated)

    def gradients(self, rows: RowArrays, scale: float, share: float) -> tuple[list[Any], float]:
        import tensorflow as tf

        is_empty = not rows.counts.any()
        before = [one.value + 0 for one in self.model.non_trainable_weights] if is_empty else []
        counts = rows.counts.copy()
        counts[0] = True  # of a batch without rows batch normalisation sees one, and keeps its statistics
        given = (rows.inputs, rows.label, rows.weight, counts, np.float32(scale), np.float32(share))
        found, value = self._step(*tf.nest.map_structure(tf.convert_to_tensor, given))
        for variable, old in zip(self.model.non_trainable_weights, before, strict=False):
            variable.assign(old)
        return list(found), float(value)

    def _gradients(self, inputs: Any, label: Any, weight: Any, counts: Any, scale: Any, share: Any) -> Any:
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

    kinds: dict[str, Callable[..., KerasNetwork]] = {"torch": _Torch, "jax": _Jax, "tensorflow": _TensorFlow}
    return kinds[keras.backend.backend()](model, loss, optimizer)
