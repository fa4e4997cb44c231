"""Checkpoints: the state of a fit as a file, and the folder that keeps them.

``checkpointer`` says where and how often a run is saved, and restores it: start at :class:`Checkpointer`. ``format``
turns snapshots into bytes and back, without pickle. ``owners`` lets two applications share a folder.

Imports the packages up to ``communication``, whose error-feedback residuals are stored with the checkpoints.
"""

from __future__ import annotations

from sparkopt.checkpoint.checkpointer import Checkpointer, CheckpointRun
from sparkopt.checkpoint.format import SavedRun, Stage
from sparkopt.checkpoint.owners import Owner

__all__ = ["CheckpointRun", "Checkpointer", "Owner", "SavedRun", "Stage"]
