"""Checkpoint files: what they hold, what is done about broken ones, and which run may go on from which."""

from __future__ import annotations

import json
import logging
import os
import pickle
import resource
import shutil
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from sparkopt import optim, penalties
from sparkopt.checkpoint.checkpointer import Checkpointer, CheckpointRun
from sparkopt.checkpoint.format import Stage, dump, load
from sparkopt.errors import CorruptCheckpointWarning, CorruptDataError, IncompatibleError, ParameterError
from sparkopt.io import filesystem
from sparkopt.io.filesystem import Location
from sparkopt.optim.base import Point
from sparkopt.solver.loop import minimise, minimise_many
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Record, Snapshot, Stop
from tests.io.test_saved import Elsewhere
from tests.problems import quadratic
from tests.tiers import needs

BOWL = quadratic("bowl", np.array([1.0, 0.4, 0.1]))


class Killed(Exception):
    pass


MINE = {"optimizer": "mine", "rows": [3, 0]}


def snapshot(step: int = 2, **parts) -> Snapshot:
    coef = np.array([0.1, -np.inf, np.nextafter(1.0, 2.0)])
    history = tuple(Record(i, 1.0 / (i + 1), 0.5, 1, 3, 0.1 * i, None if i % 2 else 0.25) for i in range(step + 1))
    state = {"count": 3, "pair": (np.arange(3.0), None), "list": [np.ones((2, 2)), "x", True], "ahead": {"t": 1.5}}
    return replace(Snapshot(Point(coef, 1.0, 1.0, coef * 2), state, (), False, history, (1, coef)), **parts)


@pytest.fixture
def _small_files():
    """Files of at most 4 KiB, as on a disk that is almost full."""
    limits, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, action)


@pytest.mark.usefixtures("_small_files")
def test_a_full_disk_costs_a_warning_and_leaves_nothing(tmp_path, caplog):
    run = Checkpointer(str(tmp_path)).run(MINE)
    for step in range(5):
        run.save(step, [snapshot(search=np.zeros(4096))])
    assert caplog.text.count("was not written") == 5
    assert {path.suffix for path in (tmp_path / run.name).iterdir()} == {".owner"}
    run.remove()
    assert not list(tmp_path.iterdir())


def test_the_first_of_two_applications_leaves_checkpoints_to_the_other(tmp_path, monkeypatch, caplog):
    one = Checkpointer(str(tmp_path)).run(MINE)
    one.save(10, [snapshot()])
    with monkeypatch.context() as context:
        context.setattr(os, "getpid", os.getppid)  # another process that runs
        two = Checkpointer(str(tmp_path)).run(MINE)
    assert f"process {os.getpid()} on {os.uname().nodename} trains the same model" in caplog.text
    two.remove()
    assert one.restore() is not None
    one.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("host", "age", "left"), [("here", 0, False), ("elsewhere", 60, True), ("elsewhere", 7200, False)]
)
def test_an_application_that_was_killed_keeps_nothing(tmp_path, host, age, left):
    """On this machine its process is gone; on another it is silent."""
    run = Checkpointer(str(tmp_path)).run(MINE)
    fact = {"host": os.uname().nodename if host == "here" else host, "process": 2**22 + 1, "started": "7"}
    (tmp_path / run.name / "other.owner").write_text(json.dumps({**fact, "time": time.time() - age}))
    run.remove()
    assert bool(list(tmp_path.iterdir())) == left


def test_a_fit_that_failed_before_in_this_process_is_no_other_application(tmp_path, caplog):
    Checkpointer(str(tmp_path)).run(MINE).save(10, [snapshot()])
    again = Checkpointer(str(tmp_path)).run(MINE)
    assert "trains the same model" not in caplog.text
    again.remove()
    assert not list(tmp_path.iterdir())


def test_everything_comes_back_as_it_was():
    before = snapshot()
    stage = Stage(2, 17, {"left": [0], "starts": [(np.ones(2), None)]})
    fingerprint, (after,), again, residuals = load(dump(MINE, [before], stage, ["part-0", "part-1"]))
    assert residuals == ["part-0", "part-1"]
    assert fingerprint == MINE
    assert repr(again) == repr(stage)
    assert repr(after) == repr(before)  # types, tuples and lists alike
    assert after.at.coef.tobytes() == before.at.coef.tobytes()
    assert after.history == before.history
    assert after.best[1] is after.at.coef  # stored once


