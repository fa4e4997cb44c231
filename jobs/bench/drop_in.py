#!/usr/bin/env python
"""Time a script of pyspark.ml as it is, and the same script by ``python -m sparkopt``: processes that take turns.

    python jobs/bench/drop_in.py --rows 200000

The script (jobs/bench/scripts/churn.py) has feature stages, a search of 6 candidates over 3 folds, an evaluator,
saving and loading, and a forest, which is pyspark.ml's in both. What both print is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parent / "scripts" / "churn.py"
SIDES: dict[str, list[str]] = {"pyspark.ml": [], "sparkopt": ["-m", "sparkopt"]}


def timed(by: list[str], rows: int) -> tuple[float, float, dict[str, list[float]]]:
    """Return the seconds of the process, those of the search, and what the script found."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, *by, str(SCRIPT), str(rows), folder]
        start = time.perf_counter()
        out = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603  # a script of ours
        seconds = time.perf_counter() - start
    found = dict(text.split(" ", 1) for text in out.splitlines() if text.startswith(("RESULT", "SECONDS")))
    return seconds, float(found["SECONDS"]), json.loads(found["RESULT"])


def run(rows: int, runs: int) -> None:
    """Print the table."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    results = {}
    for _ in range(runs):
        for name, by in SIDES.items():
            whole, search, results[name] = timed(by, rows)
            times[name].append((whole, search))
    print(f"\n{rows:,} rows, medians of {runs}\n\n| | search s | faster by (range) | whole process s | faster by |")
    print("| --- | --- | --- | --- | --- |")
    theirs = times["pyspark.ml"]
    for name, own in times.items():
        ratios = [[other[part] / one[part] for other, one in zip(theirs, own, strict=True)] for part in (0, 1)]
        whole, search = (statistics.median(one[part] for one in own) for part in (0, 1))
        spread = f"{statistics.median(ratios[1]):.1f}x ({min(ratios[1]):.1f}-{max(ratios[1]):.1f})"
        print(f"| {name} | {search:.1f} | {spread} | {whole:.1f} | {statistics.median(ratios[0]):.1f}x |")
    for metric in ("metrics", "area", "coefficients"):
        far = np.abs(np.subtract(results["sparkopt"][metric], results["pyspark.ml"][metric])).max()
        print(f"{metric}: {far:.1e} apart at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # some containers set it: each start would compile all modules
    run(given.rows, given.runs)
