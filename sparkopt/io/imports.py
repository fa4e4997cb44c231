"""Imports that others make and nobody may need: pandas, and stages that are not used, are half of pyspark.ml's."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["OTHER_STAGES", "UNNEEDED", "postponed"]

UNNEEDED = ("pandas", "numpy.f2py", "numpy.testing", "scipy.sparse")
"""What pyspark.ml and SciPy import for functions that linear models do not call."""

OTHER_STAGES = tuple(
    f"pyspark.ml.{name}"
    for name in ("classification", "clustering", "feature", "fpm", "image", "recommendation", "regression", "tuning")
)
"""Modules of pyspark.ml, all of which it imports, and few of which a script uses."""


class _Postponed(ModuleType):
    """Stands for a module, and imports it when something of it is used."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._of: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._itself(), name)

    def __dir__(self) -> list[str]:
        return dir(self._itself())

    def _itself(self) -> ModuleType:
        self.withdraw()
        return import_module(self.__name__)

    def offer(self) -> None:
        """Let ``import`` find this one."""
        parent, _, child = self.__name__.rpartition(".")
        if parent in sys.modules:  # else the package, which has this one where it imports it, keeps it as its own
            self._of = sys.modules[parent]
            setattr(self._of, child, self)
        sys.modules[self.__name__] = self

    def withdraw(self) -> None:
        """Let ``import`` find the module itself; whoever has this one keeps it."""
        child = self.__name__.rpartition(".")[2]
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        if self._of is not None and vars(self._of).get(child) is self:
            delattr(self._of, child)


@contextmanager
def postponed(*names: str) -> Iterator[None]:
    """Postpone the import of modules, for those who import them inside the block, until something of them is used.

    After the block nothing is different for others: ``sys.modules`` has the modules only where they were imported. A
    package that imported them inside the block has what imports them when something of them is used. Python looks for
    no garbage inside it: modules stay.

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
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        for module in modules:
            module.withdraw()
