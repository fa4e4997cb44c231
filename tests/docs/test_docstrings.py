"""The examples of all docstrings do what they say: none is left out."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import sparkopt
from tests.docs.stand_ins import DOCSTRINGS, require_onnx, stood_in

PACKAGE = Path(sparkopt.__file__).parent


def modules() -> list[str]:
    """Modules with an example."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            parts = ("sparkopt", *path.relative_to(PACKAGE).with_suffix("").parts)
            names.append(".".join(parts).removesuffix(".__init__"))
    return names


@pytest.mark.parametrize("name", modules())
@pytest.mark.filterwarnings("ignore:::mlflow.*", "ignore::sparkopt.errors.NotConvergedWarning")
def test_examples(name, given, folder, mlflow_runs):
    module = importlib.import_module(name)
    found = doctest.DocTestFinder(exclude_empty=True).find(module, name, extraglobs=given)
    examples = [example for example in found if example.examples]
    assert examples
    if any("import mlflow" in line.source for example in examples for line in example.examples):
        mlflow_runs()
    require_onnx("".join(line.source for example in examples for line in example.examples))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    for example in examples:
        for line in example.examples:
            line.source = stood_in(line.source, DOCSTRINGS, folder)
        runner.run(example, out=said.append)
    assert not runner.failures, "".join(said)


def test_no_example_is_skipped():
    skipped = [path.name for path in PACKAGE.rglob("*.py") if "doctest: +SKIP" in path.read_text(encoding="utf-8")]
    assert not skipped
