"""``launcher="ray"`` without Ray: one line, whatever Python finds by its name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from sparkopt.errors import MissingDependencyError
from sparkopt.launch import RayLauncher
from tests.launch import ranks


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "ray").exists()])
    importlib.invalidate_caches()


def test_ray_that_is_not_installed(no_ray: None):
    with pytest.raises(MissingDependencyError, match=r"^launcher='ray' needs Ray, which is not installed\. [^\n]+$"):
        RayLauncher(2).run(ranks.collectives, 1.0)


@pytest.mark.parametrize("file", [None, "__init__.py"], ids=["a folder", "a package"])
def test_something_else_that_is_named_ray(no_ray: None, tmp_path: Path, monkeypatch, file: str | None):
    (tmp_path / "ray").mkdir()
    if file is not None:
        (tmp_path / "ray" / file).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with pytest.raises(
            MissingDependencyError, match=rf"^launcher='ray' needs Ray, and {tmp_path}/ray[^\n]+rename"
        ):
            RayLauncher(2).run(ranks.collectives, 1.0)
    finally:
        sys.modules.pop("ray", None)
