"""What surrounds the code: one version, commands that exist, no command for an index that does not have sparkopt."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sparkopt
from tests.test_errors import PROJECT

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE))


def tracked() -> list[Path]:
    """The checkout's own files; of an export without git, all that are not made by a command."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    hidden = re.compile(r"/(\.venv|\.git/|build/|dist/|out/|\.\w+_cache|__pycache__)")
    return [path for path in ROOT.rglob("*") if path.is_file() and not hidden.search(f"/{path.relative_to(ROOT)}")]


FILES = [path for path in tracked() if b"\0" not in path.read_bytes()[:8000]]


def test_files_are_whole():
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "files.py", *FILES], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.py", "x = 1", "must end in one newline"),
        ("a.py", "x = 1 \n", "line 1 ends in a blank"),
        ("a.py", "<" * 7 + " HEAD\n", "line 1 is the mark of a merge conflict"),
        ("a.yml", "a: [\n", "cannot be read"),
        ("a.toml", "a =\n", "cannot be read"),
        ("a.ipynb", "{\n", "cannot be read"),
        ("a.ipynb", '{"cells": [{"outputs": [{"output_type": "error", "ename": "E"}]}]}\n', "shows an error: E"),
        ("a.json", '"' + 500_000 * "a" + '"\n', "500,003 bytes"),
    ],
)
def test_files_that_are_not_whole_are_named(name, content, problem, tmp_path):
    (tmp_path / name).write_text(content)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "files.py", name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{name}: ")
    assert problem in line


def test_the_version_stands_in_one_place_and_texts_agree():
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == sparkopt.__version__
    assert f"\n## [{sparkopt.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    for path in FILES:
        if path.suffix in (".md", ".ipynb", ".yml", ".conf"):
            named = set(re.findall(r"sparkopt-(\d[\w.]*)-py3", path.read_text()))
            assert named <= {sparkopt.__version__} or path.name == "CONTRIBUTING.md", path


def test_the_changelog_has_the_usual_form():
    headings = re.findall(r"^##+ (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    release = re.compile(r"\[\d+\.\d+\.\d+\]( - \d{4}-\d\d-\d\d)?")
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert [name for name in headings[1:] if name not in kinds and not release.fullmatch(name)] == []


def test_nothing_installs_a_name_that_no_index_has():
    """A wheel's path is installed; CONTRIBUTING says when that may change."""
    by_name = re.compile(r"pip install (?:-\S+ )*['\"\\]*sparkopt(?![-\w])")
    found = [
        str(path.relative_to(ROOT))
        for path in FILES
        if path.name not in ("CONTRIBUTING.md", "test_packaging.py") and by_name.search(path.read_text())
    ]
    assert found == []


def test_every_target_of_the_makefile_can_be_made():
    """All that a target needs has a rule; nothing is run."""
    targets = re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE)
    assert {"run", "test", "docs", "bench"} <= set(targets)
    done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_the_makefile_has(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert "cancel-in-progress" in workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 180
        for step in job["steps"]:
            if "run" in step:
                assert re.fullmatch(r"make [a-z-]+", step["run"]), "a workflow only runs targets of the Makefile"
                assert step["run"].removeprefix("make ") in TARGETS
            elif step["uses"].startswith("./"):
                assert (ROOT / step["uses"] / "action.yml").is_file()
            else:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_workflows_have_the_tiers_of_continuous_integration():
    """.ci/run is the authority; what a tier contains may stand for it."""
    contains = {"lint": "check", "horovod": "test-all", "system": "test-all"}
    steps = set(re.findall(r"^(?:step )?make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE))
    assert {"test", "run", "docs"} <= steps
    ran = {step for path in WORKFLOWS for step in re.findall(r"run: make (\S+)", path.read_text())}
    assert {contains.get(step, step) for step in steps} <= ran


def test_workflows_check_the_versions_of_python_that_are_declared():
    matrix = yaml.safe_load(WORKFLOWS[1].read_text())["jobs"]["check"]["strategy"]["matrix"]["python"]
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert matrix == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"


def test_hooks_run_what_is_there():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"  # a second set of pins is of no use
    programs = {hook["entry"].split()[0] for hook in local["hooks"]}
    assert programs == {".venv/bin/python", ".venv/bin/ruff", ".venv/bin/mypy"}
