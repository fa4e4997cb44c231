"""Worker processes: where functions run, what comes back, and what happens when one of them fails."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparkopt.errors import DataError, LostProcessError, ParameterError
from sparkopt.machine import ProcessPool, SharedValue, available_cores


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    with ProcessPool(2) as found:
        yield found


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it holds at last."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def is_running(pid: int) -> bool:
    """Whether a process is there, and not only its entry in the table of processes."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class TestResults:
    @pytest.mark.parametrize("processes", [0, 1, 2])
    def test_come_in_the_order_of_the_items(self, processes):
        with ProcessPool(processes) as pool:
            assert pool.run(lambda number: number**2, range(50)) == [number**2 for number in range(50)]

    def test_of_no_items(self, pool):
        assert pool.run(abs, []) == []

    def test_are_computed_by_so_many_other_processes(self, pool):
        with temporary_folder() as folder:
            found = set(pool.run(meet, [folder, folder]))
        assert len(found) == 2
        assert os.getpid() not in found
        assert found == set(pool.pids)

    def test_stay_in_this_process_without_workers(self):
        with ProcessPool(0) as pool:
            assert pool.run(lambda _: os.getpid(), [1, 2]) == [os.getpid()] * 2
            assert pool.pids == []

    @pytest.mark.parametrize("shape", [(), (0,), (3, 4), (1 << 20,)], ids=str)
    def test_may_be_arrays_which_can_be_written_to(self, pool, shape):
        sent = np.random.default_rng(0).normal(size=shape)
        (received,) = pool.run(lambda array: array + 1, [sent])
        np.testing.assert_array_equal(received, sent + 1)
        received += 1

    def test_may_be_objects_of_classes_that_are_defined_here(self, pool):
        class Point:
            def __init__(self, x: int) -> None:
                self.x = x

        (moved,) = pool.run(lambda point: Point(point.x + 1), [Point(1)])
        assert isinstance(moved, Point)
        assert moved.x == 2


