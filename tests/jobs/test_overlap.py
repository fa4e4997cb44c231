"""No job destroys what it reads, nor reads its own output the next time: flags alone tell, before Spark starts."""

from __future__ import annotations

import shutil
from argparse import Namespace
from contextlib import nullcontext

import pytest

from sparkopt.errors import ParameterError
from sparkopt.jobs import evaluate, preprocess_images, score, train
from sparkopt.jobs.flags import USAGE
from sparkopt.jobs.overlap import check_output, is_within
from sparkopt.jobs.sources import DataSource
from tests.jobs.test_machine import call

SAME, INSIDE, AROUND, APART = "data", "data/out", "whole", "elsewhere"
# what holds of the output: the data lie in whole/data, the model in whole/model
REFUSED = {
    "folder": {("data", SAME), ("data", INSIDE), ("model", SAME)},
    "table": {("data", SAME), ("data", INSIDE), ("data", AROUND), ("model", SAME), ("model", AROUND)},
}


@pytest.mark.parametrize("output", [SAME, INSIDE, AROUND, APART])
@pytest.mark.parametrize("what", ["data", "model"])
@pytest.mark.parametrize("kind", ["folder", "table", "direct", "resumed"])
def test_what_is_refused(tmp_path, kind, what, output):
    read = tmp_path / "whole" / "data"
    read.mkdir(parents=True)
    (tmp_path / "link").symlink_to(read)
    places = {
        SAME: [read, f"{read}/", f"file:{read}", tmp_path / "link"],
        INSIDE: [read / "out", tmp_path / "link/out"],
    }
    places |= {AROUND: [tmp_path / "whole"], APART: [tmp_path / "other", f"{read}2"]}
    flags = Namespace(source=DataSource("csv", f"{read}/*.csv")) if what == "data" else Namespace(model=str(read))
    table = REFUSED["folder" if kind == "folder" else "table"]
    for place in places[output]:
        flags.output = str(place)
        if (what, output) in table:
            with pytest.raises(
                ParameterError, match=r"^--output .* (is|lies in|holds) --(csv|model) .*the job reads"
            ):
                check_output(flags, kind)
        else:
            check_output(flags, kind)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("s3a://b/rows", "s3://b/rows", True),
        ("s3n://b/rows/x", "s3a://b/rows/?region=eu", True),
        ("s3://b/rows2", "s3://b/rows", False),
        ("s3://other/rows", "s3://b/rows", False),
        ("hdfs://n/a b", "hdfs://n/a%20b", True),
        ("/a/../b", "/b", True),
    ],
)
def test_paths_are_compared_by_where_they_lead(one, other, expected):
    assert is_within(one, other) is expected


MODELS = {
    "evaluate": [("model", "m", "m", True), ("model", "m", "m/model", True), ("model", "m/model", "m", False)],
    "gate": [
        ("baseline", "g", "g", True),
        ("baseline", "g/metrics.json", "g", True),
        ("baseline", "g", "other", False),
    ],
    "train": [("initial_model", "m", "m", False), ("initial_model", "m", "m/model", False)],
    "files": [("config", "out/run.yaml", "out", True), ("pipeline", "out/p.json", "out", True)],
}


@pytest.mark.parametrize("case", MODELS)
def test_models_baselines_and_files_of_flags(tmp_path, case):
    """A model that is trained further may replace itself; an evaluation would replace the whole output around it."""
    for flag, path, output, is_refused in MODELS[case]:
        flags = Namespace(output=str(tmp_path / output), **{flag: str(tmp_path / path)})
        kind = "table" if case == "files" else "folder"
        with pytest.raises(ParameterError, match=f"--{flag.replace('_', '-')}") if is_refused else nullcontext():
            check_output(flags, kind)


def test_a_models_and_another_jobs_output_are_not_replaced_without_a_flag(capsys, table, tmp_path):
    """Nor by an evaluation, which has no such flag; what is there stays to the last byte."""
    out = tmp_path / "out"
    train = ["train", "--parquet", table, "--features", "a,b", "--label", "c", "--tol", "0", "--output", out]
    assert call(capsys, *train)[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    evaluated = ["evaluate", "--model", tmp_path / "copy", "--parquet", table, "--output", out]
    shutil.copytree(out, tmp_path / "copy")
    for line, message in {
        (*train, "--seed", "7"): "exists, and holds a model. Give another --output, or --output-mode overwrite",
        tuple(evaluated): "exists, and holds the output of sparkopt train. Give another --output.",
        (*evaluated, "--force"): "holds the output of sparkopt train",
    }.items():
        code, _, err = call(capsys, *line)
        assert (code, len(err.splitlines())) == (1, 1)
        assert message in err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert call(capsys, *train)[1].startswith("nothing to do")
    assert call(capsys, *train, "--output-mode", "overwrite")[1].startswith("nothing to do")
    assert call(capsys, *train, "--seed", "7", "--output-mode", "overwrite")[0] == 0


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("kind", ["table", "view"])
def test_a_table_of_the_catalog_is_compared_by_where_it_lies(spark, capsys, table, tmp_path, kind):
    where, name = tmp_path / "rows", f"own_{kind}"
    rows = spark.read.parquet(table)
    if kind == "table":
        rows.write.option("path", str(where)).saveAsTable(name)
    else:
        rows.write.parquet(str(where))
        spark.read.parquet(str(where)).createOrReplaceTempView(name)
    before = sorted(path.name for path in where.iterdir())
    lines = [
        ["train", "--table", name, "--features", "a,b", "--label", "c", "--output", where],
        ["train", "--table", name, "--features", "a,b", "--label", "c", "--output", where / "out"],
        ["score", "--table", name, "--model", "/nowhere", "--output", f"file:{where}", "--output-mode", "overwrite"],
        ["preprocess-images", "--input-format", "table", "--input", name, "--output", where],
    ]
    for line in lines:
        code, _, err = call(capsys, *line)
        assert (code, len(err.splitlines())) == (1, 1), err
        assert f"--table '{name}' at" in err
        assert "which the job reads" in err
    spark.sql(f"DROP {kind.upper()} {name}")
    assert sorted(path.name for path in where.iterdir()) == before


COMMANDS = {
    "train": (train, ["--csv", "{data}/*.csv"]),
    "score": (score, ["--csv", "{data}", "--model", "{model}"]),
    "evaluate": (evaluate, ["--csv", "{data}", "--model", "{model}"]),
    "preprocess-images": (preprocess_images, ["--input", "{data}"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_its_own_data(command, tmp_path, caplog):
    module, flags = COMMANDS[command]
    (tmp_path / "data").mkdir()
    filled = [flag.format(data=tmp_path / "data", model=tmp_path / "model") for flag in flags]
    assert module.JOB.main([*filled, "--output", str(tmp_path / "data")]) == USAGE
    assert "which the job reads" in caplog.text
    assert not list((tmp_path / "data").iterdir())
