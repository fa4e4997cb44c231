"""Folders that must not outlive this process: private, and swept by the next one where this one is killed.

A process holds a lock on a file of its folder for as long as it lives; the system releases it however it ends. So a
folder whose lock can be had belongs to nobody, in whatever container its owner was.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

__all__ = ["local_roots", "private_folders", "sweep"]

PREFIX = "sparkopt-machine-"
LOCK = "lock"


class _Owned:
    """Folders of this process; one that was forked from it makes its own."""

    lock = threading.Lock()
    process = 0
    folders: dict[Path, Path] = {}  # noqa: RUF012  # one a process
    locks: list[int] = []  # noqa: RUF012


def local_roots() -> list[Path]:
    """Return where large temporary files go: ``SPARK_LOCAL_DIRS``, or the system's temporary folder."""
    return [Path(root) for root in os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",") if root]


def private_folders(roots: Sequence[Path] | None = None) -> list[Path]:
    """Return this process's folder below each root, which only this user can read; make it where it is missing.

    It is deleted as the process ends. Those of processes that were killed are deleted here.

    Parameters
    ----------
    roots : sequence of Path or None, default None
        Existing folders; None takes ``local_roots``.
    """
    with _Owned.lock:
        if _Owned.process != os.getpid():
            _Owned.process, _Owned.folders, _Owned.locks = os.getpid(), {}, []
            atexit.register(_delete, os.getpid())
        found = []
        for root in local_roots() if roots is None else roots:
            if not _Owned.folders.get(root, root / PREFIX).is_dir():
                sweep(root)
                _Owned.folders[root] = _make(root)
            found.append(_Owned.folders[root])
        return found


def sweep(root: Path) -> int:
    """Delete this user's folders below ``root`` whose processes are gone; return how many there were."""
    swept = 0
    for folder in root.glob(f"{PREFIX}{os.getuid()}-*"):
        with contextlib.suppress(OSError):  # another process sweeps too, or it is not ours after all
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                swept += 1
            finally:
                os.close(lock)
    return swept


def _make(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getuid()}-{os.getpid()}-", dir=root))  # mode 0700
    lock = os.open(folder / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.rename(folder / "new", folder / LOCK)  # only now does a sweep look at it
    _Owned.locks.append(lock)
    return folder


def _delete(process: int) -> None:
    if process == os.getpid() == _Owned.process:
        for folder in _Owned.folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        _Owned.folders.clear()
