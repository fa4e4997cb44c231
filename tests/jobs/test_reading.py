"""Options of readers, several paths and types of columns: the same rows on one machine and on Spark, or one line."""

from __future__ import annotations

import csv
import gzip
import json

import pyarrow.parquet as pq
import pytest

from sparkopt.errors import DataError
from sparkopt.jobs.choosing import needs_spark
from sparkopt.jobs.runtimes.machine import MachineRuntime
from sparkopt.jobs.sources import DataSource, check_source
from sparkopt.jobs.train import JOB
from tests.jobs.test_machine import call
from tests.jobs.test_raw_rows import run

ROWS = [
    ("müşteri", "şehir", "puan"),
    ("Ayşe", "İzmir; batı", "1.5"),
    ("Bora", 'the "old" town', ""),
    ("Can", "back\\slash", "-2"),
]


def written(path, *, sep=",", quotechar='"', null="", encoding="utf-8", header=True, rows=ROWS, **more):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding=encoding, newline="") as file:
        lines = csv.writer(file, delimiter=sep, quotechar=quotechar, lineterminator="\n", **more)
        lines.writerows([[cell or null for cell in row] for row in rows[not header :]])
    return path


FORMS = {
    "as it is": ({}, []),
    "semicolons": ({"sep": ";"}, ["sep=;"]),
    "semicolons, by the other name": ({"sep": ";"}, ["delimiter=;"]),
    "tabs": ({"sep": "\t"}, [r"sep=\t"]),
    "missing as NA": ({"null": "NA"}, ["nullValue=NA"]),
    "single quotes": ({"quotechar": "'", "sep": ";"}, ["quote='", "SEP=;"]),
    "single quotes, in cells too": (
        {"quotechar": "'", "rows": [*ROWS[:2], ("O'Neil", 'x, "y"', "1"), ("Can", 'ends with "', "-2")]},
        ["quote='"],
    ),
    "no quotes": ({"quotechar": None, "quoting": csv.QUOTE_NONE}, ["quote="]),
    "latin 5": ({"encoding": "iso8859-9"}, ["encoding=ISO-8859-9"]),
    "UTF-16": ({"encoding": "utf-16"}, ["encoding=UTF-16", "multiLine=true"]),
    "no header": ({"header": False}, ["header=false"]),
    "escaped": (
        {"doublequote": False, "escapechar": "\\", "quoting": csv.QUOTE_ALL, "rows": ROWS[:3]},
        ["escape=\\"],
    ),
    "cells of several lines": (
        {"rows": [*ROWS[:3], ("Can", "one\ntwo", "-2")], "null": "NA"},
        ["multiLine=true", "nullValue=NA"],
    ),
}
"""How a file is written, and the options that read it."""


def read(runtime, path, options, *more):
    given = [part for option in options for part in ("--option", option)]
    args = JOB.parser().read(["--csv", str(path), *given, *more])
    check_source(args)
    return runtime.read(args).rows


def expected(form):
    rows = form.get("rows", ROWS)
    names = [f"_c{i}" for i in range(3)] if form.get("header") is False else rows[0]
    return [
        dict(zip(names, (name, town, float(points) if points else None), strict=True))
        for name, town, points in rows[1:]
    ]


@pytest.mark.parametrize("case", FORMS)
def test_this_machine_reads_files_as_they_are_written(case, tmp_path):
    form, options = FORMS[case]
    found = read(MachineRuntime(), written(tmp_path / "rows.csv", **form), options)
    assert found.to_arrow().to_pylist() == expected(form)


@pytest.mark.parametrize("case", ["semicolons", "UTF-16", "cells of several lines"])
def test_compressed_files_are_read_alike(case, tmp_path):
    form, options = FORMS[case]
    found = read(MachineRuntime(), written(tmp_path / "rows.csv.gz", **form), options)
    assert found.to_arrow().to_pylist() == expected(form)


