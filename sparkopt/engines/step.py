"""What a partition does in a pass. Tasks import this module, and nothing that only the driver needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkopt.communication.sums import TaskSum, summation_of
from sparkopt.launch.threads import task_threads
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.blocks.backend import Shared
    from sparkopt.blocks.block import Blocks, Part
    from sparkopt.communication.encoder import PassMessage

__all__ = ["Step"]


@dataclass(frozen=True)
class Step:
    """One partition's task in one pass.

    Parameters
    ----------
    summation : Shared
        The pickled `Summation`.
    message : PassMessage
        What is evaluated.
    slices : int, default 1
        Into how many parts the sum is cut.
    """

    summation: Shared
    message: PassMessage
    slices: int = 1

    def __call__(self, part: Part, blocks: Blocks) -> TaskSum:
        """Return the partition's sum."""
        with task_threads():
            return summation_of(self.summation.value)(self.message, part, blocks).leaving(self.slices)
