"""A rank's replica of the network: how its gradients are averaged with those of the other ranks.

Under the torch launcher, ``DistributedDataParallel`` averages them. Under Horovod, gradients are reduced in buckets
too: each is sent as soon as the backward pass has filled it, so that communication and computation overlap. Horovod
negotiates every tensor among all ranks, which for the many tensors of a small network takes longer than the sums.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from sparkopt.deep.flat_tensors import as_flat, real_numbers, shaped, width_of
from sparkopt.deep.powersgd import PowerSgd
from sparkopt.deep.update_sum import LOCAL_COMPRESSIONS, ring_bytes
from sparkopt.errors import IncompatibleError
from sparkopt.launch import Communicator
from sparkopt.values import dataclass

__all__ = ["COMPRESSIONS", "Replica", "Used", "average_buffers", "check_compression", "replica", "share_weights"]

T = TypeVar("T")

_POLL = 2e-4
"""Seconds between two polls for a gradient."""

_BUCKET = 25 * 2**20
"""Most bytes of a bucket that is not a single parameter's, as DistributedDataParallel has it."""

COMPRESSIONS = ("none", "fp16", "bf16", "int8", "powersgd")

_OF_GRADIENTS = {
    "torch": ("none", "fp16", "bf16", "powersgd"),
    "ray": ("none", "fp16", "bf16", "powersgd"),
    "horovod": ("none", "fp16", "powersgd"),
    "local": ("none",),
}


@dataclass(frozen=True)
class Used:
    """Which parameters have a gradient, in a step on a few rows.

    Attributes
    ----------
    unused : tuple of str
        Parameters that have none.
    sparse : tuple of str
        Parameters whose gradient is sparse.
    """

    unused: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()

    @classmethod
    def of(cls, module: nn.Module) -> Used:
        """Return those of a module after a backward pass."""
        named = [(name.partition(".")[2], p) for name, p in module.named_parameters() if p.requires_grad]
        return cls(
            tuple(name for name, p in named if p.grad is None),
            tuple(name for name, p in named if p.grad is not None and p.grad.is_sparse),
        )


class Replica:
    """The network on this rank; this class is for a single rank.

    Parameters
    ----------
    module : nn.Module
        The network with its loss, on its device: losses of rows from inputs and target.

    Attributes
    ----------
    sent : int
        Bytes of gradients that this rank has sent to others, those of embeddings as if they were dense.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.sent = 0

    def __call__(self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor) -> torch.Tensor:
        """Return the losses of rows, for training."""
        losses: torch.Tensor = self.module(inputs, target)
        return losses

    @contextmanager
    def backward(self, is_last: bool) -> Iterator[None]:
        """Surround a forward and backward pass; gradients are averaged in the last one of a step."""
        yield

    def within(self, function: Callable[..., T], *args: Any) -> T:
        """Return what a function gives that uses the module without training it; a collective."""
        with torch.inference_mode():
            return function(*args)

    def finish(self) -> None:
        """Wait until gradients are the mean over all ranks."""

    def state(self) -> dict[str, Any]:
        """Return what the next steps' averages depend on, for a checkpoint; a collective."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state."""


class _Ddp(Replica):
    def __init__(self, module: nn.Module, device: torch.device, compression: str, used: Used) -> None:
        from torch.distributed import get_world_size
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
        from torch.nn.parallel import DistributedDataParallel

        super().__init__(module)
        devices = [device] if device.type == "cuda" else None
        # Running statistics are averaged at each epoch's end, under any launcher; PyTorch renamed the argument.
        names = inspect.signature(DistributedDataParallel).parameters
        each_pass: dict[str, Any] = {
            "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False
        }
        # looking for unused parameters in each step takes time, which most networks need not spend
        each_pass["find_unused_parameters"] = bool(used.unused)
        views = not used.sparse
        self.ddp = DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=views, **each_pass)
        width = 2 if compression in ("fp16", "bf16") else None
        averaged = [p for p in module.parameters() if p.requires_grad]
        self._bytes = ring_bytes(sum(real_numbers(p) * (width or width_of(p)) for p in averaged), get_world_size())
        if width is not None:
            hook = default_hooks.fp16_compress_hook if compression == "fp16" else default_hooks.bf16_compress_hook
            self.ddp.register_comm_hook(None, hook)

    def __call__(self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor) -> torch.Tensor:
        try:
            losses: torch.Tensor = self.ddp(inputs, target)
        except RuntimeError as error:
            if "Expected to have finished reduction" not in str(error):
                raise
            raise IncompatibleError(
                "some parameters took part in the first step and in a later one not, which DistributedDataParallel "
                "does not allow. Let each take part in every step (by `+ 0 * parameter.sum()`, say), or take "
                "launcher='local' or 'horovod'."
            ) from error
        return losses

    @contextmanager
    def backward(self, is_last: bool) -> Iterator[None]:
        if is_last:
            yield
            self.sent += self._bytes
            return
        with self.ddp.no_sync():
            yield


