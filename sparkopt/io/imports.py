"""Imports that others make and nobody may need: pandas takes a third of what importing pyspark.ml takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["UNNEEDED", "postponed"]

UNNEEDED = ("pandas", "numpy.f2py", "numpy.testing")
"""What pyspark.ml and SciPy import for functions that linear models do not call."""


class _Postponed(ModuleType):
    """Stands for a module, and imports it when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        self.withdraw()
        return getattr(import_module(self.__name__), name)

    def offer(self) -> None:
        """Let ``import`` find this one."""
        parent, _, child = self.__name__.rpartition(".")
        if parent:
            setattr(import_module(parent), child, self)
        sys.modules[self.__name__] = self

    def withdraw(self) -> None:
        """Let ``import`` find the module itself; whoever has this one keeps it."""
        parent, _, child = self.__name__.rpartition(".")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        if parent and vars(sys.modules[parent]).get(child) is self:
            delattr(sys.modules[parent], child)


@contextmanager
def postponed(*names: str) -> Iterator[None]:
    """Postpone the import of modules, for those who import them inside the block, until something of them is used.

    After the block nothing is different for others: ``sys.modules`` has the modules only where they were imported.

    Parameters
    ----------
    *names : str
        Modules. One that is imported already, or that is not installed, changes nothing.

    Examples
    --------
    >>> with postponed("wave"):
    ...     import wave
    >>> wave.WAVE_FORMAT_PCM  # imports it
    1
    """
    modules = [_Postponed(name) for name in names if name not in sys.modules]
    for module in modules:
        module.offer()
    try:
        yield
    finally:
        for module in modules:
            module.withdraw()
