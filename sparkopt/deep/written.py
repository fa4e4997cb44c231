"""An estimator on disk: the objects that it was given are names of what can be imported, with plain arguments.

Nothing is pickled, and of what a file names only classes of PyTorch's kinds and marked functions are called.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from pyspark.ml.util import DefaultParamsReader
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sparkopt.deep.builders import Reference
from sparkopt.deep.configuration import described
from sparkopt.deep.model import TorchModel
from sparkopt.deep.persistence import Saved
from sparkopt.errors import DataError, ParameterError
from sparkopt.io.metadata import check_digest
from sparkopt.launch.checkpoints import module_bytes

__all__ = ["OBJECTS", "from_json", "initial_weights", "restored", "saved_of", "to_json"]

E = TypeVar("E")

logger = logging.getLogger(__name__)

OBJECTS: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "module": (nn.Module,),
        "loss": (nn.Module,),
        "optimizer": (Optimizer,),
        "scheduler": (LRScheduler,),
        "metrics": (nn.Module,),
        "step": (),
    }
)
"""Arguments of the estimator that hold objects, and the classes that a saved estimator may name for them."""

PARAMS, ATTRIBUTES = ("module", "loss", "optimizer", "scheduler", "step"), ("schedulerInterval", "task")
"""Those that are parameters, and other arguments that JSON holds."""
FORMAT = 1


def to_json(name: str, value: Any) -> Any:
    """Return an argument as JSON holds it.

    Parameters
    ----------
    name : str
        The argument, one of ``OBJECTS``.
    value : object
        A plain value; a class, a function or a ``functools.partial`` of one; a loss or a metric that was built of
        plain arguments and tensors; or a mapping of these.

    Raises
    ------
    ParameterError
        Where another process could not import it, or it cannot be built again.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {"mapping": {str(key): to_json(name, one) for key, one in value.items()}}
    if name == "loss" and getattr(functional, str(getattr(value, "__name__", "")), None) is value and value:
        return {"functional": value.__name__}
    try:
        if isinstance(value, nn.Module) and name != "module":
            return {"instance": _instance(value, OBJECTS[name])}
        return {"reference": asdict(Reference.of(value, OBJECTS[name]))}
    except (ParameterError, DataError) as error:
        raise ParameterError(f"{name} cannot be saved: {error}") from None


def from_json(name: str, found: Any) -> Any:
    """Return the argument that ``to_json`` was given; of what is named only classes of ``OBJECTS`` are called.

    Raises
    ------
    DataError
        Where what is named cannot be imported, or may not be called.
    """
    if not isinstance(found, Mapping):
        return found
    if "mapping" in found:
        return {key: from_json(name, one) for key, one in found["mapping"].items()}
    if "functional" in found:
        return _functional(found["functional"])
    given = found.get("reference") or found["instance"]
    reference = Reference(given["name"], tuple(given["positional"]), given["keywords"])
    if "reference" in found:
        return reference.builder(OBJECTS[name])
    build = reference.builder(OBJECTS[name])
    return functools.partial(build, **{key: _restored(one) for key, one in reference.keywords.items()})()


def _functional(name: str) -> Any:
    """Return a function of torch.nn.functional, which takes tensors and so does nothing else."""
    found = getattr(functional, name, None)
    if getattr(found, "__module__", None) != functional.__name__:
        raise DataError(f"torch.nn.functional has no loss {name!r}.")
    return found


def _instance(value: nn.Module, kinds: tuple[type, ...]) -> dict[str, Any]:
    """Return the class of a loss or a metric, and its arguments, which it has as attributes."""
    kind = type(value)
    arguments = {
        name: getattr(value, name)
        for name, parameter in inspect.signature(kind).parameters.items()
        if hasattr(value, name) and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    plain = {name: _plain(name, one) for name, one in arguments.items()}
    try:
        again = kind(**arguments)
    except Exception as error:  # noqa: BLE001  # whatever its own constructor raises
        raise ParameterError(
            f"a {kind.__name__} cannot be built again of its attributes ({error}). {_INSTEAD}"
        ) from None
    if described(again) != described(value) or not _are_equal(again.state_dict(), value.state_dict()):
        raise ParameterError(f"a {kind.__name__} built again of its attributes is another one. {_INSTEAD}")
    return {**asdict(Reference.of(kind, kinds)), "keywords": plain}


_INSTEAD = "Give a function at module level that computes it, marked with @sparkopt.deep.builder."


def _are_equal(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(name, one) for one in value]
    raise ParameterError(f"its argument {name} is a {type(value).__name__}, which JSON does not hold. {_INSTEAD}")


def _restored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    return value


def saved_of(estimator: Any) -> Saved:
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
    for name in PARAMS:
        param = estimator.getParam(name)
        if estimator.isSet(param):
            objects[name] = to_json(name, estimator.getOrDefault(param))
            plain.clear(plain.getParam(name))
    objects["metrics"] = to_json("metrics", estimator.metrics)
    settings = {name: getattr(estimator, name) for name in ATTRIBUTES}
    return Saved(
        plain, {"format": 1, "objects": objects, "settings": settings}, initial_weights(estimator.initialModel) or b""
    )


def restored(kind: type[E], metadata: dict[str, Any], weights: bytes) -> E:
    """Return the estimator whose metadata and initial weights these are."""
    check_digest(metadata, [weights])
    estimator: Any = kind()
    estimator._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(estimator, metadata)
    objects = {name: from_json(name, found) for name, found in metadata["objects"].items()}
    estimator.metrics = objects.pop("metrics")
    estimator._set(**objects)
    for name in ATTRIBUTES:
        setattr(estimator, name, metadata["settings"][name])
    estimator.initialModel = weights or None
    found: E = estimator
    return found


def initial_weights(initial: Any) -> bytes | None:
    """Return the weights that training starts from: of a model, of a state_dict, or as they are."""
    if initial is None or isinstance(initial, bytes):
        return initial
    if isinstance(initial, TorchModel):
        return initial.weights
    if isinstance(initial, Mapping):
        return module_bytes(dict(initial))
    raise ParameterError(
        f"initialModel must be a TorchModel, a state_dict, or bytes of safetensors. Got a {type(initial).__name__}."
    )
