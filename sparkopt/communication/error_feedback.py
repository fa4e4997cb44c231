"""Error-feedback residuals between steps: stored next to the blocks, so that a task that is run again finds them.

The residual after step k is a file of its own, which is written whole or not at all: a task that is run again for
step k starts from the residual before it, and encodes the same. With each checkpoint it is copied to a store too, on
any file system, from which a fit is resumed whose executors are gone.
"""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from pyarrow import fs

from sparkopt.codecs.gradient import CodecState
from sparkopt.errors import CorruptDataError
from sparkopt.io.filesystem import STORAGE_ERRORS, LastingLocation, Location, brief
from sparkopt.io.sealed import seal, unseal
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["ResidualStore", "Residuals", "check_residuals", "names_at"]

logger = logging.getLogger(__name__)

SUFFIX = ".memory"
MAGIC = b"sparkopt residual 1\n"
_NAMED = re.compile(rf"(.+)\.(\d{{8}}){re.escape(SUFFIX)}")
KEPT = 2
"""Residuals that are kept: of the last step, and of the one before it, for a task that is run again."""

_in_process: dict[str, dict[int, CodecState]] = {}
"""Residuals of blocks that are in RAM too."""


@dataclass(frozen=True)
class ResidualStore:
    """Where residuals outlive the executors: a folder that all of them reach.

    Parameters
    ----------
    uri : str
        The folder, on any file system that pyarrow serves.
    interval : int
        Steps between the residuals that are stored: those of checkpoints.
    keep : int, default 2
        How many of each partition's are kept.
    """

    uri: str
    interval: int
    keep: int = 2

    @property
    def location(self) -> Location:
        """The folder; once it is known it is pickled along, with the credentials that executors may not have."""
        return self._lasting.now()

    @cached_property
    def _lasting(self) -> LastingLocation:
        return LastingLocation(self.uri, "checkpointDir")


@dataclass(frozen=True)
class Residuals:
    """The residuals of one partition, or of one rank, in one fit.

    Parameters
    ----------
    fit : str
        Which fit.
    name : str
        Of which partition or rank.
    blocks : str or None
        Path of the blocks, to which the files' names are added; None keeps the residuals in this process.
    store : ResidualStore or None, default None
        Where they outlive it.
    """

    fit: str
    name: str
    blocks: str | None
    store: ResidualStore | None = None

    def before(self, step: int) -> CodecState | None:
        """Return the residual of the last step before this one; None at the first step of all."""
        if step == 0:
            self._forget()
            return None
        steps = [known for known in self._steps() if known < step]
        why = "an executor was lost, or the fit was resumed without checkpoints of it"
        try:
            residual = self._load(max(steps)) if steps else self._from_store(step - 1)
        except CorruptDataError as error:
            residual, why = None, str(error)
        if residual is None:
            logger.warning(
                "the error-feedback residual of %s is lost at step %d (%s): what it held is not sent, and it starts "
                "at zero",
                self.name,
                step,
                why,
            )
        return residual

    def has_before(self, step: int) -> bool:
        """Whether there is a residual of a step before this one."""
        return any(known < step for known in self._steps())

    def keep(self, step: int, residual: CodecState) -> None:
        """Store the residual after a step; those that no task can ask for any more are deleted."""
        if self.blocks is None:
            _in_process.setdefault(f"{self.fit}/{self.name}", {})[step] = residual
        else:
            _write(_local(self._path(step)), residual)
        for known in sorted(self._steps())[:-KEPT]:
            self._drop(known)
        if self.store is not None and step > 0 and step % self.store.interval == 0:
            self._copy_to(self.store, step, residual)

    def _steps(self) -> list[int]:
        if self.blocks is None:
            return list(_in_process.get(f"{self.fit}/{self.name}", ()))
        return _steps_in(_local(self._folder()), self._stem())

    def _load(self, step: int) -> CodecState:
        if self.blocks is None:
            return _in_process[f"{self.fit}/{self.name}"][step]
        return _read(_local(self._path(step)))

    def _drop(self, step: int) -> None:
        if self.blocks is None:
            del _in_process[f"{self.fit}/{self.name}"][step]
        else:
            fs.LocalFileSystem().delete_file(self._path(step))

    def _forget(self) -> None:
        """Delete what earlier fits, or an earlier attempt, have left; not this fit's residuals of other names."""
        if self.blocks is None:
            for key in [key for key in _in_process if key.endswith(f"/{self.name}")]:
                del _in_process[key]
            return
        folder, stem = _local(self._folder()), f"{self.blocks.rsplit('/', 1)[1]}."
        for path in _files(folder):
            name = path.rsplit("/", 1)[1]
            is_others = name.startswith(f"{stem}{self.fit}.") and not name.startswith(f"{self._stem()}.")
            if name.startswith(stem) and name.endswith(SUFFIX) and not is_others:
                folder.filesystem.delete_file(path)

    def _folder(self) -> str:
        assert self.blocks is not None  # noqa: S101  # callers have checked
        return self.blocks.rsplit("/", 1)[0]

    def _stem(self) -> str:
        assert self.blocks is not None  # noqa: S101  # callers have checked
        return f"{self.blocks.rsplit('/', 1)[1]}.{self.fit}.{self.name}"

    def _path(self, step: int) -> str:
        return f"{self._folder()}/{_file_name(self._stem(), step)}"

    def _copy_to(self, store: ResidualStore, step: int, residual: CodecState) -> None:
        """Copy a residual to the store; like a checkpoint, one that cannot be written costs a warning."""
        folder = store.location
        file = folder.child(_file_name(self.name, step))
        try:
            folder.make_folder()
            _write(file, residual)
            for known in sorted(_steps_in(folder, self.name))[: -store.keep]:
                folder.filesystem.delete_file(folder.child(_file_name(self.name, known)).path)
        except STORAGE_ERRORS as error:
            logger.warning("the error-feedback residual %s was not written: %s", file.path, brief(error))

    def _from_store(self, step: int) -> CodecState | None:
        if self.store is None:
            return None
        folder = self.store.location
        if step not in _steps_in(folder, self.name):
            return None
        return _read(folder.child(_file_name(self.name, step)))


