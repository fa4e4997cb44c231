"""RunContext: what a function on a rank knows, and does together with the other ranks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkopt.errors import IncompatibleError, MissingDependencyError, ParameterError
from sparkopt.launch.communicator import Communicator
from sparkopt.launch.devices import choose
from sparkopt.shards.ragged import Ragged, RowArray, joined
from sparkopt.shards.sampler import EpochSampler
from sparkopt.typing import Array, Seed
from sparkopt.validation import OneOf, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.launch.checkpoints import CheckpointFolder
    from sparkopt.shards.groups import RowGroups
    from sparkopt.shards.index import Index
    from sparkopt.shards.stream import Parts

__all__ = ["ARRAYS", "RankBatch", "RunContext", "RunSettings"]

ARRAYS = ("numpy", "torch", "jax", "tensorflow")


@dataclass(frozen=True)
class RunSettings:
    """What every rank of a run is given.

    Attributes
    ----------
    store : str or None
        URI of the rows.
    streams, batch_size, seed, window_rows : int
        How the rows are divided and shuffled.
    device : str
        What is asked for.
    checkpoints : str or None
        Folder of what is saved.
    storage : mapping of str to str
        Settings of file systems, credentials among them.
    """

    store: str | None
    streams: int
    batch_size: int
    seed: Seed
    window_rows: int
    device: str
    checkpoints: str | None
    storage: Mapping[str, str] = field(default_factory=dict, repr=False)


class RankBatch(Mapping[str, Any]):
    """A rank's rows of a step: arrays by the name of their column.

    Attributes
    ----------
    step : int
        Number of the step in its epoch.
    rows : int
        Rows of this rank; 0 where it has none left, and then its arrays are empty.
    total : int
        Rows of the step on all ranks.
    """

    def __init__(self, columns: Mapping[str, Any], step: int, rows: int, total: int) -> None:
        self._columns, self.step, self.rows, self.total = columns, step, rows, total

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"RankBatch({', '.join(self)}; step {self.step}, {self.rows} of {self.total} rows)"


class RunContext:
    """A rank of a run: who it is, its rows, and what it does with the other ranks.

    ``run`` makes it and passes it to the function. What is called *a collective* must be called by every rank.

    Parameters
    ----------
    communicator : Communicator
        The other ranks.
    settings : RunSettings
        What all ranks were given.

    Attributes
    ----------
    communicator : Communicator
        Collectives over arrays (``all_reduce``, ``broadcast``) and bytes. PyTorch's own work too under the torch
        launcher: its default process group is initialised.
    """

    def __init__(self, communicator: Communicator, settings: RunSettings) -> None:
        self.communicator = communicator
        self._settings = settings
        self._number = 0

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.communicator.rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.communicator.size

    @property
    def resources(self) -> Mapping[str, tuple[str, ...]]:
        """Addresses of what Spark gave to this task, by the resource's name: ``{"gpu": ("0",)}``."""
        return self.communicator.info.resources

    @cached_property
    def device(self) -> str:
        """PyTorch's name of this rank's device, as ``device=`` of the run chooses it: "cuda:0", or "cpu".

        It is PyTorch's current device from then on.
        """
        info = self.communicator.info
        found = choose(self._settings.device, info.accelerators, info.local_rank)[0]
        if found.startswith("cuda"):
            import torch

            torch.cuda.set_device(found)
        return found

    @property
    def rows(self) -> int:
        """Rows of the DataFrame, of all ranks."""
        return self._index.rows()

    def steps(self, *, drop_last: bool = False) -> int:
        """Return the steps of an epoch, which are the same number on all ranks."""
        sampler = self._sampler(0)
        if not drop_last:
            return sampler.steps
        return min(sampler.own_rows(stream) for stream in range(sampler.streams)) // sampler.batch_size

    def batches(
        self, epoch: int = 0, *, first_step: int = 0, drop_last: bool = False, arrays: str = "numpy"
    ) -> Iterator[RankBatch]:
        """Yield this rank's batches of an epoch, read and shuffled on another thread while the rank computes.

        All ranks have equally many. Which rows are in which step depends on the run's seed, the epoch and the number
        of ranks that the run began with, and on nothing else.

        Parameters
        ----------
        epoch : int, default 0
            Determines the order.
        first_step : int, default 0
            The first step; rows of steps before it are not read.
        drop_last : bool, default False
            Leave out the last steps, in which some rank has fewer rows than ``batchSize``: then every batch has
            equally many, and the mean over the ranks of mean gradients is right. Otherwise every row is in one batch
            of the epoch; divide sums by ``total``.
        arrays : {"numpy", "torch", "jax", "tensorflow"}, default "numpy"
            Arrays of NumPy, tensors of PyTorch on this rank's ``device``, or arrays of JAX or tensors of TensorFlow
            on their own default device; JAX has int32 for int64, unless ``jax_enable_x64`` is set. Images stay bytes.

        Yields
        ------
        RankBatch
            Arrays (rows, …) by column: float32, int64 for whole numbers, or a tensor's own type.

        Raises
        ------
        ParameterError
            Where the run has no rows.
        MissingDependencyError
            Where the framework of ``arrays`` is not installed.
        """
        from sparkopt.shards.stream import prepared_batches

        check("arrays", arrays, OneOf(ARRAYS))
        convert = self._converter(arrays)
        settings, sampler, last = self._settings, self._sampler(epoch), self.steps(drop_last=drop_last)
        low, high = (rank * settings.streams // self.size for rank in (self.rank, self.rank + 1))
        names = {entry.name: entry.columns[0] for entry in self._index.fields.inputs}

        def make(parts: Parts, step: int) -> dict[str, Array]:
            return {
                title: _joined([columns[name][:counted] for columns, counted in parts])
                for name, title in names.items()
            }

        if first_step >= last:
            return
        with prepared_batches(self._groups, sampler, range(low, high), make, first_step=first_step) as found:
            for step, columns in zip(range(first_step, last), found, strict=False):
                rows = sum(sampler.counted(stream, step) for stream in range(low, high))
                values = {name: one if one.dtype == object else convert(one) for name, one in columns.items()}
                yield RankBatch(values, step, rows, sampler.total_counted(step))

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Send numbers to the driver, which calls the run's ``onReport`` with them; not a collective.

        Parameters
        ----------
        metrics : mapping of str to object
            Anything that JSON holds, and numbers of NumPy and PyTorch.
        """
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
        self.communicator.report({"rank": self.rank, "metrics": plain})

    def stopping(self) -> bool:
        """Return whether the driver has asked to stop, the same on all ranks; a collective."""
        return bool(self.communicator.all_reduce(np.array([float(self.communicator.stopping())]))[0] > 0)

    def save(self, state: Mapping[str, Any]) -> None:
        """Save the state of rank 0, whole or not at all; a collective.

        The two saved last are kept in ``checkpointDir``. A run that is started again, or continues after a loss,
        finds the last one by ``restore``.

        Parameters
        ----------
        state : mapping
            Nested dicts, lists and tuples of tensors, arrays and plain values: a module's ``state_dict()``, say, and
            the number of the epoch. Nothing is pickled.

        Raises
        ------
        ParameterError
            Where the run has no ``checkpointDir``, or the state holds something else.
        """
        from sparkopt.launch.checkpoints import Checkpoint

        folder = self._folder()
        if self.rank == 0:
            self._number = 1 + (self._number or _last_number(folder))
            folder.save(Checkpoint(self._number, 0, {}, {"state": dict(state)}, {"course": self._course}))
        self.communicator.barrier()

    def restore(self) -> dict[str, Any] | None:
        """Return the state that was saved last, on every rank; None where there is none. A collective.

        Raises
        ------
        IncompatibleError
            Where it was saved with other rows, batches or seed.
        ParameterError
            Where the run has no ``checkpointDir``.
        """
        folder = self._folder()
        own = folder.latest() if self.rank == 0 else None
        name = self.communicator.all_gather((own or "").encode())[0].decode()
        if not name:
            return None
        found = folder.load(name)
        differ = [key for key, value in self._course.items() if found.facts["course"].get(key) != value]
        if differ:
            pairs = (f"{key} (then {found.facts['course'].get(key)}, now {self._course[key]})" for key in differ)
            raise IncompatibleError(
                f"what was saved in {self._settings.checkpoints} belongs to another run: {', '.join(pairs)}. Set "
                "resume=False, or another checkpointDir."
            )
        self._number = found.epoch
        state: dict[str, Any] = found.state["state"]
        return state

    def _folder(self) -> CheckpointFolder:
        from sparkopt.launch.checkpoints import CheckpointFolder

        if self._settings.checkpoints is None:
            raise ParameterError("save and restore need a folder: run(..., checkpointDir=...).")
        return CheckpointFolder(self._settings.checkpoints)

    @property
    def _course(self) -> dict[str, Any]:
        """What decides on the batches."""
        settings = self._settings
        if settings.store is None:
            return {}
        rows, batches = self._index.fingerprint, (settings.batch_size, settings.streams, settings.window_rows)
        return {"rows": rows, "batches": list(batches), "seed": settings.seed}

    @cached_property
    def _index(self) -> Index:
        from sparkopt.shards.index import Index

        if self._settings.store is None:
            raise ParameterError("this run has no rows: give them to it, run(function, df).")
        return Index.load(self._settings.store)

    @cached_property
    def _groups(self) -> RowGroups:
        from sparkopt.shards.groups import RowGroups

        return RowGroups(self._index)

    def _sampler(self, epoch: int) -> EpochSampler:
        given, index = self._settings, self._index
        sizes = tuple(rows for shard in index.shards() for rows in shard.groups)
        window = index.window_rows(given.window_rows)
        return EpochSampler(sizes, given.streams, given.batch_size, given.seed, epoch, True, window)

    def _converter(self, arrays: str) -> Callable[[Array], Any]:
        """Return what makes an array of a framework of one of NumPy."""
        if arrays == "numpy":
            return np.asarray
        try:
            framework = importlib.import_module("jax.numpy" if arrays == "jax" else arrays)
        except ModuleNotFoundError as error:
            raise _absent(arrays) from error
        if arrays == "torch":
            return lambda values: framework.from_numpy(values).to(self.device)
        found: Callable[[Array], Any] = framework.asarray if arrays == "jax" else framework.convert_to_tensor
        return found


def _absent(arrays: str) -> MissingDependencyError:
    if arrays == "torch":
        return MissingDependencyError.of("arrays='torch'", "PyTorch", "deep")
    if arrays == "jax":
        return MissingDependencyError.of("arrays='jax'", "JAX", "jax")
    return MissingDependencyError.of("arrays='tensorflow'", "TensorFlow", "tensorflow")


def _last_number(folder: CheckpointFolder) -> int:
    """Return the number of what was saved last, which a run that restored nothing does not know."""
    names = folder.names()
    return int(names[-1].split("-")[1]) if names else 0


def _joined(parts: list[RowArray]) -> Array:
    rows = joined(parts)
    whole = rows.dense() if isinstance(rows, Ragged) else rows
    if whole.dtype != object:
        return np.ascontiguousarray(whole)
    found = np.empty(len(whole), object)
    found[:] = [content.to_pybytes() for content in whole]
    return found
