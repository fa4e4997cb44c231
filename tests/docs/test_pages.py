"""Every Python block of README, CONTRIBUTING and the pages below docs/ runs, in the order of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.stand_ins import PAGES, require_onnx, stood_in

FOUND = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line and text of a page's Python blocks."""
    text = page.read_text(encoding="utf-8")
    return [(text[: found.start(2)].count("\n"), found[2]) for found in BLOCK.finditer(text)]


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", FOUND, ids=ids)
@pytest.mark.filterwarnings(
    "ignore:::mlflow.*", "ignore::FutureWarning", "ignore::sparkopt.errors.NotConvergedWarning"
)
def test_blocks_run(page, given, folder, mlflow_runs):
    if "mlflow" in "".join(block for _, block in blocks(page)):
        mlflow_runs()
    require_onnx("".join(block for _, block in blocks(page)))
    names = dict(given)
    for line, block in blocks(page):
        code = "\n" * line + stood_in(block, PAGES.get(ids(page), {}), folder)  # so that errors name the page's line
        exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("page", FOUND, ids=ids)
def test_every_stand_in_is_used(page):
    text = "".join(block for _, block in blocks(page))
    assert not [name for name in PAGES.get(ids(page), {}) if name not in text]


def test_no_page_is_without_a_test():
    assert PAGES.keys() <= {ids(page) for page in FOUND}
    assert len(blocks(ROOT / "README.md")) > 5


@pytest.mark.parametrize("page", FOUND, ids=ids)
def test_links_lead_somewhere(page):
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target
