"""Launchers: one function on every rank, through PyTorch, through Horovod, or in this process."""

from sparkopt.cluster.launch.channel import Channel, Failure
from sparkopt.cluster.launch.communicator import Communicator, LocalCommunicator
from sparkopt.cluster.launch.elastic_launcher import ElasticLauncher
from sparkopt.cluster.launch.horovod_launcher import HorovodLauncher
from sparkopt.cluster.launch.launcher import Launcher, LocalLauncher
from sparkopt.cluster.launch.torch_launcher import TorchLauncher

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
