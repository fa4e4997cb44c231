"""Folders on shared storage that must not outlive the process that made them: each says whose it is, and since when.

Nothing on shared storage is unlocked as its owner is killed, as a lock of a local folder is. So an owner renews a
file of its folder, and a folder whose file is old belongs to nobody; sooner, if its process was on this machine and
is gone. Ages are differences of the storage's own times, whatever this machine's clock says.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyarrow import fs

from sparkopt.io.filesystem import STORAGE_ERRORS, LastingLocation, Location, child_uri, resolve
from sparkopt.values import dataclass

__all__ = ["Owner", "owned_folder", "sweep"]

logger = logging.getLogger(__name__)

OWNER = "owner.json"
RENEWED_AFTER = 60.0
"""Seconds between two renewals."""
ABANDONED_AFTER = 6 * 3600.0
"""Seconds without one after which a folder belongs to nobody: more than an outage of the storage lasts."""


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes
    ----------
    user : str
        Who runs it.
    machine : str
        The boot and the namespace that ``process`` is a number of; empty where the system does not tell.
    process : int
        Its number.
    started : str
        When, in the system's own ticks: a number may be given to another process later.
    """

    user: str
    machine: str
    process: int
    started: str

    @classmethod
    def here(cls) -> Owner:
        """Return this process."""
        return cls(_user(), _machine(), os.getpid(), _started(os.getpid()))

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return bool(self.machine) and self.machine == _machine()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user of a container may have no name
        return str(os.getuid())


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@contextlib.contextmanager
def owned_folder(parent: str, kind: str) -> Iterator[str]:
    """Give the URI of a new folder below ``parent``, which is deleted at the end; first, sweep what has no owner.

    Parameters
    ----------
    parent : str
        A folder, or URI, on any storage.
    kind : str
        How names of such folders begin; 32 random digits follow, so that no other folder is taken for one.
    """
    name = f"{kind}-{uuid.uuid4().hex}"
    uri = child_uri(parent, name)
    place, ended = LastingLocation(uri, "storePath"), threading.Event()
    with place.now().usable():
        _renew(place.now())
    try:
        sweep(resolve(parent, "storePath"), name)
        renewing = threading.Thread(target=_renewing, args=(place, ended), name="sparkopt-owner", daemon=True)
        renewing.start()
        try:
            yield uri
        finally:
            ended.set()
            renewing.join()  # or it would write into a folder that was deleted
    finally:
        place.now().delete()


def _renew(folder: Location) -> None:
    folder.make_folder()
    folder.child(OWNER).write(json.dumps(asdict(Owner.here())).encode())


def _renewing(place: LastingLocation, ended: threading.Event) -> None:
    while not ended.wait(RENEWED_AFTER):
        try:
            _renew(place.now())
        except STORAGE_ERRORS as error:
            shown = place.now().shown
            logger.warning("%s could not be renewed; unless it is, others delete it in some hours: %s", shown, error)


def sweep(parent: Location, own: str) -> int:
    """Delete folders of this user whose owners are gone; return how many there were.

    Parameters
    ----------
    parent : Location
        What they are in.
    own : str
        Name of a folder there that was written now: by it, ages are measured.
    """
    swept, pattern = 0, re.compile(re.escape(own.rpartition("-")[0]) + "-[0-9a-f]{32}")
    try:
        (now,) = (info.mtime_ns for info in parent.child(own).listed() if info.base_name == OWNER)
        names = [info.base_name for info in parent.listed() if info.type == fs.FileType.Directory]
    except (*STORAGE_ERRORS, ValueError) as error:
        logger.info("%s could not be searched for rows that were left behind: %s", parent.shown or parent.path, error)
        return 0
    for name in names:
        if pattern.fullmatch(name) and name != own:
            with contextlib.suppress(*STORAGE_ERRORS):  # another process sweeps too, or has just ended
                if _is_abandoned(parent.child(name), now):
                    parent.child(name).delete()
                    swept += 1
    return swept


def _is_abandoned(folder: Location, now: Any) -> bool:
    files = folder.listed()
    newest = max((info.mtime_ns for info in files if info.mtime_ns is not None), default=None)
    if any(info.base_name == OWNER for info in files):
        with contextlib.suppress(ValueError, TypeError):
            owner = Owner(**json.loads(folder.child(OWNER).read()))
            if owner.user != _user():
                return False
            if owner.is_here:
                return _started(owner.process) != owner.started
    # a folder without the file was being deleted, or its file is still to come
    return newest is not None and now is not None and (now - newest) / 1e9 > ABANDONED_AFTER
