"""TorchModel: a trained network as a pyspark.ml Model, which scores DataFrames of Spark and tables without Spark."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyspark.ml.util import DefaultParamsReader, MLReadable, MLReader, MLWriter
from torch import nn

from sparkopt.deep.builders import Reference, why_nameless
from sparkopt.deep.network_model import NetworkModel
from sparkopt.deep.persistence import NetworkReader, NetworkWriter, Saved, read_from
from sparkopt.deep.scorer import NetworkScorer
from sparkopt.deep.setters import OutputSetters
from sparkopt.errors import CorruptDataError, DataError
from sparkopt.io.metadata import check_digest
from sparkopt.shards.fields import Field

__all__ = ["TorchModel"]

FORMAT = 1
KIND = "sparkopt.deep.model.TorchModel"


class TorchModel(NetworkModel, OutputSetters, MLReadable["TorchModel"]):
    """A trained network.

    Parameters
    ----------
    build : nn.Module or callable
        The network, or what builds it; where it has no name that can be imported, ``load`` must be given it.
    weights : bytes
        Its state as safetensors.
    task : {"classes", "binary", "probability", "counts", "values"}
        What its output means.
    output_shape : tuple of int
        What it gives for a row.

    Notes
    -----
    ``transform`` adds ``prediction``; for classes also ``probability`` and ``rawPrediction``. A column whose name is
    set to "" is left out. It takes a DataFrame of Spark, or without Spark what ``sparkopt.Table.of`` takes: Arrow,
    pandas and Polars are returned as they came, with lists in place of Vectors; of files it returns a ``Table``,
    whose rows are scored as they are read.
    """

    def __init__(
        self, build: Any = None, weights: bytes = b"", task: str = "values", output_shape: tuple[int, ...] = ()
    ) -> None:
        super().__init__(build, weights, task, output_shape)

    @property
    def module(self) -> nn.Module:
        """The network, on the CPU, ready to evaluate; a new one with every call."""
        return NetworkScorer.load(self._build, self._weights)

    def write(self) -> MLWriter:
        """Return a writer: ``model.write().overwrite().save(path)``."""
        return NetworkWriter(saved_of(self))

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return a reader: ``TorchModel.read().load(path)``."""
        return NetworkReader(KIND, restored)

    @classmethod
    def load(cls, path: str, module: Any = None) -> TorchModel:
        """Return the model saved below ``path``.

        Parameters
        ----------
        path : str
            Where ``save`` wrote it.
        module : nn.Module or callable, optional
            The network, or what builds it, where it has no name that can be imported: it was built already, or is
            from a notebook. ``TorchEstimator`` says so when it is fitted.

        Raises
        ------
        DataError
            Where something else was saved there, or a network that this process cannot build.
        """
        found: TorchModel = NetworkReader(KIND, functools.partial(restored, build=module)).load(path)
        return found


def facts_of(model: NetworkModel, kinds: tuple[type, ...] = (nn.Module,)) -> dict[str, Any]:
    """Return what is saved of a model in addition to its parameters and weights; ``kinds`` may be named."""
    return {
        "format": FORMAT,
        **_network(model._build, kinds),
        "task": model.task,
        "outputShape": list(model._outputs.shape),
        "inputs": [asdict(entry) for entry in model._inputs],
        "columns": list(model._columns),
    }


def _network(build: Any, kinds: tuple[type, ...]) -> dict[str, Any]:
    """Return what builds a network by its name, or why it has none."""
    nameless = why_nameless(build, kinds)
    return {"network": asdict(Reference.of(build, kinds)) if nameless is None else None, "nameless": nameless}


def restored(
    metadata: dict[str, Any],
    weights: bytes,
    build: Any = None,
    kind: type[NetworkModel] | None = None,
    kinds: tuple[type, ...] = (nn.Module,),
) -> Any:
    """Return the model whose metadata and weights these are, built by what is named there or by ``build``."""
    check_digest(metadata, [weights])
    if not weights:
        raise CorruptDataError("its weights are missing")
    network = metadata["network"]
    if build is None and network is None:
        name = (kind or TorchModel).__name__
        raise DataError(
            f"this model was saved without what builds it: {metadata['nameless']} Or give that now: "
            f"{name}.load(path, module=...), with the module that {name.removesuffix('Model')}Estimator was given."
        )
    if build is None:
        build = Reference(network["name"], tuple(network["positional"]), network["keywords"]).builder(kinds)
    model: Any = (kind or TorchModel)(build, weights, metadata["task"], tuple(metadata["outputShape"]))
    model._inputs = tuple(Field(**{**one, "columns": tuple(one["columns"])}) for one in metadata.get("inputs", ()))
    model._columns = tuple(metadata.get("columns", ()))
    model._resetUid(metadata["uid"])
    DefaultParamsReader.getAndSetParams(model, metadata)
    return model


def saved_of(model: TorchModel) -> Saved:
    """Return what is saved of a model."""
    return Saved(model, facts_of(model), model.weights)


def read_model(folder: str | Path, build: Any = None) -> TorchModel:
    """Return the model in a folder of this machine, written there or by Spark; ``build`` overrides what it names.

    Raises
    ------
    DataError
        Where no network was saved there, or it names one that may not be built.
    """
    found: TorchModel = read_from(folder, KIND, functools.partial(restored, build=build))
    return found
