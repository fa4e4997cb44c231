"""JVMs of tests live for seconds: they start from an archive of classes, and compile quickly rather than well."""

from __future__ import annotations

from sparkopt.launch.class_archive import archive_path

ARCHIVE = archive_path()
"""What the first session on a machine leaves when it ends, of tests or of ``make run``; None: Java can have none."""
OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
if ARCHIVE is not None and ARCHIVE.is_file():
    OPTIONS += f" -Xlog:disable -XX:SharedArchiveFile={ARCHIVE}"
EXECUTORS = {"spark.executor.extraJavaOptions": OPTIONS}
"""For executors in processes of their own, which environment variables do not reach."""
