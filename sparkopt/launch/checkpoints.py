"""Checkpoints: tensors as safetensors, everything else as JSON, and a manifest that is written last.

A folder without its manifest ``checkpoint.json`` is not a checkpoint, so one that was cut short does not count. The
manifest has each file's size and CRC-32, and a digest of itself; what does not match is refused. Nothing is ever
unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from sparkopt.errors import CorruptDataError, DataError, ParameterError
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, brief, resolve
from sparkopt.launch.checkpoint_rows import FileFacts, Rows, rows_for
from sparkopt.launch.communicator import Communicator
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = [
    "Checkpoint",
    "CheckpointFolder",
    "copied",
    "decoded",
    "encoded",
    "gathered",
    "module_bytes",
    "module_state",
]

logger = logging.getLogger(__name__)

MANIFEST, MODEL, STATE = "checkpoint.json", "model.safetensors", "state.safetensors"
PART = "rows-{:05d}-of-{:05d}.safetensors"
FORMAT = 1
DIGEST = "sha256"
"""Entry of the manifest: the digest of its other entries."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training.

    Attributes
    ----------
    epoch, step : int
        The next step: ``step`` optimiser steps of ``epoch`` are done.
    model : dict of str to Tensor or Rows
        State of the module.
    state : dict
        States of optimiser, scheduler and the rest: nested dicts, lists and tuples of tensors, `Rows` and plain
        values.
    facts : dict
        Plain values: the history, and settings that must be the same for a run that resumes.
    """

    epoch: int
    step: int
    model: dict[str, Any] = field(repr=False)
    state: dict[str, Any] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of its folder; later ones sort later."""
        return f"epoch-{self.epoch:06d}-step-{self.step:09d}"

    @property
    def is_divided(self) -> bool:
        """Whether each rank has a part of the module's state."""
        return bool(_divided(self))


