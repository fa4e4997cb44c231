"""Searches on disk, in pyspark.ml's layout: what one package's CrossValidator saves, the other's loads.

pyspark.ml's reader takes classes outside of its package for the JVM's, which write the parameters of a grid as JSON
inside JSON. So that is how a search is written; all three formats are read.
"""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from pyspark.ml import Estimator, Transformer, tuning
from pyspark.ml.evaluation import Evaluator
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MetaAlgorithmReadWrite, MLReadable, MLReader

from sparkopt.ml.persistence import StageWriter

__all__ = ["SearchModelReader", "SearchModelWriter", "SearchReader", "SearchWriter", "is_java_convertible"]

V = TypeVar("V", bound="MLReadable[Any]")
Shared = tuning._ValidatorSharedReadWrite
NOT_JSON = ["estimator", "evaluator", "estimatorParamMaps"]


def is_java_convertible(search: Any) -> bool:
    """Whether all stages of a search are the JVM's, so that the JVM writes it."""
    return Shared.is_java_convertible(search)


class SearchWriter(StageWriter):
    """Writes a search or its result.

    Parameters
    ----------
    search : CrossValidator or CrossValidatorModel
        What is written.
    """

    def __init__(self, search: Any) -> None:
        super().__init__()
        self.instance = search

    def saveImpl(self, path: str) -> None:
        """Write metadata, estimator and evaluator below ``path``."""
        self._save(path, {})

    def _save(self, path: str, facts: dict[str, Any]) -> None:
        Shared.validateParams(self.instance)
        values = DefaultParamsWriter.extractJsonParams(self.instance, NOT_JSON)
        values["estimatorParamMaps"] = _grid(self.instance.getEstimatorParamMaps())
        Shared.saveImpl(path, self.instance, self.sparkSession, {**facts, "paramMap": values})


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
        facts = {"avgMetrics": model.avgMetrics, "persistSubModels": keeps}
        self._save(path, {**facts, "stdMetrics": model.stdMetrics} if model.stdMetrics else facts)
        self._save_model(model.bestModel, f"{path}/bestModel")
        for fold, models in enumerate(model.subModels if keeps else []):
            for number, one in enumerate(models):
                self._save_model(one, f"{path}/subModels/fold{fold}/{number}")

    def _save_model(self, model: Any, path: str) -> None:
        model.write().session(self.sparkSession).save(path)


class SearchReader(MLReader[V], Generic[V]):
    """Reads a search that either package saved.

    Parameters
    ----------
    kind : type
        The class of what is returned.
    """

    def __init__(self, kind: type[V]) -> None:
        super().__init__()
        self.kind = kind

    def load(self, path: str) -> V:
        """Return the search saved below ``path``."""
        own: V = self._restored(self.kind(), path)[0]
        return own

    def _restored(self, own: Any, path: str) -> tuple[Any, dict[str, Any]]:
        """Return ``own`` with all that was saved below ``path``, and the metadata."""
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        entries = [entry for values in metadata["paramMap"]["estimatorParamMaps"] for entry in values]
        in_json = all(isinstance(entry.get("isJson"), str) for entry in entries if "isJson" in entry)
        known = {**metadata, "class": "org.apache.spark.ml." if in_json else "pyspark.ml."}
        _, estimator, evaluator, maps = Shared.load(path, self.sparkSession, known)
        own._resetUid(metadata["uid"])
        own._set(estimator=estimator, evaluator=evaluator, estimatorParamMaps=maps)
        DefaultParamsReader.getAndSetParams(own, metadata, skipParams=["estimatorParamMaps"])
        return own, metadata


class SearchModelReader(SearchReader[V]):
    """Reads the result of a search that either package saved."""

    def load(self, path: str) -> V:
        """Return the model saved below ``path``; with the models of each fold, where they were saved."""

        def model(*folders: object) -> Any:
            folder = "/".join(map(str, [path, *folders]))
            return DefaultParamsReader.loadParamsInstance(folder, self.sparkSession)

        kind: Any = self.kind
        own, metadata = self._restored(kind(model("bestModel")), path)
        own.avgMetrics, own.stdMetrics = metadata["avgMetrics"], metadata.get("stdMetrics", [])
        if metadata.get("persistSubModels"):  # pyspark's reader gives every fold the models of the last one
            folds, models = range(own.getNumFolds()), range(len(own.getEstimatorParamMaps()))
            own.subModels = [[model("subModels", f"fold{fold}", number) for number in models] for fold in folds]
        found: V = own
        return found


def _grid(maps: list[dict[Any, Any]]) -> list[list[dict[str, str]]]:
    """Return param maps as the JVM writes them; stages are named by the folders that pyspark.ml saves them in."""
    written, folders = [], 0
    for values in maps:
        entries = []
        for param, value in values.items():
            is_stage = isinstance(value, (Transformer, Evaluator)) or (
                isinstance(value, Estimator) and not MetaAlgorithmReadWrite.isMetaEstimator(value)
            )
            text = json.dumps(f"epm_{param.name}{folders}" if is_stage else value)
            folders += is_stage
            is_json = json.dumps(not is_stage)
            entries.append({"parent": param.parent, "name": param.name, "value": text, "isJson": is_json})
        written.append(entries)
    return written
