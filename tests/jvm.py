"""JVMs of tests live for seconds: they start from an archive of classes, and compile quickly rather than well."""

from __future__ import annotations

from pathlib import Path

ARCHIVE = Path(__file__).parents[1] / ".venv" / "spark.jsa"
"""What ``.ci/classes`` leaves; Java goes on without one that does not suit it."""
OPTIONS = f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:SharedArchiveFile={ARCHIVE}"
EXECUTORS = {"spark.executor.extraJavaOptions": OPTIONS}
"""For executors in processes of their own, which environment variables do not reach."""