def test_spark_reads_them_alike(spark, tmp_path):
    from sparkopt.jobs.runtimes.spark import SparkRuntime

    for case, (form, options) in FORMS.items():
        path = written(tmp_path / f"{case}.csv", **form)
        if case == "latin 5":
            with pytest.raises(DataError, match="got ISO-8859-9. One machine reads others"):
                read(SparkRuntime(spark), path, options)
            continue
        found = read(SparkRuntime(spark), path, options)
        assert [row.asDict() for row in found.collect()] == expected(form), case
    written(tmp_path / "rows.tsv", sep="\t")
    found = read(SparkRuntime(spark), tmp_path / "rows.tsv", [], "--type", "puan=string")
    assert [row.asDict() for row in found.collect()] == [
        dict(zip(ROWS[0], [cell or None for cell in row], strict=True)) for row in ROWS[1:]
    ]


TYPES = {
    "zeros in front": (["--type", "zip=string"], {"zip": ["01", "2", None]}),
    "an empty column": (["--type", "empty=double"], {"empty": [None, None, None]}),
    "whole numbers": (["--type", "n=double"], {"n": [1.0, 2.0, 3.0]}),
    "two": (["--type", "zip=string", "--type", "n=string"], {"zip": ["01", "2", None], "n": ["1", "2", "3"]}),
}


@pytest.mark.parametrize("case", TYPES)
def test_types_may_be_said(case, tmp_path):
    path = written(
        tmp_path / "rows.csv", rows=[("zip", "n", "empty"), ("01", "1", ""), ("2", "2", ""), ("", "3", "")]
    )
    flags, columns = TYPES[case]
    found = read(MachineRuntime(), path, [], *flags).to_arrow()
    assert {name: found[name].to_pylist() for name in columns} == columns
    assert {type(value) for value in found["n"].to_pylist()} == {type(columns.get("n", [1])[0])}


def test_several_paths_are_one_table(tmp_path):
    (tmp_path / "days").mkdir()
    days = [tmp_path / "days" / f"{day}.csv" for day in (1, 2, 3)]
    for day in days:
        rows = [(day.stem, str(i), "ab"[i % 2]) for i in range(40)]
        written(day, rows=[("day", "x", "label"), *rows])
    repeated = [part for day in days for part in ("--csv", day)]
    counts = []
    for number, flags in enumerate((days, ["--csv", *days], repeated, [tmp_path / "days" / "[1-3].csv"])):
        output = tmp_path / f"model-{number}"
        run("train", *flags, "--on", "machine", "--output", output)
        manifest = json.loads((output / "manifest.json").read_text())
        counts.append((manifest["metrics"]["rows"], manifest["data"]["data"]["digest"]))
    assert counts[0][0] > 5
    assert len(set(counts)) == 1
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"csv": [str(day) for day in days], "option": {"sep": ","}, "type": ["x=double"]}))
    run("train", "--config", config, "--on", "machine", "--output", tmp_path / "of-config")
    run("train", "--config", config, "--csv", days[0], "--on", "machine", "--output", tmp_path / "of-one")
    config = json.loads((tmp_path / "of-one" / "manifest.json").read_text())["config"]
    assert (config["csv"], config["option"], config["type"]) == (str(days[0]), ["sep=,"], ["x=double"])


def test_a_file_of_today_is_read_as_that_of_training_was(tmp_path):
    """Postal codes of which some had letters are text; today's have digits alone, and a zero in front."""
    codes = ["01067", "1067", "X1", "99", None]
    rows = [(code or "", str(i % 7), str(i), "yes" if code == "01067" else "no") for i in range(20) for code in codes]
    names = ("code", "n", "id", "label")
    written(tmp_path / "train.csv", rows=[names, *rows])
    written(tmp_path / "today.csv", rows=[names[:3], ("01067", "", "1"), ("1067", "", "2")])
    run("train", tmp_path / "train.csv", "--features", "code,n", "--output", tmp_path / "model")
    run("score", tmp_path / "today.csv", "--model", tmp_path / "model", "--output", tmp_path / "scores")
    assert pq.read_table(tmp_path / "scores")["prediction"].to_pylist() == ["yes", "no"]


