"""No job destroys what it reads, nor reads its own output the next time: flags alone tell, before Spark starts."""

from __future__ import annotations

from argparse import Namespace

import pytest

from sparkopt.errors import ParameterError
from sparkopt.jobs import evaluate, preprocess_images, score, train
from sparkopt.jobs.flags import USAGE
from sparkopt.jobs.overlap import check_output, is_within
from sparkopt.jobs.sources import DataSource

SAME, INSIDE, AROUND, APART = "data", "data/out", "whole", "elsewhere"
# what holds of the output: the data lie in whole/data, the model in whole/model
REFUSED = {
    "folder": {("data", SAME), ("data", INSIDE)},
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