class TestWorkers:
    def test_items_return_to_the_worker_that_had_them(self, pool):
        """Whatever position they have; both are at work, so neither takes an item of the other's."""
        with temporary_folder() as folder:
            one, two = pool.run(meet, [f"{folder}/0"] * 2, on=["one", "two"])
            for number in range(1, 6):
                assert pool.run(meet, [f"{folder}/{number}"] * 2, on=["two", "one"]) == [two, one]

    def test_have_one_thread_each_for_arithmetic(self, pool):
        def threads(_: object) -> list[int]:
            import numpy  # noqa: F401  # with its BLAS
            import pyarrow as pa
            from threadpoolctl import threadpool_info

            return [pa.cpu_count(), *(library["num_threads"] for library in threadpool_info())]

        found = pool.run(threads, [0])[0]
        assert len(found) > 1
        assert set(found) == {1}

    def test_inherit_no_threads_and_no_open_files(self, pool, tmp_path):
        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
        with open(tmp_path / "open", "w") as file, ProcessPool(1) as fresh:
            os.set_inheritable(file.fileno(), True)
            (found,) = fresh.run(_threads_and_files, [None])
        assert found == (1, [])

    def test_find_modules_folder_and_environment_as_they_are_now(self, pool, tmp_path, monkeypatch):
        pool.run(abs, [1, 2])  # they run already
        (tmp_path / "of_the_user.py").write_text("ANSWER = 42")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("A_KEY", "set")

        def look(_: object) -> tuple[int, str, str | None]:
            import of_the_user

            return of_the_user.ANSWER, os.getcwd(), os.environ.get("A_KEY")

        assert pool.run(look, [0]) == [(42, str(tmp_path), "set")]
        monkeypatch.delenv("A_KEY")
        assert pool.run(look, [0]) == [(42, str(tmp_path), None)]

    def test_are_told_something_each(self, tmp_path):
        def note(_: object) -> None:
            (tmp_path / str(os.getpid())).touch()

        with ProcessPool(3) as pool:
            pool.tell(note)  # nobody is there
            pids = {*pool.run(meet, [f"{tmp_path}/meet"] * 2)}
            pool.tell(note)
            assert eventually(lambda: pids == {int(name) for name in os.listdir(tmp_path) if name.isdigit()})

    def test_end_when_they_were_idle_for_long_and_begin_again(self):
        with ProcessPool(1, idle_seconds=0.05) as pool:
            (first,) = pool.run(_pid, [0])
            assert eventually(lambda: not is_running(first))
            assert pool.pids == []
            (second,) = pool.run(_pid, [0])
            assert second != first

    def test_end_with_the_pool(self):
        with ProcessPool(2) as pool:
            pool.start()
            assert eventually(lambda: len(pool.pids) == 2)
            pids = pool.pids
        assert not any(map(is_running, pids))
        assert pool.run(abs, [-1]) == [1]  # it can be used again
        pool.close()

    def test_end_with_a_pool_that_nobody_closes(self):
        pool = ProcessPool(1)
        (pid,) = pool.run(_pid, [0])
        del pool
        assert eventually(lambda: not is_running(pid))

    def test_are_shared_by_those_who_come_one_after_another(self, monkeypatch):
        with ProcessPool.shared() as first:
            pass
        with ProcessPool.shared() as second:
            assert second is first
            assert second.processes == (available_cores() if available_cores() > 1 else 0)

    def test_have_no_workers_of_their_own(self, pool):
        def nested(_: object) -> tuple[list[int], int]:
            with ProcessPool.shared() as inner:
                return inner.run(abs, [-1]), inner.processes

        assert pool.run(nested, [0]) == [([1], 0)]

    def test_serve_several_threads_at_the_same_time(self, pool):
        found: dict[int, list[int]] = {}

        def use(number: int) -> None:
            for _ in range(20):
                found[number] = pool.run(lambda item: item * number, range(10))

        threads = [threading.Thread(target=use, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {number: [item * number for item in range(10)] for number in range(12)}

    def test_number_must_be_whole(self):
        with pytest.raises(ParameterError, match=r"processes must be .* Got -1"):
            ProcessPool(-1)


class TestErrors:
    def test_of_sparkopt_come_as_themselves(self, pool):
        def refuse(item: int) -> int:
            raise DataError(f"row {item} is bad")

        with pytest.raises(DataError, match=r"^row 7 is bad$") as raised:
            pool.run(refuse, [7])
        assert raised.value.__cause__ is None

    def test_of_others_have_the_workers_trace_as_their_cause(self, pool):
        def divide(item: int) -> float:
            return 1 / item

        with pytest.raises(ZeroDivisionError) as raised:
            pool.run(divide, [1, 0])
        assert "in divide" in str(raised.value.__cause__)

    def test_that_cannot_be_pickled_are_described(self, pool):
        class OddError(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__(f"{one} is not {two}")

        def fail(_: object) -> None:
            raise OddError(1, 2)

        with pytest.raises(RuntimeError, match="OddError: 1 is not 2"):
            pool.run(fail, [0])

    def test_exit_of_a_function_ends_nothing(self, pool):
        with pytest.raises(SystemExit):
            pool.run(lambda _: sys.exit(3), [0])
        assert pool.run(abs, [-1]) == [1]

    def test_results_and_items_that_cannot_be_sent_are_refused(self, pool):
        with pytest.raises(TypeError, match="lock"):
            pool.run(abs, [threading.Lock()])
        with pytest.raises(TypeError, match="lock"):
            pool.run(lambda _: threading.Lock(), [0])
        assert pool.run(abs, [-1]) == [1]

    def test_stop_what_has_not_begun(self, tmp_path):
        def first_fails(item: int) -> None:
            (tmp_path / str(item)).touch()
            if item == 0:
                raise ValueError("the first")

        with ProcessPool(1) as pool, pytest.raises(ValueError, match="the first"):
            pool.run(first_fails, range(100))
        assert os.listdir(tmp_path) == ["0"]


class TestReports:
    def test_logs_reach_this_process(self, pool, caplog):
        def speak(item: int) -> None:
            logging.getLogger("of.the.user").info("item %d", item)
            logging.getLogger("of.the.user").debug("not at this level")
            try:
                raise ValueError("why")
            except ValueError:
                logging.getLogger("of.the.user").exception("failed")

        with caplog.at_level(logging.INFO, "of.the.user"):
            pool.run(speak, [5])
        assert [record.getMessage() for record in caplog.records] == ["item 5", "failed"]
        assert "ValueError: why" in caplog.text
        assert caplog.records[0].process in pool.pids

    def test_warnings_reach_this_process(self, pool):
        with pytest.warns(DeprecationWarning, match="from a worker"):
            pool.run(lambda _: warnings.warn("from a worker", DeprecationWarning, stacklevel=1), [0])

    def test_prints_do_no_harm(self, pool, capfd):
        assert pool.run(lambda item: print("hello") or item, [1]) == [1]  # type: ignore[func-returns-value]


class TestSharedValues:
    @pytest.mark.parametrize("size", [0, 10, 1 << 20])
    def test_are_sent_once(self, pool, size):
        content = os.urandom(size)
        shared = SharedValue.of(content)
        try:
            assert pool.run(lambda _: bytes(shared.value), range(4)) == [content] * 4
            assert bytes(shared.value) == content
            import pickle

            assert len(pickle.dumps(shared)) < 1000 + (1 << 16)
        finally:
            shared.destroy()
            shared.destroy()
        if shared.path:
            assert not Path(shared.path).exists()

    def test_are_for_this_user_only(self):
        shared = SharedValue.of(bytes(1 << 20))
        assert Path(shared.path).parent.stat().st_mode & 0o777 == 0o700
        shared.destroy()


SCRIPT = """
    import os, sys
    from sparkopt.machine import ProcessPool, SharedValue

    class Item:
        def __init__(self, x): self.x = x

    def double(item):
        return Item(2 * item.x)
"""


def script(body: str, **popen: Any) -> subprocess.Popen[str]:
    """Start a user's script."""
    code = textwrap.dedent(SCRIPT) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen
    )


class TestScripts:
    def test_functions_and_classes_of_main_arrive_without_running_it_again(self):
        process = script(
            """
            print("begins")
            with ProcessPool.shared() as pool:
                found = pool.run(double, [Item(1), Item(2)])
                print([type(item) is Item and item.x for item in found], flush=True)
            """,
            env={**os.environ, "SPARKOPT_PROCESSES": "2"},
        )
        out, err = process.communicate()
        assert (out.split("\n"), err) == (["begins", "[2, 4]", ""], "")

    def test_a_forked_process_has_workers_of_its_own(self):
        process = script(
            """
            import multiprocessing
            pool = ProcessPool(1)
            before = pool.run(lambda _: os.getpid(), [0])

            def child(queue):
                queue.put(pool.run(lambda _: os.getpid(), [0]))

            context = multiprocessing.get_context("fork")
            queue = context.Queue()
            forked = context.Process(target=child, args=(queue,))
            forked.start()
            in_child = queue.get()
            forked.join()
            if os.fork() == 0:
                sys.exit(0)  # with all that is done at exit
            os.wait()
            print(in_child != before, pool.run(lambda _: os.getpid(), [0]) == before)
            """
        )
        out, err = process.communicate()
        assert (out, err) == ("True True\n", "")

    def test_its_end_leaves_no_process_and_no_file(self, tmp_path):
        process = script(
            """
            pool = ProcessPool(2)
            value = SharedValue.of(bytes(1 << 20))
            print(*pool.run(lambda _: (len(value.value), os.getpid())[1], range(2)))
            """,
            env={**os.environ, "SPARK_LOCAL_DIRS": str(tmp_path)},
        )
        out, err = process.communicate()
        assert not err
        assert eventually(lambda: not any(is_running(int(pid)) for pid in out.split()))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("kills")
class TestKilled:
    def test_a_worker_loses_nothing(self, tmp_path, caplog):
        def die_once(item: int) -> int:
            marker = tmp_path / str(item)
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return item

        with ProcessPool(2) as pool:
            assert pool.run(die_once, range(8)) == list(range(8))
        assert "SIGKILL" in caplog.text

    @pytest.mark.parametrize(
        ("end", "how"),
        [
            (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL, .*memory"),
            (lambda: ctypes.string_at(0), "killed by SIGSEGV"),
            (lambda: os._exit(3), "exited with code 3"),
        ],
    )
    def test_an_item_that_ends_its_workers_is_named(self, end, how):
        def work(item: str) -> str:
            if item == "bad":
                end()
            return item

        with ProcessPool(2) as pool:
            with pytest.raises(LostProcessError, match=rf"item 1 \('bad'\) of .*work ended 4 times.*{how}"):
                pool.run(work, ["good", "bad"])
            assert pool.run(abs, [-1, -2]) == [1, 2]

    def test_an_idle_worker_is_replaced(self):
        with ProcessPool(1) as pool:
            (first,) = pool.run(_pid, [0])
            os.kill(first, signal.SIGKILL)
            (second,) = pool.run(_pid, [0])
            assert second != first

    @pytest.mark.parametrize("signals", [signal.SIGKILL, signal.SIGTERM])
    @pytest.mark.parametrize("busy", [True, False])
    def test_the_parent_takes_its_workers_with_it(self, tmp_path, signals, busy):
        process = script(
            f"""
            import time
            pool = ProcessPool(2)
            value = SharedValue.of(bytes(1 << 20))
            print(*pool.run(lambda _: (time.sleep(0.1), os.getpid())[1], range(2)), flush=True)
            if {busy}:
                def spin(_):
                    while True: pass
                pool.run(spin, range(2))
            time.sleep(100)
            """,
            env={**os.environ, "SPARK_LOCAL_DIRS": str(tmp_path)},
        )
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert all(map(is_running, pids))
        process.send_signal(signals)
        process.communicate()
        assert eventually(lambda: not any(map(is_running, pids)))
        assert len(list(tmp_path.iterdir())) == 1  # nobody could delete it
        script("SharedValue.of(bytes(1 << 20))", env={**os.environ, "SPARK_LOCAL_DIRS": str(tmp_path)}).communicate()
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupt_stops_what_runs_quietly(self):
        process = script(
            """
            import time, signal
            pool = ProcessPool(2)
            pids = pool.run(lambda _: (time.sleep(0.1), os.getpid())[1], range(2))
            print("ready", flush=True)
            try:
                pool.run(lambda _: time.sleep(1000), range(2))
            except KeyboardInterrupt:
                print(pool.run(abs, [-1]), flush=True)
            """,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate()
        assert (out, err) == ("[1]\n", "")


def meet(folder: str) -> int:
    """Wait until there are two of us: so two run at the same time."""
    os.makedirs(folder, exist_ok=True)
    (Path(folder) / str(os.getpid())).touch()
    while len(os.listdir(folder)) < 2:
        time.sleep(0.001)
    return os.getpid()


def _pid(_: object) -> int:
    return os.getpid()


def _threads_and_files(_: object) -> tuple[int, list[str]]:
    """Count this process's threads, and list the files that it has opened, but for its standard ones."""
    files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd") if int(name) > 2]
    opened = [os.readlink(name) for name in files if os.path.exists(name)]
    return len(os.listdir("/proc/self/task")), [name for name in opened if os.path.isfile(name)]


@contextlib.contextmanager
def temporary_folder() -> Iterator[str]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield folder
