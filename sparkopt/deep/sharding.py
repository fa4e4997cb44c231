"""Networks whose parameters are divided over the ranks: which modules are gathered at once, and rows of tensors.

That is ZeRO's third stage (Rajbhandari et al., 2020, *ZeRO: Memory optimizations toward training trillion parameter
models*, section 5) by PyTorch's ``torch.distributed.fsdp.fully_shard``: each rank holds some rows of each parameter,
of its gradient and of its optimiser state, and gathers a module's parameters for as long as it computes with them.
"""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from sparkopt.deep.batch import Batch
from sparkopt.deep.flat_tensors import width_of
from sparkopt.deep.replica import Replica, Used
from sparkopt.deep.update_sum import ring_bytes
from sparkopt.errors import IncompatibleError, MissingDependencyError, ParameterError
from sparkopt.launch import Communicator

__all__ = [
    "LEAST_NUMBERS",
    "ShardedReplica",
    "as_many",
    "check_strategy",
    "stepping",
    "units_of",
    "used_by_first",
]

T = TypeVar("T")

LEAST_NUMBERS = 2**18
"""Fewest parameters, counted as numbers, of a module that is gathered by itself: 1 MiB as float32."""

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""They have no forward pass, before which their parameters could be gathered."""


class ShardedReplica(Replica):
    """A rank's rows of all parameters; each rank has its rows of the gradients' mean over the ranks.

    Parameters
    ----------
    module : nn.Module
        The network with its loss, whole, and equal on all ranks. It is changed.
    device : torch.device
        Where the rows go.
    names : sequence of str
        Modules that are gathered by themselves; see ``units_of``.
    used : Used
        Which parameters have a gradient.

    Raises
    ------
    IncompatibleError
        For parameters that cannot be divided.
    """

    def __init__(self, module: nn.Module, device: torch.device, names: Sequence[str], used: Used) -> None:
        try:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard
        except ImportError as error:
            raise MissingDependencyError("strategy='fsdp' needs PyTorch 2.6 or newer.") from error
        super().__init__(module)
        _check_parameters(module, used)
        units, size = units_of(module, names), torch.distributed.get_world_size()
        self._bytes = _bytes_of_pass(module, units, size, device.type == "cpu")
        mesh = init_device_mesh(device.type, (size,))
        for unit in units:
            fully_shard(unit, mesh=mesh)
        self._root: Any = _Root(module)
        fully_shard(self._root, mesh=mesh)
        self._unused = [p for name, p in module.named_parameters() if name.partition(".")[2] in set(used.unused)]
        include: Any = getattr(self._root, "set_reduce_scatter_unused_params", None)
        if size > 1 and include is not None:
            # otherwise ranks of which one has a gradient, and another has not, add up unlike rows
            include(True)

    def __call__(self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor) -> torch.Tensor:
        losses: torch.Tensor = self._root(self.module, inputs, target)
        return losses

    def within(self, function: Callable[..., T], *args: Any) -> T:
        """Return what a function gives that uses the module without training it; a collective."""
        try:
            with torch.no_grad():  # what is gathered in inference mode could not be trained later
                found: T = self._root(function, *args)
        finally:
            self._root.reshard()
        return found

    @contextmanager
    def backward(self, is_last: bool) -> Iterator[None]:
        """Surround a forward and backward pass; gradients are averaged in each one, as none is held whole."""
        yield
        self.sent += self._bytes

    def finish(self) -> None:
        for parameter in self._unused:
            parameter.grad = None  # as in a single process: momentum does not move them


class _Root(nn.Module):
    """What gathers the parameters that no inner module does, for a function that uses them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., T], *args: Any) -> T:
        """Return what the function gives."""
        return function(*args)


def check_strategy(strategy: str, launcher: str, compression: str, is_local: bool, is_elastic: bool) -> None:
    """Refuse what a network cannot do of which each rank has a part.

    Raises
    ------
    IncompatibleError
        Naming the parameter, and a way out.
    """
    if strategy != "fsdp":
        return
    if launcher not in ("torch", "ray"):
        raise IncompatibleError(
            f"launcher={launcher!r} does not divide networks (strategy='fsdp'). Take launcher='torch' or 'ray'."
        )
    refused = {
        "localSteps or outerOptimizer": (is_local, "in local steps each process trains a whole network"),
        f"compression={compression!r}": (compression != "none", "gradients are summed as they are"),
        "minProc": (is_elastic, "a lost process has a part that no other one has; maxRestarts and checkpointDir do"),
    }
    for name, (is_set, why) in refused.items():
        if is_set:
            raise IncompatibleError(f"strategy='fsdp' does not go with {name}: {why}. Leave one of both out.")


def units_of(module: nn.Module, names: Sequence[str] = ()) -> list[nn.Module]:
    """Return the modules whose parameters are gathered by themselves, inner ones first; others are with the whole.

    Parameters
    ----------
    module : nn.Module
        The network, perhaps with its loss.
    names : sequence of str, default ()
        Names of classes, or of modules, ``*`` standing for any part of a name between dots. Without any: layers that
        repeat (siblings of one class and shapes, such as a transformer's), and other modules without children; all of
        them only where they have at least ``LEAST_NUMBERS`` parameters, and none within ``nn.MultiheadAttention``,
        which reads its layers' weights itself.

    Raises
    ------
    ParameterError
        Where a name stands for no module with parameters.

    Examples
    --------
    >>> layers = nn.Sequential(*[nn.TransformerEncoderLayer(256, 4, 512) for _ in range(3)])
    >>> [type(one).__name__ for one in units_of(nn.Sequential(layers, nn.Linear(256, 2)))]
    ['TransformerEncoderLayer', 'TransformerEncoderLayer', 'TransformerEncoderLayer']
    """
    found = _named_units(module, names) if names else list(_large_units(module))
    shared = _shared(module)
    return [one for one in found if not any(id(parameter) in shared for parameter in one.parameters())]