@pytest.mark.parametrize("width", [np.float32, np.int64, np.bool_])
def test_arrays_keep_their_type(width):
    (after,) = load(dump({}, [snapshot(search=np.zeros((2, 0), width))]))[1]
    assert (after.search.dtype, after.search.shape) == (np.dtype(width), (2, 0))


def test_a_state_that_is_no_data_is_refused():
    for alien in (object(), np.array([object()])):
        with pytest.raises(TypeError, match="state holds a"):
            dump({}, [snapshot(search=alien)])


def test_nothing_in_a_file_is_pickled():
    content = dump(MINE, [snapshot()])
    body = content.split(b"\n", 2)[2]
    with np.load(__import__("io").BytesIO(body), allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


CONTENT = dump(MINE, [snapshot()])
BROKEN = {
    "truncated": CONTENT[:-100],
    "empty": b"",
    "altered": CONTENT[:-50] + bytes([CONTENT[-50] ^ 1]) + CONTENT[-49:],
    "altered checksum": CONTENT.replace(CONTENT.split(b"\n")[1][:8], b"00000000", 1),
    "another file": b"PK\x03\x04 something else",
    "longer": CONTENT + b"\0",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_files_are_found_out(content):
    with pytest.raises(CorruptDataError, match=r"truncated or altered|not of the format"):
        load(content)


def test_every_single_byte_counts():
    for at in range(0, len(CONTENT), 97):
        broken = CONTENT[:at] + bytes([CONTENT[at] ^ 0x10]) + CONTENT[at + 1 :]
        with pytest.raises(CorruptDataError):
            load(broken)


def run_in(folder: Path, fingerprint=MINE, **options) -> CheckpointRun:
    return Checkpointer(str(folder), **options).run(fingerprint)


def files(folder: Path) -> list[str]:
    """Names of files, but for the notes of who uses a folder."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".owner")


def test_the_last_checkpoints_stay(tmp_path):
    run = run_in(tmp_path)
    for step in (2, 4, 6):
        run.save(step, [snapshot(step)])
    assert files(tmp_path) == ["step-00000004.checkpoint", "step-00000006.checkpoint"]
    (found,) = run.restore()
    assert found.step == 6
    run.remove()
    run.remove()
    assert list(tmp_path.iterdir()) == []
    assert run.restore() is None


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_the_one_before_a_broken_one_is_used(tmp_path, content):
    run = run_in(tmp_path)
    for step in (2, 4):
        run.save(step, [snapshot(step)])
    (newest,) = tmp_path.rglob("step-00000004.checkpoint")
    newest.write_bytes(content)
    with pytest.warns(CorruptCheckpointWarning, match="step-00000004.checkpoint.*The one before it is used"):
        (found,) = run.restore()
    assert found.step == 2
    run.save(3, [snapshot(3)])  # the run goes on: what lies ahead of it is worthless
    assert files(tmp_path) == ["step-00000002.checkpoint", "step-00000003.checkpoint"]


def test_a_stage_goes_on_from_its_own_checkpoints_only(tmp_path):
    first = run_in(tmp_path)
    second = replace(first, stage=Stage(1, 5, {"left": [0]}))
    first.save(4, [snapshot(4)])
    assert second.restore() is None
    second.save(2, [snapshot(2)])
    assert files(tmp_path) == ["step-00000004.checkpoint", "step-00000007.checkpoint"]
    assert [found.step for found in second.restore()] == [2]
    assert first.restore() is None
    assert first.saved().stage == second.stage


def test_nothing_intact_begins_anew(tmp_path):
    run = run_in(tmp_path)
    run.save(2, [snapshot(2)])
    next(tmp_path.rglob("*.checkpoint")).write_bytes(b"")
    with pytest.warns(CorruptCheckpointWarning):
        assert run.restore() is None


class Dying:
    """A local file system whose process dies before the rename."""

    type_name = "local"

    def __init__(self) -> None:
        self.real = fs.LocalFileSystem()

    def __getattr__(self, name):
        return getattr(self.real, name)

    def move(self, source, destination):
        raise Killed

    def delete_file(self, path):
        raise OSError("a process that was killed deletes nothing")


def test_a_writer_that_died_leaves_nothing_that_counts(tmp_path, monkeypatch):
    run = run_in(tmp_path)
    run.save(2, [snapshot(2)])
    with monkeypatch.context() as patched:
        patched.setattr(filesystem, "resolve", lambda uri, parameter: Location(Dying(), uri))
        with pytest.raises(Killed):
            replace(run, checkpointer=replace(run.checkpointer)).save(4, [snapshot(4)])
    assert len(files(tmp_path)) == 2
    assert [found.step for found in run.restore()] == [2]
    run.remove()
    assert files(tmp_path) == []


def test_other_runs_are_left_alone_and_mentioned(tmp_path, caplog):
    theirs = run_in(tmp_path, {**MINE, "optimizer": "theirs"})
    theirs.save(2, [snapshot(2)])
    with caplog.at_level(logging.WARNING):
        mine = run_in(tmp_path)
    assert mine.restore() is None
    assert "unfinished run" in caplog.text
    assert "differs in optimizer" in caplog.text
    mine.save(1, [snapshot(1)])
    mine.remove()
    assert [found.step for found in theirs.restore()] == [2]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    mine, theirs = run_in(tmp_path), run_in(tmp_path, {**MINE, "rows": [4, 0]})
    theirs.save(2, [snapshot(2)])
    (path,) = tmp_path.rglob("*.checkpoint")
    path.rename(tmp_path / mine.name / path.name)
    with pytest.raises(IncompatibleError, match="is of another run: rows differ"):
        mine.restore()


def test_a_file_system_that_fails_later_costs_a_warning(tmp_path, caplog):
    run = run_in(tmp_path)
    shutil.rmtree(tmp_path / run.name)
    tmp_path.joinpath(run.name).write_text("a file where the folder was")
    run.save(2, [snapshot(2)])
    assert "was not written" in caplog.text


def test_a_folder_that_the_loop_does_not_see_is_refused(tmp_path):
    """The driver made it; where the loop runs, the same path is somewhere else."""
    run = run_in(tmp_path, interval=1)
    run.remove()
    with pytest.raises(ParameterError, match="another folder on the executors than on the driver"):
        solve_with(run, Problem(optim.gd(0.1), np.zeros(3), stop=Stop(2, tol=0)))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("dbfs:/models", "for dbfs:/x, the path /dbfs/x"),
        ("ftp://host/models", "begins with file, s3, gs, hdfs or abfs"),
        ("/proc/nowhere", "checkpointDir='/proc/nowhere' cannot be used"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(uri, message):
    with pytest.raises(ParameterError, match=message):
        Checkpointer(uri).run(MINE)


def test_object_stores_get_one_write(tmp_path, monkeypatch):
    """Where a rename would be a copy, the file is written in one piece under its own name."""
    store = fs.PyFileSystem(Elsewhere(str(tmp_path), "store"))
    monkeypatch.setattr(filesystem, "resolve", lambda uri, parameter: Location(store, "bucket"))
    run = run_in(Path("s3://bucket"))
    run.save(2, [snapshot(2)])
    assert files(tmp_path) == ["step-00000002.checkpoint"]
    assert [found.step for found in run.restore()] == [2]


NOWHERE = {
    "s3": "s3://key:secret@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1",
    "gs": "gs://anonymous@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&retry_limit_seconds=1",
    "hdfs": "hdfs://127.0.0.1:9/x",
    "abfs": "abfss://container:secret@127.0.0.1:9/x",
}


WAITS = {"s3": [needs("minutes")]}
"""Its library tries for six seconds."""


@pytest.mark.parametrize(
    "uri", [pytest.param(uri, id=kind, marks=WAITS.get(kind, [])) for kind, uri in NOWHERE.items()]
)
def test_stores_that_cannot_be_reached_are_told_in_one_line(uri):
    with pytest.raises(ParameterError, match=r"^checkpointDir='.* cannot be used: [^\n]+$") as told:
        Checkpointer(uri).run(MINE)
    assert "secret" not in str(told.value)
    assert told.value.__cause__ is None  # pyarrow's own message repeats the URI


@pytest.fixture
def remote(monkeypatch):
    """A file system in memory that knows no rename at once, through fsspec as object stores come."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    store = fs.PyFileSystem(fs.FSSpecHandler(memory))
    monkeypatch.setattr(filesystem, "resolve", lambda uri, parameter: Location(store, "bucket"))
    yield memory
    memory.store.clear()


def test_an_object_store_keeps_what_a_disk_keeps(remote):
    run = run_in(Path("s3://bucket"))
    for step in (2, 4, 6):
        run.save(step, [snapshot(step)])
    kept = sorted(path for path in remote.find("bucket") if not path.endswith(".owner"))
    assert [Path(path).name for path in kept] == ["step-00000004.checkpoint", "step-00000006.checkpoint"]
    remote.pipe(kept[-1], remote.cat(kept[-1])[:-7])  # a write that was cut off, on a store that shows such things
    with pytest.warns(CorruptCheckpointWarning, match="step-00000006.checkpoint: it was truncated or altered"):
        assert [found.step for found in run.restore()] == [4]
    run.remove()
    assert remote.find("bucket") == []


def solve_with(run: CheckpointRun, problem: Problem, models: int = 1):
    restored = run.restore()
    watchers = run.callbacks(models, restored)
    problems = [
        replace(problem, initial=restored[i] if restored else problem.initial, callbacks=[watchers[i]])
        for i in range(models)
    ]
    return minimise_many(BOWL.reduce, problems)


def test_the_callback_writes_every_interval(tmp_path):
    run = run_in(tmp_path, interval=3, keep=9)
    solve_with(run, Problem(optim.gd(0.1), np.zeros(3), stop=Stop(10, tol=0)))
    assert files(tmp_path) == [f"step-{step:08d}.checkpoint" for step in (3, 6, 9)]


def test_many_models_share_one_file_also_where_some_have_ended(tmp_path):
    problems = [
        Problem(optim.gd(0.1), np.zeros(3), stop=Stop(steps, tol=0), penalty=penalties.L2(0.1 * steps))
        for steps in (4, 7, 20)
    ]
    undisturbed = minimise_many(BOWL.reduce, problems)
    run = run_in(tmp_path, interval=5)

    def kill(query):
        if query.step == 12:
            raise Killed
        return BOWL.reduce(query)

    def attempt(reduce):
        restored = run.restore()
        watchers = run.callbacks(3, restored)
        return restored, minimise_many(
            reduce,
            [
                replace(problem, initial=restored[i] if restored else problem.initial, callbacks=[watchers[i]])
                for i, problem in enumerate(problems)
            ],
        )

    with pytest.raises(Killed):
        attempt(kill)
    restored, again = attempt(BOWL.reduce)
    assert [found.step for found in restored] == [4, 7, 10]
    assert [found.coef.tobytes() for found in again] == [found.coef.tobytes() for found in undisturbed]


def test_watchers_can_be_sent_to_another_process(tmp_path):
    run = run_in(tmp_path, interval=1)
    one, two = pickle.loads(pickle.dumps(run.callbacks(2)))
    assert one.in_loop_process
    problem = Problem(optim.gd(0.1), np.zeros(3), stop=Stop(2, tol=0))
    minimise_many(BOWL.reduce, [replace(problem, callbacks=[one]), replace(problem, callbacks=[two])])
    assert [found.step for found in run.restore()] == [2, 2]


def test_intact_files_raise_no_warning(tmp_path):
    run = run_in(tmp_path)
    run.save(2, [snapshot(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.restore()


def test_a_run_goes_on_after_a_kill(tmp_path):
    problem = Problem(optim.adam(), np.zeros(3), stop=Stop(25, tol=0))
    run = run_in(tmp_path, interval=4)
    calls = iter(range(100))

    def kill(query):
        if next(calls) == 18:
            raise Killed
        return BOWL.reduce(query)

    with pytest.raises(Killed):
        minimise(kill, replace(problem, callbacks=run.callbacks(1)))
    assert run.restore()[0].step == 16
    (again,) = solve_with(run, problem)
    assert again.coef.tobytes() == minimise(BOWL.reduce, problem).coef.tobytes()


def test_its_text_shows_no_secret():
    shown = repr(Checkpointer("s3a://key:se/cret@bucket/runs?token=xyz", 5))
    assert shown == "Checkpointer('s3a://key:***@bucket/runs?token=***', interval=5, keep=2)"
