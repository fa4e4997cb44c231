"""Checkpoints: a run's snapshots on any file system, from which the same call resumes after its driver was killed.

A file is written whole or not at all, and one that was truncated or altered is detected (``format``).

Each run has a folder of its own below ``uri``, named by its fingerprint: optimiser, loss, penalty, start, seed and
what is known of the data. So a call resumes from its own checkpoints only; the same folder serves tomorrow's data,
another configuration and the folds of a cross-validation. A run that ends by its own rules deletes its folder.
"""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path

from pyarrow import fs

from sparkopt.checkpoint.format import SavedRun, Stage, dump, load
from sparkopt.checkpoint.owners import Owner, others
from sparkopt.communication.error_feedback import ResidualStore, check_residuals, names_at
from sparkopt.errors import CorruptCheckpointWarning, CorruptDataError, IncompatibleError, ParameterError
from sparkopt.io.filesystem import STORAGE_ERRORS, LastingLocation, Location, brief, child_uri
from sparkopt.io.fingerprint import Fingerprint, differences, digest
from sparkopt.io.secrets import mask_uri
from sparkopt.solver.progress import Callback, Progress, Snapshot
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["CheckpointRun", "Checkpointer"]

logger = logging.getLogger(__name__)

SUFFIX = ".checkpoint"
RESIDUALS = "residuals"
"""Folder of error-feedback residuals below that of a run."""


@dataclass(frozen=True)
class Checkpointer:
    """Where and how often to keep a run's state.

    Parameters
    ----------
    uri : str
        A folder on any file system that pyarrow reads and writes: a path, ``file://``, ``s3://``, ``gs://``,
        ``hdfs://``, ``abfs://``. The driver must reach it, and so must the executors where the loop runs on one
        (engines "local" and "allreduce"): a path on one machine's own disk serves a single machine only.
    interval : int, default 10
        Steps between checkpoints.
    keep : int, default 2
        How many of a run's checkpoints are kept.

    Examples
    --------
    >>> from sparkopt import Trainer, losses
    >>> trainer = Trainer(losses.Logistic(), checkpointer=Checkpointer("s3://models/churn", interval=20))
    """

    uri: str
    interval: int = 10
    keep: int = 2

    def __post_init__(self) -> None:
        check("checkpointInterval", self.interval, Interval(1, None, whole=True))
        check("keep", self.keep, Interval(1, None, whole=True))

    def __repr__(self) -> str:
        return f"Checkpointer({mask_uri(self.uri)!r}, interval={self.interval}, keep={self.keep})"

    def check(self) -> None:
        """Refuse a URI that no file system serves.

        Raises
        ------
        ParameterError
            Naming what is supported.
        """
        self.location()

    def location(self) -> Location:
        """Return the folder; raises what ``check`` does."""
        return self._lasting.now()

    @cached_property
    def _lasting(self) -> LastingLocation:
        """The folder; once it is known it is pickled along, with the credentials that executors may not have."""
        return LastingLocation(self.uri, "checkpointDir")

    def run(self, fingerprint: Fingerprint) -> CheckpointRun:
        """Return the checkpoints of one run.

        Raises
        ------
        ParameterError
            Where the folder cannot be reached or made.
        """
        return CheckpointRun(self, fingerprint, owner=Owner.here(uuid.uuid4().hex)).prepared()


