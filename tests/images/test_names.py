"""Image files of any name: the same rows on Spark and without, by folder, by glob and by name."""

import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from sparkopt import images
from sparkopt.errors import DataError
from sparkopt.io.listing import files_below

NAMES = [
    "a b", " a", "50%", "a%20b", "%zz", "a#b", "a?b", "a\nb", "a\rb", "a\tb", "-a", "[x]", "{y}", "a*b",
    "a\\b", "a:b", ":a", "file:a", "s3:a", "C:", "a+b", "k=v", "_k=v", "a'b\"", "~a", "a,b", "a&b;c",
    "a|b<c>", "a..b", "a\x01b", "a@b", "$a", "a^b`c", "a\u00a0b", "\u202eab", "a\u200bb", "\U0001f600",
    unicodedata.normalize("NFC", "\u00e9"), unicodedata.normalize("NFD", "\u00e9"), "x" * 251,
]  # fmt: skip
"""Names that a file may have, without the ending."""
NO_TEXT = [b"\xe9", b"a\xff\xfeb", b"\xed\xa0\x80"]
"""Names of other encodings, which are no text in UTF-8."""


def picture(number):
    return images.encode(np.full((2, number + 1, 3), number, np.uint8), "png")


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Return a folder with a file, and a folder with a file, of each name."""
    root = tmp_path_factory.mktemp("names")
    for number, name in enumerate(NAMES):
        (root / f"{name}.png").write_bytes(picture(number))
        (root / name).mkdir()
        (root / name / "1.png").write_bytes(picture(number))
    return root


def stored(root):
    """Return the rows of what is in a folder, as the system lists it."""
    paths = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    rows = [(f"file:{path}", path.stat().st_size, path.parent.name, path.read_bytes()) for path in paths]
    return sorted(rows)


def rows_without_spark(path):
    found = images.read(path, progress=False).to_arrow().to_pylist()
    return sorted((row["path"], row["length"], row["label"], row["content"]) for row in found)


def rows_on_spark(spark, path):
    return sorted((row.path, row.length, row.label, bytes(row.content)) for row in images.read(spark, path).collect())


def test_files_of_any_name_are_read(named):
    assert rows_without_spark(named) == stored(named)
    assert len(stored(named)) == 2 * len(NAMES)


def test_files_of_any_name_are_read_on_spark(spark, named):
    assert rows_on_spark(spark, named) == stored(named)
    widths = images.udf(images.Compose([images.Decode()]))
    files = images.read(spark, named).where("length > 0")
    for column in ("content", "path"):
        found = {
            row.path: row.found.shape[1] for row in files.select("path", widths(column).alias("found")).collect()
        }
        for number, name in enumerate(NAMES):
            assert found[f"file:{named}/{name}.png"] == found[f"file:{named}/{name}/1.png"] == number + 1


@pytest.mark.parametrize("name", ["a b", "[x]", "{y}", "a*b", "a\\b", "a:b", "a?b", "50%", "a%20b", "\u00e9"])
def test_a_folder_and_a_file_are_found_by_name(spark, named, name):
    for path in (named / name, named / f"{name}.png"):
        assert rows_without_spark(path) == rows_on_spark(spark, path)
        assert len(rows_without_spark(path)) == 1


def test_files_that_spark_cannot_open_are_not_opened_to_be_listed(spark, tmp_path):
    (tmp_path / "a:b.png").write_bytes(picture(1))
    files = images.read(spark, tmp_path)
    os.truncate(tmp_path / "a:b.png", 2**30 + 1)  # more than is read of a file
    assert [row.length for row in files.select("path", "length").collect()] == [2**30 + 1]
    with pytest.raises(Exception, match="(?s)too large.*a:b.png"):  # Spark's, of another process
        files.collect()


@pytest.fixture
def not_text(tmp_path):
    """Return a folder with a picture, and with files and folders whose names are no text."""
    (tmp_path / "good.png").write_bytes(picture(0))
    for name in NO_TEXT:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + b".png")).write_bytes(picture(1))
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        folder.mkdir()
        (folder / "1.png").write_bytes(picture(1))
    return tmp_path


def test_names_that_are_no_text_are_counted(not_text, caplog):
    assert [row[0] for row in rows_without_spark(not_text)] == [f"file:{not_text}/good.png"]
    assert "left out of 7 files: 6 not UTF-8" in caplog.text
    assert "\\x" in caplog.text
    assert images.survey(not_text, progress=False).left_out == {"not UTF-8": 6}
    with pytest.raises(DataError, match=r"cannot read '.*\\x.*': the name is not UTF-8; rename it"):
        files_below(str(not_text))
    for path in not_text.iterdir():
        if path.name != "good.png":
            with pytest.raises(DataError, match=r"cannot read '.*\\ud.*': the name is not UTF-8; rename it"):
                images.read(path)


def test_names_that_are_no_text_are_left_out_on_spark(spark, not_text):
    assert rows_on_spark(spark, not_text) == rows_without_spark(not_text)
    with pytest.raises(DataError, match="the name is not UTF-8; rename it"):
        images.read(spark, os.fsdecode(os.fsencode(not_text) + b"/\xe9"))


TREE = [
    "9.png", "cat/1.png", "cat/.2.png", "cat/_3.png", "cat/e.png", ".git/4.png", ".git/cat/4.png", "_tmp/5.png",
    "_k=1/6.png", "dog/sub/7.png", "dog/.h/8.png", "dog/_h/sub/8.png", ".h/dog/9.png",
]  # fmt: skip
GLOBS = {
    "": {"9.png", "cat/1.png", "cat/e.png", "_k=1/6.png", "dog/sub/7.png"},
    "/*": {"9.png", "cat/1.png", "cat/e.png", "_k=1/6.png", "dog/sub/7.png"},
    "/*/*": {"cat/1.png", "cat/e.png", "_k=1/6.png", "dog/sub/7.png"},
    "/*/*.png": {"cat/1.png", "cat/e.png", "_k=1/6.png"},
    "/{cat,dog}": {"cat/1.png", "cat/e.png", "dog/sub/7.png"},
    "/[cd]*": {"cat/1.png", "cat/e.png", "dog/sub/7.png"},
    "/d?g/s*": {"dog/sub/7.png"},
    "/_*/*": {"_k=1/6.png"},
    "/cat/*.png": {"cat/1.png", "cat/e.png"},
    "/.git": {".git/4.png", ".git/cat/4.png"},
    "/.git/*.png": {".git/4.png"},
    "/.git/c*": {".git/cat/4.png"},
    "/_tmp/*": {"_tmp/5.png"},
    "/cat/.2.png": {"cat/.2.png"},
    "//cat//*": {"cat/1.png", "cat/e.png"},
}
"""What is read below a folder: hidden names only where they precede the first name that is a pattern."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp(".hidden") / "_also" / "a b(c)"
    for name in TREE:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if path.name == "e.png" else picture(0))
    return root


