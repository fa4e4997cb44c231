"""An archive of the classes that Spark loads, so that the next JVM maps them instead of reading and verifying jars.

Java calls it class data sharing. In local mode, the first session writes an archive when its process ends, and later
ones start from it. It is in ``$XDG_CACHE_HOME/sparkopt`` (``~/.cache/sparkopt``), under a name made of what Java
compares, and gets this name when it is complete: Java crashes on half an archive. Spark starts without one where none
can be written, or where it does not suit. ``SPARKOPT_CLASS_ARCHIVE=off`` turns it off.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["VARIABLE", "archive_path", "starts_local_jvm", "use_archive"]

VARIABLE = "SPARKOPT_CLASS_ARCHIVE"
OPTIONS = "spark.driver.defaultJavaOptions"
"""Java's options that come before the user's own, which win."""
KEPT = 3
"""Archives on one machine, of 100 to 200 MB each; the ones used longest ago are removed."""
CLASSES = 14_000
"""Classes of a session that did some work: one that only started has 11,000, one that read a table 16,000."""
ABANDONED = 600.0
"""Seconds after which an unfinished archive is removed; Java begins its file again when it writes it."""
CLASSPATH = ("SPARK_DIST_CLASSPATH", "HADOOP_CONF_DIR", "YARN_CONF_DIR")
"""Variables that put folders on the class path, which Java does not archive."""
QUIET = "-Xshare:auto -Xlog:disable"
"""Where an archive does not suit, Java goes on without it and logs nothing."""

logger = logging.getLogger(__name__)


def use_archive(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a session with an option for its JVM: to start from an archive, or to write one.

    Parameters
    ----------
    settings : mapping
        The settings of a session of Spark Classic.

    Returns
    -------
    dict
        The same settings where the archive is turned off, there can be none, or this process starts no local JVM.
    """
    chosen = dict(settings)
    if not (_may_have_archive(settings) and starts_local_jvm(settings)):
        return chosen
    try:
        archive = archive_path()
        if archive is None:
            return chosen
        if archive.is_file():
            os.utime(archive)  # what was used last is kept
            option = f"-XX:SharedArchiveFile={archive}"
        else:
            option = f"-XX:ArchiveClassesAtExit={_begin(archive)}"
    except OSError as error:
        logger.info("Spark starts without an archive of its classes: %s", error)
        return chosen
    quoted = option.replace("\\", "\\\\").replace('"', '\\"')  # Spark parses options as a shell does
    chosen[OPTIONS] = f'{QUIET} "{quoted}" {chosen.get(OPTIONS, "")}'.strip()
    return chosen


def archive_path() -> Path | None:
    """Return where the archive for this Java and this Spark is or would be; None where Java can have none."""
    import pyspark
    from pyspark.find_spark_home import _find_spark_home

    java = _java()
    home = Path(_find_spark_home())
    conf = Path(os.environ.get("SPARK_CONF_DIR", home / "conf"))
    if java is None or any(os.environ.get(name) for name in CLASSPATH) or (conf.is_dir() and any(conf.iterdir())):
        return None
    release = java.parents[1] / "release"
    parts = [str(java), release.read_text(encoding="utf-8") if release.is_file() else str(java.stat().st_mtime_ns)]
    for jar in sorted((home / "jars").iterdir()):
        found = jar.stat()
        parts.append(f"{jar} {found.st_size} {found.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return _folder() / f"spark-{pyspark.__version__}-{digest}.jsa"


def starts_local_jvm(settings: Mapping[str, str]) -> bool:
    """Return whether a session of Spark Classic with these settings starts a JVM, in local mode."""
    from pyspark import SparkContext

    return (
        SparkContext._gateway is None
        and "PYSPARK_GATEWAY_PORT" not in os.environ
        and os.environ.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell") == "pyspark-shell"
        and (settings.get("spark.master") or os.environ.get("MASTER") or "local").startswith("local")
    )


def _may_have_archive(settings: Mapping[str, str]) -> bool:
    """Whether neither the settings nor the environment say otherwise."""
    names = ("SPARK_SUBMIT_OPTS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
    options = [os.environ.get(name, "") for name in names]
    options += [value for key, value in settings.items() if key.endswith("JavaOptions")]
    return (
        os.environ.get(VARIABLE, "").lower() not in ("off", "0", "false")
        and "spark.driver.extraClassPath" not in settings
        and not any(word in " ".join(options) for word in ("-Xshare", "SharedArchiveFile", "ArchiveClassesAtExit"))
    )


def _java() -> Path | None:
    """Return the Java that Spark's scripts start."""
    home = os.environ.get("JAVA_HOME")
    found = f"{home}/bin/java" if home else shutil.which("java")
    return Path(found).resolve() if found and Path(found).is_file() else None


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparkopt"


def _begin(archive: Path) -> Path:
    """Return a file for a new archive, which becomes the archive when this process ends."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    for left in archive.parent.glob("spark-*.jsa.*"):
        if time.time() - left.stat().st_mtime > ABANDONED:
            left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{archive.name}.", dir=archive.parent)  # Java fails where it cannot write
    os.close(handle)
    atexit.register(_finish, Path(name), archive, os.getpid())
    return Path(name)


def _finish(written: Path, archive: Path, pid: int) -> None:
    """End the JVM, and put its archive in its place."""
    if os.getpid() != pid:  # a forked worker
        return
    try:
        if _end_jvm() and written.stat().st_size:
            with written.open("rb") as file:
                os.fsync(file.fileno())
            written.replace(archive)
            _prune(archive.parent)
        else:
            logger.info("no archive of Spark's classes was written")
    except (OSError, subprocess.SubprocessError, KeyboardInterrupt) as error:
        logger.info("no archive of Spark's classes was written: %r", error)
    finally:
        written.unlink(missing_ok=True)


def _end_jvm() -> bool:
    """End Spark and its JVM; return whether all went well, and enough classes were loaded for an archive."""
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    process = getattr(gateway, "proc", None)
    if process is None or process.poll() is not None:
        return False
    if SparkContext._active_spark_context is not None:
        SparkContext._active_spark_context.stop()
    classes = _loaded_classes(gateway)
    process.stdin.close()  # tells the JVM to end, and so to write
    return bool(process.wait(timeout=120) == 0) and classes >= CLASSES


def _loaded_classes(gateway: object) -> int:
    """Return how many classes the JVM has loaded; 0 where it no longer answers."""
    from py4j.protocol import Py4JError

    try:
        beans = gateway.jvm.java.lang.management.ManagementFactory  # type: ignore[attr-defined]
        return int(beans.getClassLoadingMXBean().getLoadedClassCount())
    except (Py4JError, OSError, RuntimeError) as error:  # no new thread starts while Python ends
        logger.info("Spark's JVM does not answer: %s", error)
        return 0


def _prune(folder: Path) -> None:
    """Remove the archives used longest ago."""
    kept = sorted(folder.glob("spark-*.jsa"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[KEPT:]:
        path.unlink(missing_ok=True)
