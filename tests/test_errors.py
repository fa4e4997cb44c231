"""What a missing package's error says: something that works wherever sparkopt was installed from."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sparkopt.errors import MissingDependencyError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def calls() -> list[tuple[str, str, str]]:
    """File, package and extra of each use of ``MissingDependencyError.of`` in the package."""
    found = []
    for path in sorted((ROOT / "sparkopt").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "MissingDependencyError.of" not in text:  # most files; parsing all of them takes a second
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingDependencyError.of":
                found.append((path.name, ast.unparse(node.args[1]), ast.literal_eval(node.args[2])))
    return found


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_installs_all_that_the_extra_has(extra, monkeypatch):
    """The index need not have sparkopt: the command names what the extra needs, read from the installed metadata."""
    lines = [f'{line}; extra == "{name}"' for name, wanted in EXTRAS.items() for line in wanted]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [*PROJECT["dependencies"], *lines])
    message = str(MissingDependencyError.of("This", "that", extra))
    before, _, command = message.partition(" pip install ")
    assert before == f"This needs that, which is not installed. It is in sparkopt's extra {extra!r}:"
    assert [
        Requirement(part) for part in ast.literal_eval(f"[{command.replace(chr(39) + ' ', chr(39) + ', ')}]")
    ] == [Requirement(line) for line in EXTRAS[extra]]


def test_a_checkout_that_is_not_installed_names_the_extra(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    message = str(MissingDependencyError.of("This", "that", "images"))
    assert message == "This needs that, which is not installed. Install sparkopt with its extra 'images'."


@pytest.mark.parametrize(("file", "package", "extra"), calls())
def test_each_error_names_an_extra_that_exists(file, package, extra):
    assert extra in EXTRAS, f"{file}: {package} is said to be in the extra {extra!r}"
