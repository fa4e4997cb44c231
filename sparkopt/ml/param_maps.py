"""What param maps of a search set: parameters of its estimator, of stages in it, or of those that a map sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyspark.ml.param import Param, Params

from sparkopt.errors import ParameterError

__all__ = ["check_maps"]


def check_maps(estimator: Params, maps: Any) -> None:
    """Refuse param maps that are none, or that set parameters of something else, which would change nothing.

    Raises
    ------
    ParameterError
        Naming the parameter.
    """
    way = "Give a list of dicts such as {estimator.regParam: 0.1}, as ParamGridBuilder().build() makes it."
    if not isinstance(maps, (list, tuple)) or not all(isinstance(each, dict) for each in maps):
        raise ParameterError(f"estimatorParamMaps must be a list of dicts. Got {type(maps).__name__} instead. {way}")
    for each in maps:
        for param in each:
            if not isinstance(param, Param):
                raise ParameterError(f"estimatorParamMaps has the key {param!r}, which is no Param. {way}")
        known = {owner.uid for value in (estimator, *each.values()) for owner in _owners(value)}
        for param in each:
            if param.parent not in known:
                raise ParameterError(
                    f"estimatorParamMaps sets {param.name} of {param.parent}, which is no part of the estimator, "
                    f"{estimator.uid}: it would change nothing. Take the Params of the estimator that is searched."
                )


def _owners(value: Any) -> Iterator[Params]:
    """Yield what has parameters in a value: itself, and what its parameters hold."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _owners(each)
    if isinstance(value, Params):
        yield value
        for param in value.params:
            if value.isDefined(param):
                yield from _owners(value.getOrDefault(param))
