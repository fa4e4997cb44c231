"""A mesh of JAX's devices: each has the weights, and a part of a batch's rows; a compiled step adds up over them.

Without more, the mesh is of one process's own devices. ``joined_devices`` makes one of the devices of all ranks: then
JAX's own collectives (Gloo on CPUs) sum within the compiled step. JAX's coordinator is found over the run's
authenticated connections, and each rank proves that it is one before any sum is believed.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sparkopt.errors import IncompatibleError, LostRankError
from sparkopt.io.filesystem import brief
from sparkopt.launch import Communicator, RankInfo
from sparkopt.typing import Array

__all__ = ["MESHES", "JaxMesh", "joined_devices", "mesh_of", "own_devices", "prove_ranks"]

MESHES = ("process", "ranks")
"""Values of ``mesh``: the devices of each process, or those of all of them."""

_SECRET_BYTES = 32
_START_SECONDS, _END_SECONDS = 120, 20


class JaxMesh:
    """Devices in a row, over which a batch is divided.

    Parameters
    ----------
    devices : sequence of jax.Device
        Those of every process, as many of each, by process.

    Attributes
    ----------
    own : int
        How many are this process's: its rows of a batch must be a multiple.
    is_joined : bool
        Whether there are other processes' among them.
    name : str
        How many of which kind.
    whole : jax.sharding.NamedSharding
        Of an array that every device has.
    """

    def __init__(self, devices: Sequence[Any]) -> None:
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        self._here = [one for one in devices if one.process_index == jax.process_index()]
        self.own, self.is_joined = len(self._here), len(self._here) < len(devices)
        mesh = Mesh(np.array(devices), ("data",))
        self.whole, self._parts = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
        self.name = f"{len(devices)} x {devices[0].platform}"
        self._of_process = self if not self.is_joined else JaxMesh(self._here)

    def rows(self, values: Array) -> Any:
        """Return rows of a batch, (rows, …), divided over the devices: of a joined mesh this process's rows."""
        import jax

        if self.is_joined:
            return jax.make_array_from_process_local_data(self._parts, values)
        return jax.device_put(values, self._parts)

    def copied(self, value: Any) -> Any:
        """Return what every process has equally as an array that all devices have."""
        import jax

        parts = [jax.device_put(value, one) for one in self._here]
        return jax.make_array_from_single_device_arrays(parts[0].shape, self.whole, parts)

    def local(self, value: Any) -> Any:
        """Return such an array as this process's devices alone have it; nothing is copied."""
        import jax

        if not self.is_joined:
            return value
        parts = [one.data for one in value.addressable_shards]
        return jax.make_array_from_single_device_arrays(value.shape, self._of_process.whole, parts)

    def local_rows(self, values: Array) -> Any:
        """Return rows over this process's devices, where they can be divided; otherwise as they are."""
        return values if len(values) % self.own else self._of_process.rows(values)

    def single(self, value: Any) -> Any:
        """Return an array that all devices have as the first of this process has it."""
        return value.addressable_shards[0].data


def mesh_of(info: RankInfo, kind: str | None, is_joined: bool = False) -> JaxMesh | None:
    """Return the mesh of a rank; None where it has one device, which JAX takes by itself.

    Parameters
    ----------
    info : RankInfo
        This rank, and what it was given.
    kind : str or None
        Of devices, as JAX calls it; None are those that it takes by itself.
    is_joined : bool, default False
        Whether the devices of all ranks are in it.

    Raises
    ------
    IncompatibleError
        Where processes of a joined mesh have unequally many devices.
    """
    import jax

    if is_joined:
        every = sorted(jax.devices(kind), key=lambda one: (one.process_index, one.id))
        _refuse_unequal(every, info.size)
        return JaxMesh(every)
    devices = jax.local_devices(backend=kind)
    own = own_devices(devices, info)
    return None if own == devices[:1] else JaxMesh(own)


def own_devices(devices: Sequence[Any], info: RankInfo) -> list[Any]:
    """Return which of the devices that JAX shows to this process are this rank's.

    Those that were given to the task; without any, GPUs are shared one by one among several processes. CPUs and TPUs
    that JAX shows to a process are its own.
    """
    if not devices or devices[0].platform not in ("gpu", "cuda", "rocm"):
        return list(devices)
    given = [one for one in devices if str(one.id) in info.accelerators]
    if given:
        return given
    is_alone = info.size == 1 or len(devices) == len(info.accelerators)  # where the others are hidden
    return list(devices) if is_alone else [devices[info.local_rank % len(devices)]]


def _refuse_unequal(devices: Sequence[Any], processes: int) -> None:
    """Refuse processes of which one has more devices than another."""
    counts = [sum(one.process_index == rank for one in devices) for rank in range(processes)]
    if len(set(counts)) > 1:
        raise IncompatibleError(
            f"mesh='ranks' needs equally many devices on each process; they have {', '.join(map(str, counts))}. "
            "Give each process as many, or set mesh='process'."
        )


@contextlib.contextmanager
def joined_devices(communicator: Communicator) -> Iterator[None]:
    """Make one runtime of JAX of all ranks' processes, until the context ends. A collective.

    Raises
    ------
    IncompatibleError
        Where the ranks have unequally many devices.
    LostRankError
        Where the ranks do not find each other, or another process answers in place of one.
    """
    import jax
    from jax.extend.backend import clear_backends

    clear_backends()  # a process of Spark's that has computed before begins again
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    address = _address(communicator)
    try:
        jax.distributed.initialize(
            address,
            communicator.size,
            communicator.rank,
            coordinator_bind_address=address,
            cluster_detection_method="deactivate",
            initialization_timeout=_START_SECONDS,
            shutdown_timeout_seconds=_END_SECONDS,
        )
        _refuse_unequal(jax.devices(), communicator.size)  # JAX's own collectives, the first of which follows, cannot
        prove_ranks(communicator)
    except RuntimeError as error:  # as JAX raises all that its runtime says
        raise LostRankError(f"JAX's processes do not reach each other by {address}: {brief(error)}") from error
    yield
    jax.distributed.shutdown()  # not after an error: it would wait for ranks that are lost
    clear_backends()


def _address(communicator: Communicator) -> str:
    """Return where rank 0 will listen, as the ranks' own connections say it."""
    host = communicator.host
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    own = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return communicator.all_gather(own.encode())[0].decode()


def prove_ranks(communicator: Communicator) -> None:
    """Check that the processes of JAX's runtime are the ranks, each in its place."""
    from jax.experimental.multihost_utils import process_allgather

    key = communicator.all_gather(secrets.token_bytes(_SECRET_BYTES))[0]
    proofs = [hmac.digest(key, b"rank %d" % rank, "sha256") for rank in range(communicator.size)]
    found = np.asarray(process_allgather(np.frombuffer(proofs[communicator.rank], np.uint8)))
    for rank, proof in enumerate(proofs):
        if not hmac.compare_digest(found[rank].tobytes(), proof):
            raise LostRankError(
                f"a process that does not belong to this run answered rank {communicator.rank} in place of rank "
                f"{rank}. Keep others off the ports of the executors (SECURITY.md)."
            )
