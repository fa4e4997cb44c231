"""What all jobs share: flags and files, exit codes, manifests, outputs that are whole, and nothing secret shown."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pyarrow.parquet as pq
import pytest

import sparkopt
from sparkopt.errors import DataError
from sparkopt.io.secrets import mask, masked
from sparkopt.jobs import cli, manifest
from sparkopt.jobs.flags import Parser
from sparkopt.jobs.locations import LocalLocation, publish, staged
from sparkopt.jobs.logs import event, logger, logging_as
from sparkopt.jobs.runtimes import hadoop
from sparkopt.jobs.runtimes.hadoop import HadoopLocation, spark_location
from tests.jobs.running import ROOT


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the ``sparkopt`` command."""
    capsys.readouterr()
    try:
        code = cli.main(list(arguments))
    except SystemExit as leaving:
        code = leaving.code
    output = capsys.readouterr()
    return code, output.out, output.err


TRAIN = ["train", "--features", "a,b", "--label", "y", "--loss", "squared_error", "--max-iter", "5", "--tol", "0"]
WRONG = {
    "no command": ([], 2, "usage: sparkopt COMMAND"),
    "unknown command": (["trian"], 2, "there is no command 'trian'. There are train, train-deep"),
    "unknown flag": (["train", "--parquet", "x", "--optimiser", "adam"], 2, "unrecognized arguments: --optimiser"),
    "shortened flag": (["train", "--parquet", "x", "--max", "3"], 2, "unrecognized arguments: --max"),
    "unknown optimiser": (["train", "--parquet", "x", "--optimizer", "adma"], 2, "invalid choice: 'adma'"),
    "no data": (["train"], 2, "one of the arguments --images --parquet"),
    "two sources": (["train", "--parquet", "x", "--csv", "y"], 2, "not allowed with argument --parquet"),
    "empty source": (["train", "--parquet", ""], 2, "--parquet is empty"),
    "out of range": (["train", "--parquet", "x", "--reg-param=-1"], 2, "regParam must be >= 0. Got -1.0 instead."),
    "share": (["train", "--parquet", "x", "--test-fraction", "1"], 2, "--test-fraction must be between 0 and 1"),
    "image size": (["train", "--images", "x", "--image-size", "0"], 2, "--image-size must be at least 1"),
    "incompatible": (
        ["train", "--parquet", "x", "--optimizer", "lbfgs", "--mini-batch-fraction", "0.5"],
        2,
        "miniBatchFraction",
    ),
    "network": (["train-deep", "--images", "x", "--widths", "32,7"], 2, "widths must be multiples of 8"),
    "no images": (["train-deep"], 2, "one of the arguments --images --parquet"),
    "no model": (["score", "--parquet", "x", "--output", "y"], 2, "the following arguments are required: --model"),
    "no output": (["evaluate", "--parquet", "x", "--model", "y"], 2, "arguments are required: --output"),
    "tolerance": (
        ["evaluate", "--parquet", "x", "--model", "y", "--output", "z", "--tolerance=-1"],
        2,
        "--tolerance must be >= 0",
    ),
    "bounds": (
        ["evaluate", "--parquet", "x", "--model", "y", "--output", "z", "--min-value", "2", "--max-value", "1"],
        2,
        "--min-value 2 is above --max-value 1",
    ),
    "parts": (
        ["preprocess-images", "--input", "x", "--output", "y", "--parts", "0"],
        2,
        "--parts must be at least 1",
    ),
    "no pipeline": (
        ["preprocess-images", "--input", "x", "--output", "y", "--pipeline", "/nowhere.json"],
        2,
        "--pipeline '/nowhere.json' cannot be read",
    ),
    "no config": (["train", "--config", "/nowhere.yaml"], 2, "--config '/nowhere.yaml' cannot be read"),
    "missing input": (["train", "--parquet", "/nowhere/rows"], 1, "cannot read '/nowhere/rows': [PATH_NOT_FOUND]"),
    "missing table": (["train", "--table", "nowhere"], 1, "cannot read 'nowhere': [TABLE_OR_VIEW_NOT_FOUND]"),
    "missing package": (
        ["train", "--delta", "/nowhere"],
        1,
        "cannot read '/nowhere': Spark was started without Delta. Start it with --packages io.delta:delta-spark_2.13",
    ),
    "missing package of another format": (
        ["train", "--iceberg", "/nowhere"],
        1,
        "cannot read '/nowhere': Spark was started without Iceberg. Start it with --packages org.apache.iceberg:",
    ),
    "missing package for output": (
        ["preprocess-images", "--input", "{digits}/3", "--output-format", "delta"],
        1,
        "Spark was started without Delta. Start it with --packages io.delta:delta-spark_2.13",
    ),
    "no images there": (["train", "--images", "{table}"], 1, "has no images: there is no file that ends in png, jpg"),
    "missing column": ([*TRAIN, "--parquet", "{table}", "--label", "z"], 1, "label column 'z' does not exist"),
    "text to predict": (
        [*TRAIN, "--csv", "{texts}", "--features", "y", "--label", "word"],
        1,
        "label column 'word' has type string",
    ),
    "missing start": (
        [*TRAIN, "--parquet", "{table}", "--initial-model", "/nowhere"],
        1,
        "'/nowhere' holds no saved",
    ),
    "missing model": (["score", "--parquet", "{table}", "--model", "/nowhere"], 1, "'/nowhere' holds no saved model"),
    "missing images": (["preprocess-images", "--input", "/nowhere"], 1, "cannot read '/nowhere'"),
    "one class": (["train-deep", "--images", "{digits}/3"], 1, "has images of 1 classes; a classifier needs two"),
    "bad row": (
        ["train", "--csv", "{holes}", "--features", "a,b", "--label", "y", "--loss", "squared_error"],
        1,
        "features column 'a', partition 0",
    ),
    "unknown file system": (["train", "--parquet", "nowhere://x/y"], 1, "nowhere"),
}


