#!/usr/bin/env python
"""Train on more rows than a process tree may have memory: time and peak memory of the whole tree.

    python jobs/bench/larger_than_memory.py --gigabytes 12 --limit 3

Rows are written to Parquet a row group at a time, then ``sparkopt train --on machine`` runs on them in a process tree
that has a limit of memory. Where this process may make control groups, the kernel holds the limit for the whole tree,
its cached files included; else each process has its share of the limit as the most data that it may allocate
(RLIMIT_DATA). Both peaks are printed: what the tree allocated (anonymous memory), and with a control group all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkopt.machine import available_cores

ROOT = Path(__file__).parents[2]
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
FEATURES = 100
GROUP_ROWS = 125_000
"""Rows of a row group: 50 MB."""
GROUPS = 10
"""Row groups of a file."""


def generate(folder: Path, size: float) -> int:
    """Write Parquet files with so many bytes of float32 features; return their rows.

    Parameters
    ----------
    folder : Path
        Made anew.
    size : float
        Bytes; a row group is the least.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    coef = rng.normal(size=FEATURES) / 10
    base = rng.standard_normal((GROUP_ROWS, FEATURES), dtype=np.float32)
    offsets = pa.array(np.arange(0, base.size + 1, FEATURES, dtype=np.int32))
    count = max(1, round(size / base.nbytes))
    for begin in range(0, count, GROUPS):
        schema = pa.schema({"features": pa.list_(pa.float32()), "label": pa.float64()})
        path = folder / f"part-{begin // GROUPS:03d}.parquet"
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
            for group in range(begin, min(begin + GROUPS, count)):
                X = np.roll(base, 7 * group, axis=0) * np.float32(1 + 0.001 * group)
                y = (X @ coef + rng.logistic(size=len(X)) > 0).astype(np.float64)
                features = pa.ListArray.from_arrays(offsets, pa.array(X.reshape(-1)))
                file.write_table(pa.table([features, pa.array(y)], schema=schema))
    return count * GROUP_ROWS


@dataclass(frozen=True)
class Peak:
    """What a process tree took.

    Attributes
    ----------
    seconds : float
        From its start to its end.
    allocated : int
        Most bytes of anonymous memory that all of its processes had at a time, sampled.
    in_all : int or None
        Most bytes of its control group, cached files included; None without one.
    """

    seconds: float
    allocated: int
    in_all: int | None


def limited(command: list[str], limit: int, log: Path) -> Peak:
    """Run a command in a process tree with a limit of memory.

    Parameters
    ----------
    command : list of str
        What runs.
    limit : int
        Bytes for all of the tree.
    log : Path
        Where its output goes.

    Raises
    ------
    RuntimeError
        Where it fails, with the last line of its output.
    """
    with _group(limit) as group, log.open("wb") as output:
        begin = time.monotonic()

        def enter() -> None:
            if group is None:
                share = limit // (available_cores() + 1)
                resource.setrlimit(resource.RLIMIT_DATA, (share, share))
            else:
                (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

        process = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=enter)  # noqa: S603  # this package
        allocated = 0
        while process.poll() is None:
            allocated = max(allocated, sum(map(_anonymous, _tree(process.pid))))
            time.sleep(0.05)
        seconds = time.monotonic() - begin
        in_all = None if group is None else int((group / "memory.max_usage_in_bytes").read_text(encoding="ascii"))
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        raise RuntimeError(f"exit code {process.returncode}: {lines[-1]}")
    return Peak(seconds, allocated, in_all)


@contextlib.contextmanager
def _group(limit: int) -> Iterator[Path | None]:
    """Make a control group with this limit of memory; None where that is not allowed."""
    group = MEMORY_GROUPS / f"sparkopt-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit), encoding="ascii")
    except OSError as why:
        print(f"no control group ({why.strerror}): each process has a limit of its own", flush=True)
        yield None
        return
    try:
        yield group
    finally:
        for _ in range(100):  # its workers end a moment after it
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def _tree(root: int) -> list[int]:
    """Return a process and its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{name}/stat").read_text(encoding="utf-8")
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found = [root]
    for pid in found:  # it grows meanwhile
        found += children.get(pid, [])
    return found


def _anonymous(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    return 0


def train(rows: Path, limit: int, folder: Path) -> Peak:
    """Run ``sparkopt train --on machine`` on Parquet files in a limited tree."""
    command = [sys.executable, "-m", "sparkopt.jobs.cli", "train", "--parquet", str(rows), "--features", "features"]
    command += ["--label", "label", "--reg-param", "0.001", "--on", "machine", "--output", str(folder / "out")]
    return limited(command, limit, folder / "log")


def main() -> None:
    """Read flags and run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--gigabytes", type=float, default=12.0, help="of rows (default: 12)")
    flags.add_argument("--limit", type=float, default=3.0, help="GB of memory of the process tree (default: 3)")
    flags.add_argument("--folder", type=Path, help="for rows and blocks, which are deleted")
    args = flags.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        needed, free = 2.2e9 * args.gigabytes, shutil.disk_usage(folder).free
        if free < needed:
            raise SystemExit(f"{folder} has {free / 1e9:.0f} GB free; rows and blocks need {needed / 1e9:.0f} GB.")
        rows = generate(folder / "rows", args.gigabytes * 1e9)
        size = f"{args.gigabytes:g} GB, in {args.limit:g} GB of memory"
        print(f"{rows:,} rows x {FEATURES} features, {size}", flush=True)
        os.environ["SPARK_LOCAL_DIRS"] = str(folder / "blocks")
        (folder / "blocks").mkdir()
        peak = train(folder / "rows", int(args.limit * 1e9), folder)
        in_all = "" if peak.in_all is None else f", {peak.in_all / 1e9:.2f} GB with cached files"
        print((folder / "log").read_text(encoding="utf-8"))
        print(f"{peak.seconds:.0f} s; peak of the tree: {peak.allocated / 1e9:.2f} GB allocated{in_all}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
