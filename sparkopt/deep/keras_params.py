"""The parameters that networks of Keras have in addition: their backend, and in training the mesh of devices."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters

from sparkopt.deep.keras_backends import BACKENDS
from sparkopt.deep.keras_mesh import MESHES
from sparkopt.deep.setters import InferenceSetters
from sparkopt.validation import OneOf, check

__all__ = ["KerasInferenceParams", "KerasTrainingParams"]

K = TypeVar("K", bound="KerasInferenceParams")
T = TypeVar("T", bound="KerasTrainingParams")


def _backend(value: Any) -> str:
    found: str = TypeConverters.toString(value)
    check("backend", found, OneOf(BACKENDS))
    return found


def _mesh(value: Any) -> str:
    found: str = TypeConverters.toString(value)
    check("mesh", found, OneOf(MESHES))
    return found


class KerasInferenceParams(InferenceSetters):
    """What estimator and model of Keras share."""

    _takes_chw: ClassVar[bool] = False

    backend: Param[str] = Param(
        Params._dummy(),
        "backend",
        f"backend of Keras: {', '.join(BACKENDS)}; by default the one it has in this process",
        typeConverter=_backend,
    )

    def setBackend(self: K, value: str) -> K:
        """Set the backend of Keras."""
        return self._set(backend=value)


class KerasTrainingParams(KerasInferenceParams):
    """What the estimator has in addition."""

    mesh: Param[str] = Param(
        Params._dummy(),
        "mesh",
        "whose devices a step of JAX is compiled for: those of each process, or of all ranks",
        typeConverter=_mesh,
    )

    def setMesh(self: T, value: str) -> T:
        """Set whose devices a step is compiled for."""
        return self._set(mesh=value)
