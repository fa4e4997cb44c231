"""The public surface: each name can be imported and is documented, and so is every type that its signature names."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import yaml

from tests.conftest import ROOT
from tests.docs import surface


@pytest.mark.parametrize("package", surface.PACKAGES)
def test_public_names_are_documented_and_so_are_the_types_they_name(package):
    """`python -m tests.docs.surface` lists what is missing, of all packages."""
    missing = list(dict.fromkeys(surface.faults(package)))
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("package", surface.PACKAGES)
def test_public_names_can_be_imported(package):
    names = surface.public(package)
    assert len(set(names)) == len(names)
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(names)
    for name in names:
        where = surface.origin(package, name)  # as editors see it; a lazy table must not say otherwise
        assert where, f"{package}.{name}"
        home = importlib.import_module(where.module)
        assert getattr(module, name) is (getattr(home, where.name) if where.name else home), f"{package}.{name}"


def test_every_package_is_on_the_list():
    folders = {f"sparkopt.{path.parent.name}" for path in surface.ROOT.glob("*/__init__.py")}
    files = {f"sparkopt.{path.stem}".removesuffix(".__init__") for path in surface.ROOT.glob("*.py")}
    assert folders | files == {*surface.PACKAGES, "sparkopt.__main__", "sparkopt.values"}  # the last: not for users


def test_every_page_is_in_the_navigation_of_the_site():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    paths = list(leaves(site["nav"]))
    assert len(set(paths)) == len(paths)
    pages = {f"docs/{path.relative_to(ROOT / 'docs').as_posix()}" for path in (ROOT / "docs").rglob("*.md")}
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path for path in paths if path.startswith("docs/")} == pages
    assert {path for path in paths if path.startswith("notebooks/")} == notebooks
    assert [path for path in paths if path.startswith("api/")] == [f"api/{name}.md" for name in surface.PACKAGES]


def leaves(nav) -> Iterator[str]:
    """Pages of a part of the navigation, in its order."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from leaves(part)


def test_missing_names_are_noticed(monkeypatch, tmp_path):
    """A small package with a lazy name that editors cannot see, a missing docstring, a type that is not exported."""
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "__init__.py").write_text(
        """
from typing import TYPE_CHECKING
from sparkopt.fit.shapes import Shape, area
if TYPE_CHECKING:
    from sparkopt.fit.shapes import side
_LAZY = {"side": "shapes", "hidden": "shapes"}
__all__ = ["Shape", "area", *_LAZY]
"""
    )
    (tmp_path / "fit" / "shapes.py").write_text(
        """
class Metres: "A length."
class Form:
    "A contract."
    def grow(self) -> None: "Documented once."
class Shape(Form):
    "A shape."
    width: "Metres | None" = None
    def grow(self): ...
    def turn(self): ...
def area(shape: Shape) -> float: ...
def side(shape: Shape) -> float: "Side of a square."
"""
    )
    for cached in (surface.source, surface.tree, surface.bindings):
        cached.cache_clear()
    monkeypatch.setattr(surface, "ROOT", tmp_path)
    monkeypatch.setattr(surface, "PACKAGES", ("sparkopt.fit",))
    found = list(surface.faults("sparkopt.fit"))
    for cached in (surface.source, surface.tree, surface.bindings):
        cached.cache_clear()
    assert found == [
        "sparkopt.fit has no docstring",
        "sparkopt.fit.shapes.Shape.turn has no docstring",
        "Shape.width names sparkopt.fit.shapes.Metres, which no __init__ exports",
        "sparkopt.fit.area has no docstring",
        "sparkopt.fit.hidden is not imported under TYPE_CHECKING: no editor and no type checker sees it",
    ]
