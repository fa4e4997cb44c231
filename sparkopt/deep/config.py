"""All settings that a rank receives in addition to the recipe: plain values, frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, field
from types import MappingProxyType
from typing import Any

from sparkopt.objective.work import LocalSteps
from sparkopt.optim import outer_by_name
from sparkopt.typing import Seed
from sparkopt.values import dataclass

__all__ = ["LAUNCHERS", "OPTIMIZER_SETTINGS", "PRECISIONS", "STRATEGIES", "TrainConfig"]

LAUNCHERS = ("torch", "horovod", "ray", "local")
STRATEGIES = ("ddp", "fsdp")
PRECISIONS = ("fp32", "bf16", "fp16")

OPTIMIZER_SETTINGS: Mapping[str, tuple[str, Mapping[str, Any], float]] = MappingProxyType(
    {
        "sgd": ("SGD", {}, 0.01),
        "momentum": ("SGD", {"momentum": 0.9}, 0.01),
        "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, 0.01),
        "adagrad": ("Adagrad", {}, 0.01),
        "rmsprop": ("RMSprop", {}, 0.01),
        "adam": ("Adam", {}, 0.001),
        "adamw": ("AdamW", {}, 0.001),
    }
)
"""Of sparkopt's names of optimisers: the class in ``torch.optim``, its settings, and the learning rate that suits
networks. They are data, so that a command can list them where PyTorch is not installed."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training.

    Parameters
    ----------
    store : str
        URI of the rows.
    epochs : int
        Passes over the training rows.
    batch_size : int
        Rows of a stream in a batch.
    streams : int
        Streams that the rows are cut into, a multiple of the number of ranks.
    accumulation : int, default 1
        Batches of a step, whose gradients are added.
    seed : int, default 0
        Determines weights, order, augmentation and dropout.
    window_rows : int, default 8192
        Rows that are shuffled together.
    prefetch, decode_threads : int
        Batches prepared ahead (0: each where it is taken), and threads that decode.
    cache_bytes : int, default 2**28
        Bytes of decoded images that are kept for later epochs, by each process; 0 keeps none.
    device : str, default "auto"
        See :func:`sparkopt.launch.devices.choose`.
    precision : {"fp32", "bf16", "fp16"}, default "fp32"
        Type of the forward pass; weights stay float32.
    max_norm : float or None, default None
        Largest norm of a step's gradient.
    strategy : {"ddp", "fsdp"}, default "ddp"
        Whether each rank has the whole network, or a part of each parameter.
    wrapped : tuple of str, default ()
        Modules whose parameters are gathered by themselves; see :func:`sparkopt.deep.sharding.units_of`.
    compression : str, default "none"
        Of gradients, or of local updates, between ranks.
    local_steps, local_steps_warm_up : int, default 1 and 0
        Steps of a round, and rounds of a single step at the beginning.
    outer_optimizer : str or None, default None
        What applies the mean of the ranks' local updates; None averages gradients in each step.
    outer_step_size : float or None, default None
        Its learning rate.
    pipeline, evaluation_pipeline : str or None
        Image pipelines as JSON.
    mixing : str or None, default None
        Steps that mix the rows of a batch, as JSON; one is drawn for each batch.
    mask_fill, min_visibility : float, default 0
        Label of pixels outside the image in a mask, and the least fraction of a box that must be left.
    checkpoints : str or None, default None
        Folder of the checkpoints.
    checkpoint_steps : int, default 0
        Steps between checkpoints within an epoch; 0 is one at each epoch's end only.
    patience : int, default 0
        Epochs without improvement after which training stops; 0 never stops so.
    min_delta : float, default 0
        By how much the loss must fall to count as an improvement.
    report_steps : int, default 20
        Steps between reports to the driver, where ranks agree on stopping too.
    storage : mapping of str to str, default {}
        Settings of the file systems of ``store`` and ``checkpoints``: credentials among them, so it is not shown.
    """

    store: str
    epochs: int
    batch_size: int
    streams: int
    accumulation: int = 1
    seed: Seed = 0
    window_rows: int = 8192
    prefetch: int = 4
    decode_threads: int = 1
    cache_bytes: int = 2**28
    device: str = "auto"
    precision: str = "fp32"
    max_norm: float | None = None
    strategy: str = "ddp"
    wrapped: tuple[str, ...] = ()
    compression: str = "none"
    local_steps: int = 1
    local_steps_warm_up: int = 0
    outer_optimizer: str | None = None
    outer_step_size: float | None = None
    pipeline: str | None = None
    evaluation_pipeline: str | None = None
    mixing: str | None = None
    mask_fill: float = 0.0
    min_visibility: float = 0.0
    checkpoints: str | None = None
    checkpoint_steps: int = 0
    patience: int = 0
    min_delta: float = 0.0
    report_steps: int = 20
    storage: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def schedule(self) -> LocalSteps | None:
        """The schedule of local steps, with the outer optimiser; None where every step is of all ranks' rows."""
        if self.outer_optimizer is None:
            return None
        outer = outer_by_name(self.outer_optimizer, self.outer_step_size)
        return LocalSteps(self.local_steps, self.local_steps_warm_up, outer)

    @property
    def course(self) -> dict[str, object]:
        """What must not change when a run is resumed, since it decides on batches and gradients."""
        batches = ("batch_size", "streams", "accumulation", "seed", "window_rows", "pipeline", "mixing")
        rounds = ("local_steps", "local_steps_warm_up", "outer_optimizer", "outer_step_size")
        is_local = self.outer_optimizer is not None
        names = (*batches, "compression", "precision", "max_norm", *(rounds if is_local else ()))
        targets = {name: getattr(self, name) for name in ("mask_fill", "min_visibility") if getattr(self, name)}
        if self.strategy != "ddp":
            targets["strategy"] = self.strategy
        return {name: value for name, value in asdict(self).items() if name in names} | targets

    def step_seed(self, epoch: int, step: int, rank: int) -> int:
        """Return the seed of dropout and the like in one step of one rank: nothing to save, nothing to restore."""
        key = json.dumps([self.seed, epoch, step, rank]).encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "little")