def names_at(folder: Location, step: int) -> list[str]:
    """Return the partitions or ranks of which a store has the residual after a step."""
    return sorted(name for name, known in _steps_by_name(folder).items() if step in known)


def check_residuals(folder: Location, step: int, expected: Sequence[str] = ()) -> None:
    """Make sure that what a store has of a step is complete and intact; harmless where nothing ever was in it.

    Parameters
    ----------
    folder : Location
        Where a ``ResidualStore`` leads.
    step : int
        The step of a checkpoint.
    expected : sequence of str
        Names that the checkpoint has of them.

    Raises
    ------
    CorruptDataError
        Where a partition or rank that is expected, or has residuals of other steps, has none of this one, or an
        altered one.
    """
    steps = _steps_by_name(folder)
    if not expected and not any(step in known for known in steps.values()):
        return
    for name in sorted({*steps, *expected}):
        if step not in steps.get(name, ()):
            raise CorruptDataError(f"the error-feedback residual of {name} at step {step} is missing")
        _read(folder.child(_file_name(name, step)))


def _steps_by_name(folder: Location) -> dict[str, set[int]]:
    steps: dict[str, set[int]] = {}
    for path in _files(folder):
        if found := _NAMED.fullmatch(path.rsplit("/", 1)[1]):
            steps.setdefault(found[1], set()).add(int(found[2]))
    return steps


def _local(path: str) -> Location:
    return Location(fs.LocalFileSystem(), path)


def _file_name(name: str, step: int) -> str:
    return f"{name}.{step:08d}{SUFFIX}"


def _files(folder: Location) -> list[str]:
    return [info.path for info in folder.listed()]


def _steps_in(folder: Location, stem: str) -> list[int]:
    """Return the steps whose residuals a folder has under this name."""
    found = (_NAMED.fullmatch(path.rsplit("/", 1)[1]) for path in _files(folder))
    return [int(match[2]) for match in found if match and match[1] == stem]


def _write(file: Location, residual: CodecState) -> None:
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **_flat(residual))
    file.write(seal(MAGIC, content.getvalue()))


def _read(file: Location) -> CodecState:
    try:
        content = unseal(MAGIC, file.read())
    except CorruptDataError as error:
        raise CorruptDataError(f"the error-feedback residual {file.path}: {error}") from None
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        residual: CodecState = {}
        for name in archive.namelist():
            inner = residual
            *folders, last = name.removesuffix(".npy").split("/")
            for folder in folders:
                inner = inner.setdefault(folder, {})
            if last:
                with archive.open(name) as entry:
                    inner[last] = np.lib.format.read_array(entry, allow_pickle=False)
        return residual


def _flat(residual: CodecState, prefix: str = "") -> dict[str, Array]:
    """Return a tree of arrays as names with slashes."""
    flat: dict[str, Array] = {} if residual else {prefix: np.zeros(0)}  # an empty tree stays one
    for name, value in residual.items():
        flat |= _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
