"""A network of Keras on any backend: gradients of a batch, steps of the optimiser, outputs, and its state as arrays.

On JAX and TensorFlow what a step computes is compiled. All batches have one shape, so it is traced once: rows that
pad a batch have weight 0, and batch normalisation sees them as masked. PyTorch runs step by step, unpadded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sparkopt.deep.keras_backends import Padding
from sparkopt.deep.keras_losses import KerasLoss
from sparkopt.errors import IncompatibleError
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["KerasNetwork", "RowArrays", "argument", "given"]


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
    devices : int
        Of this process: rows of a batch are padded to a multiple.
    is_joined : bool
        Whether a step is of the rows of all processes, and sums over them by itself.
    """

    pads = True
    devices = 1
    is_joined = False

    def __init__(self, model: Any, loss: KerasLoss, optimizer: Any = None) -> None:
        self.model, self.optimizer, self._loss = model, optimizer, loss
        if optimizer is not None:
            optimizer.build(model.trainable_variables)
        kept = {id(one) for one in model.weights}
        self._seeds = [one for one in model.non_trainable_variables if id(one) not in kept]
        self._padding = Padding(model) if self.pads and optimizer is not None else None
        self._regularised = sum(one.regularizer is not None for one in model.trainable_weights)

    @abstractmethod
    def gradients(self, rows: RowArrays, scale: float, share: float) -> tuple[list[Any], Any]:
        """Return the gradients of ``scale`` times the sum of the rows' losses by weight, and that value.

        ``share`` times the regularisers of weights is added to both. The value may still be being computed.
        """

    def step(self, rows: RowArrays, scale: float, share: float) -> Any:
        """Take a step of the optimiser along the gradients of these rows alone; return the value."""
        found, value = self.gradients(rows, scale, share)
        self.apply(found)
        return value

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
        self._set_rate(value)

    def _set_rate(self, value: float) -> None:
        self.optimizer.learning_rate = value

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
        return self.model(argument(inputs), training=training)

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


def argument(inputs: Sequence[Any]) -> Any:
    """Return what a model is called with: Keras passes several inputs as one list."""
    return inputs[0] if len(inputs) == 1 else list(inputs)


def given(rows: RowArrays, scale: float, share: float) -> tuple[Any, ...]:
    """Return what a compiled step takes in addition to the state."""
    return rows.inputs, rows.label, rows.weight, rows.counts, np.float32(scale), np.float32(share)
