"""Searches on disk, in pyspark.ml's layout: what one package's CrossValidator saves, the other's loads.

pyspark.ml's reader takes classes outside of its package for the JVM's, which write the parameters of a grid as JSON
inside JSON. So that is how a search is written; all three formats are read.
"""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from pyspark.ml import Estimator, Transformer, tuning
from pyspark.ml.evaluation import Evaluator
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MetaAlgorithmReadWrite, MLReadable

from sparkopt.ml.saving import StageReader, StageWriter, load_stage, save_stage

__all__ = ["SearchModelReader", "SearchModelWriter", "SearchReader", "SearchWriter", "is_java_convertible"]

V = TypeVar("V", bound="MLReadable[Any]")
Shared = tuning._ValidatorSharedReadWrite
NOT_JSON = ["estimator", "evaluator", "estimatorParamMaps"]
METRICS = ("avgMetrics", "stdMetrics", "validationMetrics")
"""What the results of searches know of their candidates."""


def is_java_convertible(search: Any) -> bool:
    """Whether all stages of a search are the JVM's, so that the JVM writes it."""
    return Shared.is_java_convertible(search)


class SearchWriter(StageWriter):
    """Writes a search or its result.

    Parameters
    ----------
    search : CrossValidator, TrainValidationSplit or the model of one
        What is written.
    """

    def __init__(self, search: Any) -> None:
        super().__init__()
        self.instance = search

    def saveImpl(self, path: str) -> None:
        """Write metadata, estimator and evaluator below ``path``."""
        self._save(path, {})

    def _save(self, path: str, facts: dict[str, Any]) -> None:
        search = self.instance
        Shared.validateParams(search)
        values = DefaultParamsWriter.extractJsonParams(search, NOT_JSON)
        values["estimatorParamMaps"], stages = _grid(search.getEstimatorParamMaps(), _uids(search.getEstimator()))
        DefaultParamsWriter.saveMetadata(search, path, self.sparkSession, facts, values)
        for folder, stage in {
            **stages,
            "evaluator": search.getEvaluator(),
            "estimator": search.getEstimator(),
        }.items():
            save_stage(stage, f"{path}/{folder}", self.sparkSession)


class SearchModelWriter(SearchWriter):
    """Writes the result of a search; with ``option("persistSubModels", "false")`` without the models of the folds."""

    def saveImpl(self, path: str) -> None:
        """Write the search, its metrics, the best model and the models of the folds below ``path``.

        Raises
        ------
        ValueError
            Where models of folds are wanted and there are none.
        """
        model = self.instance
        keeps = Shared.getValidatorModelWriterPersistSubModelsParam(self)
        known = {name: getattr(model, name) for name in METRICS if getattr(model, name, None)}
        self._save(path, {**known, "persistSubModels": keeps})
        save_stage(model.bestModel, f"{path}/bestModel", self.sparkSession)
        for place, one in _places(model.subModels) if keeps else ():
            save_stage(one, f"{path}/subModels/{place}", self.sparkSession)


def _places(models: list[Any]) -> list[tuple[str, Any]]:
    """Return the models of a search's candidates, each with the folder that pyspark.ml saves it in."""
    if models and isinstance(models[0], list):
        return [
            (f"fold{fold}/{number}", one) for fold, others in enumerate(models) for number, one in enumerate(others)
        ]
    return [(str(number), one) for number, one in enumerate(models)]


class SearchReader(StageReader[V], Generic[V]):
    """Reads a search that either package saved."""

    def _load(self, path: str) -> V:
        own: V = self._restored(self.kind(), path)[0]
        return own

    def _restored(self, own: Any, path: str) -> tuple[Any, dict[str, Any]]:
        """Return ``own`` with all that was saved below ``path``, and the metadata."""
        metadata = self._metadata(path)
        estimator, evaluator = (self._stage(f"{path}/{name}") for name in ("estimator", "evaluator"))
        stages = {**MetaAlgorithmReadWrite.getUidMap(estimator), evaluator.uid: evaluator}
        maps = [
            {
                getattr(stages[entry["parent"]], entry["name"]): self._value(entry, path, stages[entry["parent"]])
                for entry in values
            }
            for values in metadata["paramMap"]["estimatorParamMaps"]
        ]
        own._resetUid(metadata["uid"])
        own._set(estimator=estimator, evaluator=evaluator, estimatorParamMaps=maps)
        DefaultParamsReader.getAndSetParams(own, metadata, skipParams=["estimatorParamMaps"])
        return own, metadata

    def _value(self, entry: dict[str, Any], path: str, owner: Any) -> Any:
        """Return the value of a grid's entry: JSON, or a stage in a folder of its own."""
        is_json = entry.get("isJson", True)
        in_json = isinstance(is_json, str)  # as the JVM writes it
        if json.loads(is_json) if in_json else is_json:
            found = json.loads(entry["value"])
            return owner._value_from_json(entry["name"], found) if hasattr(owner, "_value_from_json") else found
        return self._stage(f"{path}/{json.loads(entry['value']) if in_json else entry['value']}")

    def _stage(self, path: str) -> Any:
        return load_stage(path, self.sparkSession)


class SearchModelReader(SearchReader[V]):
    """Reads the result of a search that either package saved, with the models of each fold where they were saved."""

    def _load(self, path: str) -> V:
        own, metadata = self._restored(self.kind(self._stage(f"{path}/bestModel")), path)
        for name in METRICS:
            if hasattr(own, name):
                setattr(own, name, metadata.get(name, []))
        if metadata.get("persistSubModels"):  # pyspark's reader gives every fold the models of the last one
            candidates = range(len(own.getEstimatorParamMaps()))
            folder = f"{path}/subModels"
            if own.hasParam("numFolds"):
                own.subModels = [
                    [self._stage(f"{folder}/fold{fold}/{number}") for number in candidates]
                    for fold in range(own.getNumFolds())
                ]
            else:
                own.subModels = [self._stage(f"{folder}/{number}") for number in candidates]
        found: V = own
        return found


def _uids(estimator: Any) -> dict[str, Any]:
    """Return the stages of an estimator by their uid."""
    return dict(MetaAlgorithmReadWrite.getUidMap(estimator))


def _grid(maps: list[dict[Any, Any]], owners: dict[str, Any]) -> tuple[list[list[dict[str, str]]], dict[str, Any]]:
    """Return param maps as the JVM writes them, and the stages among their values, by their folders."""
    written, stages = list[list[dict[str, str]]](), dict[str, Any]()
    for values in maps:
        entries = []
        for param, value in values.items():
            is_stage = isinstance(value, (Transformer, Evaluator)) or (
                isinstance(value, Estimator) and not MetaAlgorithmReadWrite.isMetaEstimator(value)
            )
            owner: Any = owners.get(param.parent)
            if hasattr(owner, "_value_to_json"):  # it holds objects, and knows their names
                value = owner._value_to_json(param.name, value)
            text = f"epm_{param.name}{len(stages)}" if is_stage else value
            if is_stage:
                stages[str(text)] = value
            is_json = json.dumps(not is_stage)
            entries.append({"parent": param.parent, "name": param.name, "value": json.dumps(text), "isJson": is_json})
        written.append(entries)
    return written, stages
