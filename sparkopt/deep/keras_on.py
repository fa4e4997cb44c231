"""Networks of Keras on PyTorch and TensorFlow, and which one a process takes; ``keras_on_jax`` has JAX's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sparkopt.deep.keras_losses import KerasLoss
from sparkopt.deep.keras_mesh import JaxMesh
from sparkopt.deep.keras_networks import KerasNetwork, RowArrays, given
from sparkopt.deep.keras_on_jax import JaxNetwork
from sparkopt.typing import Array

__all__ = ["TensorFlowNetwork", "TorchNetwork", "network_of"]


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
        arrays = given(replace(rows, counts=counts), scale, share)
        found, value = self._gradients(*tf.nest.map_structure(tf.convert_to_tensor, arrays))
        for variable, old in zip(self.model.non_trainable_weights, before, strict=False):
            variable.assign(old)
        return list(found), value

    def step(self, rows: RowArrays, scale: float, share: float) -> Any:
        import tensorflow as tf

        if not rows.counts.any():
            return super().step(rows, scale, share)
        return self._step(*tf.nest.map_structure(tf.convert_to_tensor, given(rows, scale, share)))

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


def network_of(model: Any, loss: KerasLoss, optimizer: Any = None, mesh: JaxMesh | None = None) -> KerasNetwork:
    """Return a network on the backend that this process has; a mesh is for JAX."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        return JaxNetwork(model, loss, optimizer, mesh)
    return TorchNetwork(model, loss, optimizer) if backend == "torch" else TensorFlowNetwork(model, loss, optimizer)
