"""Accelerators of this machine: which there are, which of them this process may use, and why one is chosen."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Mapping, Sequence

from sparkopt.errors import ParameterError
from sparkopt.values import dataclass

__all__ = ["KINDS", "Device", "DeviceReport", "check_request", "choose", "describe"]

KINDS = ("auto", "cpu", "cuda", "rocm", "mps")
"""Values of ``device``; XLA devices are only listed."""


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes
    ----------
    kind : {"cuda", "rocm", "mps", "xla", "opencl", "cpu"}
        What it is.
    address : str
        PyTorch's name for it: ``cuda:0`` (ROCm's GPUs too), ``mps``, ``xla``, ``cpu``; ``jax:tpu:0`` and
        ``tensorflow:TPU:0`` by these; and ``opencl``, which serves pipelines of images.
    name : str
        Its product name.
    memory : int or None
        Bytes, where they can be asked for.
    """

    kind: str
    address: str
    name: str
    memory: int | None = None

    def __str__(self) -> str:
        size = "" if self.memory is None else f", {self.memory / 2**30:.1f} GiB"
        return f"{self.address} ({self.kind}: {self.name}{size})"


@dataclass(frozen=True)
class DeviceReport:
    """The devices of this process; ``str`` of it is a text to read.

    Attributes
    ----------
    devices : tuple of Device
        The best first; the CPU is the last.
    absent : dict of str to str
        Why there is none of a kind.
    chosen : Device
        What ``device="auto"`` takes.
    why : str
        The reason, as a text.
    """

    devices: tuple[Device, ...]
    absent: dict[str, str]
    chosen: Device
    why: str

    def __str__(self) -> str:
        lines = [f"chosen: {self.chosen}, since {self.why}", *(f"  here: {device}" for device in self.devices)]
        return "\n".join([*lines, *(f"  no {kind}: {reason}" for kind, reason in self.absent.items())])


def describe(addresses: Sequence[str] = ()) -> DeviceReport:
    """List the accelerators of this process, and which of them ``device="auto"`` takes.

    Devices of XLA are listed by PyTorch/XLA, JAX and TensorFlow, which are imported where they are installed.

    Parameters
    ----------
    addresses : sequence of str, default ()
        GPUs that Spark gave to the task (``TaskContext.resources()["gpu"].addresses``); without any, all are free.

    Examples
    --------
    >>> describe().devices[-1].kind
    'cpu'
    """
    return _report({**_OF_PYTORCH, "xla": _every_xla, "opencl": _opencl}, addresses)


def _report(kinds: Mapping[str, Callable[[], list[Device] | str]], addresses: Sequence[str]) -> DeviceReport:
    devices: list[Device] = []
    absent: dict[str, str] = {}
    for kind, find in kinds.items():
        found = find()
        if isinstance(found, str):
            absent[kind] = found
        else:
            devices += found
    devices.append(Device("cpu", "cpu", platform.processor() or platform.machine()))
    chosen, why = _best(devices, addresses)
    return DeviceReport(tuple(devices), absent, chosen, why)


def choose(kind: str, addresses: Sequence[str] = (), local_rank: int = 0) -> tuple[str, str]:
    """Return PyTorch's name of the device to use, and why.

    Parameters
    ----------
    kind : {"auto", "cpu", "cuda", "rocm", "mps"}
        What was asked for; "auto" takes the best that Spark gave, or that is here.
    addresses : sequence of str, default ()
        GPUs that Spark gave to the task.
    local_rank : int, default 0
        Number of this process on its machine: where Spark gave none, the process takes the device of this number.

    Raises
    ------
    ParameterError
        Where this machine has no such device; the message lists what Spark offered and what there is.
    """
    report = _report(_OF_PYTORCH, addresses)
    if kind == "cpu":
        return "cpu", "the CPU was asked for"
    fitting = [d for d in report.devices if kind in ("auto", d.kind) and d.kind not in ("cpu", "xla")]
    if not fitting:
        if kind == "auto":
            idle = f", though Spark gave GPU {', '.join(addresses)} to this task" if addresses else ""
            return "cpu", f"{report.why}{idle}"
        offered = f"GPU {', '.join(addresses)}" if addresses else "no GPU"
        raise ParameterError(
            f"device={kind!r} is not on {platform.node()}: {report.absent.get(kind, 'there is none')}. Spark offered "
            f"this task {offered}. Here: {'; '.join(str(device) for device in report.devices)}."
        )
    if addresses and fitting[0].kind in ("cuda", "rocm"):
        return _assigned(fitting, addresses), f"Spark gave GPU {', '.join(addresses)} to this task"
    if local_rank >= len(fitting):
        raise ParameterError(
            f"there are more processes on {platform.node()} than accelerators ({len(fitting)}), and each needs one "
            "of its own. Lower numProc, or set device='cpu'."
        )
    return fitting[local_rank].address, f"it is device {local_rank} of {len(fitting)} here, and Spark assigned none"


