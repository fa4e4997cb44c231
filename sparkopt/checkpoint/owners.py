"""Who uses a run's folder: two applications may train the same model with one checkpointDir at the same time.

They are the same run, so their checkpoints are the same too and either may write them. But the one that ends first
must leave them to the other. So each notes itself in a file of the folder, and only the last one deletes it.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparkopt.io.filesystem import STORAGE_ERRORS, Location
from sparkopt.values import dataclass

__all__ = ["Owner", "others"]

logger = logging.getLogger(__name__)

SUFFIX = ".owner"
MOST_SILENT = 3600.0
"""Seconds since its last checkpoint after which an application on another machine counts as ended."""


@dataclass(frozen=True)
class Owner:
    """An application that uses a folder.

    Parameters
    ----------
    token : str
        Its own, which no other has.
    host : str
        The machine of its driver.
    process : int
        The driver's process.
    started : str
        When that was started, since numbers are used again.
    """

    token: str
    host: str
    process: int
    started: str

    @classmethod
    def here(cls, token: str) -> Owner:
        """Return this process."""
        return cls(token, os.uname().nodename, os.getpid(), _started(os.getpid()))

    def note(self, folder: Location) -> None:
        """Say in the folder that this application uses it, as of now."""
        fact = {"host": self.host, "process": self.process, "started": self.started, "time": time.time()}
        folder.child(self.token + SUFFIX).write(json.dumps(fact).encode())

    def leave(self, folder: Location) -> None:
        """Take the note back."""
        folder.child(self.token + SUFFIX).delete()


def others(folder: Location, owner: Owner) -> list[str]:
    """Return which other applications use a folder, as "process 7 on host".

    Notes of ended ones do not count, nor do those of fits of this process, which failed before.
    """
    names = []
    for info in folder.listed():
        if not info.path.endswith(SUFFIX) or info.base_name == owner.token + SUFFIX:
            continue
        try:
            fact = json.loads(replace(folder, path=info.path).read())
            is_own = all(fact[name] == getattr(owner, name) for name in ("host", "process", "started"))
            running = not is_own and _is_running(fact)
        except (ValueError, KeyError, TypeError, *STORAGE_ERRORS) as error:  # it was just taken back
            logger.debug("%s cannot be read: %s", info.path, error)
            continue
        if running:
            names.append(f"process {fact['process']} on {fact['host']}")
    return names


def _is_running(fact: Mapping[str, Any]) -> bool:
    if fact["host"] == os.uname().nodename:
        return bool(_started(int(fact["process"])) == fact["started"])
    return bool(time.time() - float(fact["time"]) < MOST_SILENT)


def _started(process: int) -> str:
    """Return when a process of this machine was started, as Linux counts it; "" where it does not run."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *others = text.rpartition(")")[2].split()
    return "" if state == "Z" else others[18]
