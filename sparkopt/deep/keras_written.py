"""A KerasEstimator on disk: what builds the module by its name, loss and optimiser by Keras's settings of them."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any, TypeVar

from pyspark.ml.util import DefaultParamsReader

from sparkopt.deep.builders import Reference
from sparkopt.deep.keras_backends import config_of, keras_on
from sparkopt.deep.persistence import Saved
from sparkopt.deep.written import to_json
from sparkopt.errors import DataError, ParameterError
from sparkopt.io.metadata import check_digest

__all__ = ["restored_estimator", "saved_estimator"]

E = TypeVar("E")

logger = logging.getLogger(__name__)

_MODULES = {"loss": "keras.losses", "optimizer": "keras.optimizers"}


def saved_estimator(estimator: Any, weights: bytes | None) -> Saved:
    """Return what is saved of an estimator.

    Raises
    ------
    ParameterError
        Naming what cannot be saved.
    """
    left_out = [name for name in ("callbacks", "loggers") if getattr(estimator, name)]
    if left_out:
        logger.warning("%s are not saved: they belong to this process. Set them again.", " and ".join(left_out))
    plain, objects = estimator.copy(), {}
    for name in ("module", "loss", "optimizer"):
        if estimator.isSet(estimator.getParam(name)):
            objects[name] = _to_json(name, estimator.getOrDefault(name), estimator.value("backend"))
            plain.clear(plain.getParam(name))
    objects["metrics"] = to_json("metrics", estimator.metrics)
    return Saved(plain, {"format": 1, "objects": objects, "settings": {"task": estimator.task}}, weights or b"")


def _to_json(name: str, value: Any, backend: str | None) -> Any:
    keras = keras_on(backend)
    if value is None or isinstance(value, str):
        return value
    if name in _MODULES and hasattr(value, "get_config") and not isinstance(value, type):
        kind = type(value).__name__
        known = getattr(keras, name + ("es" if name == "loss" else "s"))
        if not (hasattr(known, kind) and _is_kerass(value)):
            raise ParameterError(f"{name} cannot be saved: {kind} is not one of Keras's. Give a function by name.")
        return {"kind": kind, "config": config_of(value)}
    kinds = {"module": keras.Model, "loss": keras.losses.Loss, "optimizer": keras.optimizers.Optimizer}
    try:
        return {"reference": asdict(Reference.of(value, (kinds[name],)))}
    except (ParameterError, DataError) as error:
        raise ParameterError(f"{name} cannot be saved: {error}") from None


def _is_kerass(value: Any) -> bool:
    """Whether a class is Keras's own; on PyTorch its optimisers are of other classes than their names say."""
    return type(value).__module__.partition(".")[0] == "keras"


def _from_json(name: str, found: Any, backend: str | None) -> Any:
    if found is None or isinstance(found, str):
        return found
    keras = keras_on(backend)
    kinds = {"module": keras.Model, "loss": keras.losses.Loss, "optimizer": keras.optimizers.Optimizer}
    if "kind" in found:
        kind = getattr(getattr(keras, name + ("es" if name == "loss" else "s")), found["kind"], None)
        if not (isinstance(kind, type) and issubclass(kind, kinds[name])):
            raise DataError(f"{found['kind']!r} is no {name} of Keras's.")
        made: Any = kind
        return made.from_config(found["config"])
    given = found["reference"]
    return Reference(given["name"], tuple(given["positional"]), given["keywords"]).builder((kinds[name],))


def restored_estimator(kind: type[E], metadata: dict[str, Any], weights: bytes) -> E:
    """Return the estimator of metadata and initial weights; only builders are called of what they name."""
    from sparkopt.deep.written import from_json

    check_digest(metadata, [weights])
    estimator: Any = kind()
    estimator._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(estimator, metadata)
    objects, backend = metadata["objects"], estimator.value("backend")
    estimator.metrics = from_json("metrics", objects["metrics"])
    named = [name for name in ("module", "loss", "optimizer") if name in objects]
    estimator._set(**{name: _from_json(name, objects[name], backend) for name in named})
    estimator.task = metadata["settings"]["task"]
    estimator.initialModel = weights or None
    found: E = estimator
    return found