def check_request(kind: str, settings: Mapping[str, str], by_stage: bool = False) -> int:
    """Return how many GPUs each task of a stage has to ask for itself; refuse, before any job, a GPU that none gets.

    Parameters
    ----------
    kind : str
        What was asked for.
    settings : mapping of str to str
        Spark's settings.
    by_stage : bool, default False
        Whether the stage can ask (by a ``ResourceProfile``) for what the session's tasks are not given.

    Returns
    -------
    int
        0 where Spark's settings give every task a GPU, or where there is none to ask for; otherwise 1.

    Raises
    ------
    ParameterError
        Naming the settings that are missing.
    """
    master = settings.get("spark.master", "")
    if kind not in ("auto", "cuda", "rocm") or master == "local" or master.startswith("local["):
        return 0  # tasks of local mode get no resources from Spark: every rank finds its own
    task, executor = (settings.get(f"spark.{part}.resource.gpu.amount", "0") for part in ("task", "executor"))
    if float(task) > 0:
        return 0
    if by_stage and float(executor) > 0:
        return 1
    if kind == "auto":
        return 0
    raise ParameterError(
        f"device={kind!r}, but Spark gives its tasks no GPU: spark.task.resource.gpu.amount is {task}, "
        f"spark.executor.resource.gpu.amount is {executor}. Start Spark with conf/gpu.conf."
    )


def _best(devices: Sequence[Device], addresses: Sequence[str]) -> tuple[Device, str]:
    accelerators = [device for device in devices if device.kind not in ("cpu", "xla", "opencl")]
    if not accelerators:
        return devices[-1], "there is no accelerator"
    if addresses and accelerators[0].kind in ("cuda", "rocm"):
        address = _assigned(accelerators, addresses)
        return next(d for d in accelerators if d.address == address), f"Spark gave this task GPU {addresses[0]}"
    return accelerators[0], "it is the best accelerator here, and Spark assigned none"


def _assigned(devices: Sequence[Device], addresses: Sequence[str]) -> str:
    """Return PyTorch's name of the first GPU that Spark gave.

    Where CUDA_VISIBLE_DEVICES hides the others, as some cluster managers set it, PyTorch counts from 0 again.
    """
    known = {device.address for device in devices}
    named = f"cuda:{addresses[0]}"
    if named in known:
        return named
    if len(known) == 1:
        return next(iter(known))
    raise ParameterError(f"Spark gave GPU {addresses[0]} to this task; PyTorch sees only {', '.join(sorted(known))}.")


def _cuda() -> list[Device] | str:
    import torch

    if torch.version.hip is not None:
        return "this PyTorch is built for ROCm"
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA"
    return _gpus("cuda") or "the driver shows no NVIDIA GPU"


def _rocm() -> list[Device] | str:
    import torch

    if torch.version.hip is None:
        return "this PyTorch is built without ROCm"
    return _gpus("rocm") or "the driver shows no AMD GPU"


def _gpus(kind: str) -> list[Device]:
    from torch import cuda

    if not cuda.is_available():
        return []
    found = [cuda.get_device_properties(number) for number in range(cuda.device_count())]
    return [Device(kind, f"cuda:{number}", gpu.name, gpu.total_memory) for number, gpu in enumerate(found)]


def _mps() -> list[Device] | str:
    from torch.backends import mps

    if not mps.is_built():
        return "this PyTorch is built without Metal"
    if not mps.is_available():
        return "this Mac has no Metal device"
    return [Device("mps", "mps", platform.processor())]


def _xla() -> list[Device] | str:
    if importlib.util.find_spec("torch_xla") is None:
        return "torch_xla is not installed"
    import torch_xla.core.xla_model as xla
    import torch_xla.runtime as runtime

    kind = runtime.device_type()
    if kind == "CPU":
        return "torch_xla sees the CPU only"
    return [Device("xla", str(xla.xla_device()), str(kind))]


def _every_xla() -> list[Device] | str:
    """Return the devices of XLA by each library that is installed, or why there is none."""
    found = [_xla(), _jax(), _tensorflow()]
    devices = [one for part in found if not isinstance(part, str) for one in part]
    return devices or "; ".join(part for part in found if isinstance(part, str))


def _jax() -> list[Device] | str:
    if importlib.util.find_spec("jax") is None:
        return "jax is not installed"
    import jax

    try:
        found = jax.devices()
    except RuntimeError as error:  # a TPU that another process holds, say
        return f"jax lists none: {str(error).splitlines()[0]}"
    if len(found) == 1 and found[0].platform == "cpu":
        return "jax sees the CPU only"
    return [Device("xla", f"jax:{one.platform}:{one.id}", str(one.device_kind)) for one in found]


def _tensorflow() -> list[Device] | str:
    if importlib.util.find_spec("tensorflow") is None:
        return "tensorflow is not installed"
    import tensorflow as tf

    found = tf.config.list_physical_devices("TPU")
    if not found:
        return "tensorflow sees no TPU"
    return [Device("xla", f"tensorflow:TPU:{number}", str(one.name)) for number, one in enumerate(found)]


_OF_PYTORCH = {"cuda": _cuda, "rocm": _rocm, "mps": _mps, "xla": _xla}


def _opencl() -> list[Device] | str:
    if importlib.util.find_spec("cv2") is None:
        return "OpenCV is not installed"
    from sparkopt.images.opencl import device_name

    name = device_name()
    return "OpenCV finds no OpenCL device" if name is None else [Device("opencl", "opencl", name)]
