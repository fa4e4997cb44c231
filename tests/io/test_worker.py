"""When a task spares modules: tests/launch/test_python_daemon.py has what workers do."""

from __future__ import annotations

import gc
import sys
import types

from sparkopt.io import worker


def test_modules_are_spared_when_there_are_more_of_them(monkeypatch):
    frozen = []
    monkeypatch.setattr(worker._Spared, "modules", 0)
    monkeypatch.setattr(worker, "_in_a_task", lambda: True)
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(len(sys.modules)))
    worker.spare_modules()
    worker.spare_modules()
    assert frozen == [len(sys.modules)]
    monkeypatch.setitem(sys.modules, "loaded_by_a_task", types.ModuleType("loaded_by_a_task"))
    worker.spare_modules()
    assert frozen == [len(sys.modules) - 1, len(sys.modules)]
