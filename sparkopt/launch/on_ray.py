"""PyTorch's ranks on Ray: actors of a placement group that form one ``torch.distributed`` group.

Ray chooses the nodes, keeps the cores and GPUs of all ranks together, and gives them at the same time or not at all.
An actor that dies, or whose node does, ends the run as a lost rank; its caller decides about another. Reports, the
signal to stop and failures go through the channel, as under Spark.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar

from sparkopt.errors import LostRankError, MissingDependencyError, ParameterError
from sparkopt.io.filesystem import brief
from sparkopt.launch.channel import Channel, Watcher
from sparkopt.launch.communicator import RankInfo
from sparkopt.launch.connections import Listener
from sparkopt.launch.ended import why_ended
from sparkopt.launch.launcher import Launcher, P, RankFunction, check_picklable
from sparkopt.launch.torch_rank import TorchRank
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["RayLauncher", "connect_to_ray", "other_nodes", "ray_gpus", "ray_ranks"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class RayLauncher(Launcher):
    """Ranks are actors of Ray.

    Parameters
    ----------
    processes : int
        Number of ranks.
    watcher : Watcher or None, default None
        Called with each report; a true result asks the ranks to stop.
    at_least : int or None, default None
        Fewest ranks to start with where Ray has no room for all of them; None is all.
    resources : mapping of str to int, default none
        What each rank asks of Ray besides cores: ``{"gpu": 1}``, and resources of Ray's own by their names.
    start_timeout : float, default 120
        Seconds to wait for Ray to give all that the ranks need, and for these to find each other.
    timeout : float, default 1800
        Seconds after which a rank that waits for another in a collective gives up.
    """

    processes: int
    watcher: Watcher | None = field(default=None, repr=False)
    at_least: int | None = None
    resources: Mapping[str, int] = field(default_factory=dict)
    start_timeout: float = 120.0
    timeout: float = 1800.0
    name = "ray"

    def __post_init__(self) -> None:
        check("numProc", self.processes, Interval(1, None, whole=True))
        check("start_timeout", self.start_timeout, Interval(0, None, closed="neither"))
        check("timeout", self.timeout, Interval(0, None, closed="neither"))

    def run(self, function: RankFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        from pyspark.cloudpickle import dumps  # functions of notebooks and scripts have no name to import them by

        check_picklable(function, args, kwargs)
        ray = connect_to_ray()
        wanted = _as_ray_names(self.resources)
        processes, cores = _sizes(ray, self.processes, self.at_least, wanted)
        with (
            _placed(ray, processes, {"CPU": cores, **wanted}, self.start_timeout) as group,
            Channel(Listener(_host(ray), timeout=self.start_timeout), self.watcher) as channel,
        ):
            rank: TorchRank[T] = TorchRank(function, args, kwargs, channel.address, cores, self.timeout)
            with _actors(ray, group, processes, cores, wanted) as actors:
                return _results(ray, actors, dumps(rank.run), channel)


def connect_to_ray() -> Any:
    """Return Ray, connected: to the cluster that RAY_ADDRESS names, or to one of this machine, which is started.

    Raises
    ------
    MissingDependencyError
        Where Ray is not installed, or something else of its name is imported.
    """
    try:
        import ray
    except ImportError:
        raise MissingDependencyError.of("launcher='ray'", "Ray", "ray") from None
    if not hasattr(ray, "is_initialized"):  # Python imports any folder of that name on its path
        there = getattr(ray, "__file__", None) or ", ".join(getattr(ray, "__path__", ()))
        raise MissingDependencyError(
            f"launcher='ray' needs Ray, and {there}, which Python finds by that name, is not it: rename it, or run "
            "from elsewhere."
        )
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    return ray


def ray_ranks(device: str) -> int:
    """Return how many ranks use a cluster's GPUs, one each; without, one for each node."""
    return (0 if device == "cpu" else ray_gpus()) or max(1, len(_nodes(connect_to_ray())))


def ray_gpus() -> int:
    """Return how many GPUs the cluster has."""
    return int(sum(node.get("GPU", 0) for node in _nodes(connect_to_ray())))


