"""What training can continue from: checkpoints in a folder, and a copy in the ranks' memory for their next group."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import replace
from types import TracebackType

import numpy as np
import torch

from sparkopt.deep.config import TrainConfig
from sparkopt.deep.configuration import differences
from sparkopt.deep.divided_tensors import as_rows, placed
from sparkopt.deep.events import Event, Noted, Resumed, StateReady, to_report
from sparkopt.deep.state import TrainingState
from sparkopt.deep.trainable import Trainable
from sparkopt.errors import CorruptDataError, IncompatibleError
from sparkopt.io.secrets import mask_uri
from sparkopt.launch import Communicator
from sparkopt.launch.checkpoint_rows import FileFacts
from sparkopt.launch.checkpoints import Checkpoint, CheckpointFolder, copied, decoded, encoded

__all__ = ["Recovery", "RecoveryStorage"]

logger = logging.getLogger(__name__)

_CHECKPOINT, _REACHED = "checkpoint", "reached"


class Recovery:
    """Saves the state of training whenever it is ready, and restores it: a listener, and a context manager.

    Parameters
    ----------
    communicator : Communicator
        The other ranks.
    config : TrainConfig
        Where checkpoints are, and what must be the same for a run that resumes.
    fingerprint : str
        Of the store's rows.
    learner : Trainable
        Network and optimiser.
    state : TrainingState
        Where training is.
    steps : int
        Steps of an epoch.

    Attributes
    ----------
    seconds : float
        Time spent on saving.
    """

    def __init__(
        self,
        communicator: Communicator,
        config: TrainConfig,
        fingerprint: str,
        learner: Trainable,
        state: TrainingState,
        steps: int,
    ) -> None:
        self._communicator, self._config, self._learner, self._state = communicator, config, learner, state
        self._storage = RecoveryStorage(communicator, config.checkpoints)
        self._course = {**learner.configuration, "rows": fingerprint} if self._storage.is_used else {}
        self._steps = steps
        self.seconds = 0.0

    def resume(self) -> Resumed | None:
        """Restore the latest checkpoint, if there is one; a collective.

        Raises
        ------
        IncompatibleError
            Where it belongs to another configuration; the message says what differs.
        """
        found, state = self._storage.latest(), self._state
        if found is None:
            return None
        differ = differences(self._course, found.facts["course"])
        if differ:
            folder = mask_uri(str(self._config.checkpoints))
            raise IncompatibleError(
                f"checkpoint {found.name} in {folder!r} belongs to another run: {'; '.join(differ)} differ. Set "
                "another checkpointDir, or resume=False to start from the beginning."
            )
        divided = self._learner.weights().values()
        restored = placed(found.state, divided)
        self._learner.restore(placed(found.model, divided), restored)
        state.best, value, state.stale = restored["best"]
        state.best_value = math.inf if value is None else value
        state.losses, state.history = found.state["losses"].tolist(), list(found.facts["history"])
        state.epoch, state.step = found.epoch, found.step
        state.unreported = int(found.facts.get("unreported", 0))
        repeated = max(0, self._storage.reached - self._total)
        return Resumed(found.name, found.epoch, found.step, repeated)

    def __call__(self, event: Event) -> None:
        """Save the state when it is ready; a collective. Storage that fails costs a warning, not the training."""
        if not isinstance(event, StateReady) or not self._storage.accepts(event.lasting):
            return
        begin = time.perf_counter()
        self._learner.settle()
        why = self._storage.save(self._checkpoint(), event.lasting)
        if why and (report := to_report(Noted(why))):
            self._communicator.report(report)
        self.seconds += time.perf_counter() - begin

    def _checkpoint(self) -> Checkpoint:
        """Return the state of training."""
        state = self._state
        tensors = self._learner.state() | {
            "best": (state.best, state.best_value if math.isfinite(state.best_value) else None, state.stale),
            "losses": torch.tensor(state.losses, dtype=torch.float64),
        }
        facts = {
            "course": self._course,
            "history": state.history,
            "processes": self._communicator.size,
            "unreported": state.unreported,
        }
        return Checkpoint(state.epoch, state.step, as_rows(self._learner.weights()), as_rows(tensors), facts)

    @property
    def _total(self) -> int:
        """Steps done since the start of training."""
        return self._state.epoch * self._steps + self._state.step

    def __enter__(self) -> Recovery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep for the next group where training is, and how many steps were done."""
        self._storage.reached = self._total
        if error is not None and self._storage.is_elastic and self._learner.is_whole:
            self._storage.keep(self._checkpoint())


