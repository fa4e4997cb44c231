"""Folders appear whole or not at all on every file system; Spark's own code takes the session without Spark."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from pyarrow import fs
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter

from sparkopt.errors import DataError, ParameterError
from sparkopt.io import FileSession, fetched, replacing, saved, written_whole
from sparkopt.ml import LinearRegression

KINDS = ("local", "hdfs", "object store")
"""Folders are renamed on the first two; the third has none that could be."""


class Elsewhere(fs.FileSystemHandler):
    """A folder of this machine as a file system of another name; a store's move is refused."""

    def __init__(self, root, kind):
        self.system, self.kind = fs.SubTreeFileSystem(root, fs.LocalFileSystem()), kind

    def get_type_name(self):
        return self.kind

    def move(self, source, target):
        assert self.kind == "hdfs", "an object store does not rename"
        self.system.move(source, target)

    def get_file_info(self, paths):
        return self.system.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self.system.get_file_info(selector)

    def create_dir(self, path, recursive):
        assert self.kind == "hdfs", "an object store has no folders"
        self.system.create_dir(path, recursive=recursive)

    def delete_dir(self, path):
        self.system.delete_dir(path)

    def delete_file(self, path):
        self.system.delete_file(path)

    def open_output_stream(self, path, metadata):
        if self.kind == "store":  # a name is all that there is to a folder
            self.system.create_dir(path.rpartition("/")[0], recursive=True)
        return pa.PythonFile(self.system.open_output_stream(path), mode="w")

    def open_input_stream(self, path):
        return pa.PythonFile(self.system.open_input_stream(path), mode="r")

    def open_input_file(self, path):
        return pa.PythonFile(self.system.open_input_file(path), mode="r")

    def normalize_path(self, path):
        return path

    delete_dir_contents = delete_root_dir_contents = copy_file = open_append_stream = None

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


@pytest.fixture(params=KINDS)
def place(request, tmp_path, monkeypatch):
    """A function from a name to a path, of a kind of file system, and the folder of this machine behind it."""
    if request.param == "local":
        return lambda name: str(tmp_path / name), tmp_path
    system = fs.PyFileSystem(Elsewhere(str(tmp_path), request.param.split()[-1]))
    resolve = saved.resolve

    def resolved(uri, parameter):
        found = resolve(uri, parameter)
        return replace(found, filesystem=system, path=uri) if uri.startswith("mine") else found

    monkeypatch.setattr(saved, "resolve", resolved)
    monkeypatch.chdir("/")
    return lambda name: f"mine/{name}", tmp_path / "mine"


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write(uri, *files, overwrite=False):
    with written_whole(uri, overwrite) as folder:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)


def test_a_folder_is_written_replaced_and_read(place):
    uri, root = place
    write(uri("one"), "a", "b/c")
    assert names(root) == ["one/a", "one/b/c"]
    with pytest.raises(ParameterError, match=r"one' exists already. Save elsewhere, or use write\(\)\.overwrite\(\)"):
        write(uri("one"), "d")
    assert names(root) == ["one/a", "one/b/c"]
    write(uri("one"), "d", overwrite=True)
    assert names(root) == ["one/d"]
    with fetched(uri("one")) as folder:
        assert (folder / "d").read_text() == "d"
    with pytest.raises(DataError, match="two' does not exist: nothing was saved there"), fetched(uri("two")):
        pass


def fail_to_write(uri, overwrite):
    with written_whole(uri, overwrite) as folder:
        (folder / "half").write_text("")
        raise KeyError


def fail_there(uri, overwrite):
    with replacing(uri, overwrite) as target:
        target.child("half").write(b"")
        raise KeyError


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("fail", [fail_to_write, fail_there])
def test_an_error_leaves_nothing_half_written(place, fail, overwrite):
    uri, root = place
    write(uri("other"), "a")
    with pytest.raises(KeyError):
        fail(uri("one"), overwrite)
    assert names(root) == ["other/a"]


def test_what_cannot_be_put_there_is_put_back(tmp_path, monkeypatch):
    write(str(tmp_path / "one"), "a")
    move, calls = fs.LocalFileSystem.move, []

    class Full(fs.LocalFileSystem):
        def move(self, source, target):
            calls.append(source)
            if len(calls) == 2:
                raise OSError("no space is left")
            move(self, source, target)

    resolve = saved.resolve
    monkeypatch.setattr(saved, "resolve", lambda uri, name: replace(resolve(uri, name), filesystem=Full()))
    with pytest.raises(ParameterError, match="one' cannot be used: no space is left"):
        write(str(tmp_path / "one"), "b", overwrite=True)
    assert names(tmp_path) == ["one/a"]


def test_a_file_in_the_place_of_a_folder_is_replaced(tmp_path):
    (tmp_path / "one").write_text("")
    write(str(tmp_path / "one"), "a", overwrite=True)
    assert names(tmp_path) == ["one/a"]


def test_sparks_own_functions_take_the_session(tmp_path):
    estimator, session = LinearRegression(regParam=0.5), FileSession()
    DefaultParamsWriter.saveMetadata(estimator, str(tmp_path / "stage"), session, {"more": 1})
    found = DefaultParamsReader.loadMetadata(str(tmp_path / "stage"), session)
    assert (found["uid"], found["more"], found["paramMap"]) == (estimator.uid, 1, {"regParam": 0.5})
    session.createDataFrame(pa.table({"x": [1, 2]})).coalesce(1).write.parquet(str(tmp_path / "rows"))
    assert session.read.parquet(str(tmp_path / "rows")).first() == {"x": 1}
    session.createDataFrame(pa.table({"x": pa.array([], pa.int64())})).write.parquet(str(tmp_path / "none"))
    assert session.read.parquet(str(tmp_path / "none")).first() is None
    with pytest.raises(DataError, match="holds no saved model"):
        session.read.text(str(tmp_path / "nothing" / "metadata"))
