"""How PyTorch's ranks find each other, and find out that nobody else is among them.

Gloo keeps the ranks' addresses in a store, which PyTorch opens to whoever reaches its port, and takes whoever calls
for the rank that it waits for. Here the store is the ranks' own connection to the driver, which is authenticated, and
before any sum is believed each rank proves to each other one that it knows the run's key.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import torch
from torch import distributed
from torch.distributed import Store  # type: ignore[attr-defined, unused-ignore]

from sparkopt.errors import LostRankError
from sparkopt.launch.channel import DriverConnection
from sparkopt.launch.communicator import RankInfo

__all__ = ["ChannelStore", "prove"]

_LEAST_WAIT, _MOST_WAIT = 0.001, 0.05
"""Seconds between two looks at a key that is not there."""
_PROOF_BYTES = 32


class ChannelStore(Store):
    """A store of ``torch.distributed`` in the driver, over the rank's own connection.

    Parameters
    ----------
    driver : DriverConnection
        The connection.
    seconds : float
        How long to wait for what another rank puts there.
    group : int, default 0
        Number of the group whose store it is: elastic ranks form several.
    """

    def __init__(self, driver: DriverConnection, seconds: float, group: int = 0) -> None:
        super().__init__()
        self._driver, self._seconds, self._group = driver, seconds, group
        self._prefix = f"{group}/" if group else ""

    def set(self, key: str, value: bytes | str) -> None:
        """Keep a value."""
        self._driver.put(self._prefix + key, value.encode() if isinstance(value, str) else bytes(value))

    def get(self, key: str) -> bytes:
        """Return a value, as soon as it is there."""
        begin, wait = time.monotonic(), _LEAST_WAIT
        while (value := self._driver.get(self._prefix + key)) is None:
            if self._group and self._driver.has_changed(self._group):
                raise LostRankError("a rank was lost while the group was formed.")
            if time.monotonic() - begin > self._seconds:
                raise LostRankError(f"the other ranks have not come within {self._seconds:g} s: {key} is not there.")
            time.sleep(wait)
            wait = min(2 * wait, _MOST_WAIT)
        return value

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys are there."""
        for key in keys:
            self.get(key)

    def check(self, keys: Sequence[str]) -> bool:
        """Whether all keys are there."""
        return all(self._driver.get(self._prefix + key) is not None for key in keys)

    def add(self, key: str, amount: int) -> int:
        """Add to a number; return the sum."""
        return self._driver.add(self._prefix + key, amount)

    def has_extended_api(self) -> bool:
        """Return False: these calls are all."""
        return False


def prove(info: RankInfo, store: ChannelStore, key: bytes, seconds: float) -> None:
    """Check that the process at the end of each of the group's connections knows the run's key. A collective.

    Raises
    ------
    LostRankError
        Where one does not, or does not answer.
    """
    store.set(f"number/{info.rank}", secrets.token_bytes(_PROOF_BYTES))
    numbers = b"".join(store.get(f"number/{rank}") for rank in range(info.size))

    def proofs(pairs: Sequence[tuple[int, int]]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        made = [hmac.digest(key, b"from %d to %d of " % pair + numbers, "sha256") for pair in pairs]
        return np.frombuffer(b"".join(made), np.uint8).reshape(-1, _PROOF_BYTES).copy()

    ranks = range(info.size)
    sent = torch.from_numpy(proofs([(info.rank, other) for other in ranks]))
    expected = proofs([(other, info.rank) for other in ranks])
    found = torch.zeros((info.size, _PROOF_BYTES), dtype=torch.uint8)
    work = distributed.all_to_all_single(found, sent, async_op=True)
    try:
        work.wait(timedelta(seconds=seconds))
    except RuntimeError as error:
        raise LostRankError(f"the ranks do not reach each other: {error}") from error
    for other in ranks:
        if not hmac.compare_digest(found[other].numpy().tobytes(), expected[other].tobytes()):
            raise LostRankError(
                f"a process that does not belong to this run answered rank {info.rank} in place of rank {other}. "
                "Keep others off the ports of the executors (SECURITY.md)."
            )
