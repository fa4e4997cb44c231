"""The page of errors has a section for each error and warning, with messages that the package really has."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from sparkopt import errors
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
MESSAGES = [
    line.strip()
    for text in SECTIONS.values()
    for line in re.findall(r"^ {4}\S.*$", text.split("```")[0], re.MULTILINE)
]
SHORTEST = 10
"""Characters of a message that identify it."""


@cache
def texts() -> list[str]:
    """Every constant text of the package, parts of f-strings included."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "sparkopt").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return list({node.value for node in nodes if isinstance(node.value, str) and len(node.value) >= SHORTEST})


def test_every_error_and_warning_has_its_section():
    assert set(SECTIONS) == set(errors.__all__)


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"SparkoptError"}))
def test_a_section_shows_messages(name):
    assert re.search(r"^ {4}\S", SECTIONS[name], re.MULTILINE)


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_those_of_the_package(message):
    shown = message.rstrip(" …")
    assert any(text in message or shown in text for text in texts())