class CheckpointFolder:
    """The checkpoints of one training.

    Parameters
    ----------
    uri : str
        A folder on any storage that pyarrow knows, shared by all ranks.
    keep : int, default 2
        How many of the latest to keep.
    """

    def __init__(self, uri: str, keep: int = 2) -> None:
        self.uri, self.keep = uri, keep
        self._folder = resolve(uri, "checkpointDir")

    def check(self) -> None:
        """Refuse a folder that cannot be written to, before anything is trained.

        Raises
        ------
        ParameterError
            Naming the folder, and what its storage says.
        """
        probe = self._folder.child(f".{uuid.uuid4().hex}")
        with self._folder.usable():
            self._folder.make_folder()
            probe.write(b"")
            probe.delete()

    def names(self) -> list[str]:
        """Return the complete checkpoints, the latest last."""
        files = [info.path for info in self._folder.listed(recursive=True) if info.base_name == MANIFEST]
        return sorted(path.split("/")[-2] for path in files)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, whole or not at all, then delete the oldest.

        Raises
        ------
        ParameterError
            Where the storage fails: it is full, or does not answer.
        """
        with self._folder.usable():
            self._save(checkpoint)

    def save_if_possible(self, checkpoint: Checkpoint, parts: Sequence[FileFacts] = ()) -> str:
        """Do what ``save`` does; return why it was not written, in one line, or "".

        Of a checkpoint with `Rows`, ``parts`` are what ``save_part`` has returned on all ranks.
        """
        folder = self._folder.child(checkpoint.name)
        failed = [str(part["failure"]) for part in parts if "failure" in part]
        if failed:
            self._discard(folder)
            return failed[0]
        try:
            self._save(checkpoint, parts)
        except STORAGE_ERRORS as error:
            return _not_written(folder, error)
        return ""

    def save_part(self, checkpoint: Checkpoint, rank: int, size: int) -> FileFacts:
        """Write a rank's rows; the checkpoint does not count before all ranks' facts are saved with the rest."""
        folder = self._folder.child(checkpoint.name)
        name, content = PART.format(rank, size), save_tensors(_owned(_rows_of(checkpoint)))
        try:
            folder.make_folder()
            folder.child(name).write(content)
        except STORAGE_ERRORS as error:
            return {"failure": _not_written(folder, error)}
        return {"name": name, **_facts(content)}

    def _save(self, checkpoint: Checkpoint, parts: Sequence[FileFacts] = ()) -> None:
        folder = self._folder.child(checkpoint.name)
        files = encoded(checkpoint, parts)
        try:
            folder.make_folder()
            for name, content in files.items():
                folder.child(name).write(content)
        except STORAGE_ERRORS:
            self._discard(folder)
            raise
        for name in self.names()[: -self.keep]:
            self._delete(name)

    def _discard(self, folder: Location) -> None:
        """Delete what was written of a checkpoint, as far as the storage lets it."""
        with contextlib.suppress(*STORAGE_ERRORS):
            if not folder.child(MANIFEST).exists():
                folder.delete()

    def clear(self) -> None:
        """Delete all checkpoints."""
        for name in self.names():
            self._delete(name)

    def latest(self) -> str | None:
        """Return the name of the latest checkpoint that is undamaged, or None."""
        for name in reversed(self.names()):
            try:
                self.load(name)
            except CorruptDataError as error:
                logger.warning("%s; trying the one before", error)
            else:
                return name
        return None

    def load(self, name: str, rank: int = 0, size: int = 1) -> Checkpoint:
        """Read a checkpoint; of tensors that are divided over ranks, the rows of one rank of ``size``.

        Raises
        ------
        CorruptDataError
            Where a file is missing or does not match the manifest, or the manifest was altered.
        DataError
            Where it cannot be seen from this machine.
        """
        folder = self._folder.child(name)
        try:
            files = {MANIFEST: folder.child(MANIFEST).read()}
        except FileNotFoundError as error:
            raise DataError(
                f"checkpoint {folder.path!r} cannot be seen from this machine. Set checkpointDir to storage that "
                "every executor shares."
            ) from error
        try:
            files |= {entry: folder.child(entry).read() for entry in (MODEL, STATE)}
        except FileNotFoundError as error:
            raise CorruptDataError(f"checkpoint {folder.path!r} is damaged: a file is missing ({error})") from None
        manifest = _manifest(files[MANIFEST], folder.path)
        return decoded(files, folder.path, rows_for(manifest, rank, size, lambda part: _checked(folder, part)))

    def _delete(self, name: str) -> None:
        """Delete a checkpoint, its manifest first: what is half deleted does not count."""
        folder = self._folder.child(name)
        folder.filesystem.delete_file(folder.child(MANIFEST).path)
        folder.delete()


def _not_written(folder: Location, error: Exception) -> str:
    return f"checkpoint {folder.path} was not written: {brief(error)}"


def encoded(checkpoint: Checkpoint, parts: Sequence[FileFacts] = ()) -> dict[str, bytes]:
    """Return a checkpoint's files by name; the manifest is last, and completes it. Rows are in files of their own."""
    tensors: dict[str, torch.Tensor] = {}
    tree, divided = _plain(checkpoint.state, "state", tensors), _divided(checkpoint)
    model = {name: tensor for name, tensor in checkpoint.model.items() if name not in divided}
    files = {MODEL: save_tensors(_owned(model)), STATE: save_tensors(_owned(tensors))}
    manifest = {
        "format": FORMAT,
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "files": {name: _facts(file) for name, file in files.items()},
        "state": tree,
        "facts": checkpoint.facts,
    }
    if parts:
        manifest |= {"parts": list(parts), "model": _plain(divided, "model", {})}
    return {**files, MANIFEST: json.dumps({**manifest, DIGEST: _digest(manifest)}).encode()}


def decoded(
    files: Mapping[str, bytes], origin: str, rows: Mapping[str, torch.Tensor] = MappingProxyType({})
) -> Checkpoint:
    """Return the checkpoint of which these are the files, and these the rows of divided tensors.

    Raises
    ------
    CorruptDataError
        Where a file does not match the manifest, or the manifest its digest; the message names ``origin``.
    """
    manifest = _manifest(files[MANIFEST], origin)
    for name, expected in manifest["files"].items():
        _check_content(files[name], expected, name, origin)
    state = _restored(manifest["state"], {**load_tensors(files[STATE]), **rows})
    model = {**load_tensors(files[MODEL]), **_restored(manifest.get("model", {"dict": []}), dict(rows))}
    return Checkpoint(manifest["epoch"], manifest["step"], model, state, manifest["facts"])


def _divided(checkpoint: Checkpoint) -> dict[str, Rows]:
    return {name: one for name, one in checkpoint.model.items() if isinstance(one, Rows)}


