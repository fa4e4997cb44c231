"""The parameter that networks of Keras have in addition: their backend."""

from __future__ import annotations

from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters

from sparkopt.deep.keras_backends import BACKENDS
from sparkopt.deep.setters import InferenceSetters
from sparkopt.validation import OneOf, check

__all__ = ["KerasInferenceParams"]

K = TypeVar("K", bound="KerasInferenceParams")


def _backend(value: Any) -> str:
    found: str = TypeConverters.toString(value)
    check("backend", found, OneOf(BACKENDS))
    return found


class KerasInferenceParams(InferenceSetters):
    """What estimator and model of Keras share."""

    backend: Param[str] = Param(
        Params._dummy(),
        "backend",
        f"backend of Keras: {', '.join(BACKENDS)}; by default the one it has in this process",
        typeConverter=_backend,
    )

    def setBackend(self: K, value: str) -> K:
        """Set the backend of Keras."""
        return self._set(backend=value)
