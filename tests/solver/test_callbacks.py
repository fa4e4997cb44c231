"""The progress bar is shown where standard error is a terminal, or as the environment variable says."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from sparkopt.errors import ParameterError
from sparkopt.solver.callbacks import PROGRESS, ProgressBar
from sparkopt.solver.progress import Progress, Record

SHOW = """
from sparkopt.solver.callbacks import ProgressBar
from sparkopt.solver.progress import Progress, Record
bar = ProgressBar("fit", delay=0.0)
bar(Progress(Record(1, 0.5, 0.1, 1, 10, 0.0), None, 4))
bar.close()
"""


def shown(terminal: bool, chosen: str | None) -> bool:
    """Whether a process with its standard error on a terminal, or on a pipe, draws the bar."""
    environment = {key: value for key, value in os.environ.items() if key != PROGRESS}
    reader, writer = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(writer, (24, 80))  # a new one has no columns to draw in
    try:
        command = [sys.executable, "-c", SHOW]
        subprocess.run(command, stderr=writer, check=True, env=environment | ({PROGRESS: chosen} if chosen else {}))
        os.write(writer, b"end")
        return b"objective 0.5" in os.read(reader, 1 << 16)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    ("terminal", "chosen", "expected"),
    [(True, None, True), (False, None, False), (False, "1", True), (True, "0", False)],
)
def test_the_bar_is_drawn_on_terminals_or_where_it_is_asked_for(terminal, chosen, expected):
    assert shown(terminal, chosen) == expected


def test_another_choice_is_refused(monkeypatch):
    monkeypatch.setenv(PROGRESS, "yes")
    with pytest.raises(ParameterError, match=f"{PROGRESS} must be"):
        ProgressBar()(Progress(Record(1, 0.5, 0.1, 1, 10, 0.0), None, 4))


@pytest.mark.parametrize("widgets", [True, False])
def test_in_a_notebook_a_bar_is_a_widget_or_text_on_standard_output(widgets, monkeypatch, capsys):
    """Standard error would be red."""
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    drawn = []
    widget = SimpleNamespace(tqdm=lambda **options: drawn.append(options) or tqdm(**options, file=io.StringIO()))
    monkeypatch.setitem(sys.modules, "tqdm.notebook", widget)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if widgets else None)
    monkeypatch.delenv(PROGRESS, raising=False)
    bar = ProgressBar("fit", delay=0.0)
    bar(Progress(Record(1, 0.5, 0.1, 1, 10, 0.0), None, 4))
    bar.close()
    shown = capsys.readouterr()
    assert not shown.err
    assert bool(drawn) is widgets
    assert ("objective 0.5" in shown.out) is not widgets


def test_where_no_bar_is_seen_a_long_fit_says_how_far_it_is(monkeypatch, caplog):
    monkeypatch.setenv(PROGRESS, "0")
    bar = ProgressBar("newton", interval=30.0)
    with caplog.at_level("INFO", "sparkopt.progress"):
        for step, seconds in ((20, 1.0), (40, 29.0), (60, 80.0), (61, 81.0), (100, 7300.0)):
            bar(
                Progress(
                    Record(step, 1 / step, 0.1, 1, 10, 0.0, 0.5 if step == 100 else None), None, 1100, 0, seconds
                )
            )
    bar.close()
    assert [record.getMessage() for record in caplog.records] == [
        # 41 steps of this run, whose first was the 20th, took 80 s; 1,040 are left
        f"newton: step 60 of at most 1,100, objective {1 / 60:.6g}; 80 s so far, "
        f"at most {80 / 41 * 1040 / 60:.0f} min left",
        "newton: step 100 of at most 1,100, objective 0.01, validation loss 0.5; 2.0 h so far, "
        f"at most {7300 / 81 * 1000 / 3600:.1f} h left",
    ]
    with caplog.at_level("INFO", "sparkopt.progress"):  # the same bar in the next fit, whose clock begins again
        bar(Progress(Record(1, 1.0, 0.1, 1, 10, 0.0), None, 100, 0, 40.0))
    bar.close()
    assert caplog.records[-1].getMessage().startswith("newton: step 1 of at most 100, objective 1; 40 s so far")
    assert caplog.records[0].fields == {"step": 60, "objective": 1 / 60, "seconds": 80.0}