class _Horovod(Replica):
    def __init__(self, module: nn.Module, compression: str) -> None:
        import horovod.torch as hvd

        super().__init__(module)
        self._hvd = hvd
        self._compression = hvd.Compression.fp16 if compression == "fp16" else hvd.Compression.none
        self._is_last = False
        self._buckets = _buckets([p for p in module.parameters() if p.requires_grad])
        self._arrived: list[set[nn.Parameter]] = [set() for _ in self._buckets]
        self._sent: dict[int, tuple[Any, Any]] = {}
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket:
                register: Any = parameter.register_post_accumulate_grad_hook  # PyTorch has no types for it
                register(partial(self._ready, number))

    @contextmanager
    def backward(self, is_last: bool) -> Iterator[None]:
        self._is_last = is_last
        try:
            yield
        finally:
            self._is_last = False

    def finish(self) -> None:
        for number in range(len(self._buckets)):
            if number not in self._sent:  # not all are in this step's graph on this rank, but maybe on another
                self._send(number)
        for number, (handle, context) in self._sent.items():
            while not self._hvd.poll(handle):  # synchronize() spins: it would occupy a core that others need
                time.sleep(_POLL)
            mean = self._compression.decompress(self._hvd.synchronize(handle), context)
            bucket = self._buckets[number]
            *parts, has_gradient = mean.split([*map(real_numbers, bucket), len(bucket)])
            for parameter, part, has in zip(bucket, parts, has_gradient.tolist(), strict=True):
                parameter.grad = shaped(part, parameter) if has else None  # as in a single process
        self._sent.clear()
        for arrived in self._arrived:
            arrived.clear()

    def _ready(self, number: int, parameter: nn.Parameter) -> None:
        if self._is_last and _is_full(self._buckets[number], self._arrived[number], parameter):
            self._send(number)

    def _send(self, number: int) -> None:
        bucket = self._buckets[number]
        gradients = [as_flat(torch.zeros_like(p) if p.grad is None else p.grad) for p in bucket]
        has = torch.tensor([p.grad is not None for p in bucket], dtype=gradients[0].dtype, device=gradients[0].device)
        flat, context = self._compression.compress(torch.cat([*gradients, has]))
        self.sent += ring_bytes(flat.numel() * flat.element_size(), self._hvd.size())
        handle = self._hvd.allreduce_async_(flat, op=self._hvd.Average, name=f"gradients/{number}")
        self._sent[number] = (handle, context)


