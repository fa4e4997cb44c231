"""The parameters of PyTorch's networks that are divided over processes."""

from __future__ import annotations

from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters

from sparkopt.deep.config import STRATEGIES

__all__ = ["ShardingParams"]

S = TypeVar("S", bound="ShardingParams")


def _names(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"wrappedModules must be a list of names of modules or classes. Got {value!r}.")
    return list(value)


class ShardingParams(Params):
    """The parameters strategy and wrappedModules, and their setters."""

    strategy: Param[str] = Param(
        Params._dummy(),
        "strategy",
        f"what each process holds of the network: {', '.join(STRATEGIES)}",
        typeConverter=TypeConverters.toString,
    )
    wrappedModules: Param[list[str]] = Param(
        Params._dummy(),
        "wrappedModules",
        "classes or names of modules whose parameters are gathered by themselves under strategy='fsdp'",
        typeConverter=_names,
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(strategy="ddp")

    def setStrategy(self: S, value: str) -> S:
        """Set what each process holds of the network."""
        return self._set(strategy=value)

    def setWrappedModules(self: S, value: list[str]) -> S:
        """Set which modules' parameters are gathered by themselves."""
        return self._set(wrappedModules=value)
