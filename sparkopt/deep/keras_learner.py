"""The learner of a network of Keras on one rank: what the training loop trains, whatever the backend is.

Each rank computes the gradients of its rows on its backend; the sums go over the ranks by our communicator, as
arrays, so that a step's gradient is that of the mean over all rows, and every rank takes the same step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sparkopt.deep.batch import Batch
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.keras_arrays import InputArrays, named_weights, ordered_weights
from sparkopt.deep.keras_mesh import JaxMesh
from sparkopt.deep.keras_networks import RowArrays, argument
from sparkopt.deep.keras_on import network_of
from sparkopt.deep.keras_recipe import KerasRecipe, keras_configuration
from sparkopt.deep.labels import check_labels
from sparkopt.deep.losses import RowLoss
from sparkopt.deep.metrics import build_metrics
from sparkopt.deep.outputs import Outputs, on_scale
from sparkopt.deep.randomness import seeded
from sparkopt.deep.update_sum import ring_bytes
from sparkopt.errors import ParameterError, SparkoptError
from sparkopt.launch import Communicator
from sparkopt.launch.checkpoints import module_state
from sparkopt.shards.index import Index, LabelFacts
from sparkopt.typing import Array

__all__ = ["KerasLearner"]

_OFFSET = 1_000_003
"""Between the seeds of ranks, which draw unlike random numbers; the states of one rank count steps."""


class KerasLearner:
    """Model, loss, optimiser and schedule of one rank.

    Parameters
    ----------
    recipe : KerasRecipe
        Model, loss, optimiser, schedule, metrics.
    config : TrainConfig
        Batches, clipping, seed.
    communicator : Communicator
        The other ranks.
    device : torch.device
        Where batches are; arrays go to the backend's own device.
    steps : int
        Steps of the whole run, for the schedule.
    sample : Batch
        A few rows, on which all is tried before the first step.
    labels : LabelFacts or None, default None
        What labels there are.
    mesh : JaxMesh or None, default None
        Devices of JAX over which batches are divided.

    Raises
    ------
    ParameterError, DataError
        Where the sample shows that a part cannot work.
    """

    is_weighted = False
    look = None  # labels are no masks

    def __init__(
        self,
        recipe: KerasRecipe,
        config: TrainConfig,
        communicator: Communicator,
        device: torch.device,
        steps: int,
        sample: Batch,
        labels: LabelFacts | None = None,
        mesh: JaxMesh | None = None,
    ) -> None:
        self._recipe, self._config, self._communicator, self._device = recipe, config, communicator, device
        self.is_local, self.sent = config.outer_optimizer is not None, 0
        self._loss = recipe.build_loss()
        self._inputs = InputArrays(tuple(entry.is_image for entry in Index.load(config.store).fields.inputs))
        self._torch_loss = RowLoss(nn.Identity(), self._loss.task)  # how labels fit outputs, for metrics
        rows = self._arrays(sample)
        with _named("module", rows):
            model = recipe.build_module(config.seed, lambda found: found(argument(self._inputs.called(rows.inputs))))
        if not model.trainable_variables:
            raise ParameterError("there is nothing to train: the module has no trainable variable.")
        optimizer = recipe.build_optimizer()
        self._network = network_of(model, self._loss, optimizer, mesh)
        if recipe.weights is not None:
            self._start_from(recipe.weights)
        trained = {id(one) for one in model.trainable_variables}
        self._trained = [number for number, one in enumerate(model.weights) if id(one) in trained]
        self._course = keras_configuration(config, recipe, model, optimizer)
        self._rows = self._multiple(config.batch_size * (config.streams // communicator.size))
        self._step = 0
        self._schedule = recipe.build_schedule(self._network.rate, steps)
        self.output_shape = self._try_out(sample, rows, labels)
        self._share_weights()
        self._shift_seeds(self._network.seeds(), 1)

    def _try_out(self, sample: Batch, rows: RowArrays, labels: LabelFacts | None) -> tuple[int, ...]:
        """Evaluate a few rows; return the shape of an output."""
        try:
            output, _ = self._network.evaluated(rows.inputs, _label(rows))
        except SparkoptError:
            raise
        except Exception:  # whatever the user's own code raises
            with _named("module", rows):
                output = self._network.output(rows.inputs)
            if labels is not None:
                check_labels(self._torch_loss, labels, output.shape[1:], tuple(sample.target.shape[1:]))
            with _named("loss", rows):
                self._network.evaluated(rows.inputs, _label(rows))
            raise
        if output.shape[:1] != rows.weight.shape:
            raise ParameterError(
                f"the module gives {output.shape} for {len(rows.weight)} rows; its first dimension must be the rows."
            )
        shape = output.shape[1:]
        if labels is not None:
            check_labels(self._torch_loss, labels, shape, tuple(sample.target.shape[1:]))
        Outputs(self._loss.task, shape)
        for name, metric in build_metrics(self._recipe.metrics, torch.device("cpu")).items():
            with _named(f"metric {name!r}", rows):
                self._update(metric, output, sample)
        return shape

    def _start_from(self, content: bytes) -> None:
        values, shapes = ordered_weights(module_state(content)), [one.shape for one in self._network.weights()]
        if [one.shape for one in values] != shapes:
            raise ParameterError(
                f"initialModel does not fit the module: it has {len(values)} arrays of weights, the module "
                f"{len(shapes)}, or of other shapes."
            )
        self._network.load_weights(values)

    def _share_weights(self) -> None:
        """Give all ranks the weights of rank 0."""
        if self._communicator.size > 1:
            own = self._network.weights()
            self._network.load_weights([self._communicator.broadcast(np.atleast_1d(v)).reshape(v.shape) for v in own])

    def _shift_seeds(self, states: Sequence[Array], sign: int) -> None:
        self._network.load_seeds(self._shifted(states, sign))

    def _shifted(self, states: Sequence[Array], sign: int) -> list[Array]:
        """Return the states of random generators of this rank (1), of those of rank 0, or the reverse (-1)."""
        shift = 0 if self._network.is_joined else sign * _OFFSET * self._communicator.rank
        return [
            np.array([(int(seed) + shift) % 2**31, count], state.dtype)
            for state in states
            for seed, count in [state.tolist()]
        ]

    def _multiple(self, rows: int) -> int:
        """Return how many rows a batch is padded to, so that each device has as many."""
        return -(-rows // self._network.devices) * self._network.devices

    def _arrays(self, batch: Batch) -> RowArrays:
        inputs = self._inputs.of(batch.inputs)
        counts = np.arange(len(batch.weight)) < batch.counted
        return RowArrays(inputs, batch.target.cpu().numpy(), batch.weight.cpu().numpy(), counts)

    @property
    def notes(self) -> list[str]:
        """What the user should know before the first step."""
        return []

    @property
    def is_synchronised(self) -> bool:
        """Whether all ranks have the same weights now."""
        return True

    @property
    def is_whole(self) -> bool:
        """Whether each rank has the whole state, whenever no step is being taken."""
        return not (self.is_local or self._network.is_joined)

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return self._network.rate

    def step(self, batches: Sequence[Batch], total: float, seed: int) -> Any:
        """Take a step of the optimiser.

        Parameters
        ----------
        batches : sequence of Batch
            This rank's rows; their gradients are added.
        total : float
            Weight of the step's rows on all ranks.
        seed : int
            Of PyTorch's generator, from which layers draw that have no seed under that backend.

        Returns
        -------
        scalar
            This rank's part of the mean loss, on the backend: reading it would wait for it.
        """
        if self._schedule is not None:
            self._network.rate = self._schedule(self._step)
        scale = (float(self._communicator.size) if self.is_local else 1.0) if self._loss.is_sum else 1.0 / total
        share = 1.0 / (self._summed * len(batches))  # of regularisers, which are no rows'
        is_alone = self._summed == 1 and self._config.max_norm is None and len(batches) == 1
        found, part = None, 0.0
        with contextlib.nullcontext() if self._network.pads else seeded(seed, self._device):
            for batch in batches:
                rows = self._arrays(batch)
                whole = rows.padded(self._rows) if self._network.pads else rows
                with self._network.refusing():
                    if is_alone:
                        part = self._network.step(whole, scale, share)
                        continue
                    own, value = self._network.gradients(whole, scale, share)
                found, part = own if found is None else self._network.added(found, own), part + value
        if not is_alone:
            self._network.apply(self._reduced(found or []))
        self._step += 1
        return part / total if self._loss.is_sum else part

    @property
    def _summed(self) -> int:
        """How many ranks' gradients the communicator adds up in a step."""
        return 1 if self.is_local or self._network.is_joined else self._communicator.size

    def numbers(self, parts: Sequence[Any]) -> Array:
        """Return what steps have returned as numbers, shape (steps,)."""
        found = np.array([float(one) for one in parts])
        return found / self._communicator.size if self._network.is_joined else found  # it is of all ranks

    def _reduced(self, gradients: list[Any]) -> list[Any]:
        """Return the sums of gradients over all ranks (of a local step this rank's), clipped; a collective."""
        is_own = self._summed == 1
        if is_own and self._config.max_norm is None:
            return gradients
        own = self._network.arrays(gradients)
        flat = np.concatenate([one.reshape(-1).astype(np.float32) for one in own])
        if not is_own:
            flat = self._communicator.all_reduce(flat)
            self.sent += ring_bytes(flat.nbytes, self._communicator.size)
        if self._config.max_norm is not None:
            norm = float(np.linalg.norm(flat.astype(np.float64)))
            flat = flat * np.float32(min(1.0, self._config.max_norm / (norm + 1e-6)))
        ends = np.cumsum([one.size for one in own])[:-1]
        parts = np.split(flat, ends)
        return self._network.of_arrays([part.reshape(one.shape) for part, one in zip(parts, own, strict=True)])

    def weight(self, batches: Sequence[Batch]) -> float:
        """Return how much the rows of batches count."""
        return sum(float(batch.weight.sum()) for batch in batches)

    def end_epoch(self, watched: float) -> None:
        """Do nothing: schedules are by steps."""

    def settle(self) -> None:
        """Make running statistics equal on all ranks: their mean; a collective."""
        if self._communicator.size == 1 or self._network.is_joined:
            return
        fixed = {id(one) for one in self._network.model.non_trainable_weights}
        is_mean = [id(one) in fixed for one in self._network.model.weights]
        values = self._network.weights()
        own = [v for v, mean in zip(values, is_mean, strict=True) if mean and np.issubdtype(v.dtype, np.floating)]
        if not own:
            return
        flat = np.concatenate([one.reshape(-1).astype(np.float64) for one in own])
        means = iter(np.split(self._communicator.all_reduce(flat) / self._communicator.size, _ends(own)))
        chosen = {id(one) for one in own}
        self._network.load_weights(
            [next(means).reshape(v.shape).astype(v.dtype) if id(v) in chosen else v for v in values]
        )

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, Any]:
        """Return mean loss and metrics over all ranks' batches; a collective."""
        metrics = build_metrics(self._recipe.metrics, torch.device("cpu"))
        sums = np.zeros(2)
        for batch in batches:
            rows = self._arrays(batch)
            whole = rows.padded(self._multiple(self._config.batch_size)) if self._network.pads else rows
            output, losses = (one[: len(rows.weight)] for one in self._network.evaluated(whole.inputs, _label(whole)))
            sums += [float(losses.astype(np.float64) @ rows.weight), float(rows.weight.sum())]
            for metric in metrics.values():
                self._update(metric, output, batch)
        loss, weight = self._communicator.all_reduce(sums)
        values = {"validation": float(loss / weight) if weight > 0 else math.nan}
        for name, metric in metrics.items():
            found = metric.compute(self._communicator)
            values |= (
                {f"{name}.{key}": one for key, one in found.items()} if isinstance(found, dict) else {name: found}
            )
        return values

    def _update(self, metric: Any, output: Array, batch: Batch) -> None:
        """Add rows to a metric, which compares predictions on the scale of the labels."""
        found = torch.from_numpy(np.array(output, np.float32))
        if self._loss.of_probabilities:
            found = log_of(found)
        found, target = self._torch_loss.aligned(found, batch.target.cpu())
        metric.update(on_scale(self._loss.task, found), target, batch.weight.cpu())

    @property
    def configuration(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        return self._course

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights, named by the order of the model's variables."""
        return named_weights(self._network.weights())

    def trained(self) -> Array:
        """Return a copy of what is trained: the numbers of all trainable variables in one vector, float32."""
        values = self._network.weights()
        found: Array = np.concatenate([values[one].reshape(-1) for one in self._trained]).astype(np.float32)
        return found

    def load_trained(self, values: Array) -> None:
        """Set what is trained to such a vector."""
        every = self._network.weights()
        parts = np.split(values, _ends([every[one] for one in self._trained]))
        for one, part in zip(self._trained, parts, strict=True):
            every[one] = part.reshape(every[one].shape).astype(every[one].dtype)
        self._network.load_weights(every)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds in addition to the weights."""
        return {
            "optimizer": self._network.optimizer_state(),
            "seeds": self._shifted(self._network.seeds(), -1),
            "step": self._step,
        }

    def restore(self, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Restore weights and state."""
        self._network.load_weights(ordered_weights(weights))
        self._network.load_optimizer_state(state["optimizer"])
        self._shift_seeds(state["seeds"], 1)
        self._step = state["step"]


def log_of(probabilities: torch.Tensor) -> torch.Tensor:
    """Return logarithms of probabilities of classes: their softmax are the probabilities."""
    return probabilities.clamp_min(1e-30).log()


def _ends(values: Sequence[Array]) -> Array:
    return np.cumsum([one.size for one in values])[:-1]


def _label(rows: RowArrays) -> Array:
    assert rows.label is not None  # noqa: S101  # every store for training has one
    return rows.label


@contextlib.contextmanager
def _named(part: str, rows: RowArrays) -> Iterator[None]:
    """Name what failed, and on what, in one line."""
    try:
        yield
    except SparkoptError:
        raise
    except Exception as error:
        given = ", ".join(f"{values.shape[1:]} {values.dtype}" for values in rows.inputs)
        why = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        raise ParameterError(f"{part} fails on rows of {given}: {type(error).__name__}: {why}") from error
