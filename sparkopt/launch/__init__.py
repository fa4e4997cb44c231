"""Launchers: one function on every rank, through PyTorch, through Horovod, or in this process."""

from sparkopt.launch.channel import Channel, Failure
from sparkopt.launch.communicator import Communicator, LocalCommunicator
from sparkopt.launch.elastic import ElasticLauncher
from sparkopt.launch.horovod import HorovodLauncher
from sparkopt.launch.launcher import Launcher, LocalLauncher
from sparkopt.launch.torch import TorchLauncher

__all__ = [
    "Channel",
    "Communicator",
    "ElasticLauncher",
    "Failure",
    "HorovodLauncher",
    "Launcher",
    "LocalCommunicator",
    "LocalLauncher",
    "TorchLauncher",
]
