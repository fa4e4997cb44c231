"""Each `make TARGET`, `sparkopt COMMAND --flag` and `spark-submit jobs/….py --flag` on a page exists.

No command is run: flags are looked up in the jobs' own parsers, targets in the Makefile.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import pytest

from sparkopt.jobs.cli import COMMANDS
from tests.conftest import ROOT
from tests.docs.test_pages import FOUND, ids

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SHELL = ("bash", "sh", "shell", "console")
INLINE = re.compile(r"`((?:make|sparkopt|spark-submit) [^`\n]+)`")
ELLIPSES = ("COMMAND", "TARGET", "…", "...")
"""What stands for any command or any flags, instead of naming one."""


def commands(page: Path) -> Iterator[list[str]]:
    """Command lines of a page, as words: in blocks of shell, in indented blocks, and inline."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for _, language, block in FENCE.findall(text) if language in SHELL]
    text = FENCE.sub("", text)
    blocks += re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in (*lines, *INLINE.findall(text)):
        for command in re.split(r"&&|;|\|", line):
            words = _words(command)
            if words and words[0] in ("make", "sparkopt", "spark-submit"):
                yield words


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command, comments=True)
    except ValueError:  # an indented block of text: no command has an open quote
        return []
    while words and re.match(r"\w+=", words[0]):  # settings before a command
        words = words[1:]
    return words


def fault(words: list[str]) -> str | None:
    """What is wrong with a command, or None."""
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word and word not in ELLIPSES]
        return next((f"make has no target {name}" for name in targets if name not in make_targets()), None)
    if words[0] == "sparkopt":
        if len(words) == 1 or words[1] in (*ELLIPSES, "--version", "--help"):
            return None
        return unknown_flag(words[1], words[2:]) if words[1] in COMMANDS else f"sparkopt has no command {words[1]}"
    for number, word in enumerate(words):
        if word.startswith("conf/") and not (ROOT / word).exists():
            return f"there is no {word}"
        if re.search(r"(^|/)jobs/\w+\.py$", word):
            name, flags = Path(word).stem.replace("_", "-"), words[number + 1 :]
            if not (ROOT / "jobs" / Path(word).name).exists():
                return f"there is no {word}"
            return unknown_flag(*((flags[0], flags[1:]) if name == "run" else (name, flags)))
    return None


@cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def unknown_flag(command: str, words: list[str]) -> str | None:
    """The first flag that a command does not have."""
    if command in ELLIPSES:
        return None
    flags = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((f"{command} has no flag {flag}" for flag in flags if flag not in flags_of(command)), None)


@cache
def flags_of(command: str) -> set[str]:
    """Flags of a command, asked of its own parser."""
    module = importlib.import_module(COMMANDS[command][0])
    if hasattr(module, "JOB"):
        parser = module.JOB.parser()
    else:  # it makes its parser as it runs
        reading = mock.patch("argparse.ArgumentParser.parse_args", autospec=True, side_effect=_Parser)
        with reading as caught, pytest.raises(_Parser):
            module.main([])
        parser = caught.call_args.args[0]
    return {flag for action in parser._actions for flag in action.option_strings}


class _Parser(Exception):
    """Ends a command where it would read its flags."""


@pytest.mark.parametrize("page", FOUND, ids=ids)
def test_commands_exist(page):
    assert not [" ".join(words) + ": " + found for words in commands(page) if (found := fault(words))]


def test_commands_are_found():
    named = {words[0] for page in FOUND for words in commands(page)}
    assert named == {"make", "sparkopt", "spark-submit"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("make run", None),
        ('make run ARGS="--max-iter 3"', None),
        ("make tea", "make has no target tea"),
        ("sparkopt score --model out --keep id", None),
        ("sparkopt score --modle out", "score has no flag --modle"),
        ("sparkopt compare a.json b.json --html c.html", None),
        ("sparkopt compare a.json b.json --htlm c.html", "compare has no flag --htlm"),
        ("sparkopt brew", "sparkopt has no command brew"),
        ("spark-submit --master yarn jobs/train.py --parquet rows", None),
        ("spark-submit --properties-file conf/yarn.conf jobs/train.py --rows rows", "train has no flag --rows"),
        ("spark-submit --properties-file conf/tea.conf jobs/train.py", "there is no conf/tea.conf"),
        ("spark-submit jobs/run.py score --model out", None),
        ("spark-submit jobs/brew.py", "there is no jobs/brew.py"),
    ],
)
def test_wrong_commands_are_noticed(line, found):
    assert fault(_words(line)) == found
