"""A SparkSession from one of the profiles in ``conf/``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from sparkopt.errors import ParameterError

__all__ = ["read_profile", "session"]


def read_profile(path: str | Path) -> dict[str, str]:
    """Read a file in the style of ``spark-defaults.conf``.

    Parameters
    ----------
    path : str or Path
        One ``key value`` per line; ``#`` begins a comment.

    Raises
    ------
    ParameterError
        Where the file does not exist or a line has no value.
    """
    path = Path(path)
    if not path.is_file():
        raise ParameterError(f"profile {str(path)!r} does not exist.")
    settings = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, _, value = stripped.partition(" ")
        if not value.strip():
            raise ParameterError(f"{path}, line {number}: {key!r} has no value.")
        settings[key] = value.strip()
    return settings


def session(
    profile: str | Path | None = None, app_name: str = "sparkopt", settings: dict[str, str] | None = None
) -> SparkSession:
    """Return the running SparkSession, or start one.

    Parameters
    ----------
    profile : str, Path or None, default None
        A settings file such as ``conf/local.conf``; ignored where a session is running already.
    app_name : str, default "sparkopt"
        Name in Spark's user interface.
    settings : dict or None, default None
        Settings that win over the profile's.

    Notes
    -----
    Under ``spark-submit`` the submit line's own settings win over the profile's. In local mode, workers use this very
    Python, unless PYSPARK_PYTHON says otherwise.
    """
    builder = SparkSession.builder.appName(app_name)
    submitted = os.environ.get("SPARK_SUBMIT_OPTS") is not None or "pyspark-submit" in sys.argv
    chosen = {**(read_profile(profile) if profile and not submitted else {}), **(settings or {})}
    for key, value in chosen.items():
        builder = builder.config(key, value)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    return builder.getOrCreate()
