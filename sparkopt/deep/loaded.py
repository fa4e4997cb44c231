"""Networks that this process has loaded: a Python worker runs many tasks, and a server answers many calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LoadedModules", "loaded_modules"]


class LoadedModules:
    """Keeps modules between the tasks that evaluate them, those used last, up to a bound on their weights.

    A module is lent to one task at a time: a second one that runs meanwhile loads its own.

    Parameters
    ----------
    most : int, default 2**30
        Most bytes of weights to keep; the module used last is kept whatever its size is.

    Examples
    --------
    >>> from torch import nn
    >>> modules = LoadedModules()
    >>> with modules.lent(("model", "cpu"), 12, lambda: nn.Linear(2, 1)) as first:
    ...     pass
    >>> with modules.lent(("model", "cpu"), 12, lambda: nn.Linear(2, 1)) as second:
    ...     first is second
    True
    """

    def __init__(self, most: int = 2**30) -> None:
        self._most = most
        self._idle: list[tuple[tuple[str, str], int, nn.Module]] = []
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, key: tuple[str, str], size: int, load: Callable[[], nn.Module]) -> Iterator[nn.Module]:
        """Give the module of a key, loaded where none is idle; it is kept unless the block raises.

        Parameters
        ----------
        key : tuple of str
            What the module is, and the device that it is on.
        size : int
            Bytes of its weights.
        load : callable
            Returns the module.
        """
        module = self._taken(key)
        if module is None:
            module = load()
        yield module
        with self._lock:
            self._idle.append((key, size, module))
            while len(self._idle) > 1 and sum(held for _, held, _ in self._idle) > self._most:
                self._idle.pop(0)

    def _taken(self, key: tuple[str, str]) -> nn.Module | None:
        with self._lock:
            for place, (found, _, module) in enumerate(self._idle):
                if found == key:
                    del self._idle[place]
                    return module
        return None


loaded_modules = LoadedModules()
"""Those of this process."""