def _nodes(ray: Any) -> list[dict[str, float]]:
    """Return the resources of each node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _as_ray_names(resources: Mapping[str, int]) -> dict[str, int]:
    return {{"gpu": "GPU", "tpu": "TPU"}.get(name, name): amount for name, amount in resources.items()}


def _sizes(ray: Any, processes: int, at_least: int | None, wanted: Mapping[str, int]) -> tuple[int, int]:
    """Return how many ranks there are, and the cores of each: as many as all of them can have.

    Raises
    ------
    ParameterError
        Where the cluster is too small.
    """
    nodes = _nodes(ray)

    def room(cores: int) -> int:
        each = {"CPU": cores, **wanted}
        return sum(int(min(node.get(name, 0) // amount for name, amount in each.items())) for node in nodes)

    if room(1) < processes and at_least is not None and room(1) >= at_least:
        logger.warning("Ray has room for %d processes of %d: starting with these.", room(1), processes)
        processes = room(1)
    most = int(sum(node.get("CPU", 0) for node in nodes)) // processes
    found = next((cores for cores in range(most, 0, -1) if room(cores) >= processes), None)
    if found is None:
        asked = "".join(f" with {amount:g} {name} each" for name, amount in wanted.items())
        raise ParameterError(
            f"numProc={processes} needs {processes} actors that run at the same time; Ray has room for {room(1)}"
            f"{asked}. Ask for fewer, or for a larger cluster."
        )
    return processes, found


def _host(ray: Any) -> str:
    """Return this machine as the ranks reach it."""
    return str(ray.util.get_node_ip_address()) if other_nodes() else _LOOPBACK


def other_nodes() -> str | None:
    """Return how errors call the cluster where it has nodes on other machines; None where it has none."""
    ray = connect_to_ray()
    here = {str(ray.util.get_node_ip_address()), _LOOPBACK}
    nodes = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    return None if set(nodes) <= here else f"Ray, {len(nodes)} nodes"


@contextlib.contextmanager
def _placed(ray: Any, processes: int, bundle: Mapping[str, float], timeout: float) -> Iterator[Any]:
    """Give a placement group of a bundle for each rank, which is removed at the end.

    Raises
    ------
    ParameterError
        Where others keep what it needs.
    """
    group = ray.util.placement_group([dict(bundle)] * processes, strategy="PACK")
    try:
        if not group.wait(timeout_seconds=timeout):
            left = {name: round(amount, 1) for name, amount in ray.available_resources().items() if name in bundle}
            raise ParameterError(
                f"numProc={processes}: Ray did not give {dict(bundle)} to each within {timeout:g} s; it has {left} "
                "left. End what uses the rest, or ask for fewer."
            )
        yield group
    finally:
        ray.util.remove_placement_group(group)


class _RankActor:
    """A rank's process."""

    def where(self) -> tuple[str, dict[str, tuple[str, ...]]]:
        """Return its node, and the addresses of the accelerators that Ray gave to it, by the resource's name."""
        import ray

        context = ray.get_runtime_context()
        given = {
            name.lower(): tuple(map(str, found)) for name, found in context.get_accelerator_ids().items() if found
        }
        return str(context.get_node_id()), given

    def run(self, pickled: bytes, info: RankInfo) -> bytes:
        """Run the rank; return the result, pickled: what Ray itself sends are views that nobody may change."""
        from pyspark.cloudpickle import dumps, loads

        return bytes(dumps(loads(pickled)(info)))


@contextlib.contextmanager
def _actors(ray: Any, group: Any, processes: int, cores: int, wanted: Mapping[str, int]) -> Iterator[list[Any]]:
    """Start the ranks' actors; at the end none is left."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    others = {name: amount for name, amount in wanted.items() if name != "GPU"}
    actor, actors = ray.remote(_RankActor), []
    try:
        for number in range(processes):
            where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
            options = actor.options(
                num_cpus=cores,
                num_gpus=wanted.get("GPU", 0),
                resources=others or None,
                scheduling_strategy=where,
                max_restarts=0,
                name=None,
            )
            actors.append(options.remote())
        yield actors
    finally:
        for one in actors:
            ray.kill(one)


def _results(ray: Any, actors: Sequence[Any], pickled: bytes, channel: Channel) -> list[Any]:
    """Return what the ranks return.

    Raises
    ------
    SparkoptError
        Where one fails, or is lost.
    """
    from pyspark.cloudpickle import loads

    try:
        places = ray.get([one.where.remote() for one in actors])
    except ray.exceptions.RayActorError as error:
        raise LostRankError(f"a process of {len(actors)} ended before its rank began: {brief(error)}") from None
    nodes, shared = [node for node, _ in places], ray.put(pickled)
    running = []
    for number, (one, (node, given)) in enumerate(zip(actors, places, strict=True)):
        local = nodes[:number].count(node)
        info = RankInfo(number, len(actors), local, given.get("gpu", ()), given)
        running.append(one.run.remote(shared, info))
    waiting = list(running)
    while waiting:
        done, waiting = ray.wait(waiting)
        try:
            ray.get(done)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise why_ended(channel, len(running), lambda: _lost(ray, running), cause) from None
    return [loads(found) for found in ray.get(running)]


def _lost(ray: Any, running: Sequence[Any]) -> tuple[int, str] | None:
    """Return the first rank whose actor has died, and what Ray says of it."""
    done, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
    for number, one in enumerate(running):
        if one in done:
            try:
                ray.get(one)
            except ray.exceptions.RayActorError as error:
                return number, brief(error)
            except ray.exceptions.RayError:  # it has raised
                continue
    return None
