"""What this process may use of the machine: cores and memory, as its container and its scheduler limit them."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["available_cores", "available_memory", "numerical_libraries", "one_thread"]

CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Version 1 of cgroups writes a number near 2^63 where there is no limit of memory."""


def available_cores(root: Path = CGROUPS) -> int:
    """Return how many cores this process may keep busy: of its affinity mask, and of its container's share.

    ``os.cpu_count()`` counts the machine's cores, which in a container are often many more.

    Parameters
    ----------
    root : Path, default /sys/fs/cgroup
        Where control groups are mounted.

    Examples
    --------
    >>> from sparkopt.machine import available_cores
    >>> available_cores() >= 1
    True
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    shares = [math.ceil(share) for share in _cpu_shares(root)]
    return max(1, min([cores, *shares]))


def available_memory(root: Path = CGROUPS) -> int:
    """Return how many bytes of memory this process may use: the machine's, or fewer where its container has a limit.

    Parameters
    ----------
    root : Path, default /sys/fs/cgroup
        Where control groups are mounted.

    Examples
    --------
    >>> from sparkopt.machine import available_memory
    >>> available_memory() > 1 << 26
    True
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, name in (*_groups(root, "", "memory.max"), *_groups(root, "memory", "memory.limit_in_bytes")):
        found = _text(folder / name)
        if found.isdigit() and int(found) < UNLIMITED:
            limits.append(int(found))
    return min(limits)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS and OpenMP use one thread in this process, as they do in workers: sums have the same bits then.

    Examples
    --------
    >>> from sparkopt.machine.limits import one_thread
    >>> with one_thread():
    ...     pass
    """
    with numerical_libraries().limit(limits=1):
        yield


class _Known:
    """The libraries that were found, and how many modules there were."""

    lock = threading.Lock()
    modules = 0
    controller: Any = None


def numerical_libraries() -> Any:
    """Return threadpoolctl's controller of the BLAS and OpenMP that are loaded.

    Looking for them takes some 5 ms, as long as a small fit, so they are looked for where modules have been imported
    since.

    Examples
    --------
    >>> from sparkopt.machine.limits import numerical_libraries
    >>> with numerical_libraries().limit(limits=1):
    ...     pass
    """
    from threadpoolctl import ThreadpoolController  # here, since workers need it last

    with _Known.lock:
        if len(sys.modules) != _Known.modules:  # any of the new ones may have brought its own
            _Known.controller = ThreadpoolController()
            _Known.modules = len(sys.modules)
        return _Known.controller


def _cpu_shares(root: Path) -> Iterator[float]:
    """Yield the shares of cores that control groups of both versions grant, in cores."""
    for folder, name in _groups(root, "", "cpu.max"):
        quota, _, period = _text(folder / name).partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    for folder, name in _groups(root, "cpu", "cpu.cfs_quota_us"):
        quota, period = _text(folder / name), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # -1 is no limit
            yield int(quota) / int(period)


def _groups(root: Path, controller: str, name: str) -> Iterator[tuple[Path, str]]:
    """Yield this process's group and those around it, which limit it as well, where they have a file ``name``."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        mounted = root / controller if controller else root
        # In a container the path may be the host's: then only the mounted root is there, the container's own.
        group = mounted / path.lstrip("/")
        for folder in (group, *group.parents):
            if (folder / name).is_file():
                yield folder, name
            if folder == mounted:
                break


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # there is none: no limit is set that way
        return ""
