"""Folders of blocks on an executor's disks: who reads them, and who deletes them after a kill."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sparkopt.blocks import local

MAKE = "from sparkopt.blocks.local import local_folder; import sys; print(local_folder('sparkopt-left', 0)); {}"


@pytest.fixture(params=["", "blockmgr-3f", "spark-1/executor-2/blockmgr-3"])
def root(request, tmp_path, monkeypatch):
    """An executor's directory, in local mode or below a standalone worker."""
    found = tmp_path / request.param
    found.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(found))
    return found


def test_only_the_owner_reads_a_folder(root):
    folder = local.local_folder("sparkopt-1", 0)
    assert folder.parent == root
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()] == [0o600]
    assert local.local_folder("sparkopt-1", 0) == folder


def test_the_next_store_deletes_what_a_killed_process_left(root):
    """The owner is the process above the one that writes, as a JVM is above Python's workers."""
    shell = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {MAKE.format('')!r}])",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    left = Path(shell.stdout.strip())
    assert left.is_dir()
    assert local.sweep_abandoned(local._base(root)) == 1
    assert not left.exists()


def test_a_running_process_keeps_its_folder(root):
    folder = local.local_folder("sparkopt-2", 0)  # its owner is the parent of this process
    assert local.sweep_abandoned(local._base(root)) == 0
    assert folder.is_dir()


@pytest.mark.parametrize(("age", "swept"), [(0, 0), (local.MOST_AGE + 60, 1)])
def test_of_another_container_only_old_folders_are_deleted(root, age, swept):
    folder = local.local_folder("sparkopt-3", 0)
    owner = folder / local.OWNER
    owner.write_text(json.dumps({**json.loads(owner.read_text()), "space": "elsewhere", "process": 1}))
    for entry in (owner, folder):
        os.utime(entry, (entry.stat().st_mtime - age,) * 2)
    assert local.sweep_abandoned(local._base(root)) == swept


@pytest.mark.parametrize(("is_used", "swept"), [(False, 1), (True, 0)])
def test_of_a_running_process_only_folders_are_deleted_that_nobody_uses(root, is_used, swept):
    """A server's executors outlive the clients whose fits they ran."""
    folder = local.local_folder("sparkopt-4", 0)
    file = folder / "part-00000.arrow"
    file.touch()
    for entry in (*folder.iterdir(), folder):
        os.utime(entry, (entry.stat().st_mtime - local.MOST_IDLE - 60,) * 2)
    if is_used:
        local.used(str(file))
    assert local.sweep_abandoned(local._base(root)) == swept
    assert folder.is_dir() == is_used


def test_what_is_not_ours_stays(root, tmp_path):
    (root / "sparkopt-of-somebody").mkdir()
    (root / "sparkopt-link").symlink_to(tmp_path)
    (root / f"{local.BEGUN}by-somebody").mkdir()
    names = {entry.name for entry in root.glob("sparkopt-*")}
    assert local.sweep_abandoned(local._base(root)) == 0
    assert {entry.name for entry in root.glob("sparkopt-*")} == names
    assert len(names) == 3


def killed_while(step: str) -> str:
    """A program whose owner makes a folder, and is killed before a step of that."""
    return f"""
import os, pathlib, signal
from sparkopt.blocks import local
from unittest import mock
def kill(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
with mock.patch.object(pathlib.Path, {step!r}, kill):
    local.local_folder("sparkopt-5", 0)
"""


@pytest.mark.parametrize("step", ["touch", "write_text", "rename"])
def test_a_folder_that_was_begun_is_deleted_too(root, step):
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {killed_while(step)!r}])"
    subprocess.run([sys.executable, "-c", program], check=True)
    (left,) = root.glob("sparkopt-*")
    assert left.name.startswith(local.BEGUN)
    assert local.sweep_abandoned(local._base(root)) == 1
    assert list(root.glob("sparkopt-*")) == []


def test_a_folder_that_is_being_made_stays(root, monkeypatch):
    kept = Path.rename

    def rename(path: Path, to: Path) -> Path:
        assert local.sweep_abandoned(local._base(root)) == 0
        return kept(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    assert local.local_folder("sparkopt-6", 0).is_dir()


def test_the_first_of_two_makers_is_the_owner(root, monkeypatch):
    kept = Path.rename

    def rename(path: Path, to: Path) -> Path:
        monkeypatch.setattr(Path, "rename", kept)
        first = local.local_folder("sparkopt-7", 0)
        (first / "part-00000.arrow").touch()
        return kept(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    folder = local.local_folder("sparkopt-7", 0)
    assert {entry.name for entry in folder.iterdir()} == {local.OWNER, "part-00000.arrow"}
    assert list(root.glob("sparkopt-*")) == [folder]
