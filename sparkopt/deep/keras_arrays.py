"""Arrays of a network of Keras: its inputs as Keras has them, and weights by the order of its variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sparkopt.errors import DataError
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["InputArrays", "named_weights", "ordered_weights"]


@dataclass(frozen=True)
class InputArrays:
    """From tensors of a batch to arrays that a model of Keras is called with.

    Parameters
    ----------
    images : tuple of bool
        Which inputs are images, (rows, channels, height, width) in a batch; Keras has channels last unless it is
        configured otherwise.
    """

    images: tuple[bool, ...] = ()

    def of(self, inputs: Sequence[torch.Tensor]) -> tuple[Array, ...]:
        """Return the arrays: float32, or whole numbers as the backend has them.

        Raises
        ------
        DataError
            Where a whole number is too large for the backend.
        """
        marks = [*self.images, *[False] * len(inputs)]
        return tuple(_array(tensor, image) for tensor, image in zip(inputs, marks, strict=False))

    @staticmethod
    def called(arrays: Sequence[Array]) -> list[Any]:
        """Return tensors of the backend."""
        from keras import ops

        return [ops.convert_to_tensor(values) for values in arrays]


def _array(tensor: torch.Tensor, is_image: bool) -> Array:
    import keras

    values: Array = tensor.cpu().numpy()
    if is_image and keras.config.image_data_format() == "channels_last":
        values = np.ascontiguousarray(np.moveaxis(values, 1, -1))
    if values.dtype == np.int64:
        return _whole(values) if keras.backend.backend() == "jax" else values
    return values if values.dtype == np.float32 else values.astype(np.float32)


def _whole(values: Array) -> Array:
    """Return whole numbers in 32 bits, which JAX makes of them by itself, whatever they are."""
    if values.size and (values.max() > 2**31 - 1 or values.min() < -(2**31)):
        raise DataError("a whole number among the features has more than 32 bits, which JAX takes. Index such ids.")
    return values.astype(np.int32)


def named_weights(values: Sequence[Array]) -> dict[str, torch.Tensor]:
    """Return weights under names that sort as the model's variables are ordered."""
    return {f"variable.{number:05d}": torch.from_numpy(np.array(value)) for number, value in enumerate(values)}


def ordered_weights(weights: Mapping[str, torch.Tensor]) -> list[Array]:
    """Return the arrays that ``named_weights`` was given."""
    return [weights[name].cpu().numpy() for name in sorted(weights)]
