"""KerasModel: a trained network of Keras as a pyspark.ml Model, on whichever backend the process that scores has."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pyspark.ml.util import MLReadable, MLReader, MLWriter
from torch import nn

from sparkopt.deep.keras_arrays import InputArrays, ordered_weights
from sparkopt.deep.keras_backends import keras_on
from sparkopt.deep.keras_learner import log_of
from sparkopt.deep.keras_losses import KerasLoss
from sparkopt.deep.keras_networks import argument
from sparkopt.deep.keras_on import network_of
from sparkopt.deep.keras_params import KerasInferenceParams
from sparkopt.deep.keras_recipe import KerasRecipe
from sparkopt.deep.model import facts_of, restored
from sparkopt.deep.network_model import NetworkModel
from sparkopt.deep.persistence import NetworkReader, NetworkWriter, Saved
from sparkopt.errors import ParameterError
from sparkopt.launch.checkpoints import module_state
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["KerasModel"]

KIND = "sparkopt.deep.keras_model.KerasModel"


class KerasModel(NetworkModel, KerasInferenceParams, MLReadable["KerasModel"]):
    """A trained network of Keras.

    Parameters
    ----------
    build : callable
        What builds it; where it has no name that can be imported, ``load`` must be given it.
    weights : bytes
        Its weights by the order of its variables, as safetensors.
    task : {"classes", "binary", "probability", "counts", "values"}
        What its output means.
    output_shape : tuple of int
        What it gives for a row.
    of_probabilities : bool, default False
        Whether it gives the classes' probabilities instead of their scores.

    Notes
    -----
    ``transform``, ``evaluate`` and ``save`` are those of `TorchModel`. Weights have no backend: a model that was
    trained on one scores on another, ``backend`` or the one that Keras has in this process.
    """

    def __init__(
        self,
        build: Any = None,
        weights: bytes = b"",
        task: str = "values",
        output_shape: tuple[int, ...] = (),
        of_probabilities: bool = False,
    ) -> None:
        super().__init__(build, weights, task, output_shape)
        self._of_probabilities = of_probabilities

    @property
    def module(self) -> Any:
        """The keras.Model with its weights; a new one with every call.

        Raises
        ------
        ParameterError
            For a model that knows the shape of its inputs only once it is called.
        """
        scoring = self._network_builder()()
        scoring.load_state_dict(module_state(self._weights))
        return scoring.model()

    def _network_builder(self) -> _Builder:
        backend = keras_on(self.value("backend")).backend.backend()
        images = tuple(entry.is_image for entry in self._inputs)
        return _Builder(self._build, backend, images, self._of_probabilities)

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``."""
        facts = {**_facts(self), "ofProbabilities": self._of_probabilities}
        return NetworkWriter(Saved(self, facts, self.weights))

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``KerasModel.read().load(path)``."""
        return NetworkReader(KIND, _restored)

    @classmethod
    def load(cls, path: str, module: Any = None) -> KerasModel:
        """Return the model saved below ``path``.

        Parameters
        ----------
        path : str
            Where ``save`` wrote it.
        module : callable, optional
            What builds the network, where it has no name that can be imported.

        Raises
        ------
        DataError
            Where something else was saved there, or a network that this process cannot build.
        """
        found: KerasModel = NetworkReader(KIND, functools.partial(_restored, build=module)).load(path)
        return found


def _facts(model: KerasModel) -> dict[str, Any]:
    return facts_of(model, (keras_on().Model,))


def _restored(metadata: dict[str, Any], weights: bytes, build: Any = None) -> KerasModel:
    backend = metadata["paramMap"].get("backend")
    found: KerasModel = restored(metadata, weights, build, KerasModel, (keras_on(backend).Model,))
    found._of_probabilities = bool(metadata["ofProbabilities"])
    return found


@dataclass(frozen=True)
class _Builder:
    """Builds what scores, in the process that does."""

    build: Any
    backend: str
    images: tuple[bool, ...]
    of_probabilities: bool

    def __call__(self) -> _Scoring:
        return _Scoring(self)


class _Scoring(nn.Module):
    """A model of Keras as the module of PyTorch that a scorer evaluates: from tensors to a tensor."""

    def __init__(self, builder: _Builder) -> None:
        super().__init__()
        self._builder, self._inputs = builder, InputArrays(builder.images)
        self._values: list[Array] = []
        self._network: Any = None
        self._rows = 0

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> None:
        """Take the weights; the model is built where it is evaluated first."""
        self._values, self._network = ordered_weights(state_dict), None

    def model(self, inputs: tuple[Array, ...] = ()) -> Any:
        """Return the model with its weights."""
        given = self._builder
        recipe = KerasRecipe(given.build, "squared_error", "sgd", given.backend)

        def prepare(model: Any) -> None:
            if not inputs:
                raise ParameterError(
                    "this model knows the shape of its inputs once it has been called: call it first."
                )
            called = self._inputs.called([values[:1] for values in inputs])
            model(argument(called))

        model = recipe.build_module(0, prepare)
        network_of(model, KerasLoss("squared_error")).load_weights(self._values)
        return model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs of rows; a compiled model is given one shape, unless there are more rows than before."""
        arrays = self._inputs.of(inputs)
        rows = len(arrays[0])
        if self._network is None:
            with torch.inference_mode(False):
                self._network = network_of(self.model(arrays), KerasLoss("squared_error"))
        if self._network.pads and rows:
            self._rows = max(self._rows, rows)
            arrays = tuple(_filled(values, self._rows) for values in arrays)
        found = torch.from_numpy(np.array(self._network.output(arrays)[:rows], np.float32))
        found = found.to(inputs[0].device)
        return log_of(found) if self._builder.of_probabilities else found


def _filled(values: Array, rows: int) -> Array:
    missing = rows - len(values)
    return np.concatenate([values, np.broadcast_to(values[:1], (missing, *values.shape[1:]))]) if missing else values
