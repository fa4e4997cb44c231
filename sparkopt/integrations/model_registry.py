"""Which model is in use: a folder of accepted models, and one small file that lists them.

Spark is not needed: a scheduler's own process can promote a model, on any file system that pyarrow supports.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pyarrow import fs

from sparkopt.errors import DataError, ParameterError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, brief, child_uri, resolve
from sparkopt.io.saved import copy_folder
from sparkopt.io.secrets import mask_uri
from sparkopt.values import dataclass

__all__ = ["Accepted", "ModelRegistry"]

POINTER = "accepted.json"
COMPANIONS = ("metrics.json", "receipt.json", "manifest.json")
"""Files that a training job writes next to its model; they are copied with it."""
BASELINE = "evaluation.json"


@dataclass(frozen=True)
class Accepted:
    """A model that was accepted.

    Attributes
    ----------
    version : str
        Its name: the end of its interval, and the beginning of a hash of its files.
    folder : str
        Folder of ``model/`` and of the files that its training job wrote.
    interval : str
        End of the data that it was trained on, as ISO 8601 in UTC; versions are ordered by it.
    evaluation : str
        File with the metrics that it was accepted for; the next candidate is compared with them.
    """

    version: str
    folder: str
    interval: str
    evaluation: str

    @property
    def model(self) -> str:
        """The saved model."""
        return child_uri(self.folder, "model")


@dataclass(frozen=True)
class ModelRegistry:
    """Accepted models below one folder.

    ``<uri>/accepted/<version>/`` holds copies that are never written again, so a job that runs again cannot change a
    model in use. ``<uri>/accepted.json`` lists them by interval; the last one is in use. This file is replaced
    atomically, after everything that it names was written. Only one process may promote at a time.

    Parameters
    ----------
    uri : str
        A folder on any file system that pyarrow supports.

    Examples
    --------
    >>> from pathlib import Path
    >>> from sparkopt.ml import LogisticRegression, LogisticRegressionModel
    >>> run = Path("run").resolve()  # where jobs have trained and evaluated
    >>> LogisticRegression().fit(df).save(f"{run}/model")
    >>> _ = run.joinpath("metrics.json").write_text('{"gate": {"passed": true}}')
    >>> registry = ModelRegistry(f"{run.parent}/churn")
    >>> _ = registry.promote(f"{run}", f"{run}", "2026-11-24T00:00:00+00:00")
    >>> LogisticRegressionModel.load(registry.current().model).numFeatures
    3
    """

    uri: str

    def history(self) -> list[Accepted]:
        """Return the accepted models, by interval.

        Raises
        ------
        DataError
            Where the file cannot be read as one of these.
        """
        pointer = resolve(self.uri, "uri").child(POINTER)
        if not pointer.exists():
            return []
        try:
            return [Accepted(**entry) for entry in json.loads(pointer.read())["models"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{mask_uri(child_uri(self.uri, POINTER))} is not a list of accepted models: {error}."
            ) from error

    def current(self) -> Accepted | None:
        """Return the model in use, or None where none was accepted yet."""
        return next(reversed(self.history()), None)

    def before(self, interval: str) -> Accepted | None:
        """Return the model in use before an interval, or None; a rerun starts with the same one as the first run."""
        earlier = [entry for entry in self.history() if entry.interval < interval]
        return next(reversed(earlier), None)

    def promote(self, candidate: str, evaluation: str, interval: str) -> Accepted:
        """Accept a model; repeating the call changes nothing.

        The model of the latest interval is in use; a model of an earlier interval is only listed.

        Parameters
        ----------
        candidate : str
            Output of the job that trained it, with ``model/``.
        evaluation : str
            Output of the job that evaluated it, with ``metrics.json``.
        interval : str
            End of the data, as ISO 8601 in UTC.

        Raises
        ------
        DataError
            For a model that does not exist, or whose gate is not met.
        ParameterError
            Where it cannot be copied: a disk is full, or a right is lacking. Nothing stays of the copy.
        """
        verdict = refusal(evaluation)
        if verdict is not None:
            raise DataError(f"{mask_uri(candidate)} is not promoted: {verdict}")
        version = f"{re.sub('[^0-9T]', '', interval)[:15]}-{_digest(candidate)[:12]}"
        folder = child_uri(self.uri, "accepted", version)
        entry = Accepted(version, folder, interval, child_uri(folder, BASELINE))
        history = self.history()
        if entry in history:
            return entry
        models = sorted([*history, entry], key=lambda accepted: accepted.interval)
        content = {"current": models[-1].version, "models": [asdict(accepted) for accepted in models]}
        root, copy = resolve(self.uri, "uri"), resolve(folder, "uri")
        try:
            with root.usable():
                _copy(candidate, evaluation, copy)
                root.child(POINTER).write((json.dumps(content, indent=2) + "\n").encode())
        except ParameterError:  # nothing names the copy
            with suppress(*STORAGE_ERRORS):
                copy.delete()
            raise
        return entry


def refusal(evaluation: str) -> str | None:
    """Return why an evaluation's gate was not met, or None if it was met.

    Parameters
    ----------
    evaluation : str
        Output of the job that evaluated the model, with ``metrics.json``.

    Raises
    ------
    DataError
        Where there are no metrics, or they do not hold the gate's result.
    """
    file = child_uri(evaluation, "metrics.json")
    gate = _json(file).get("gate")
    if not isinstance(gate, Mapping) or "passed" not in gate:
        raise DataError(f"{mask_uri(file)} does not hold the result of a gate.")
    return None if gate["passed"] else str(gate.get("reason") or "gate not met.")


def _json(uri: str) -> dict[str, Any]:
    location = resolve(uri, "evaluation")
    try:
        content = json.loads(location.read())
    except (OSError, ValueError) as error:
        raise DataError(f"{mask_uri(uri)} cannot be read: {brief(error)}") from error
    if not isinstance(content, dict):
        raise DataError(f"{mask_uri(uri)} is not a JSON object.")
    return content


def _digest(candidate: str) -> str:
    """Return a hash of the files of a candidate's model, their names included."""
    folder = resolve(candidate, "candidate").child("model")
    system = folder.filesystem
    files = sorted(info.path for info in folder.listed(recursive=True) if info.type == fs.FileType.File)
    if not files:
        raise DataError(f"{mask_uri(child_uri(candidate, 'model'))} holds no model.")
    hashed = hashlib.sha256()
    for path in files:
        content = hashlib.sha256()
        with system.open_input_stream(path) as stream:
            while chunk := stream.read(1 << 20):
                content.update(chunk)
        hashed.update(f"{path[len(folder.path) :]} {content.hexdigest()}\n".encode())
    return hashed.hexdigest()


def _copy(candidate: str, evaluation: str, target: Location) -> None:
    """Copy a model and its companions; an incomplete copy is overwritten."""
    source = resolve(candidate, "candidate")
    copy_folder(source.child("model"), target.child("model"))
    for name in COMPANIONS:
        if source.child(name).exists():
            target.child(name).write(source.child(name).read())
    target.child(BASELINE).write(resolve(evaluation, "evaluation").child("metrics.json").read())
