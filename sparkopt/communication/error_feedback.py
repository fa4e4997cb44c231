"""What error feedback remembers between steps: beside the blocks, so that a task that is run again finds it.

The memory after step k is a file of its own, which appears whole or not at all: a task that is run again for step k
begins from the memory before it, and encodes the same. Now and then it is put on a shelf too, any file system, from
which a fit goes on whose executors are gone.
"""

from __future__ import annotations

import io
import logging
import re
import zipfile
from dataclasses import dataclass

import numpy as np
from pyarrow import fs

from sparkopt.codecs.gradient import CodecState
from sparkopt.io.filesystem import Location, resolve
from sparkopt.typing import Array

__all__ = ["ResidualStore", "Residuals"]

logger = logging.getLogger(__name__)

SUFFIX = ".memory"
KEPT = 2
"""Residuals that stay: of the last step, and of the one before it, for a task that is run again."""

_in_process: dict[str, dict[int, CodecState]] = {}
"""Residuals of blocks that are in memory themselves."""


@dataclass(frozen=True)
class ResidualStore:
    """Where memories outlive the executors: a folder that all of them reach.

    Parameters
    ----------
    uri : str
        The folder, on any file system that pyarrow serves.
    interval : int
        Steps between memories that are kept there: those of checkpoints.
    keep : int, default 2
        How many of each partition's stay.
    """

    uri: str
    interval: int
    keep: int = 2


@dataclass(frozen=True)
class Residuals:
    """The memories of one partition, or of one rank, in one fit.

    Parameters
    ----------
    fit : str
        Which fit.
    name : str
        Whose.
    beside : str or None
        Path of the blocks, to which the files' names are added; None keeps them in this process.
    shelf : ResidualStore or None
        Where they outlive it.
    """

    fit: str
    name: str
    beside: str | None
    shelf: ResidualStore | None = None

    def before(self, step: int) -> CodecState | None:
        """Return the memory of the last step before this one; None at the first step of all."""
        if step == 0:
            self._forget()
            return None
        steps = [known for known in self._steps() if known < step]
        if steps:
            return self._load(max(steps))
        memory = self._from_shelf(step - 1)
        if memory is None:
            logger.warning(
                "the error memory of %s is gone at step %d (an executor was lost, or the fit was resumed without "
                "checkpoints of it): what it held is not sent, and it begins anew",
                self.name,
                step,
            )
        return memory

    def has_before(self, step: int) -> bool:
        """Whether a memory of a step before this one is at hand."""
        return any(known < step for known in self._steps())

    def keep(self, step: int, memory: CodecState) -> None:
        """Keep the memory after a step; those that no task can ask for any more are deleted."""
        if self.beside is None:
            _in_process.setdefault(f"{self.fit}/{self.name}", {})[step] = memory
        else:
            _write(_local(self._path(step)), memory)
        for known in sorted(self._steps())[:-KEPT]:
            self._drop(known)
        if self.shelf is not None and step > 0 and step % self.shelf.interval == 0:
            self._to_shelf(self.shelf, step, memory)

    def _steps(self) -> list[int]:
        if self.beside is None:
            return list(_in_process.get(f"{self.fit}/{self.name}", ()))
        return _steps_in(_local(self._folder()), self._stem())

    def _load(self, step: int) -> CodecState:
        if self.beside is None:
            return _in_process[f"{self.fit}/{self.name}"][step]
        return _read(_local(self._path(step)))

    def _drop(self, step: int) -> None:
        if self.beside is None:
            del _in_process[f"{self.fit}/{self.name}"][step]
        else:
            fs.LocalFileSystem().delete_file(self._path(step))

    def _forget(self) -> None:
        """Delete what earlier fits, or an earlier attempt, have left here; not this fit's memories of other names."""
        if self.beside is None:
            for key in [key for key in _in_process if key.endswith(f"/{self.name}")]:
                del _in_process[key]
            return
        folder, stem = _local(self._folder()), f"{self.beside.rsplit('/', 1)[1]}."
        for path in _files(folder):
            name = path.rsplit("/", 1)[1]
            is_others = name.startswith(f"{stem}{self.fit}.") and not name.startswith(f"{self._stem()}.")
            if name.startswith(stem) and name.endswith(SUFFIX) and not is_others:
                folder.filesystem.delete_file(path)

    def _folder(self) -> str:
        assert self.beside is not None  # noqa: S101  # callers have looked
        return self.beside.rsplit("/", 1)[0]

    def _stem(self) -> str:
        assert self.beside is not None  # noqa: S101  # callers have looked
        return f"{self.beside.rsplit('/', 1)[1]}.{self.fit}.{self.name}"

    def _path(self, step: int) -> str:
        return f"{self._folder()}/{self._stem()}.{step:08d}{SUFFIX}"

    def _to_shelf(self, shelf: ResidualStore, step: int, memory: CodecState) -> None:
        folder = resolve(shelf.uri, "checkpointDir")
        folder.filesystem.create_dir(folder.path, recursive=True)
        _write(folder.child(f"{self.name}.{step:08d}{SUFFIX}"), memory)
        for known in sorted(_steps_in(folder, self.name))[: -shelf.keep]:
            folder.filesystem.delete_file(folder.child(f"{self.name}.{known:08d}{SUFFIX}").path)

    def _from_shelf(self, step: int) -> CodecState | None:
        if self.shelf is None:
            return None
        folder = resolve(self.shelf.uri, "checkpointDir")
        if step not in _steps_in(folder, self.name):
            return None
        return _read(folder.child(f"{self.name}.{step:08d}{SUFFIX}"))


def _local(path: str) -> Location:
    return Location(fs.LocalFileSystem(), path)


def _files(folder: Location) -> list[str]:
    found = folder.filesystem.get_file_info(fs.FileSelector(folder.path, allow_not_found=True))
    return [info.path for info in found]


def _steps_in(folder: Location, stem: str) -> list[int]:
    """Return the steps whose memories lie in a folder under this name."""
    pattern = re.compile(rf"{re.escape(stem)}\.(\d{{8}}){re.escape(SUFFIX)}")
    found = (pattern.fullmatch(path.rsplit("/", 1)[1]) for path in _files(folder))
    return [int(match[1]) for match in found if match]


def _write(file: Location, memory: CodecState) -> None:
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **_flat(memory))
    file.write(content.getvalue())


def _read(file: Location) -> CodecState:
    with zipfile.ZipFile(io.BytesIO(file.read())) as archive:
        memory: CodecState = {}
        for name in archive.namelist():
            inner = memory
            *folders, last = name.removesuffix(".npy").split("/")
            for folder in folders:
                inner = inner.setdefault(folder, {})
            if last:
                with archive.open(name) as entry:
                    inner[last] = np.lib.format.read_array(entry, allow_pickle=False)
        return memory


def _flat(memory: CodecState, prefix: str = "") -> dict[str, Array]:
    """Return a tree of arrays as names with slashes."""
    flat: dict[str, Array] = {} if memory else {prefix: np.zeros(0)}  # an empty tree is kept as one
    for name, value in memory.items():
        flat |= _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
