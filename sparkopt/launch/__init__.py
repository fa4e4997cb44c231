"""Sessions, devices, and launchers: one function on every rank, through PyTorch, Horovod, or in this process.

``run`` runs a user's function so, with a share of a DataFrame's rows for each rank (``context``).

A *launcher* runs a function on every rank and returns the results; the function gets a *communicator*, with
collectives over all ranks and reports to the driver. ``channel`` and ``connections`` carry what the driver and its
tasks send each other. ``session`` starts Spark from a profile; ``class_archive`` and ``local_jvm`` make that quick
and quiet on one machine. ``devices`` finds accelerators, ``threads`` limits numerical libraries to the task's cores,
and ``horovod_patches`` holds what is changed in Horovod.

Imports the packages up to ``shards``. Names are loaded when they are first used, and Spark, PyTorch and Horovod when
a function needs them. Start reading at ``launcher``, then ``torch``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkopt.launch import devices
    from sparkopt.launch.channel import RankReport, Watcher
    from sparkopt.launch.communicator import Communicator, LocalCommunicator, RankInfo
    from sparkopt.launch.connect import ConnectLauncher
    from sparkopt.launch.context import RankBatch, RunContext, RunSettings
    from sparkopt.launch.devices import Device, DeviceReport
    from sparkopt.launch.elastic import ElasticLauncher
    from sparkopt.launch.horovod import HorovodLauncher
    from sparkopt.launch.launcher import Launcher, LocalLauncher, RankFunction, SparkLauncher
    from sparkopt.launch.on_ray import RayLauncher
    from sparkopt.launch.processes import ProcessLauncher
    from sparkopt.launch.running import run
    from sparkopt.launch.settings import SessionSettings
    from sparkopt.launch.torch import TorchLauncher

__all__ = [
    "Communicator",
    "ConnectLauncher",
    "Device",
    "DeviceReport",
    "ElasticLauncher",
    "HorovodLauncher",
    "Launcher",
    "LocalCommunicator",
    "LocalLauncher",
    "ProcessLauncher",
    "RankBatch",
    "RankFunction",
    "RankInfo",
    "RankReport",
    "RayLauncher",
    "RunContext",
    "RunSettings",
    "SessionSettings",
    "SparkLauncher",
    "TorchLauncher",
    "Watcher",
    "devices",
    "run",
]

_MODULES = {
    "Communicator": "communicator",
    "ConnectLauncher": "connect",
    "Device": "devices",
    "DeviceReport": "devices",
    "ElasticLauncher": "elastic",
    "HorovodLauncher": "horovod",
    "Launcher": "launcher",
    "LocalCommunicator": "communicator",
    "LocalLauncher": "launcher",
    "ProcessLauncher": "processes",
    "RankBatch": "context",
    "RankFunction": "launcher",
    "RankInfo": "communicator",
    "RankReport": "channel",
    "RayLauncher": "on_ray",
    "RunContext": "context",
    "RunSettings": "context",
    "SessionSettings": "settings",
    "SparkLauncher": "launcher",
    "TorchLauncher": "torch",
    "Watcher": "channel",
    "run": "running",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name == "devices":
        return import_module("sparkopt.launch.devices")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"sparkopt.launch.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