def test_a_column_of_numbers_that_is_empty_today_is_one_of_numbers(tmp_path, capsys):
    rows = [(str(i % 5), str(i % 3), str(i % 2)) for i in range(60)]
    written(tmp_path / "train.csv", rows=[("a", "b", "label"), *rows])
    written(tmp_path / "today.csv", rows=[("a", "b"), ("1", ""), ("2", "")])
    run("train", tmp_path / "train.csv", "--features", "a,b", "--output", tmp_path / "model")
    flags = ["--model", tmp_path / "model", "--output", tmp_path / "scores"]
    code, _, err = call(capsys, "score", tmp_path / "today.csv", *flags)
    assert (code, "features column 'b', today.csv, row 0 is null" in err) == (1, True), err
    run("score", tmp_path / "today.csv", *flags, "--handle-invalid", "keep")
    assert pq.read_table(tmp_path / "scores")["prediction"].to_pylist() == [None, None]


WRONG = {
    "no value": (["--option", "sep"], 2, "--option must be NAME=VALUE, such as sep=;. Got 'sep' instead."),
    "another name": (["--option", "seperator=;"], 2, "the reader of csv files has none of this name. "),
    "nearly": (["--option", "nulValue=NA"], 2, "Did you mean nullValue?"),
    "no truth": (["--option", "multiLine=maybe"], 2, "error: --option multiLine must be true or false. Got 'maybe'"),
    "no encoding": (["--option", "encoding=klingon"], 2, "--option encoding 'klingon' is not known"),
    "two quotes": (["--option", "quote=<<"], 2, "--option quote must be one character of ASCII"),
    "of Spark": (["--option", "comment=#", "--on", "machine"], 2, "--on machine cannot be: --option comment is of"),
    "two characters": (["--option", "sep=||", "--on", "machine"], 2, "--option sep=|| is more than one character"),
    "no type": (["--type", "a=number"], 2, "--type must be COLUMN=TYPE, with one of string, double, long"),
    "no column": (["--type", "c=double"], 1, "--type c: there is no such column. Columns: a, b, label."),
    "words": (["--type", "b=double"], 1, "--type column=double"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_one_line(case, tmp_path, capsys):
    rows = [(str(i), "xy"[i % 2], str(i % 2)) for i in range(20)]
    path = written(tmp_path / "rows.csv", rows=[("a", "b", "label"), *rows])
    flags, code, message = WRONG[case]
    found, out, err = call(capsys, "train", path, *flags, "--output", tmp_path / "out")
    assert (found, out) == (code, ""), err
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("mark", "shown"), [(";", ";"), ("\t", r"\t"), ("|", "|")])
def test_another_separator_is_named(mark, shown, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text(f"a{mark}label\n" + "".join(f"{i}{mark}{i % 2}\n" for i in range(200)))
    code, out, err = call(capsys, "train", path, "--output", tmp_path / "out")
    assert (code, out) == (1, ""), err
    assert f"what separates columns seems to be --option 'sep={shown}'." in err
    assert len(err.splitlines()) == 1
    run("train", path, "--option", f"sep={shown}", "--output", tmp_path / "out")


def test_data_of_several_formats_and_a_table_twice_are_refused(tmp_path, capsys):
    code, _, err = call(capsys, "train", "a.csv", "b.parquet", "--output", tmp_path / "out")
    assert (code, "'a.csv' is csv and 'b.parquet' is parquet: a run reads one format" in err) == (2, True)
    with pytest.raises(SystemExit):
        JOB.parser().read(["--table", "a", "--table", "b"])
    assert "argument --table: it is given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "options", "needs"),
    [
        ("csv", {"sep": ";", "nullValue": "NA"}, False),
        ("csv", {"comment": "#"}, True),
        ("parquet", {}, False),
        ("parquet", {"mergeSchema": "true"}, True),
        ("libsvm", {"numFeatures": "3"}, False),
        ("json", {}, True),
    ],
)
def test_what_only_spark_reads_goes_to_spark(kind, options, needs):
    assert bool(needs_spark(DataSource(kind, "rows", options=options))) is needs