def _rows_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return this rank's rows of all that is divided, by path."""
    found: dict[str, torch.Tensor] = {}
    _plain({"state": checkpoint.state, "model": _divided(checkpoint)}, "", {}, found)
    return {path.removeprefix("/"): tensor for path, tensor in found.items()}


def _facts(content: bytes) -> FileFacts:
    return {"bytes": len(content), "crc32": zlib.crc32(content)}


def _check_content(content: bytes, expected: Mapping[str, Any], name: str, origin: str) -> None:
    if (len(content), zlib.crc32(content)) != (expected["bytes"], expected["crc32"]):
        raise CorruptDataError(f"checkpoint {origin!r} is damaged: {name} is not what the manifest says")


def _checked(folder: Location, part: FileFacts) -> bytes:
    """Return the content of a part of the checkpoint in a folder."""
    try:
        content = folder.child(part["name"]).read()
    except FileNotFoundError as error:
        raise CorruptDataError(f"checkpoint {folder.path!r} is damaged: a file is missing ({error})") from None
    _check_content(content, part, part["name"], folder.path)
    return bytes(content)


def _manifest(content: bytes, origin: str) -> dict[str, Any]:
    """Return an undamaged manifest, without its digest."""
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise CorruptDataError(f"checkpoint {origin!r} has a damaged manifest: {error}") from None
    known = manifest.pop(DIGEST, None) if isinstance(manifest, dict) else None
    if known is None:
        raise CorruptDataError(f"checkpoint {origin!r} has a manifest without a digest: another version wrote it")
    if known != _digest(manifest):
        raise CorruptDataError(f"checkpoint {origin!r} has a damaged manifest: its digest is wrong")
    return dict(manifest)


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def copied(value: Any) -> Any:
    """Return a tree of dicts, lists and tuples whose tensors are copies in main memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return type(value)(map(copied, value)) if isinstance(value, (list, tuple)) else value


def gathered(state: dict[str, Any], communicator: Communicator) -> list[dict[str, Any]]:
    """Return the states of all ranks, by rank; a collective. A state is what a checkpoint's may be."""
    files = encoded(Checkpoint(0, 0, {}, state, {}))
    parts = {name: communicator.all_gather(content) for name, content in files.items()}
    ranks = range(communicator.size)
    return [decoded({name: found[rank] for name, found in parts.items()}, f"of rank {rank}").state for rank in ranks]


def module_bytes(state: dict[str, torch.Tensor]) -> bytes:
    """Return a module's state as safetensors."""
    return bytes(save_tensors(_owned(state)))


def module_state(content: bytes) -> dict[str, torch.Tensor]:
    """Return the state that ``module_bytes`` wrote."""
    return dict(load_tensors(content))


def _owned(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return tensors that share no memory, as the format demands: tied weights are written twice."""
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise ParameterError(
                f"the module's state {name!r} is a {type(value).__name__}; only tensors can be saved."
            )
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _plain(
    value: Any, path: str, tensors: dict[str, torch.Tensor], rows: dict[str, torch.Tensor] | None = None
) -> Any:
    """Return a tree as JSON has it: tensors go to ``tensors``, and tuples, lists and dicts are marked as such."""
    if isinstance(value, Rows):
        if rows is not None:
            rows[path] = value.local
        return {"rows": [path, list(value.shape)]}
    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, np.ndarray):
        tensors[path] = _tensor(value, path)
        return {"array": path}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {"dict": [[key, _plain(item, f"{path}/{key}", tensors, rows)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_plain(item, f"{path}/{index}", tensors, rows) for index, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ParameterError(
        f"{path} is a {type(value).__name__}; a checkpoint holds tensors, arrays and plain values only."
    )


def _tensor(values: Array, path: str) -> torch.Tensor:
    try:
        return torch.from_numpy(np.array(values))
    except TypeError as error:
        raise ParameterError(f"{path} is an array that cannot be saved: {error}.") from None


def _restored(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return the tree that ``_plain`` was given."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "rows":
        return Rows(tuple(content[1]), tensors[content[0]])
    if kind in ("tensor", "array"):
        return tensors[content] if kind == "tensor" else tensors[content].numpy()
    if kind == "dict":
        return {key: _restored(item, tensors) for key, item in content}
    items = [_restored(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
