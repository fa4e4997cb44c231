"""A checkpoint as bytes that know when they were altered.

They hold a ``.npz`` of arrays and one JSON tree. Nothing is pickled, and loading runs no code.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sparkopt.io.fingerprint import Fingerprint
from sparkopt.io.sealed import seal, unseal
from sparkopt.optim.base import Point
from sparkopt.solver.progress import Record, Snapshot
from sparkopt.typing import State
from sparkopt.values import dataclass

__all__ = ["SavedRun", "Stage", "columns", "dump", "load", "records"]

MAGIC = b"sparkopt checkpoint 3\n"


@dataclass(frozen=True)
class Stage:
    """One loop of a run that is several loops in turn.

    Attributes
    ----------
    number : int, default 0
        Which one.
    steps : int, default 0
        Steps before it: checkpoints are numbered on from there.
    before : nested tuples, lists and dicts of arrays, numbers, strings and None
        What the stages before it found.
    """

    number: int = 0
    steps: int = 0
    before: State = None


class SavedRun(NamedTuple):
    """What a checkpoint holds."""

    fingerprint: Fingerprint
    snapshots: list[Snapshot]
    stage: Stage
    residuals: Sequence[str] = ()


def dump(
    fingerprint: Fingerprint,
    snapshots: Sequence[Snapshot],
    stage: Stage | None = None,
    residuals: Sequence[str] = (),
) -> bytes:
    """Return a checkpoint file's content.

    Parameters
    ----------
    fingerprint, snapshots, stage
        What ``load`` returns.
    residuals : sequence of str
        Names of the partitions or ranks whose error-feedback residuals belong to it.

    Raises
    ------
    TypeError
        Where an optimiser's state is more than data.
    """
    arrays: dict[str, Any] = {}
    known: dict[int, str] = {}

    def encode(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype != object:  # stored once, however often it is held
            name = known.setdefault(id(value), f"a{len(known)}")
            arrays[name] = value
            return {"array": name}
        if isinstance(value, tuple):
            return {"tuple": [encode(item) for item in value]}
        if isinstance(value, list):
            return [encode(item) for item in value]
        if isinstance(value, dict):
            return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
        if isinstance(value, np.generic):
            return encode(value.item())
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(
            f"an optimiser's state holds a {type(value).__name__}; see sparkopt.typing.State for what it may"
        )

    tree = {
        "fingerprint": fingerprint,
        "stage": encode(vars(stage or Stage())),
        "snapshots": [encode(_parts(snapshot)) for snapshot in snapshots],
        "residuals": list(residuals),
    }
    body = io.BytesIO()
    text = np.frombuffer(json.dumps(tree).encode(), dtype=np.uint8)
    np.savez(body, tree=text, **arrays)
    return seal(MAGIC, body.getvalue())


def load(content: bytes) -> SavedRun:
    """Return what ``dump`` was given.

    Raises
    ------
    CorruptDataError
        Where the content is truncated, altered, or no checkpoint.
    """
    with np.load(io.BytesIO(unseal(MAGIC, content)), allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    tree = json.loads(held.pop("tree").tobytes())

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "array":
            return held[content]
        if kind == "tuple":
            return tuple(decode(item) for item in content)
        return {decode(key): decode(item) for key, item in content}

    snapshots = [_snapshot(decode(snapshot)) for snapshot in tree["snapshots"]]
    residuals = tree.get("residuals", ())  # older checkpoints do not name them
    return SavedRun(tree["fingerprint"], snapshots, Stage(**decode(tree["stage"])), residuals)


def columns(history: Sequence[Record]) -> dict[str, list[Any]]:
    """Return a history as plain data, column by column."""
    return {name: [getattr(record, name) for record in history] for name in Record.__annotations__}


def records(columns: dict[str, list[Any]]) -> tuple[Record, ...]:
    """Return the history that ``columns`` was given."""
    return tuple(Record(*row) for row in zip(*[columns[name] for name in Record.__annotations__], strict=True))


def _parts(snapshot: Snapshot) -> dict[str, Any]:
    return {**vars(snapshot), "at": vars(snapshot.at), "history": columns(snapshot.history)}


def _snapshot(parts: dict[str, Any]) -> Snapshot:
    return Snapshot(**{**parts, "at": Point(**parts["at"]), "history": records(parts["history"])})
