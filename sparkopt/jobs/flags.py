"""Flags of a job, from the command line and from a file of the same names."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sparkopt.errors import MissingDependencyError, ParameterError

__all__ = ["Parser", "read_config"]

FAILURE, USAGE = 1, 2
"""Exit codes: of what failed, a package that is not installed included, and of a wrong flag."""

UNKNOWN = "unrecognized arguments: "
IN_PYTHON = {
    "--local-steps": "LogisticRegression(localSteps=5, optimizer='sgd', stepSize=0.1)",
    "--compression": "LogisticRegression(compression='int8', optimizer='sgd', stepSize=0.1)",
    "--patience": "LogisticRegression(patience=5, validationIndicatorCol='held')",
    "--threshold": "model.setThreshold(0.3), then model.save(path)",
    "--class-weights": "LogisticRegression(classWeights='balanced')",
    "--num-folds": "CrossValidator(estimator=..., numFolds=5)",
}
"""Flags that one may look for, and what has them."""


def _plain(flag: str) -> str:
    """Return a flag in small letters without signs, as names in other spellings are compared."""
    return flag.lower().replace("-", "").replace("_", "")


class Parser(argparse.ArgumentParser):
    """Flags from the command line or a configuration file; a wrong one gives an error of one line.

    Parameters
    ----------
    job : str
        The job's name.
    description : str
        The beginning of ``--help``.

    Attributes
    ----------
    of_file : object
        The data that a configuration file names; the command line's are in place of these.
    """

    def __init__(self, job: str, description: str) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(f"sparkopt {job}", description=description, formatter_class=form, allow_abbrev=False)
        self.of_file: Any = None

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with code 2; of flags that do not exist, with the way out."""
        unknown = message.removeprefix(UNKNOWN)
        if unknown != message:
            message = f"{message}.{self._hint(unknown.split())}"
        self.exit(USAGE, f"{self.prog}: error: {message} (--help lists all flags)\n")

    def _hint(self, unknown: Sequence[str]) -> str:
        """Return what may be meant by the first of some arguments that are not known."""
        first = next((part.partition("=")[0] for part in unknown if part.startswith("--")), "")
        if not first:
            return f" Values of several words need quotation marks: {' '.join(unknown)!r}."
        if first in IN_PYTHON:
            return f" {first} is of the estimators in Python: {IN_PYTHON[first]}."
        known = {_plain(name): name for action in self._actions for name in action.option_strings}
        near = difflib.get_close_matches(_plain(first), known, n=1)
        return f" Did you mean {known[near[0]]}?" if near else ""

    def read(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse the command line over the file that its ``--config`` names.

        Parameters
        ----------
        argv : sequence of str or None, default None
            The command line; None takes this process's own.

        Returns
        -------
        Namespace
            A value for each flag: the command line's, else the file's, else the default.
        """
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--config")
        path = first.parse_known_args(argv)[0].config
        namespace = argparse.Namespace()
        if path is not None:
            try:
                tokens = self._tokens(read_config(path), path)
            except ParameterError as error:
                self.error(str(error))
            except MissingDependencyError as error:
                self.exit(FAILURE, f"{self.prog}: error: {error}\n")
            namespace = self.parse_args(tokens)
        self.of_file = getattr(namespace, "source", None)
        return self.parse_args(argv, namespace)

    def _tokens(self, values: dict[str, Any], path: str) -> list[str]:
        """Return a file's values as command-line arguments, so that both are checked in the same way."""
        actions = {
            name.removeprefix("--").replace("-", "_"): action
            for action in self._actions
            for name in action.option_strings
            if name.startswith("--") and action.dest not in ("help", "config")
        }
        tokens = []
        for key, value in values.items():
            name = key.replace("-", "_")
            if name not in actions:
                near = difflib.get_close_matches(name, actions, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ParameterError(f"{path}: there is no {key!r}.{hint}")
            flag = f"--{name.replace('_', '-')}"
            if actions[name].nargs == 0:
                if not isinstance(value, bool):
                    raise ParameterError(f"{path}: {key} must be true or false. Got {value!r} instead.")
                tokens += [flag] if value else []
            elif isinstance(value, (list, dict)) and _takes_several(actions[name]):
                texts = [f"{k}={v}" for k, v in value.items()] if isinstance(value, dict) else map(str, value)
                tokens += [f"{flag}={text}" for text in texts]
            elif isinstance(value, (dict, bool)):
                raise ParameterError(f"{path}: {key} must be a number, a text or a list. Got {value!r} instead.")
            elif value is not None:
                text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
                tokens.append(f"{flag}={text}")
        return tokens


def _takes_several(action: argparse.Action) -> bool:
    """Whether a flag may be given several times, or has several values."""
    return action.nargs == "+" or type(action).__name__ == "_AppendAction"


def read_config(path: str) -> dict[str, Any]:
    """Return the values of a JSON file (``.json``) or a YAML file.

    Raises
    ------
    ParameterError
        Where there is no such file, or no mapping of names to values in it.
    MissingDependencyError
        For YAML without PyYAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"--config {path!r} cannot be read: {getattr(error, 'strerror', error)}.") from error
    values = _json(text, path) if path.endswith(".json") else _yaml(text, path)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ParameterError(f"{path}: it must hold names and values, such as max_iter: 100.")
    return values


def _json(text: str, path: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ParameterError(f"{path} is no JSON: {error}.") from error


def _yaml(text: str, path: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingDependencyError.of("--config with YAML (JSON goes without)", "PyYAML", "yaml") from error
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
