"""Parameters of a notebook: widgets on Databricks, environment variables elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Any, TypeVar

from sparkopt.errors import ParameterError

__all__ = ["widget"]

T = TypeVar("T", str, int, float)


def widget(name: str, default: T) -> T:
    """Return a parameter of the notebook, of the same type as its default.

    On Databricks it is a text widget at the top of the notebook, which jobs can set too. Elsewhere it is the
    environment variable ``SPARKOPT_<NAME>``, so that a notebook can run unattended and with other values.

    Parameters
    ----------
    name : str
        Name of the widget.
    default : str, int or float
        The value if no other is set.

    Raises
    ------
    ParameterError
        For a text that cannot be converted to the default's type.

    Examples
    --------
    >>> widget("epochs", 5)
    5
    """
    utilities = _databricks()
    if utilities is None:
        text = os.environ.get(f"SPARKOPT_{name.upper()}", str(default))
    else:
        utilities.widgets.text(name, str(default))
        text = utilities.widgets.get(name)
    try:
        return type(default)(text)
    except ValueError as error:
        raise ParameterError(
            f"widget {name!r} must be of type {type(default).__name__}. Got {text!r} instead."
        ) from error


def _databricks() -> Any:
    """Return the notebook's ``dbutils``, or None outside of Databricks."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return None if shell is None else shell.user_ns.get("dbutils")
