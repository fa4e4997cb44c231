"""What the running session says of Hadoop's file systems, so that pyarrow's reach the same stores."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from sparkopt.blocks.backend import is_connect

__all__ = ["is_own_disk", "session_settings"]

DEFAULT_SYSTEM = "fs.defaultFS"

HADOOP = "spark.hadoop."


def session_settings(names: Sequence[str]) -> Mapping[str, str]:
    """Return the settings of Hadoop's file systems that the running session has, by name; none without a session."""
    session = _running()
    if session is None:
        return {}
    if not is_connect(session):
        return _classic_settings(session, names)
    given = session.conf.getAll
    hadoop = {name: value for name, value in given.items() if name.startswith(HADOOP)}
    known = {name.removeprefix(HADOOP): value for name, value in hadoop.items()} | given
    below = tuple(name for name in names if name.endswith("."))
    wanted = {*names, *(name for name in known if below and name.startswith(below))}
    return {name: known[name] for name in wanted if known.get(name)}


def is_own_disk(session: Any, path: str) -> bool:
    """Whether a path is on this machine's disks to this process and to all of Spark's, as in local mode it may be.

    Parameters
    ----------
    session : SparkSession
        Says what paths mean.
    path : str
        A path; one that begins with a scheme, or is relative, is left to Spark.
    """
    if not path.startswith("/") or is_connect(session):
        return False
    master = str(session.sparkContext.master)
    if master != "local" and not master.startswith("local["):
        return False
    return _classic_settings(session, [DEFAULT_SYSTEM]).get(DEFAULT_SYSTEM, "").rstrip("/") == "file:"


def _running() -> Any:
    """Return this thread's session, else the one of all threads; None where there is none."""
    connect = sys.modules.get("pyspark.sql.connect.session")
    for kind in [SparkSession, *([connect.SparkSession] if connect else [])]:
        with contextlib.suppress(PySparkRuntimeError):
            return kind.active()
    return None


def _classic_settings(session: SparkSession, names: Sequence[str]) -> dict[str, str]:
    """Return the settings of Hadoop's file systems that a session has, those of its credential stores too."""
    jvm: Any = session.sparkContext._jvm
    settings = session._jsparkSession.sessionState().newHadoopConf()
    below = [name for name in names if name.endswith(".")]
    more = [f"{name}{rest}" for name in below for rest in settings.getPropsWithPrefix(name)]
    found = {}
    for name in [*(name for name in names if name not in below), *more]:
        secret = settings.getPassword(name)  # a setting, or an entry of a keystore
        if secret is not None:
            found[name] = str(jvm.java.lang.String.valueOf(secret))
    return found
