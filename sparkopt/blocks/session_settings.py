"""What the running session says of Hadoop's file systems, so that pyarrow's reach the same stores."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import SparkSession

from sparkopt.blocks.backend import is_connect

__all__ = ["session_settings"]


def session_settings(names: Sequence[str]) -> Mapping[str, str]:
    """Return the settings of Hadoop's file systems that the running session has, by name; none without a session."""
    connect = sys.modules.get("pyspark.sql.connect.session")
    session: Any = SparkSession.getActiveSession() or (connect and connect.SparkSession.getActiveSession())
    if session is None:
        return {}
    if not is_connect(session):
        return _classic_settings(session, names)
    known = session.conf.getAll
    given = {name: known.get(name) or known.get(f"spark.hadoop.{name}") for name in names}
    return {name: value for name, value in given.items() if value}


def _classic_settings(session: SparkSession, names: Sequence[str]) -> dict[str, str]:
    """Return the settings of Hadoop's file systems that a session has, those of its credential stores too."""
    jvm: Any = session.sparkContext._jvm
    settings = session._jsparkSession.sessionState().newHadoopConf()
    found = {}
    for name in names:
        secret = settings.getPassword(name)  # a setting, or an entry of a keystore
        if secret is not None:
            found[name] = str(jvm.java.lang.String.valueOf(secret))
    return found
