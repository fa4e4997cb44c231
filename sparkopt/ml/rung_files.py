"""The rungs of a search as files, from which the same search resumes after its process was killed."""

from __future__ import annotations

from typing import Any

from pyspark.ml.param import Param

from sparkopt.checkpoint.format import Stage, dump, load
from sparkopt.errors import IncompatibleError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, resolve
from sparkopt.io.fingerprint import Fingerprint, describe, differences, digest
from sparkopt.ml.training import TrainingTask
from sparkopt.ml.trials import SearchTrial
from sparkopt.training.coordinates import Initial
from sparkopt.values import dataclass

__all__ = ["Candidate", "RungFiles"]


@dataclass
class Candidate:
    """A trial while it is trained.

    Attributes
    ----------
    trial : SearchTrial
        What is known of it.
    values : dict
        Its parameters and their values.
    task : TrainingTask
        What is trained.
    steps : int
        Steps that it has taken.
    metrics : list of float
        By fold, the last ones.
    at : list of (Initial or None)
        By fold, the coefficients of now.
    converged : bool
        Whether more steps change nothing.
    """

    trial: SearchTrial
    values: dict[Param[Any], Any]
    task: TrainingTask[Any]
    steps: int
    metrics: list[float]
    at: list[Initial | None]
    converged: bool = False


@dataclass(frozen=True)
class RungFiles:
    """The files of one search, in a folder of its own below ``uri``.

    Parameters
    ----------
    uri : str
        A folder of any number of searches.
    identity : mapping
        What rungs depend on in addition to the candidates.
    """

    uri: str
    identity: Fingerprint

    def keep(self, name: str, running: list[Candidate]) -> None:
        """Write how candidates are at the end of a rung."""
        rows = [[one.metrics, one.at, one.converged, one.trial.passes] for one in running]
        folder = self._folder()
        try:
            folder.make_folder()
            folder.child(name).write(dump(self._rung(running), [], Stage(before=rows)))
        except STORAGE_ERRORS as error:
            raise folder.unusable(error) from None

    def restore(self, name: str, running: list[Candidate]) -> bool:
        """Whether an earlier run has ended a rung; the candidates are then as it left them.

        Raises
        ------
        IncompatibleError
            Where its candidates were others.
        """
        place = self._folder().child(name)
        try:
            content = place.read() if place.exists() else None
        except STORAGE_ERRORS as error:
            raise place.unusable(error) from None
        if content is None:
            return False
        saved = load(content)
        if differences(self._rung(running), saved.fingerprint):
            raise IncompatibleError(
                f"checkpoint {place.path} is of other trials than those that are drawn now: give a sampler of your "
                f"own a seed. Move it away to start again."
            )
        rows: Any = saved.stage.before
        for one, (metrics, at, converged, passes) in zip(running, rows, strict=True):
            one.metrics, one.at, one.converged, one.trial.passes = metrics, at, converged, passes
        return True

    def remove(self) -> None:
        """Delete the search's folder."""
        folder = self._folder()
        try:
            folder.delete()
        except STORAGE_ERRORS as error:
            raise folder.unusable(error) from None

    def _folder(self) -> Location:
        return resolve(self.uri, "checkpointDir").child(digest(self.identity))

    def _rung(self, running: list[Candidate]) -> Fingerprint:
        return {**self.identity, "trials": describe([[one.trial.number, one.trial.params] for one in running])}
