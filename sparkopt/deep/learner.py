"""The learner: network, loss, optimiser and schedule on one rank; steps, evaluation, and its state as data."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sparkopt.deep.batch import Batch
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.configuration import configuration
from sparkopt.deep.divided_tensors import load_placed
from sparkopt.deep.flat_tensors import flattened, load_flat
from sparkopt.deep.labels import MaskCheck
from sparkopt.deep.losses import RowLoss
from sparkopt.deep.metrics import Metric, build_metrics
from sparkopt.deep.outputs import on_scale
from sparkopt.deep.partial_weights import frozen_digest, load_weights, trained_weights
from sparkopt.deep.preflight import check_saving, left_out, loaded, materialise, try_out
from sparkopt.deep.randomness import seeded
from sparkopt.deep.recipe import Recipe
from sparkopt.deep.replica import (
    Replica,
    Used,
    average_buffers,
    check_compression,
    replica,
    share_weights,
)
from sparkopt.deep.row_step import LossOfRows, LossOfStep, chosen_output
from sparkopt.deep.sharding import ShardedReplica, as_many, check_strategy, stepping, used_by_first
from sparkopt.errors import ParameterError
from sparkopt.launch import Communicator
from sparkopt.shards.index import LabelFacts
from sparkopt.typing import Array

__all__ = ["Learner"]

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """Network, loss, optimiser and schedule of one rank.

    Parameters
    ----------
    recipe : Recipe
        Module, loss, optimiser, schedule, metrics.
    config : TrainConfig
        Precision, compression, clipping, seed.
    communicator : Communicator
        The other ranks.
    device : torch.device
        Where the module goes.
    steps : int
        Steps of the whole run, for the schedule.
    sample : Batch or None, default None
        A few rows, by which lazy modules learn their shapes, and on which all is tried before the first step.
    labels : LabelFacts or None, default None
        What labels there are.

    Attributes
    ----------
    output_shape : tuple of int
        What the module gives for a row; empty without a sample.
    is_weighted : bool
        Whether rows count unlike each other, by their class.

    Raises
    ------
    ParameterError, DataError
        Where the sample shows that a part cannot work.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: TrainConfig,
        communicator: Communicator,
        device: torch.device,
        steps: int,
        sample: Batch | None = None,
        labels: LabelFacts | None = None,
    ) -> None:
        self._config, self._communicator, self._device, self._recipe = config, communicator, device, recipe
        self.is_local = config.outer_optimizer is not None
        check_compression(communicator.name, config.compression, config.precision, self.is_local)
        check_strategy(config.strategy, communicator.name, config.compression, self.is_local, False)
        self._is_sharded = config.strategy == "fsdp"
        # what is to be divided is whole in main memory only
        self._home = torch.device("cpu") if self._is_sharded else device
        module = recipe.build_module(config.seed)
        if recipe.weights is not None:
            loaded(module, recipe.weights)
        self.module = module.to(self._home)
        self.loss = recipe.build_loss().to(self._home)
        self.is_weighted = self.loss.classes is not None or (labels is not None and labels.has_ignored)
        self.output_shape: tuple[int, ...] = ()
        self._frozen = frozen_digest(self.module) if recipe.saved == "trainable" else None
        self._sample = sample
        if sample is not None:
            materialise(self.module, sample.to(self._home))
            if not self._is_sharded:
                self._try_out(sample.to(device), labels)
            if communicator.rank == 0:
                check_saving(self.weights(), recipe, config.seed)
        if not any(p.requires_grad for p in (*self.module.parameters(), *self.loss.parameters())):
            raise ParameterError("there is nothing to train: no parameter of the module has requires_grad=True.")
        self._graph = self._graph_of(self.module, self.loss, config.mixing is not None)
        self._replica = self._replicated(sample)
        if self._is_sharded and sample is not None:
            self._replica.within(self._try_out, sample.to(device), labels)
        self._parameters = [p for p in (*self.module.parameters(), *self.loss.parameters()) if p.requires_grad]
        self._optimizer = recipe.build_optimizer(self._named())
        self._scheduler, self._interval = recipe.build_scheduler(
            self._optimizer, max(1, steps), max(1, config.epochs)
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def _replicated(self, sample: Batch | None) -> Replica:
        """Return this rank's replica; all ranks begin with equal weights."""
        if self.is_local:
            share_weights(self._graph, self._communicator)
            return Replica(self._graph)
        if self._is_sharded:
            share_weights(self._graph, self._communicator)
            is_first = sample is not None and self._communicator.rank == 0
            own = self._used(sample.to(self._home)) if sample is not None and is_first else Used()
            found = used_by_first(own, self._communicator)  # a second whole network is in one process only
            return ShardedReplica(self._graph, self._device, self._config.wrapped, found)
        is_alone = self._communicator.name == "local"
        used = None if sample is None or is_alone else self._used(sample.to(self._device))
        return replica(self._graph, self._communicator, self._device, self._config.compression, used)

    def _try_out(self, sample: Batch, labels: LabelFacts | None) -> None:
        with self._autocast():
            graph = self._graph_of(self.module, self.loss)
            step = graph if isinstance(graph, LossOfStep) else None
            self.output_shape = try_out(self.module, self.loss, self._recipe, sample, labels, step)

    def _graph_of(self, module: nn.Module, loss: RowLoss, is_mixed: bool = False) -> LossOfRows | LossOfStep:
        """Return the network and its loss as one."""
        if self._recipe.step is not None:
            return LossOfStep(module, self._recipe.step, self._autocast)
        return LossOfRows(module, loss, self._autocast, is_mixed, self._recipe.output)

    def _target(self, batch: Batch) -> Any:
        """Return what the graph is given of the labels."""
        return batch.target if self._recipe.step is None else batch.targets

    def _used(self, sample: Batch) -> Used:
        """Return which gradients a few rows have: of what is in no graph, and of sparse ones, replicas must know.

        Another module of the kind is tried, since a module may count what it has been trained on.
        """
        module = self._recipe.build_module(self._config.seed).to(self._home)
        materialise(module, sample)
        module.train()
        if sample.counted < 2:
            _freeze(module, sample.counted)
        with seeded(self._config.seed, self._home):
            graph = self._graph_of(module, self._recipe.build_loss().to(self._home))
            loss: Any = graph(sample.inputs, self._target(sample)).sum()
        if not loss.requires_grad:
            raise ParameterError("the loss does not depend on any parameter that has requires_grad=True.")
        loss.backward()
        return Used.of(graph)

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        named = [*self.module.named_parameters(), *self.loss.named_parameters("loss")]
        return [(name, parameter) for name, parameter in named if parameter.requires_grad]

    @property
    def notes(self) -> list[str]:
        """What the user should know before the first step."""
        absent = left_out(self.module, self.loss, self._optimizer)
        if not absent:
            return []
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        return [f"no group of the optimiser has {', '.join(absent[:3])}{more}: they are not trained."]

    @property
    def look(self) -> MaskCheck | None:
        """What refuses masks that the loss does not take; what a step takes is not known."""
        fill = self._config.mask_fill
        return None if self._recipe.step is not None else MaskCheck.of(self.loss, self.output_shape, fill)

    @property
    def is_synchronised(self) -> bool:
        """Whether all ranks have the same weights now."""
        return True

    @property
    def is_whole(self) -> bool:
        """Whether each rank has the whole state, whenever no step is being taken."""
        return not (self.is_local or self._is_sharded) and self._config.compression != "powersgd"

    @property
    def sent(self) -> int:
        """Bytes of gradients that this rank has sent."""
        return self._replica.sent

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return float(self._optimizer.param_groups[0]["lr"])

    def step(self, batches: Sequence[Batch], total: float, seed: int) -> torch.Tensor:
        """Take a step of the optimiser.

        Parameters
        ----------
        batches : sequence of Batch
            This rank's rows; their gradients are added.
        total : float
            Weight of the step's rows on all ranks.
        seed : int
            Of dropout and the like.

        Returns
        -------
        Tensor of shape ()
            This rank's part of the mean loss, on the device: reading it would wait for it.
        """
        self._optimizer.zero_grad(set_to_none=True)
        part = torch.zeros((), device=self._device)
        # the mean over replicas is then the sum over rows, by their weight; a local step has one replica
        is_sum = self.loss.reduction == "sum"
        scale = (1 if self.is_local and not is_sum else self._communicator.size) / (1.0 if is_sum else total)
        if self._recipe.step is not None:  # which may compare a batch's rows with each other
            batches = [part for batch in batches for part in batch.by_stream()]
        with seeded(seed, self._device):
            for number, batch in enumerate(batches):
                part += self._backward(batch, scale, number == len(batches) - 1) / total
        self._replica.finish()
        self._update()
        return part

    def numbers(self, parts: Sequence[torch.Tensor]) -> Array:
        """Return what steps have returned as numbers, shape (steps,)."""
        found: Array = torch.stack(list(parts)).double().cpu().numpy()
        return found

    def _backward(self, batch: Batch, scale: float, is_last: bool) -> torch.Tensor:
        """Add the gradients of a batch; return the sum of its losses."""
        self._train_on(batch)
        moved = batch.to(self._device)
        with self._replica.backward(is_last):
            loss = (self._replica(moved.inputs, self._target(moved)) * moved.weight).sum()
            scaled: Any = self._scaler.scale(loss * scale)
            scaled.backward()
        return loss.detach()

    def weight(self, batches: Sequence[Batch]) -> float:
        """Return how much the rows of batches count: their weights, times those of their classes."""
        if not self.is_weighted:
            return sum(float(batch.weight.sum()) for batch in batches)
        counts = (self.loss.counts(batch.target.to(self._device), self.output_shape) for batch in batches)
        parts = [count.cpu() * batch.weight for count, batch in zip(counts, batches, strict=True)]
        return sum(float(part.sum()) for part in parts)

    def _train_on(self, batch: Batch) -> None:
        """Set the module to train; but a batch that has no row, or no second one, has no statistics."""
        self.module.train()
        if batch.counted < 2:
            _freeze(self.module, batch.counted)

    def _update(self) -> None:
        if self._config.max_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._config.max_norm)
        with stepping(self._optimizer) if self._is_sharded else contextlib.nullcontext():
            self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._interval == "step":
            with _counting_skipped() if self._scaler.is_enabled() else contextlib.nullcontext():
                self._scheduler.step()

    def end_epoch(self, watched: float) -> None:
        """Take a step of a schedule by epochs; ``watched`` is the loss for ``ReduceLROnPlateau``."""
        if self._interval == "epoch":
            self._scheduler.step(watched) if isinstance(
                self._scheduler, ReduceLROnPlateau
            ) else self._scheduler.step()

    def settle(self) -> None:
        """Make running statistics equal on all ranks: their mean; a collective."""
        average_buffers(self.module, self._communicator)

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, Any]:
        """Return mean loss and metrics over all ranks' batches; a collective."""
        metrics = build_metrics(self._recipe.metrics, self._device)
        sums = np.zeros(2)
        self.module.eval()
        shared = (
            as_many(batches, self._sample, self._communicator) if self._is_sharded else zip(batches, repeat(True))
        )
        for batch, counts in shared:
            found = self._replica.within(self._evaluated, batch.to(self._device), metrics, counts)
            if counts:
                sums += [found, self.weight([batch])]
        loss, weight = self._communicator.all_reduce(sums)
        values = {"validation": float(loss / weight) if weight > 0 else math.nan}
        for name, metric in metrics.items():
            found = metric.compute(self._communicator)
            values |= (
                {f"{name}.{key}": one for key, one in found.items()} if isinstance(found, dict) else {name: found}
            )
        return values

    def _evaluated(self, batch: Batch, metrics: Mapping[str, Metric], counts: bool) -> float:
        """Return the sum of the losses of a batch, on which metrics are updated if it counts."""
        output: torch.Tensor | None = None
        if self._recipe.step is None or metrics:
            with self._autocast():
                output = chosen_output(self.module(*batch.inputs), self._recipe.output)
        if self._recipe.step is not None:
            losses = self._graph(batch.inputs, batch.targets)
        else:
            losses = self.loss(output, batch.target)
        if output is not None and metrics and counts:
            output, target = self.loss.aligned(output, batch.targets[0])
            for metric in metrics.values():
                metric.update(on_scale(self.loss.task, output), target, batch.weight)
        return float((losses * batch.weight).sum())

    @property
    def configuration(self) -> dict[str, Any]:
        """What a checkpoint belongs to; see :func:`sparkopt.deep.configuration.configuration`."""
        found = configuration(self._config, self._recipe, self.module, self._optimizer)
        return found if self._frozen is None else {**found, "frozen": self._frozen.numpy().tobytes().hex()}

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the module's state, or what of it is trained; it shares the module's memory."""
        return trained_weights(self.module, self._frozen)

    def trained(self) -> Array:
        """Return a copy of what is trained: the real numbers of module and loss in one vector, float32."""
        return flattened(self._parameters)

    def load_trained(self, values: Array) -> None:
        """Set what is trained to such a vector."""
        load_flat(self._parameters, values)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds in addition to the module's weights; a collective."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "scheduler": _without_functions(self._scheduler.state_dict()),
            "scaler": self._scaler.state_dict(),
            "replica": self._replica.state(),
            "loss": dict(self.loss.state_dict()),
        }

    def restore(self, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Restore weights and state."""
        (load_placed if self._is_sharded else load_weights)(self.module, weights)
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._scaler.load_state_dict(state["scaler"])
        self._replica.restore(state["replica"])
        self.loss.load_state_dict(state["loss"])

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._config.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, _TYPES[self._config.precision])


@contextlib.contextmanager
def _counting_skipped() -> Iterator[None]:
    """Let a schedule count a first step that was skipped, since its gradients overflowed: PyTorch warns of that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before", UserWarning)
        yield


def _freeze(module: nn.Module, rows: int) -> None:
    """Let batch normalisation use its running statistics, where there is no row, or one that has no variance."""
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            norm.train(rows == 1 and not isinstance(norm, nn.BatchNorm1d))


def _without_functions(state: dict[str, Any]) -> dict[str, Any]:
    """Remove functions from the state of a scheduler: the recipe has them."""
    plain: dict[str, Any] = {}
    for key, value in state.items():
        if key in ("lr_lambda", "lr_lambdas"):
            plain[key] = [None] * len(value)
        elif key == "_schedulers":
            plain[key] = [_without_functions(inner) for inner in value]
        else:
            plain[key] = value
    return plain
