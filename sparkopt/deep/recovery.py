"""What a training can go on from: checkpoints in a folder, and what ranks keep in memory for their next group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from sparkopt.deep.checkpoint import Checkpoint, CheckpointFolder, copied, decoded, encoded
from sparkopt.launch import Communicator

__all__ = ["Keeper"]

_KEPT, _REACHED = "checkpoint", "reached"


class Keeper:
    """Keeps where a training stands; every method but ``keeps`` and ``marking`` is a collective.

    Every rank has the same in memory, so that any one that is left can hand it to those that join.

    Parameters
    ----------
    communicator : Communicator
        The other ranks; its ``memory`` is used where it has one.
    uri : str or None
        Folder of checkpoints.
    """

    def __init__(self, communicator: Communicator, uri: str | None) -> None:
        self._communicator, self._memory = communicator, communicator.memory
        self._folder = CheckpointFolder(uri) if uri else None

    def keeps(self, lasting: bool) -> bool:
        """Whether there is anywhere to keep it; ``lasting`` is beyond these processes."""
        return self._memory is not None or (lasting and self._folder is not None)

    def keep(self, checkpoint: Checkpoint, lasting: bool) -> None:
        """Keep a checkpoint."""
        if lasting and self._folder is not None and self._communicator.rank == 0:
            self._folder.save(checkpoint)
        if self._memory is not None:
            self._memory[_KEPT] = _copy(checkpoint)
        self._communicator.barrier()

    def latest(self) -> Checkpoint | None:
        """Return the latest checkpoint, the same on all ranks."""
        if self._memory is not None:
            found = self._remembered(self._memory.get(_KEPT))
            if found is not None:
                self._memory[_KEPT] = found
                return _copy(found)  # training goes on in the tensors that it is given
        if self._folder is None:
            return None
        own = self._folder.latest() if self._communicator.rank == 0 else None
        name = self._communicator.all_gather((own or "").encode())[0].decode()
        return self._folder.load(name) if name else None

    @property
    def reached(self) -> int:
        """Steps that the group before this one had taken; 0 where this process was not in it."""
        return int((self._memory or {}).get(_REACHED, 0))

    @contextmanager
    def marking(self, steps: Callable[[], int]) -> Iterator[None]:
        """Remember how many steps were taken when the context is left."""
        try:
            yield
        finally:
            if self._memory is not None:
                self._memory[_REACHED] = steps()

    def _remembered(self, own: Checkpoint | None) -> Checkpoint | None:
        """Return the latest that any rank remembers, and give it to those that do not."""
        communicator = self._communicator
        mine = [] if own is None else [own.epoch, own.step]
        places = [json.loads(said) for said in communicator.all_gather(json.dumps(mine).encode())]
        latest = max(places)
        if not latest:
            return None
        if all(place == latest for place in places):
            return own
        root = places.index(latest)
        files = encoded(own) if own is not None and communicator.rank == root else {}
        sizes = json.loads(communicator.all_gather(json.dumps({n: len(f) for n, f in files.items()}).encode())[root])
        received = {}
        for name, size in sizes.items():
            content = np.frombuffer(files[name], np.uint8) if files else np.zeros(size, np.uint8)
            received[name] = communicator.broadcast(content, root).tobytes()
        return own if mine == latest else decoded(received, f"of rank {root}")


def _copy(checkpoint: Checkpoint) -> Checkpoint:
    model, state, facts = copied(checkpoint.model), copied(checkpoint.state), copied(checkpoint.facts)
    return replace(checkpoint, model=model, state=state, facts=facts)
