"""Losses of networks of Keras: one value a row, and what outputs mean under them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sparkopt.deep.keras_backends import config_of
from sparkopt.deep.losses import TASKS
from sparkopt.errors import ParameterError

__all__ = ["LOSS_NAMES", "KerasLoss", "named_loss"]

LOSS_NAMES: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "squared_error": ("MeanSquaredError", {}),
        "absolute_error": ("MeanAbsoluteError", {}),
        "huber": ("Huber", {}),
        "logistic": ("BinaryCrossentropy", {"from_logits": True}),
        "multinomial": ("SparseCategoricalCrossentropy", {"from_logits": True}),
        "poisson": ("", {}),
    }
)
"""sparkopt's names of losses: the class in ``keras.losses``, and its settings; Poisson's is of the logarithm here."""

_CLASSES = ("SparseCategoricalCrossentropy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy")
_LABELS = ("BinaryCrossentropy", "BinaryFocalCrossentropy")


def _poisson(target: Any, output: Any) -> Any:
    """Return the Poisson loss of the logarithm of the rate, (rows, …)."""
    from keras import ops

    return ops.exp(output) - target * output


def named_loss(loss: Any) -> Any:
    """Return a loss of Keras's, or a function: of sparkopt's name, of Keras's, or as it is given.

    Raises
    ------
    ParameterError
        For an unknown name.
    """
    import keras

    if not isinstance(loss, str):
        return loss
    if loss == "poisson":
        return _poisson
    if loss in LOSS_NAMES:
        kind, settings = LOSS_NAMES[loss]
        return getattr(keras.losses, kind)(**settings)
    try:
        found = keras.losses.get(loss)
    except ValueError:
        found = None
    if found is None:
        raise ParameterError(f"loss must be one of {', '.join(LOSS_NAMES)}, or of Keras's. Got {loss!r} instead.")
    kind = "".join(part.title() for part in loss.split("_"))
    return getattr(keras.losses, kind)() if hasattr(keras.losses, kind) else found


class KerasLoss:
    """A loss with one value a row.

    Parameters
    ----------
    loss : keras.losses.Loss, callable or str
        An object of Keras's, or a function of (target, output) with one value, or one array of values, for each row.
    task : str or None, default None
        What outputs mean; by default what the loss suggests.

    Attributes
    ----------
    task : str
        One of ``sparkopt.deep.losses.TASKS``.
    of_probabilities : bool
        Whether the outputs of the network are the classes' probabilities, which softmax has been applied to.
    is_sum : bool
        Whether a step's loss is the sum over its rows instead of the mean.
    """

    def __init__(self, loss: Any, task: str | None = None) -> None:
        import keras

        found = named_loss(loss)
        kind, is_logit = type(found).__name__, False
        self._is_object = isinstance(found, keras.losses.Loss)
        self._takes_classes = kind == "SparseCategoricalCrossentropy"
        if self._is_object:
            config = config_of(found)
            is_logit = bool(config.get("from_logits"))
            if self._takes_classes and config.get("ignore_class") is not None:
                raise ParameterError("loss has an ignore_class; leave out such rows, or give them the weight 0.")
            self.is_sum = found.reduction == "sum"
            found = copy.deepcopy(found)
            found.reduction = "none"
        else:
            self.is_sum = False
        self.task = task or self._suggested(found, kind, is_logit)
        if self.task not in TASKS:
            raise ParameterError(f"task must be one of {', '.join(TASKS)}. Got {self.task!r} instead.")
        self.of_probabilities = kind in _CLASSES and not is_logit and self.task == "classes"
        self._loss: Callable[[Any, Any], Any] = found

    @staticmethod
    def _suggested(loss: Any, kind: str, is_logit: bool) -> str:
        if kind in _CLASSES:
            return "classes"
        if kind in _LABELS:
            return "binary" if is_logit else "probability"
        return "counts" if loss is _poisson else "values"

    def rows(self, target: Any, output: Any) -> Any:
        """Return the losses (rows,), as tensors of the backend.

        Raises
        ------
        ParameterError
            Where the loss is not one of rows, or outputs carry a mask.
        """
        from keras import ops

        if getattr(output, "_keras_mask", None) is not None:
            raise ParameterError(
                "the network's output carries a mask of positions, over which Keras averages a batch, not each row. "
                "Weight the positions in a loss of your own, and remove the mask."
            )
        target = self._aligned(target, output)
        found = self._loss(target, output)
        if not len(found.shape) or found.shape[0] != output.shape[0]:
            raise ParameterError(
                f"the loss gives {tuple(found.shape)} for {output.shape[0]} rows; it must give one value a row."
            )
        found = ops.cast(found, "float32")
        if len(found.shape) == 1:
            return found
        over = tuple(range(1, len(found.shape)))
        return ops.sum(found, over) if self.is_sum else ops.mean(found, over)

    def _aligned(self, target: Any, output: Any) -> Any:
        """Return labels in the type and the shape of outputs."""
        from keras import ops

        if self._takes_classes:
            target = ops.cast(target, "int32")
            return target[:, 0] if len(target.shape) == len(output.shape) and target.shape[-1] == 1 else target
        target = ops.cast(target, output.dtype)
        if len(output.shape) == len(target.shape) + 1 and output.shape[-1] == 1:
            return ops.expand_dims(target, -1)
        if len(target.shape) == len(output.shape) + 1 and target.shape[-1] == 1:
            return ops.squeeze(target, -1)
        if self._is_object and tuple(target.shape) != tuple(output.shape):
            raise ParameterError(
                f"the module gives {tuple(output.shape[1:])} a row where the label has {tuple(target.shape[1:])}."
            )
        return target