def _is_full(bucket: Sequence[nn.Parameter], arrived: set[nn.Parameter], parameter: nn.Parameter) -> bool:
    """Note that a parameter's gradient is there; return whether it was the last of its bucket.

    Raises
    ------
    IncompatibleError
        Where it was there already: the bucket may have been sent without it.
    """
    if parameter in arrived:
        raise IncompatibleError(
            f"the gradient of a parameter of shape {tuple(parameter.shape)} is computed twice in one backward pass, "
            "as by reentrant checkpoints of a shared layer. Use torch.utils.checkpoint with use_reentrant=False."
        )
    arrived.add(parameter)
    return len(arrived) == len(bucket)


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Group parameters of one type and device, last ones first, as the backward pass has their gradients."""
    found: list[list[nn.Parameter]] = []
    kind, size = None, 0
    for parameter in reversed(parameters):
        own, own_kind = parameter.numel() * parameter.element_size(), (parameter.dtype, parameter.device)
        if own_kind != kind or size + own > _BUCKET:
            found.append([])
            kind, size = own_kind, 0
        found[-1].append(parameter)
        size += own
    return found


class _LowRank(Replica):
    """For both launchers; gradients are communicated after the backward pass."""

    def __init__(self, module: nn.Module, mean: Callable[[torch.Tensor], torch.Tensor], size: int) -> None:
        super().__init__(module)

        def counted(values: torch.Tensor) -> torch.Tensor:
            self.sent += ring_bytes(values.numel() * values.element_size(), size)
            return mean(values)

        self._average = PowerSgd({name: p for name, p in module.named_parameters() if p.requires_grad}, counted)

    def finish(self) -> None:
        self._average.average()

    def state(self) -> dict[str, Any]:
        return self._average.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._average.restore(state)


def _torch_low_rank(module: nn.Module) -> Replica:
    from torch import distributed

    def mean(values: torch.Tensor) -> torch.Tensor:
        distributed.all_reduce(values)
        return values.div_(distributed.get_world_size())

    return _LowRank(module, mean, distributed.get_world_size())


def _horovod_low_rank(module: nn.Module) -> Replica:
    import horovod.torch as hvd

    return _LowRank(module, partial(hvd.allreduce_, op=hvd.Average, name="powersgd"), hvd.size())


def replica(
    module: nn.Module, communicator: Communicator, device: torch.device, compression: str, used: Used | None = None
) -> Replica:
    """Return the replica for the launcher, which averages gradients; all ranks start with the weights of rank 0.

    Raises
    ------
    IncompatibleError
        For a compression that the launcher or the device does not have, or gradients that it cannot average.
    """
    if compression == "bf16" and device.type != "cuda":
        raise IncompatibleError("PyTorch compresses gradients by 'bf16' on GPUs only. Take 'fp16' on a CPU.")
    if communicator.name == "local":
        return Replica(module)
    used = Used() if used is None else used
    _check_gradients(module, communicator.name, compression, used)
    share_weights(module, communicator)
    if compression == "powersgd":
        return (_torch_low_rank if communicator.name == "torch" else _horovod_low_rank)(module)
    return _Ddp(module, device, compression, used) if communicator.name == "torch" else _Horovod(module, compression)


def _check_gradients(module: nn.Module, launcher: str, compression: str, used: Used) -> None:
    """Refuse gradients that cannot be averaged."""
    if used.sparse and (launcher == "horovod" or compression != "none"):
        by = f"launcher={launcher!r}" if compression == "none" else f"compression={compression!r}"
        raise IncompatibleError(
            f"{by} averages dense gradients, and that of {used.sparse[0]!r} is sparse. Take launcher='torch' without "
            "compression, or an embedding with sparse=False."
        )
    odd = [(name, p) for name, p in module.named_parameters() if p.requires_grad and p.dtype is torch.bfloat16]
    if odd and launcher == "horovod":
        name = odd[0][0].partition(".")[2]
        raise IncompatibleError(
            f"Horovod averages no bfloat16, which parameter {name!r} is. Take launcher='torch', or float32 weights "
            "with precision='bf16'."
        )


def share_weights(module: nn.Module, communicator: Communicator) -> None:
    """Give all ranks the state of rank 0, whatever its types are: collectives of bytes know them all."""
    if communicator.size == 1:
        return
    with torch.no_grad():
        for tensor in filter(torch.Tensor.numel, module.state_dict().values()):
            own = tensor.detach().cpu().contiguous()
            content = own.reshape(-1).view(torch.uint8).numpy()
            found = torch.from_numpy(communicator.broadcast(content)).view(own.dtype).reshape(own.shape)
            tensor.copy_(found)


def check_compression(launcher: str, compression: str, precision: str, is_local: bool = False) -> None:
    """Refuse a compression that the launcher does not have, or that the precision does not allow.

    Those of local updates (``is_local``) are others than those of gradients.
    """
    if is_local and launcher != "local":
        if compression not in LOCAL_COMPRESSIONS:
            raise IncompatibleError(
                f"local updates cannot be compressed by {compression!r}: take {', '.join(LOCAL_COMPRESSIONS)}, or "
                "leave localSteps and outerOptimizer unset."
            )
        return
    known = _OF_GRADIENTS[launcher]
    if compression not in known:
        also = " Local updates can be (localSteps)." if compression in LOCAL_COMPRESSIONS[1:] and not is_local else ""
        raise IncompatibleError(
            f"launcher {launcher!r} cannot compress gradients by {compression!r}: it has {', '.join(known)}.{also}"
        )
    if compression == "powersgd" and precision == "fp16":
        raise IncompatibleError(
            "compression='powersgd' adds residuals to the gradients of later steps, which precision='fp16' scales "
            "differently, or lets overflow. Take precision='bf16'."
        )


def average_buffers(module: nn.Module, communicator: Communicator) -> None:
    """Replace buffers of real or complex numbers (running statistics, say) by their mean over the ranks."""
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point() or buffer.is_complex()]
    if communicator.size == 1 or not buffers:
        return
    flat = np.concatenate([as_flat(buffer.detach()).double().cpu().numpy() for buffer in buffers])
    mean = torch.from_numpy(communicator.all_reduce(flat) / communicator.size)
    parts = torch.split(mean, [real_numbers(buffer) for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(shaped(part, buffer))
