"""Folders of blocks on an executor's own disks: only their owner reads them, and none outlives its executor for long.

Spark deletes an executor's directories when it ends, but not when it is killed. So each folder says which process it
belongs to, and the next store on the same machine deletes those of processes that are gone. The executors of a Spark
Connect server outlive a client that is killed: what nobody has used for a day is deleted too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["delete_local_folders", "local_folder", "sweep_abandoned", "used"]

PREFIX = "sparkopt-"
BEGUN = f"{PREFIX}begun-"
"""Begins the names of folders in which the owner is not noted yet."""
OWNER = "owner.json"
MOST_AGE = 7 * 24 * 3600
"""Seconds without use after which a folder is deleted whose owner cannot be asked after, as it ran in another
container."""
MOST_IDLE = 24 * 3600
"""The same for a folder whose owner lives on. A store that is used again nevertheless reads its rows once more."""

LAYOUTS = (f"{PREFIX}*", f"blockmgr-*/{PREFIX}*", f"spark-*/executor-*/blockmgr-*/{PREFIX}*")
"""Where folders are below a disk's directory, in local mode and below a standalone worker."""

_swept = set[Path]()


def local_folder(name: str, partition: int) -> Path:
    """Return a store's folder for a partition, on one of the executor's disks; make it where it is missing.

    Parameters
    ----------
    name : str
        The store's name, which nobody can guess.
    partition : int
        Number of the partition: they take turns among the disks.
    """
    roots = _local_roots()
    root = roots[partition % len(roots)]
    if root not in _swept:  # once a process
        _swept.add(root)
        sweep_abandoned(_base(root))
    folder = root / name
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        _make(folder)
    return folder


def delete_local_folders(name: str, roots: Sequence[str] | None = None) -> list[str]:
    """Delete a store's folders on an executor.

    Parameters
    ----------
    name : str
        The store's name.
    roots : sequence of str, optional
        The executor's own directories; None are those of the one that this process computes for.

    Returns
    -------
    list of str
        These directories.
    """
    found = [str(root) for root in _local_roots()] if roots is None else [*roots]
    for root in found:
        shutil.rmtree(Path(root) / name, ignore_errors=True)
    return found


def used(file: str) -> None:
    """Note that a file's folder is in use."""
    with contextlib.suppress(OSError):  # a disk that is read only now
        os.utime(os.path.dirname(file))


def sweep_abandoned(base: Path) -> int:
    """Delete this user's folders below a disk's directory that nobody uses; return how many there were."""
    swept = 0
    for folder in _folders(base):
        with contextlib.suppress(OSError):  # another process sweeps too
            if _is_abandoned(folder):
                shutil.rmtree(folder)
                swept += 1
    return swept


def _local_roots() -> list[Path]:
    """Return the executor's own directories, which Spark deletes when the executor ends."""
    return [Path(root) for root in os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")]


def _base(root: Path) -> Path:
    """Return the disk's directory, in which Spark has made the executor's."""
    for path in (*reversed(root.parents), root):
        if path.name.startswith(("spark-", "blockmgr-")):
            return path.parent
    return root


def _folders(base: Path) -> Iterator[Path]:
    for layout in LAYOUTS:
        with contextlib.suppress(OSError):  # a folder of somebody else
            yield from base.glob(layout)


def _make(folder: Path) -> None:
    """Make a folder that says whose it is, under a name that says so until then: its maker may be killed before."""
    process = _executor()
    started, space = _started(process), _process_space()
    begun = folder.with_name(f"{BEGUN}{process}-{started}-{_short(space)}-{uuid.uuid4().hex}")
    begun.mkdir(mode=0o700)
    owner = begun / OWNER
    owner.touch(mode=0o600)
    owner.write_text(json.dumps({"process": process, "started": started, "space": space}), encoding="utf-8")
    try:
        begun.rename(folder)
    except OSError as error:
        shutil.rmtree(begun, ignore_errors=True)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another task of the executor was first
            raise


def _is_abandoned(folder: Path) -> bool:
    """Whether a folder is this user's, and its process is gone or has not used it for long."""
    status, owner = folder.lstat(), _owner(folder)
    if folder.is_symlink() or status.st_uid != os.getuid() or owner is None:
        return False
    process, started, is_near = owner
    if is_near and _started(process) != started:
        return True
    newest = max(entry.stat().st_mtime for entry in (folder, *folder.iterdir()))
    return time.time() - newest > (MOST_IDLE if is_near else MOST_AGE)


def _owner(folder: Path) -> tuple[int, str, bool] | None:
    """Return a folder's process, its start, and whether that is of this machine's processes; None for no owner."""
    if folder.name.startswith(BEGUN):
        parts = folder.name.removeprefix(BEGUN).split("-")
        is_ours = len(parts) == 4 and parts[0].isdecimal()
        return (int(parts[0]), parts[1], parts[2] == _short(_process_space())) if is_ours else None
    if not (folder / OWNER).is_file():
        return None
    found = json.loads((folder / OWNER).read_text(encoding="utf-8"))
    return found["process"], found["started"], found["space"] == _process_space()


def _short(space: str) -> str:
    return hashlib.sha256(space.encode()).hexdigest()[:16]


def _executor() -> int:
    """Return the process of the JVM that this process computes for, or of its parent where there is none."""
    process = os.getppid()
    while process > 1:
        name, parent, _ = _status(process)
        if name == "java":
            return process
        process = parent
    return os.getppid()


def _started(process: int) -> str:
    """Return when a process of this machine was started, as Linux counts it; "" where it does not run."""
    return _status(process)[2]


def _status(process: int) -> tuple[str, int, str]:
    """Return a process's name, parent and start."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0, ""
    name, _, rest = text.partition("(")[2].rpartition(")")
    state, parent, *others = rest.split()
    return name, int(parent), "" if state == "Z" else others[17]


def _process_space() -> str:
    """Return what tells machines, their starts and containers apart: where a process has its number."""
    found = [os.uname().nodename]
    with contextlib.suppress(OSError):
        found += [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()]
        found += [os.readlink("/proc/self/ns/pid")]
    return " ".join(found)
