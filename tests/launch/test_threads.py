"""Threads of numerical libraries inside a task."""

from __future__ import annotations

from threadpoolctl import threadpool_info

from sparkopt.launch.threads import task_threads


def limits() -> set[int]:
    return {library["num_threads"] for library in threadpool_info()}


def test_two_fits_of_one_process_leave_the_libraries_as_they_were():
    """The one that ends first began first, as with fits in threads."""
    before = limits()
    first, second = task_threads(), task_threads()
    first.__enter__()
    assert limits() == {1}
    second.__enter__()
    first.__exit__(None, None, None)
    assert limits() == {1}
    second.__exit__(None, None, None)
    assert limits() == before
