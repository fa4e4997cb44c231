"""What is communicated between tasks, and in how many bytes: encoded gradients, error feedback, sums and their costs.

A partition's ``PartialSum`` becomes a :class:`CommunicatedSum` where it leaves a task (``encoding``): start there. An
:class:`Encoder` compresses it (``encoder``) with residuals that are sent with a later step (``error_feedback``).
``sums`` has what a task does in a pass and what that costs, and ``autotune`` chooses a codec by timing steps.

Imports the packages up to ``solver``.
"""

from __future__ import annotations

from sparkopt.communication.encoder import Encoder, PassMessage, Sender
from sparkopt.communication.encoding import CommunicatedSum, EncodedGradient, Gradient
from sparkopt.communication.error_feedback import ResidualStore
from sparkopt.communication.sums import Pass, Summation, TaskSum

__all__ = [
    "CommunicatedSum",
    "EncodedGradient",
    "Encoder",
    "Gradient",
    "Pass",
    "PassMessage",
    "ResidualStore",
    "Sender",
    "Summation",
    "TaskSum",
]