FLAGS = {case: line for case, line in WRONG.items() if line[1] == 2}
"""Refused before anything starts."""
RUNS = {case: line for case, line in WRONG.items() if line[1] == 1}


@pytest.mark.parametrize("case", FLAGS)
def test_wrong_flags_are_one_line_and_an_exit_code(capsys, table, digits, tmp_path, case):
    is_one_line(capsys, table, digits, tmp_path, *FLAGS[case])


@pytest.mark.parametrize("case", RUNS)
def test_bad_input_is_one_line_and_an_exit_code(capsys, spark, table, digits, tmp_path, case):
    """On Spark; ``test_machine.py`` has this without."""
    is_one_line(capsys, table, digits, tmp_path, *RUNS[case])


def is_one_line(capsys, table, digits, tmp_path, arguments, code, message):
    (tmp_path / "words.csv").write_text("word,y\nmany,1\nfew,2\n")
    holes = [f"{i % 7},{i},{i}" for i in range(40)] + [f",{i},{i}" for i in range(4)]
    (tmp_path / "holes.csv").write_text("\n".join(["a,b,y", *holes]) + "\n")
    names = {"table": table, "digits": digits, "texts": tmp_path / "words.csv", "holes": tmp_path / "holes.csv"}
    filled = [part.format(**names) for part in arguments]
    if arguments and "--output" not in arguments and code == 1:
        filled += ["--output", str(tmp_path / "out")]
    found, out, err = call(capsys, *filled)
    assert found == code, err
    assert message in err
    if arguments:
        assert len(err.splitlines()) == 1
        assert "error: " in err
    assert not out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["holes.csv", "words.csv"]


CONFIGS = {
    "yaml": ("a.yaml", "max-iter: 7\nreg_param: 1e-3\nfeatures: [a, b]\nno_intercept: true\nparquet: r\nseed:\n"),
    "json": (
        "a.json",
        '{"max_iter": 7, "reg-param": 0.001, "features": "a,b", "no-intercept": true, "parquet": "rows"}',
    ),
}


@pytest.mark.parametrize(("name", "text"), CONFIGS.values(), ids=CONFIGS)
def test_a_file_gives_flags_and_the_command_line_wins(tmp_path, name, text):
    from sparkopt.jobs.train import JOB

    path = tmp_path / name
    path.write_text(text)
    args = JOB.parser().read(["--config", str(path), "--max-iter", "9", "--csv", "other"])
    assert (args.max_iter, args.reg_param, args.features, args.no_intercept) == (9, 0.001, "a,b", True)
    assert (args.source.kind, args.source.location) == ("csv", "other")
    plain = JOB.parser().read(["--config", str(path)])
    assert (plain.max_iter, plain.source.kind, plain.seed) == (7, "parquet", 0)


