"""One way to open a path: every kind of URI, against pyarrow and pathlib, without a network."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from sparkopt.errors import ParameterError
from sparkopt.io import filesystem
from sparkopt.io.filesystem import Location, arrow_uri, brief, child_uri, local_path, resolve
from sparkopt.io.secrets import mask, mask_uri, masked

NAMES = ["rows", "rows of May", "größe 行", "100%", "50%25", "a+b&c=d", "what?", "no#1", "[x]", "it's", "a:b", "~x"]


@pytest.mark.parametrize("name", NAMES)
def test_local_paths_are_pathlibs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = tmp_path / "in" / name
    for uri in (str(expected), f"{expected}/", f"in/{name}", expected.as_uri(), f"{expected.as_uri()}/"):
        location = resolve(uri, "storePath")
        assert (location.filesystem.type_name, location.path) == ("local", str(expected))
        assert location.is_local
    assert fs.FileSystem.from_uri(expected.as_uri())[1] == str(expected)  # pyarrow's opinion of pathlib's URIs


@pytest.mark.parametrize("name", [name for name in NAMES if name != "50%25"])  # in a URI, %25 is a percent sign
def test_file_uris_need_no_quoting(name, tmp_path):
    for uri in (f"file:{tmp_path}/{name}", f"file://{tmp_path}/{name}/", f"FILE://localhost{tmp_path}/{name}"):
        assert resolve(uri, "storePath").path == str(tmp_path / name)


def test_home_is_expanded_and_the_root_is_a_folder():
    assert resolve("~/models", "storePath").path == str(Path("~/models").expanduser())
    assert resolve("/", "storePath").child("a").path == resolve("file:///", "storePath").child("a").path == "/a"


def test_bytes_that_are_not_utf8_keep_their_value():
    assert os.fsencode(resolve("file:///a%FF", "storePath").path) == b"/a\xff"


OPENED = {
    "s3": ("s3://bucket/a/b?region=eu-west-1", "s3", "bucket/a/b"),
    "s3a": ("s3a://bucket/a/b/?region=eu-west-1", "s3", "bucket/a/b"),
    "s3n": ("s3n://bucket/a/b?region=eu-west-1", "s3", "bucket/a/b"),
    "bucket": ("s3://bucket/?region=eu-west-1", "s3", "bucket"),
    "endpoint": ("s3a://key:secret@bucket/a?endpoint_override=127.0.0.1:9&scheme=http", "s3", "bucket/a"),
    "gs": ("gs://bucket/a/b", "gcs", "bucket/a/b"),
    "abfs": ("abfs://container@account.dfs.core.windows.net/a/", "abfs", "container/a"),
    "abfss": ("abfss://container@account.dfs.core.windows.net/a", "abfs", "container/a"),
    "SAS": ("abfss://container@account.dfs.core.windows.net/a?sv=2024&sig=ab%2Fc%3D", "abfs", "container/a"),
    "quoted": ("gs://bucket/rows%20of%20May", "gcs", "bucket/rows of May"),
    "upper case": ("GS://bucket/a", "gcs", "bucket/a"),
}


@pytest.mark.parametrize(("uri", "kind", "path"), OPENED.values(), ids=OPENED)
def test_remote_file_systems_are_opened_without_a_connection(uri, kind, path):
    location = resolve(uri, "storePath")
    assert (location.filesystem.type_name, location.path) == (kind, path)
    assert not location.is_local
    expected = uri.replace("s3a:", "s3:").replace("s3n:", "s3:").replace("GS:", "gs:")
    system, theirs = fs.FileSystem.from_uri(expected)
    assert location.path == theirs.rstrip("/")
    if kind == "s3":  # with other time limits and retries than pyarrow's own
        assert location.filesystem.region == system.region
    elif kind == "abfs":
        assert location.filesystem == system


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("50%25", "what?")])
def test_names_in_object_stores_need_no_quoting(name):
    for scheme, query in (("s3a", "?region=eu-west-1"), ("gs", "")):
        assert resolve(f"{scheme}://bucket/{name}/x{query}", "storePath").path == f"bucket/{name}/x"


UNOPENED = {
    "hdfs": ("hdfs://name:8020/a b", "hdfs://name:8020/a%20b"),
    "hdfs by its default": ("hdfs:///a", "hdfs:///a"),
    "IPv6": ("hdfs://[::1]:8020/a[1]", "hdfs://[::1]:8020/a%5B1%5D"),
    "viewfs": ("viewfs://cluster/é", "viewfs://cluster/%C3%A9"),
    "s3a": ("s3a://bucket/a b", "s3://bucket/a%20b"),
    "S3N": ("S3N://bucket/%20", "s3://bucket/%20"),
    "abfss": ("abfss://c@a.dfs.core.windows.net/x#?sig=a%2Bb", "abfss://c@a.dfs.core.windows.net/x%23?sig=a%2Bb"),
}


@pytest.mark.parametrize(("uri", "expected"), UNOPENED.values(), ids=UNOPENED)
def test_what_needs_a_connection_reaches_pyarrow_as_it_reads_it(uri, expected, monkeypatch):
    asked = []

    def from_uri(uri):
        asked.append(uri)
        return fs.LocalFileSystem(), "/there/"

    assert arrow_uri(uri) == expected
    monkeypatch.setattr(filesystem.fs, "FileSystem", type("Asked", (), {"from_uri": staticmethod(from_uri)}))
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert resolve(uri, "storePath").path == "/there"
    assert asked == [expected + ("?region=us-east-1" if expected.startswith("s3:") else "")]


def test_databricks_paths_are_those_of_its_mounts(monkeypatch):
    for uri in ("dbfs:/models/a b", "dbfs:/Volumes/main/x"):
        assert local_path(uri) is None  # nothing is mounted here
    monkeypatch.setattr(os.path, "isdir", {"/dbfs", "/Volumes"}.__contains__)
    assert resolve("dbfs:/models/a b/", "storePath").path == "/dbfs/models/a b"
    assert resolve("dbfs:///models", "storePath").path == "/dbfs/models"
    assert resolve("dbfs:/Volumes/main/x", "storePath").path == "/Volumes/main/x"
    assert resolve("/Volumes/main/x", "storePath").path == "/Volumes/main/x"


REFUSED = ["ftp://host/x", "http://host/x", "wasb://c@a/x", "dbfs:/x", "file://host/x", "file:x", "file:", "s3:///x"]


@pytest.mark.parametrize("uri", REFUSED)
@pytest.mark.parametrize("parameter", ["checkpointDir", "storePath"])
def test_what_no_file_system_serves_is_refused(uri, parameter):
    with pytest.raises(ParameterError, match=r"^[^\n]*$") as refused:
        resolve(uri, parameter)
    assert str(refused.value).startswith(f"{parameter}={uri!r} cannot be used: ")
    assert "begins with file, s3, gs, hdfs or abfs (for dbfs:/x, the path /dbfs/x)" in str(refused.value)


SECRET = [
    "ftp://me:hidden@host/x",
    "s3://key:hidden@/x",
    "s3://key:a/hidden+b@bucket/x",  # a key with a slash, as S3 gives them, not quoted
    "s3://key:a?hidden@bucket/x",
    "s3a://key:not quoted, 'hidden'@bucket/x",
    "s3://bucket/x?nosuch=1&secret_key=hidden",
    "ftp://account.dfs.core.windows.net/x?sv=2024&sig=hidden%3D&se=2027",
    "ftp://host/x?sas=hidden",
    "hdfs://me:hidden@127.0.0.1:9/x",
]


@pytest.mark.parametrize("uri", SECRET)
def test_no_error_shows_a_secret(uri):
    with pytest.raises(ParameterError, match="cannot be used") as refused:
        resolve(uri, "checkpointDir")
    assert "hidden" not in "".join(traceback.format_exception(refused.value))


def test_masks_leave_the_rest():
    assert mask_uri("s3a://key:a/b@bucket/x?region=eu&token=c") == "s3a://key:***@bucket/x?region=eu&token=***"
    assert mask_uri("hdfs://name:8020/x") == "hdfs://name:8020/x"
    assert mask_uri("/rows of May/a@b:c@d") == "/rows of May/a@b:c@d"
    assert mask("from hdfs://name:8020/x by me@there") == "from hdfs://name:8020/x by me@there"
    assert mask("fs.azure.account.key=abc, AccountKey=abc;") == "fs.azure.account.key=***, AccountKey=***;"
    assert masked({"sasToken": "abc", "paths": ["s3://a:b@c"]}) == {"sasToken": "***", "paths": ["s3://a:***@c"]}


def test_later_errors_name_the_parameter_too():
    location = resolve("s3://key:hidden@bucket/x?region=eu-west-1", "storePath")
    error = location.child("y").unusable(OSError("put to s3://key:hidden@bucket/x\nfailed " + "x" * 400))
    assert str(error).startswith(
        "storePath='s3://key:***@bucket/x?region=eu-west-1' cannot be used: put to s3://key:***"
    )
    assert len(str(error)) < 400
    assert brief(pa.ArrowInvalid("a\n b")) == "a b"
    assert "hidden" not in repr(location)


CHILDREN = {
    "/models/": "/models/a/b",
    "models": "models/a/b",
    "/what?": "/what?/a/b",
    "file:///what?": "file:///what?/a/b",
    "s3://bucket": "s3://bucket/a/b",
    "s3://bucket/x/?region=eu&scheme=http": "s3://bucket/x/a/b?region=eu&scheme=http",
    "/": "/a/b",
}


@pytest.mark.parametrize(("uri", "expected"), CHILDREN.items())
def test_children(uri, expected):
    assert child_uri(uri, "a", "b") == expected
    if "bucket" not in uri:
        assert resolve(expected, "storePath") == resolve(uri, "storePath").child("a", "b")


def test_a_file_appears_whole(tmp_path):
    file = resolve(str(tmp_path), "storePath").child("a file")
    assert not file.exists()
    file.write(b"one")
    file.write(b"two")
    assert file.exists()
    assert file.read() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


class _Full:
    """A disk that is full after the first bytes."""

    type_name = "local"

    def __init__(self) -> None:
        self.real = fs.LocalFileSystem()

    def __getattr__(self, name):
        return getattr(self.real, name)

    def move(self, source, target):
        raise OSError("No space left on device")


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="No space left"):
        Location(_Full(), str(path)).write(b"after")
    assert path.read_bytes() == b"before"


def test_locations_travel_to_other_processes(tmp_path):
    location = resolve(str(tmp_path), "storePath")
    assert pickle.loads(pickle.dumps(location)) == location
