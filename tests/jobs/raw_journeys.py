"""Three journeys from raw files to scores, each by commands alone: the inputs, and what must hold in the end."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from sparkopt.jobs import cli

TOWNS = ["Bonn", "Paris, TX", "İzmir", "北京", 'the "Hague"']


def write_people(path: Path, rows: int, seed: int) -> np.ndarray:
    """Write a CSV of words, dates, nulls, quoted commas, Turkish and Chinese names; return the best scores."""
    rng = np.random.default_rng(seed)
    start, best = datetime.date(2021, 1, 1), []
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["müşteri no", "yaş", "şehir", "城市 等级", "kayıt tarihi", "公司.规模", "churned"])
        for row in range(rows):
            age, town, grade = int(rng.integers(18, 80)), rng.choice(TOWNS), rng.choice(["甲", "乙", ""])
            size = round(float(rng.normal()), 4)
            raw = (age - 49) / 20 + (town == "İzmir") - (grade == "甲") + size
            best.append(raw)
            churned = "yes" if raw + rng.logistic() > 0 else "no"
            joined = start + datetime.timedelta(days=int(rng.integers(0, 900)))
            cells = [age if rng.random() > 0.05 else "", town, grade, joined, size if rng.random() > 0.05 else ""]
            lines.writerow([row, *cells, churned])
    return np.array(best)


def write_libsvm(folder: Path, seed: int = 4) -> tuple[Path, Path]:
    """Write a pair of files with labels −1 and +1, of which the one to score has fewer features."""
    rng = np.random.default_rng(seed)
    found = []
    for name, width, rows in (("a9a", 20, 600), ("a9a.t", 17, 200)):
        path = folder / name
        lines = []
        for _ in range(rows):
            at = np.sort(rng.choice(width, 6, replace=False))
            sign = 1 if at[0] < 2 or rng.random() < 0.2 else -1
            lines.append(f"{sign:+d} " + " ".join(f"{index + 1}:1" for index in at))
        path.write_text("\n".join(lines) + "\n")
        found.append(path)
    return found[0], found[1]


def write_days(folder: Path, seed: int = 8) -> Path:
    """Write a table of Parquet by day, whose newest day has a new column, and nulls where there were none."""
    rng = np.random.default_rng(seed)
    for day in ("2026-11-26", "2026-11-27", "2026-11-28"):
        newest, n = day == "2026-11-28", 300
        amount = rng.normal(size=n)
        columns = {
            "id": pa.array(np.arange(n)),
            "amount": pa.array(amount, mask=rng.random(n) < 0.2 if newest else None),
            "channel": pa.array(rng.choice(["web", "shop"] + ["phone"] * newest, n)),
            "label": pa.array((amount + rng.logistic(size=n) > 0).astype(np.int64)),
        }
        if newest:
            columns["referrer"] = pa.array(rng.choice(["a", "b"], n))
        target = folder / f"day={day}"
        target.mkdir(parents=True)
        pq.write_table(pa.table(columns), target / "part-0.parquet")
    return folder


def run(*arguments: object) -> None:
    """Run a command, which must end well."""
    assert cli.main([str(part) for part in arguments]) == 0, arguments


def a_csv(folder: Path, on: str) -> dict[str, Any]:
    """From a CSV of words, dates, nulls and names in other scripts to scores by the names of classes."""
    write_people(folder / "people.csv", 4000, 1)
    best = write_people(folder / "new.csv", 800, 2)
    run("train", folder / "people.csv", "--label", "churned", "--output", folder / "model", "--on", on)
    new = [folder / "new.csv", "--model", folder / "model", "--on", on]
    run("score", *new, "--output", folder / "scores")
    run("evaluate", *new, "--output", folder / "gate")
    scores = pq.read_table(folder / "scores").sort_by("müşteri no")
    probability = np.array(scores["probability"].to_pylist())[:, 1]
    churned = np.array(scores["churned"].to_pylist()) == "yes"
    assert roc_auc_score(churned, probability) > roc_auc_score(churned, best) - 0.03
    assert set(scores["prediction"].to_pylist()) == {"yes", "no"}
    assert set(scores["şehir"].to_pylist()) == set(TOWNS)
    return {"probability": probability.tolist(), **_gate(folder)}


def a_libsvm_pair(folder: Path, on: str) -> dict[str, Any]:
    """From a LIBSVM file with labels −1 and +1 to scores of one with fewer features."""
    train, test = write_libsvm(folder)
    run("train", "--libsvm", train, "--output", folder / "model", "--on", on)
    run("score", test, "--model", folder / "model", "--output", folder / "scores", "--on", on)
    run("evaluate", test, "--model", folder / "model", "--output", folder / "gate", "--on", on)
    scores = pq.read_table(folder / "scores")
    assert set(scores["prediction"].to_pylist()) == {"-1", "1"}
    probability = sorted(row[1] for row in scores["probability"].to_pylist())
    return {"probability": probability, **_gate(folder)}


def a_table_by_day(folder: Path, on: str) -> dict[str, Any]:
    """From days of Parquet to scores of the newest, which has a new column and nulls."""
    days = write_days(folder / "days")
    old, new = days / "day=2026-11-2[67]", days / "day=2026-11-28"
    run("train", "--parquet", old, "--formula", "label ~ . - id", "--output", folder / "model", "--on", on)
    run("score", new, "--model", folder / "model", "--keep", "id", "--output", folder / "scores", "--on", on)
    run("evaluate", new, "--model", folder / "model", "--output", folder / "gate", "--on", on)
    scores = pq.read_table(folder / "scores").sort_by("id")
    assert scores["prediction"].null_count == 0
    return {"probability": [row[1] for row in scores["probability"].to_pylist()], **_gate(folder)}


def _gate(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gate" / "metrics.json").read_text())["metrics"]
    return found


JOURNEYS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "a CSV": a_csv,
    "a LIBSVM pair": a_libsvm_pair,
    "a table by day": a_table_by_day,
}
"""From raw files to scores by commands alone: each takes a folder and where to run, and returns figures."""