@dataclass(frozen=True)
class CheckpointRun:
    """The checkpoints of one run: of one model, or of several that are trained together.

    Parameters
    ----------
    checkpointer : Checkpointer
        Where and how often.
    fingerprint : mapping
        What the run is.
    stage : Stage
        Of a run that is several loops in turn, which loop this is, and what it needs to know of those before it.
    owner : Owner or None, default None
        The application, where it notes that it uses the folder.
    """

    checkpointer: Checkpointer
    fingerprint: Fingerprint = field(repr=False)
    stage: Stage = Stage()
    owner: Owner | None = None

    @property
    def name(self) -> str:
        """Its folder below the checkpointer's."""
        return digest(self.fingerprint)

    def prepared(self) -> CheckpointRun:
        """Make the folder; log which other runs have not ended here."""
        root = self.checkpointer.location()
        try:
            for other in _unfinished_runs(root):
                if Path(other.path).parent.name != self.name:
                    self._mention(other)
            self._folder().make_folder()
            if self.owner is not None:
                for name in others(self._folder(), self.owner):
                    logger.warning("%s trains the same model with checkpoints in %s", name, self._folder().path)
                self.owner.note(self._folder())
        except STORAGE_ERRORS as error:
            raise root.unusable(error) from None
        return self

    def _mention(self, other: Location) -> None:
        try:
            theirs = load(other.read()).fingerprint
        except (CorruptDataError, *STORAGE_ERRORS):  # of a run that does not concern this one
            return
        parts = ", ".join(differences(self.fingerprint, theirs))
        logger.warning("checkpoints of an unfinished run in %s are left alone: it differs in %s", other.path, parts)

    def restore(self) -> list[Snapshot] | None:
        """Return the newest snapshots that are intact, one a model, or None to start this stage from its beginning.

        Raises
        ------
        IncompatibleError
            Where a checkpoint in this run's folder belongs to another run.
        """
        saved = self.saved()
        if saved is None or saved.stage.number != self.stage.number:
            return None
        logger.info("resuming from step %d: %s", self.stage.steps + saved.snapshots[0].step, self._folder().path)
        return saved.snapshots

    def saved(self) -> SavedRun | None:
        """Return the newest checkpoint that is intact, of whichever stage; raises what ``restore`` does."""
        for found in reversed(_checkpoints(self._folder())):
            try:
                saved = load(found.read())
                step = saved.stage.steps + saved.snapshots[0].step
                check_residuals(self._folder().child(RESIDUALS), step, saved.residuals)
            except CorruptDataError as error:
                warnings.warn(
                    f"checkpoint {found.path}: {error}. The one before it is used.", CorruptCheckpointWarning, 2
                )
                continue
            if parts := differences(self.fingerprint, saved.fingerprint):
                raise IncompatibleError(
                    f"checkpoint {found.path} is of another run: {', '.join(parts)} differ. "
                    "Move it away to start again."
                )
            return saved
        return None

    def require_shared(self) -> None:
        """Make sure that this process sees the folder which the driver made.

        Raises
        ------
        ParameterError
            Where it does not: the driver would not see what is written here, either.
        """
        folder = self._folder()
        if not folder.exists():
            raise ParameterError(
                f"{folder.shown} is another folder on the executors than on the driver. Use "
                f"one that both reach, or engine='driver' or 'resident'."
            )

    def save(self, step: int, snapshots: Sequence[Snapshot]) -> None:
        """Write a checkpoint after a step of this stage; delete those that are no longer needed.

        A file system that fails in the middle of a run costs a warning and not the run.
        """
        folder = self._folder()
        total = self.stage.steps + step
        name = f"step-{total:08d}{SUFFIX}"
        try:
            paths = [info.path for info in folder.listed()]
            has_residuals = any(Path(path).name == RESIDUALS for path in paths)
            residuals = names_at(folder.child(RESIDUALS), total) if has_residuals else []
            folder.child(name).write(dump(self.fingerprint, snapshots, self.stage, residuals))
            if self.owner is not None:
                self.owner.note(folder)
            # by name: some file systems list paths in another form than they are given
            others = [found.path for found in _checkpoints(folder, paths) if Path(found.path).name != name]
            older = [found for found in others if Path(found).name < name]
            for stale in {*others} - {*older[len(older) - self.checkpointer.keep + 1 :]}:
                with suppress(FileNotFoundError):  # another application of the same run was quicker
                    folder.filesystem.delete_file(stale)
        except STORAGE_ERRORS as error:
            logger.warning("checkpoint %s was not written: %s", folder.child(name).path, brief(error))

    def residual_store(self) -> ResidualStore:
        """Return where error-feedback residuals are stored with the checkpoints."""
        keeper = self.checkpointer
        store = ResidualStore(child_uri(keeper.uri, self.name, RESIDUALS), keeper.interval, keeper.keep)
        store.location  # noqa: B018  # found here, where the session is
        return store

    def remove(self) -> None:
        """Delete this run's checkpoints, unless another application uses them; harmless when repeated."""
        folder = self._folder()
        try:
            if self.owner is not None:
                self.owner.leave(folder)
                if found := others(folder, self.owner):
                    logger.info("checkpoints in %s are left to %s", folder.path, ", ".join(found))
                    return
            folder.delete()
        except STORAGE_ERRORS as error:
            logger.warning("checkpoints in %s were not deleted: %s", folder.path, brief(error))

    def callbacks(self, models: int, restored: Sequence[Snapshot] | None = None) -> list[Callback]:
        """Return one callback for each model; all together they write one file a checkpoint."""
        latest: dict[int, Snapshot | Progress] = dict(enumerate(restored or ()))
        shared = _Collector(self, models, latest)
        return [CheckpointCallback(shared, model) for model in range(models)]

    def _folder(self) -> Location:
        return self.checkpointer.location().child(self.name)


class _Collector:
    """Gathers the snapshots of all models after the same step."""

    def __init__(self, run: CheckpointRun, models: int, latest: dict[int, Snapshot | Progress]) -> None:
        self.run, self.models, self.latest = run, models, latest
        self.due: int | None = None
        self.shared = False

    def note(self, model: int, progress: Progress) -> None:
        step = progress.record.step
        if self.due is not None and step > self.due:  # every model that still runs has reported the step before
            self._save(self.due)
        self.latest[model] = progress
        if step > 0 and (self.run.stage.steps + step) % self.run.checkpointer.interval == 0:
            self.due = step
        if self.due is not None and all(_step(found) == self.due for found in self.latest.values()):
            self._save(self.due)

    def _save(self, step: int) -> None:
        if not self.shared:
            self.run.require_shared()
            self.shared = True
        found = [self.latest[model] for model in range(self.models)]
        self.run.save(step, [item if isinstance(item, Snapshot) else item.snapshot() for item in found])
        self.due = None


def _step(found: Snapshot | Progress) -> int:
    return found.step if isinstance(found, Snapshot) else found.record.step


@dataclass(frozen=True)
class CheckpointCallback:
    """The callback that keeps one model's state."""

    shared: _Collector = field(repr=False)
    model: int
    in_loop_process = True

    def __call__(self, progress: Progress, /) -> None:
        """Note the step; every ``interval`` steps, write."""
        self.shared.note(self.model, progress)


def _checkpoints(folder: Location, paths: Sequence[str] | None = None) -> list[Location]:
    """Return a run's checkpoints, the oldest first; ``paths`` is what the folder holds, where that is known."""
    found = [info.path for info in folder.listed()] if paths is None else paths
    return [replace(folder, path=path) for path in sorted(path for path in found if path.endswith(SUFFIX))]


def _unfinished_runs(root: Location) -> list[Location]:
    """Return one checkpoint of each run below ``root``."""
    directories = [info.path for info in root.listed() if info.type == fs.FileType.Directory]
    found = [_checkpoints(replace(root, path=path)) for path in directories]
    return [checkpoints[-1] for checkpoints in found if checkpoints]