BAD_CONFIGS = {
    "unknown": ("max_itre: 3", "there is no 'max_itre'. Did you mean 'max_iter'?"),
    "value": ("max_iter: many", "argument --max-iter: invalid int value: 'many'"),
    "choice": ("optimizer: adma", "invalid choice: 'adma'"),
    "switch": ("no_intercept: 3", "no_intercept must be true or false. Got 3 instead."),
    "number": ("max_iter: true", "max_iter must be a number, a text or a list. Got True instead."),
    "two sources": ("parquet: a\ncsv: b", "not allowed with argument"),
    "list": ("- 1\n- 2", "it must hold names and values"),
    "no yaml": ("a: [", "is no YAML"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_wrong_file_is_one_line(capsys, tmp_path, text, message):
    (tmp_path / "job.yaml").write_text(text)
    code, out, err = call(capsys, "train", "--config", str(tmp_path / "job.yaml"))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err


def test_every_job_says_what_it_does(capsys):
    """--help lists every flag with a text, and --version prints the version."""
    for name in cli.COMMANDS:
        if name == "compare":
            continue
        code, out, _ = call(capsys, name, "--help")
        assert code == 0
        assert f"sparkopt {name}" in out
        assert "--config" in out
    assert call(capsys, "--version")[1].strip() == f"sparkopt {sparkopt.__version__}"
    assert call(capsys, "--help")[0] == 0


def test_one_script_runs_every_command():
    for flags, code, line in (
        (["--version"], 0, f"sparkopt {sparkopt.__version__}"),
        (["evaluate", "--wrong"], 2, "sparkopt evaluate: error: unrecognized arguments: --wrong"),
    ):
        run = subprocess.run(
            [sys.executable, "jobs/run.py", *flags],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == code
        assert line in run.stdout + run.stderr


def test_the_same_again_is_not_done_twice(capsys, table, tmp_path):
    """Until a flag or the data changes, or --force asks for it."""
    rows, output = tmp_path / "rows", tmp_path / "out"
    shutil.copytree(table, rows)
    flags = [*TRAIN, "--parquet", str(rows), "--output", str(output), "--output-mode", "overwrite"]

    def made() -> str:
        code, _, err = call(capsys, *flags)
        assert code == 0, err
        return json.loads((output / "manifest.json").read_text())["started"]

    first = made()
    code, out, _ = call(capsys, *flags)
    nothing, metrics, report = out.splitlines()
    assert code == 0
    when = json.loads((output / "manifest.json").read_text())["ended"]
    assert nothing == (
        f"nothing to do: nothing was trained. {output} holds the result of the same flags and data, of "
        f"{when[:10]} {when[11:16]} UTC. --force trains again."
    )
    held_out = json.loads((output / "metrics.json").read_text())["held_out"]
    assert metrics == "then      " + "  ".join(f"{name} {value:.6g}" for name, value in held_out.items())
    assert Path(url2pathname(urlsplit(report.removeprefix("report    ")).path)) == output / "report.html"
    assert json.loads((output / "manifest.json").read_text())["started"] == first
    flags.append("--force")
    forced = made()
    assert forced > first
    flags[-1:] = ["--seed", "3"]
    other = made()
    assert other > forced
    pq.write_table(pq.read_table(table).slice(0, 5), rows / "part-2.parquet")
    more = made()
    assert more > other
    assert made() == more
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows"]


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    """What one run leaves."""
    output = tmp_path_factory.mktemp("trained") / "out"
    assert cli.main([*TRAIN, "--parquet", table, "--output", str(output)]) == 0
    return output


def test_the_manifest_says_what_ran(capsys, trained, table, tmp_path):
    """Its config is a file for --config, and makes the same run."""
    output = trained
    found = json.loads((output / "manifest.json").read_text())
    assert (found["job"], found["status"], found["receipt"]) == ("train", "complete", "receipt.json")
    assert found["config"]["parquet"] == table
    assert found["versions"]["sparkopt"] == sparkopt.__version__
    assert found["data"]["data"]["files"] == 2
    assert found["metrics"] == json.loads((output / "metrics.json").read_text())["held_out"]
    assert {*found["outputs"], "manifest.json"} == {path.name for path in output.iterdir()}
    assert found["started"] < found["ended"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found["git_commit"] or "").removesuffix("-dirty") == commit.stdout.strip()
    (tmp_path / "again.json").write_text(json.dumps(found["config"]))
    code, out, _ = call(capsys, "train", "--config", str(tmp_path / "again.json"))
    assert code == 0
    assert out.startswith("nothing to do")


def test_a_run_ends_with_its_figures_and_where_the_report_is(capsys, table, tmp_path):
    output = tmp_path / "a model"
    code, out, _ = call(capsys, *TRAIN, "--parquet", table, "--output", str(output))
    held_out, _, report = out.splitlines()[-3:]
    figures = json.loads((output / "metrics.json").read_text())["held_out"]
    assert code == 0
    assert held_out == "held out  " + "  ".join(f"{name} {value:.6g}" for name, value in figures.items())
    address = urlsplit(report.removeprefix("report    "))
    assert (address.scheme, " " in address.path) == ("file", False)  # a terminal opens it
    assert "<html" in Path(url2pathname(address.path)).read_text()


def test_a_failure_leaves_what_was_there(capsys, trained, table, tmp_path):
    output = shutil.copytree(trained, tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    flags = [*TRAIN, "--parquet", table, "--label", "none", "--output", str(output), "--output-mode", "overwrite"]
    code, _, err = call(capsys, *flags)
    assert code == 1
    assert "label column 'none'" in err
    assert {path.name: path.stat().st_mtime_ns for path in output.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_ctrl_c_is_one_line_and_leaves_nothing(capsys, monkeypatch, table, tmp_path):
    """In the middle of writing."""

    def interrupted(model, metrics, labels, run):
        run.target.child("model").add_files(tmp_path / "some")
        raise KeyboardInterrupt

    written(tmp_path / "some", half="1")
    monkeypatch.setattr("sparkopt.jobs.train.save", interrupted)
    code, out, err = call(capsys, *TRAIN, "--parquet", table, "--output", str(tmp_path / "out"))
    assert (code, out) == (130, "")
    assert err.splitlines() == [
        "sparkopt train: error: interrupted. The same command starts again, or resumes where it can."
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["some"]


def test_logs_are_objects_where_that_is_wanted(capsys, table, tmp_path):
    flags = [*TRAIN, "--parquet", table, "--log-format", "json"]
    code, _, err = call(capsys, *flags, "--output", str(tmp_path / "out"))
    lines = [json.loads(line) for line in err.splitlines()]
    assert code == 0
    output = [line["message"] for line in lines if line["logger"] == "sparkopt.jobs"]
    assert output == ["begins", "trained", "ends"]
    assert lines[-1]["metrics"]["r2"] == json.loads((tmp_path / "out/manifest.json").read_text())["metrics"]["r2"]
    code, _, err = call(capsys, "train", "--parquet", "/nowhere", "--log-format", "json")
    (line,) = [json.loads(line) for line in err.splitlines()]
    assert (code, line["level"], line["job"]) == (1, "ERROR", "train")
    assert not logging.getLogger().handlers or all("jobs" not in str(h) for h in logging.getLogger().handlers)


SECRETS = {
    "s3a://me:abc123@bucket/rows": "s3a://me:***@bucket/rows",
    "https://host/rows?sig=abc123&part=1": "https://host/rows?sig=***&part=1",
    "fs.azure.account.access-key=abc123": "fs.azure.account.access-key=***",
    "password: abc123": "password: ***",
    "hdfs://host:8020/rows": "hdfs://host:8020/rows",
    "tokens of a text": "tokens of a text",
    "design=abc123": "design=abc123",
}


@pytest.mark.parametrize(("text", "shown"), SECRETS.items(), ids=SECRETS)
def test_no_secret_is_shown(text, shown):
    assert mask(text) == shown


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_is_logged_or_kept(capsys, form):
    with logging_as("train", form):
        logger.warning("cannot read s3a://me:abc123@bucket")
        event("begins", uri="s3a://me:abc123@bucket", api_key="abc123")
    assert "abc123" not in capsys.readouterr().err
    assert masked({"dbToken": "abc123", "deep": [{"path": "x://a:abc123@b"}], "max_iter": 3, "none_token": None}) == {
        "dbToken": "***",
        "deep": [{"path": "x://a:***@b"}],
        "max_iter": 3,
        "none_token": None,
    }
    args = Parser("train", "").parse_args([])
    args.source, args.password = None, "abc123"
    assert "abc123" not in json.dumps(manifest.config_of(args))


@pytest.fixture(params=["local", "hadoop"])
def place(request, spark, tmp_path):
    """The same folder, reached by Python and by Hadoop."""
    return (
        LocalLocation(tmp_path / "out")
        if request.param == "local"
        else HadoopLocation(spark, f"file://{tmp_path}/out")
    )


def written(folder, **files: str):
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_outputs_come_whole(place, tmp_path):
    """New; over an earlier run's; next to other files; and never from a run that failed."""

    def run(name: str, earlier: list[str], **files: str) -> None:
        with staged(place) as staging:
            staging.add_files(written(tmp_path / name, **files))
            assert not (tmp_path / "out" / "new.txt").exists()
            publish(staging, place, "last.txt", earlier)

    def left() -> dict[str, str]:
        found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
        return {name: text for name, text in found.items() if not name.startswith(".")}  # Hadoop's checksums

    run("one", [], model="1", last="1")
    assert left() == {"model.txt": "1", "last.txt": "1"}
    run("two", ["model.txt", "last.txt"], other="2", last="2")
    assert left() == {"other.txt": "2", "last.txt": "2"}
    (tmp_path / "out" / "mine").write_text("stays")
    run("three", ["other.txt", "last.txt"], model="3", last="3")
    assert left() == {"model.txt": "3", "last.txt": "3", "mine": "stays"}
    assert place.child("model.txt").read() == "3"
    with contextlib.suppress(ZeroDivisionError), staged(place) as staging:
        staging.add_files(written(tmp_path / "four", model="4"))
        raise ZeroDivisionError
    assert left() == {"model.txt": "3", "last.txt": "3", "mine": "stays"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_where_nothing_can_be_written_is_known_before_the_work(place, tmp_path, monkeypatch):
    """A file in the place of the folder, or above it; a folder of somebody else's. Nothing is made to find out."""
    assert place.refusal() == place.child("deep").child("deeper").refusal() == ""
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").write_text("mine")
    assert place.refusal().endswith("/out is a file")
    assert place.child("deep").child("deeper").refusal().endswith("/out is a file")
    (tmp_path / "out").unlink()
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    if isinstance(place, LocalLocation):
        assert place.refusal() == f"{tmp_path} is read-only for this user"


def test_a_file_is_not_replaced_by_an_output(capsys, table, tmp_path):
    (tmp_path / "mine").write_text("stays")
    for output in ("mine", "mine/out"):
        code, _, err = call(capsys, *TRAIN, "--parquet", table, "--output", str(tmp_path / output))
        assert (code, len(err.splitlines())) == (1, 1)
        assert f"--output '{tmp_path / output}' cannot be written: {tmp_path}/mine is a file." in err
    assert (tmp_path / "mine").read_text() == "stays"


def test_what_a_killed_run_left_is_cleared(place, tmp_path):
    """Unfinished outputs of processes that are no more; an output that was to be replaced comes back."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    begin = tmp_path / f".out.{socket.gethostname()}-{gone.pid}"
    written(begin.with_name(begin.name + ".unfinished"), half="1")
    written(begin.with_name(begin.name + ".replaced"), whole="1")
    other = written(tmp_path / ".out.elsewhere-1.unfinished", half="1")
    with staged(place):
        pass
    assert (tmp_path / "out" / "whole.txt").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "out"]


def test_a_path_without_a_scheme_is_where_spark_takes_it_for(spark, tmp_path):
    assert spark_location(spark, str(tmp_path)) == LocalLocation(tmp_path)
    assert (
        spark_location(spark, f"file:{tmp_path}")
        == spark_location(spark, f"file://{tmp_path}")
        == LocalLocation(tmp_path)
    )


def test_on_connect_only_shared_paths_are_reached(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(hadoop, "is_connect", lambda spark: True)
    for uri in (str(tmp_path), f"file:{tmp_path}", f"file://{tmp_path}/"):
        assert spark_location(spark, uri) == LocalLocation(tmp_path)
    with pytest.raises(
        DataError, match=r"^'s3://key:\*\*\*@bucket/x' cannot be reached: on Spark Connect [^\n]*volume\.$"
    ):
        spark_location(spark, "s3://key:secret@bucket/x")