@pytest.mark.parametrize("glob", GLOBS)
def test_hidden_names_are_left_out(tree, glob):
    assert {row[0].removeprefix(f"file:{tree}/") for row in rows_without_spark(f"{tree}{glob}")} == GLOBS[glob]


@pytest.mark.parametrize("scheme", ["", "file:", "file://"])
def test_hidden_names_are_left_out_on_spark(spark, tree, scheme):
    for glob, expected in GLOBS.items():
        found = [row.path for row in images.read(spark, f"{scheme}{tree}{glob}").select("path").collect()]
        assert sorted(path.removeprefix(f"file:{tree}/") for path in found) == sorted(expected), glob


HIDDEN = {  # a glob, a path as Spark shows it, and whether it is hidden below the glob's folder
    ("s3a://bucket/.x/photos/*", "s3a://bucket/.x/photos/a/b.png"): False,
    ("s3a://bucket/.x/photos/*", "s3a://bucket/.x/photos/.git/b.png"): True,
    ("s3a://bucket/.x/photos/*", "s3a://bucket/.x/photos/a/_b.png"): True,
    ("s3a://bucket/*", "s3a://bucket/_tmp/b.png"): True,
    ("s3a://bu[c]ket/photos", "s3a://bucket/photos/b.png"): False,
    ("abfss://c@account.dfs/p+q/*/x", "abfss://c@account.dfs/p+q/_a/x/b.png"): True,
    ("abfss://c@account.dfs/p+q/*/x", "abfss://c@account.dfs/p+q/_a=1/x/b.png"): False,
    ("hdfs:///data//photos/{a,b}", "hdfs://node:8020/data/photos/a/.b/c.png"): True,
    ("hdfs:///data//photos/{a,b}", "hdfs://node:8020/data/photos/a/b/c.png"): False,
    ("photos/*", "hdfs://node:8020/user/_me/photos/a/c.png"): False,
    ("photos/*", "hdfs://node:8020/user/_me/photos/.a/c.png"): True,
    ("./photos/*", "hdfs://node:8020/user/me/photos/_a/c.png"): True,
}


@pytest.mark.parametrize(("glob", "path"), HIDDEN)
def test_hidden_names_of_other_file_systems(glob, path):
    """Java's regular expression is one of Python's too."""
    from sparkopt.images.spark import _hidden_below
    from sparkopt.io.filesystem import local_path

    assert bool(re.search(_hidden_below(glob, local_path(glob)), path)) == HIDDEN[glob, path]


def test_hidden_names_are_left_out_of_relative_globs(spark, tree, monkeypatch):
    begin = Path.cwd()
    relative = os.path.relpath(tree, begin)
    for glob in ("/*", "/*/*.png", "/.git/*.png"):
        found = {row.path.rpartition("a b(c)/")[2] for row in images.read(spark, f"{relative}{glob}").collect()}
        assert found == GLOBS[glob]


def test_links_that_lead_nowhere_are_counted(tmp_path, caplog):
    """They were left out uncounted: a moved disk took images from a folder without a word."""
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "nowhere.png")
    found = images.survey(tmp_path, progress=False)
    assert (found.images, found.left_out) == (2, {"broken link": 1})
    assert found.first["broken link"].endswith("/c.png")
    assert images.read(tmp_path).rows == 2
    assert "1 broken link" in caplog.text
