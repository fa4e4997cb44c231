"""The ``sparkopt`` command: ``sparkopt COMMAND flags`` runs a job, ``sparkopt SCRIPT.py`` code for pyspark.ml."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import sparkopt
from sparkopt.errors import ParameterError
from sparkopt.jobs.flags import USAGE

__all__ = ["COMMANDS", "main"]

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "train": ("sparkopt.jobs.train", "train a linear model on a table or on images"),
        "train-deep": ("sparkopt.jobs.train_deep", "train a network on images"),
        "preprocess-images": ("sparkopt.jobs.preprocess_images", "decode, resize and encode images into a table"),
        "score": ("sparkopt.jobs.score", "write a saved model's predictions"),
        "evaluate": ("sparkopt.jobs.evaluate", "measure a saved model, and compare it with a baseline"),
        "compare": ("sparkopt.jobs.compare", "show two receipts side by side"),
    }
)
"""Module and purpose of each command; the module has ``main(argv) -> exit code``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 success, 1 a failure, 2 a wrong flag, 3 a gate that is not met."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        if argv is None:  # this process ends with the command: what its modules hold need not be searched for cycles
            atexit.register(gc.freeze)
        code: int = importlib.import_module(COMMANDS[arguments[0]][0]).main(arguments[1:])
        return code
    if arguments and arguments[0].endswith(".py"):
        return _run_script(*arguments)
    if arguments == ["--version"]:
        print(f"sparkopt {sparkopt.__version__}")
        return 0
    lines = ["usage: sparkopt COMMAND [flags]     (sparkopt COMMAND --help lists its flags)", ""]
    lines += [f"  {name:<20}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    lines += ["", "       sparkopt SCRIPT.py [arguments]     (a script of pyspark.ml, with sparkopt's estimators)"]
    if arguments and arguments[0] in ("-h", "--help"):
        print("\n".join(lines))
        return 0
    if not arguments:
        print("\n".join(lines), file=sys.stderr)
        return USAGE
    known = ", ".join(COMMANDS)
    print(f"sparkopt: error: there is no command {arguments[0]!r}. There are {known}.", file=sys.stderr)
    return USAGE


def _run_script(path: str, *arguments: str) -> int:
    from sparkopt.integrations import run_script

    try:
        run_script(path, arguments)
    except ParameterError as error:
        if Path(path).is_file():  # the script's own
            raise
        print(f"sparkopt: error: {error}", file=sys.stderr)
        return USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
