"""Signatures of models for MLflow, made from their columns: without rows, and without Spark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["signature_of"]

TYPES = {
    **dict.fromkeys(("string", "varchar", "char"), "string"),
    **dict.fromkeys(("double", "float", "decimal"), "double"),
    **dict.fromkeys(("date", "timestamp", "timestamp_ntz"), "datetime"),
    "boolean": "boolean",
}
"""MLflow's types by Spark's. Whole numbers are "any": pandas makes doubles of them where one is missing, and MLflow
takes neither for the other."""


def signature_of(mlflow: Any, model: Any) -> Any:
    """Return the signature of a model; None of one whose columns are not known.

    Parameters
    ----------
    mlflow : module
        MLflow.
    model : LinearModel, OneVsRestModel, TorchModel or PipelineModel
        The model. A column of Vectors is an array of doubles in it, one of images binary.
    """
    inputs, outputs = list(_inputs(model)), list(_outputs(model))
    if not inputs or not outputs:
        return None
    types = mlflow.types
    whole = getattr(types.schema, "AnyType", None)  # from MLflow 2.19 on
    kinds: dict[str, Any] = {
        "array": types.schema.Array(types.DataType.double),
        "any": whole() if whole else types.DataType.long,
    }

    def schema(columns: list[tuple[str, str]]) -> Any:
        return types.Schema([types.ColSpec(kinds.get(kind, kind), name) for name, kind in columns])

    return mlflow.models.ModelSignature(schema(inputs), schema(outputs))


def _inputs(model: Any) -> Iterator[tuple[str, str]]:
    """Yield name and type of the columns that a model reads; of a pipeline, of those that no stage makes."""
    seen = set[str]()
    for stage in getattr(model, "stages", None) or [model]:
        for name, kind in _read_by(stage):
            if name not in seen:
                seen.add(name)
                yield name, kind
        seen |= {name for name, _ in _made_by(stage)}


def _is_network(stage: Any) -> bool:
    return type(stage).__module__.startswith("sparkopt.deep.")


NETWORK_KINDS = {"vector": "array", "bytes": "binary", "path": "binary"}
"""By what a column of a network holds. Numbers may be of any type, and arrays nested."""


def _read_by_network(model: Any) -> Iterator[tuple[str, str]]:
    for field in model._inputs:
        for name in field.columns:
            yield name, NETWORK_KINDS.get(field.kind, "any")


def _read_by(stage: Any) -> Iterator[tuple[str, str]]:
    if _is_network(stage):
        yield from _read_by_network(stage)
        return
    if hasattr(stage, "models"):  # one for each class
        stage = stage.models[0]
    encoder = getattr(stage, "encoder", None)
    if encoder is not None:
        if encoder.types:
            yield from zip(encoder.columns, map(_type, encoder.types), strict=True)
        return
    if not hasattr(stage, "arrays"):
        return
    features, offset = stage._features(), stage._columns().offset
    known = _trained_on(stage)
    if isinstance(features, str):
        numbers = [offset] if offset else []
        yield features, "array" if known.get(features, "array") in ("array", "vector") else _type(known[features])
    else:
        numbers = [*features, *([offset] if offset else [])]
    for name in numbers:
        yield name, _type(known.get(name, ""))


def _trained_on(stage: Any) -> dict[str, str]:
    """Return the types of the columns that a model was trained on; none of a loaded one, which has no rows."""
    if not stage.hasSummary:
        return {}
    # here: a scheduler's process imports this package without Spark
    from sparkopt.blocks.rows import rows_of, schema_of

    schema = schema_of(rows_of(stage.summary.dataset))
    kinds = {field.name: field.dataType for field in schema}
    vectors = {name: "vector" for name, kind in kinds.items() if kind.typeName() in ("vectorudt", "array")}
    return {name: kind.simpleString() for name, kind in kinds.items()} | vectors


def _type(kind: str) -> str:
    return TYPES.get(re.split(r"[(<]", kind)[0], "any")


def _made_by(stage: Any) -> Iterator[tuple[str, str]]:
    if getattr(stage, "encoder", None) is not None:
        yield stage.getOutputCol(), "array"
    elif _is_network(stage):
        kinds = stage._outputs.types()
        for key, name in stage._wanted().items():
            yield name, "double" if kinds[key].typeName() == "double" else "array"
    elif hasattr(stage, "models"):
        yield from ((stage.getRawPredictionCol(), "array"), (stage.getPredictionCol(), "double"))
    elif hasattr(stage, "arrays"):
        for name, kind in stage._output_columns().values():
            if name:
                yield name, "array" if kind.typeName() in ("vectorudt", "vector", "udt") else "double"


def _outputs(model: Any) -> Iterator[tuple[str, str]]:
    """Yield name and type of the columns that a pandas DataFrame gets: features of raw columns are left out."""
    for stage in getattr(model, "stages", None) or [model]:
        if getattr(stage, "encoder", None) is None:
            yield from _made_by(stage)