class RecoveryStorage:
    """The latest checkpoint, in a folder and in the ranks' memory; ``save`` and ``latest`` are collectives.

    Every rank has the same in memory, so that any rank that is left can send it to those that join.

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

    @property
    def is_used(self) -> bool:
        """Whether there is anywhere to save."""
        return self._memory is not None or self._folder is not None

    @property
    def is_elastic(self) -> bool:
        """Whether this process may be in another group."""
        return self._memory is not None

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a state in this process alone: of the ranks' states, the latest counts for all."""
        if self._memory is not None:
            self._memory[_CHECKPOINT] = _copy(checkpoint)

    def accepts(self, lasting: bool) -> bool:
        """Whether there is anywhere to save; a ``lasting`` checkpoint outlives these processes."""
        return self._memory is not None or (lasting and self._folder is not None)

    def save(self, checkpoint: Checkpoint, lasting: bool) -> str:
        """Save a checkpoint in memory and, if it is to last, in the folder; return why not there, or ""."""
        why = ""
        if lasting and self._folder is not None:
            parts = self._parts(checkpoint, self._folder)
            if self._communicator.rank == 0:
                why = self._folder.save_if_possible(checkpoint, parts)
        if self._memory is not None:
            self._memory[_CHECKPOINT] = _copy(checkpoint)
        self._communicator.barrier()
        return why

    def latest(self) -> Checkpoint | None:
        """Return the latest checkpoint, the same on all ranks."""
        if self._memory is not None:
            found = self._from_memory(self._memory.get(_CHECKPOINT))
            if found is not None:
                self._memory[_CHECKPOINT] = found
                return _copy(found)  # training changes the tensors that it is given
        return None if self._folder is None else self._undamaged(self._folder)

    def _undamaged(self, folder: CheckpointFolder) -> Checkpoint | None:
        """Return the latest checkpoint of a folder of which no rank finds its part damaged."""
        communicator = self._communicator
        own: list[str] = []
        if communicator.rank == 0:
            folder.check()
            own = folder.names()
        names = json.loads(communicator.all_gather(json.dumps(own).encode())[0])
        for name in reversed(names):
            found: Checkpoint | None = None
            damage = ""
            try:
                found = folder.load(name, communicator.rank, communicator.size)
            except CorruptDataError as error:
                damage = str(error)
            damages = [one.decode() for one in communicator.all_gather(damage.encode())]
            if not any(damages):
                return found
            logger.warning("%s; trying the one before", next(filter(None, damages)))
        return None

    def _parts(self, checkpoint: Checkpoint, folder: CheckpointFolder) -> list[FileFacts]:
        """Write this rank's part of a checkpoint that has any; return the facts of all ranks' parts."""
        if not checkpoint.is_divided:
            return []
        group = self._communicator
        own = folder.save_part(checkpoint, group.rank, group.size)
        return [json.loads(one) for one in group.all_gather(json.dumps(own).encode())]

    @property
    def reached(self) -> int:
        """Steps that the group before this one had done; 0 where this process was not in it."""
        return int((self._memory or {}).get(_REACHED, 0))

    @reached.setter
    def reached(self, steps: int) -> None:
        if self._memory is not None:
            self._memory[_REACHED] = steps

    def _from_memory(self, own: Checkpoint | None) -> Checkpoint | None:
        """Return the latest checkpoint in any rank's memory, and send it to the ranks without it."""
        communicator = self._communicator
        mine = [] if own is None else [own.epoch, own.step, -int(own.facts.get("unreported", 0))]
        positions = [json.loads(payload) for payload in communicator.all_gather(json.dumps(mine).encode())]
        latest = max(positions)
        if not latest:
            return None
        if all(position == latest for position in positions):
            return own
        root = positions.index(latest)
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
