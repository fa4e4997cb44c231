"""One command line on Spark and on this machine: the same rows held out, models, metrics, scores and images."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sparkopt.jobs import cli
from sparkopt.jobs.runtimes.files import fingerprint_of
from sparkopt.jobs.runtimes.machine import MachineRuntime
from sparkopt.jobs.runtimes.spark import SparkRuntime
from sparkopt.jobs.train import JOB
from sparkopt.ml.local import read

ON = ("spark", "machine")


def call(*arguments: object) -> int:
    return cli.main([str(part) for part in arguments])


@pytest.fixture(scope="module")
def inputs(table, digits, tmp_path_factory):
    """The same rows in each format, and images of three digits."""
    folder = tmp_path_factory.mktemp("inputs") / "some rows"
    (folder / "csv").mkdir(parents=True)
    rows = pq.read_table(table)
    lines = [",".join(map(str, row.values())) for row in rows.to_pylist()]
    (folder / "csv" / "rows.csv").write_text("\n".join([",".join(rows.column_names), *lines]) + "\n")
    lines = [f"{int(row['c'])} 1:{row['a']} 2:{row['b']}" for row in rows.to_pylist()]
    (folder / "libsvm").write_text("\n".join(lines) + "\n")
    for name in ("3", "7", "9"):
        (folder / "images" / name).mkdir(parents=True)
        for path in sorted((digits / name).iterdir())[:60]:
            (folder / "images" / name / path.name).write_bytes(path.read_bytes())
    named = ["--features", "a,b", "--label", "c"]
    return {
        "parquet": ["--parquet", table, *named],
        "csv": ["--csv", folder / "csv", *named],
        "libsvm": ["--libsvm", folder / "libsvm"],
        "images": ["--images", folder / "images", "--image-size", "8"],
    }


FORMS = ("parquet", "csv", "libsvm", "images")


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_are_held_out_and_the_same_files_known(spark, inputs, form):
    """Every row of one runtime's halves is in the same half of the other's; digests of the files are equal."""
    args = JOB.parser().read([str(part) for part in ["--seed", "3", *inputs[form]]])
    here, there = MachineRuntime(), SparkRuntime(spark)
    assert here.fingerprint(args.source) == there.fingerprint(args.source)
    assert fingerprint_of(args.source.location)["files"] > 0
    found = []
    for runtime in (here, there):
        rows = runtime.read(args)
        names = ["path"] if form == "images" else ["label"] if form == "libsvm" else ["id", "a", "c"]
        halves = []
        for half in runtime.split(rows.rows, 0.3, 3):
            if runtime is there:
                halves.append(sorted(tuple(row) for row in half.select(*names).collect()))
            else:
                batches = [batch for part in half.partitions for batch in part.batches(names)]
                columns = [[v for batch in batches for v in batch[name].to_pylist()] for name in names]
                halves.append(sorted(zip(*columns, strict=True)))
        found.append(halves)
    assert found[0] == found[1]
    assert min(map(len, found[0])) > 20


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("form", FORMS)
def test_commands_agree(spark, inputs, tmp_path, form):
    """Trained here and there, scored crosswise, evaluated: equal but for the order of sums."""
    flags = ["--reg-param", "0.05", "--tol", "1e-4" if form == "images" else "1e-8", "--max-iter", "200"]
    for on in ON:
        assert call("train", *inputs[form], *flags, "--on", on, "--output", tmp_path / on) == 0
    one, other = (read(tmp_path / on / "model") for on in ON)
    for found, expected in zip(one.arrays, other.arrays, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    metrics = [json.loads((tmp_path / on / "metrics.json").read_text()) for on in ON]
    assert metrics[0]["labels"] == metrics[1]["labels"]
    assert metrics[0]["held_out"] == pytest.approx(metrics[1]["held_out"], rel=1e-4)
    assert {path.name for path in (tmp_path / "spark").iterdir()} == {
        path.name for path in (tmp_path / "machine").iterdir()
    }
    scores = []
    for on, trained in (("spark", "machine"), ("machine", "spark")):
        known = ["--model", tmp_path / trained, *inputs[form], "--on", on]
        assert call("score", *known, "--output", tmp_path / f"scored {on}") == 0
        assert call("evaluate", *known, "--output", tmp_path / f"gate {on}") == 0
        rows = ds.dataset(tmp_path / f"scored {on}", format="parquet").to_table()
        key = next(name for name in ("id", "path", "label") if name in rows.schema.names)
        rows = rows.sort_by([(key, "ascending"), ("prediction", "ascending")])
        scores.append((rows.schema.names, np.array(rows["prediction"]), np.array(rows["probability"].to_pylist())))
    assert scores[0][0] == scores[1][0]
    np.testing.assert_array_equal(scores[0][1], scores[1][1])
    if form != "libsvm":  # its rows have no key
        np.testing.assert_allclose(scores[0][2], scores[1][2], rtol=1e-3, atol=1e-4)
    gates = [json.loads((tmp_path / f"gate {on}" / "metrics.json").read_text())["metrics"] for on in ON]
    assert gates[0] == pytest.approx(gates[1], rel=1e-4)


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("features", [False, True])
def test_images_are_preprocessed_alike(spark, inputs, tmp_path, features):
    """Row by row, and one resumes what the other has begun."""
    source = inputs["images"][1]
    flags = ["preprocess-images", "--input", source, "--size", "12", "--parts", "2", "--encoding", "png"]
    flags += ["--features"] if features else []
    tables = []
    for on in ON:
        assert call(*flags, "--on", on, "--output", tmp_path / on) == 0
        rows = ds.dataset(tmp_path / on, format="parquet", partitioning="hive").to_table()
        tables.append(rows.select(sorted(rows.schema.names)).sort_by("path").to_pylist())
        other = "machine" if on == "spark" else "spark"
        assert call(*flags, "--on", other, "--output", tmp_path / on) == 0  # nothing to do
    assert tables[0] == tables[1]
