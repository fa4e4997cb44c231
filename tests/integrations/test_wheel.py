"""The wheel that a model carries is the one that pip would build."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import sparkopt
from sparkopt.integrations.wheel import write_wheel

ROOT = Path(sparkopt.__file__).parents[1]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_holds_what_the_one_of_pip_holds(tmp_path, installs):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    (tmp_path / "pip").mkdir()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        target = tmp_path / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    subprocess.run([*build, tmp_path / "pip", tmp_path / "source"], check=True)
    (built,) = (tmp_path / "pip").glob("*.whl")
    ours, theirs = write_wheel(tmp_path), contents(built)
    assert ours.name == built.name
    package = {name: content for name, content in theirs.items() if name.startswith("sparkopt/")}
    found = contents(ours)
    assert {name: content for name, content in found.items() if name.startswith("sparkopt/")} == package
    assert {*theirs} - {*found} == {f"sparkopt-{sparkopt.__version__}.dist-info/top_level.txt"}


def test_its_record_has_the_hash_of_every_file(tmp_path):
    files = contents(write_wheel(tmp_path))
    (record,) = (name for name in files if name.endswith("/RECORD"))
    lines = [line.split(",") for line in files[record].decode().splitlines()]
    assert [name for name, *_ in lines] == list(files)
    for name, digest, size in lines[:-1]:
        hashed = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={hashed}", len(files[name]))


def test_what_a_build_leaves_in_a_checkout_changes_nothing(tmp_path, monkeypatch):
    expected = write_wheel(tmp_path).read_bytes()
    left = tmp_path / "checkout" / "sparkopt.egg-info"
    left.mkdir(parents=True)
    (left / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: sparkopt\nVersion: 0.0.9\n")
    monkeypatch.syspath_prepend(str(left.parent))
    assert metadata.version("sparkopt") == "0.0.9"
    assert write_wheel(tmp_path).read_bytes() == expected


def test_equal_packages_give_equal_bytes(tmp_path):
    first = write_wheel(tmp_path).read_bytes()
    assert write_wheel(tmp_path).read_bytes() == first