def _named_units(module: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    found: dict[int, nn.Module] = {}
    for name in names:
        matching = [
            one
            for path, one in module.named_modules()
            if path and (type(one).__name__ == name or _is_named(path.partition(".")[2], name))
        ]
        usable = [one for one in matching if not isinstance(one, _CONTAINERS) and any(True for _ in one.parameters())]
        if not usable:
            kinds = sorted({type(one).__name__ for one in module.modules() if any(True for _ in one.children())})
            raise ParameterError(
                f"wrappedModules has {name!r}, which is neither the class nor the name of a module that has "
                f"parameters and a forward pass. Classes with inner modules are {', '.join(kinds)}."
            )
        found |= {id(one): one for one in usable}
    order = {id(one): depth for depth, (_, one) in enumerate(module.named_modules())}
    return sorted(found.values(), key=lambda one: -order[id(one)])


def _is_named(path: str, pattern: str) -> bool:
    """Return whether a module is meant; ``*`` crosses no dot, as inner modules are gathered with their layer."""
    parts, wanted = path.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _large_units(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.MultiheadAttention):
        return
    children = [one for one in module.children() if _numbers(one) >= LEAST_NUMBERS]
    repeated = Counter(map(_shape, children))
    for one in children:
        is_unit = repeated[_shape(one)] > 1 or not any(True for _ in one.children())
        if is_unit and not isinstance(one, _CONTAINERS):
            yield one
        else:
            yield from _large_units(one)


def _shape(module: nn.Module) -> tuple[Any, ...]:
    return type(module), tuple(tuple(parameter.shape) for parameter in module.parameters())


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shared(module: nn.Module) -> set[int]:
    """Return the identities of parameters that several modules have: they must be gathered with the whole."""
    owners = Counter(id(p) for one in set(module.modules()) for p in one.parameters(recurse=False))
    return {key for key, count in owners.items() if count > 1}


def _check_parameters(module: nn.Module, used: Used) -> None:
    named = [(name.partition(".")[2], p) for name, p in module.named_parameters()]
    if used.sparse:
        raise IncompatibleError(
            f"strategy='fsdp' divides dense gradients, and that of {used.sparse[0]!r} is sparse. Take an embedding "
            "with sparse=False, or strategy='ddp'."
        )
    kinds = {parameter.dtype for _, parameter in named if parameter.requires_grad}
    for name, parameter in named:
        if parameter.ndim == 0 or parameter.is_complex() or len(kinds) > 1:
            odd = "is a single number" if parameter.ndim == 0 else "is complex" if parameter.is_complex() else None
            types = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
            raise IncompatibleError(
                f"strategy='fsdp' divides the rows of parameters of one type, and "
                f"{f'{name!r} {odd}' if odd else f'there are {types}'}. Take strategy='ddp'."
            )


@contextmanager
def stepping(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Name an optimiser whose arithmetic PyTorch has not for divided parameters.

    Raises
    ------
    IncompatibleError
        In place of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if "harding" not in str(error) and "DTensor" not in str(error) and "placement" not in str(error):
            raise
        raise IncompatibleError(
            f"optimizer {type(optimizer).__name__} cannot take a step on divided parameters (strategy='fsdp'). Take "
            "one of PyTorch's that works by elements, such as AdamW, or strategy='ddp'."
        ) from error


def _bytes_of_pass(module: nn.Module, units: Sequence[nn.Module], size: int, is_on_cpu: bool) -> int:
    """Return the bytes that a rank sends in a forward and backward pass; what the units have is gathered twice."""
    everything = {id(p): p for p in module.parameters()}
    again = {id(p): p for unit in units for p in unit.parameters()}
    summed = [p for p in everything.values() if p.requires_grad]
    if is_on_cpu:
        summed += summed  # Gloo sums whole gradients, of which each rank keeps its rows
    passes = [*everything.values(), *again.values(), *summed]
    return ring_bytes(sum(p.numel() * width_of(p) for p in passes), size) // 2


def used_by_first(own: Used, communicator: Communicator) -> Used:
    """Return which gradients rank 0 has found."""
    found = json.loads(communicator.all_gather(json.dumps([own.unused, own.sparse]).encode())[0])
    return Used(*map(tuple, found))


def as_many(
    batches: Iterable[Batch], sample: Batch | None, communicator: Communicator
) -> Iterator[tuple[Batch, bool]]:
    """Return a rank's batches, and whether they count: ranks that gather parameters for each other need as many."""
    own, last = iter(batches), sample
    while True:
        batch = next(own, None)
        if not communicator.all_reduce(np.array([float(batch is not None)]))[0]:
            return
        last = last if batch is None else batch
        assert last is not None  # noqa: S101  # whoever has rows held out has a sample
        yield last, batch is not None
