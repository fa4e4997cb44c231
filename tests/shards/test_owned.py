"""Folders on shared storage: those of processes that are gone are swept by the next one, and no others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sparkopt.io.filesystem import resolve
from sparkopt.shards import owned
from sparkopt.shards.owned import OWNER, Owner, owned_folder, sweep

ROOT = Path(__file__).parents[2]
HOURS = 3600
OTHER = "rows-" + "0123456789abcdef" * 2
OTHERS = {
    "another machine's, old": (dict(machine="another"), 7, True),
    "another machine's, renewed": (dict(machine="another"), 5, False),
    "this machine's, gone": (dict(process=2**22 + 1, started="5"), 0, True),
    "this machine's, its number is another's now": (dict(started="5"), 0, True),
    "this process's": ({}, 0, False),
    "this process's, suspended for a night": ({}, 12, False),
    "another user's": (dict(user="somebody else", machine="another"), 100, False),
    "of a system that does not tell": (dict(machine="", started=""), 5, False),
}


def folder_of(parent, name, owner, hours):
    folder = parent / name
    folder.mkdir()
    (folder / "training.arrow").write_bytes(b"rows")
    if owner is not None:
        (folder / OWNER).write_text(json.dumps(asdict(owner)))
    old = time.time() - hours * HOURS
    for file in folder.iterdir():
        os.utime(file, (old, old))
    return folder


@pytest.mark.parametrize(("facts", "hours", "is_swept"), OTHERS.values(), ids=OTHERS)
def test_whose_folder_is_swept(tmp_path, facts, hours, is_swept):
    other = folder_of(tmp_path, OTHER, replace(Owner.here(), **facts), hours)
    with owned_folder(str(tmp_path), "rows") as own:
        assert Path(own).is_dir()
        assert other.exists() != is_swept
    assert not Path(own).exists()


@pytest.mark.parametrize(("hours", "is_swept"), [(7, True), (1, False)])
def test_a_folder_that_was_being_deleted_is_swept_by_its_age(tmp_path, hours, is_swept):
    other = folder_of(tmp_path, OTHER, None, hours)
    with owned_folder(str(tmp_path), "rows"):
        assert other.exists() != is_swept


def test_other_names_stay(tmp_path):
    gone = replace(Owner.here(), process=1, started="5")
    kept = [folder_of(tmp_path, name, gone, 100) for name in ("kept", "my-rows", f"{OTHER}0")]
    kept += [folder_of(tmp_path, name, None, 100) for name in ("rows-2026-11-29", OTHER.replace("rows", "columns"))]
    (tmp_path / OTHER).write_text("no folder")
    with owned_folder(str(tmp_path), "rows"):
        assert all(folder.exists() for folder in kept)
    assert (tmp_path / OTHER).exists()


def test_an_owner_renews_its_file_until_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(owned, "RENEWED_AFTER", 0.01)
    with owned_folder(str(tmp_path), "rows") as uri:
        file = Path(uri, OWNER)
        for _ in range(2):
            file.unlink()
            while not file.exists():
                time.sleep(0.01)
    time.sleep(0.05)
    assert not Path(uri).exists()


HOLD = """
import os, signal, sys
from sparkopt.shards.owned import owned_folder

with owned_folder(sys.argv[1], "rows") as folder:
    print(folder, flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_living_process_keeps_its_folder_and_a_killed_one_does_not(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=-1, stdout=-1, text=True, env=environment
    ) as other:
        folder = Path(other.stdout.readline().strip())
        with owned_folder(str(tmp_path), "rows"):
            assert folder.exists()
        other.communicate("")
        assert other.returncode == -signal.SIGKILL
    assert folder.exists()
    with owned_folder(str(tmp_path), "rows"):
        assert not folder.exists()


def test_what_cannot_be_searched_is_left(tmp_path):
    assert sweep(resolve(str(tmp_path / "absent"), "storePath"), "rows-1") == 0
