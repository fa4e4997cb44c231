"""Standard error of its own for a process that spark-submit starts, which joins it with standard output.

spark-submit's JVM reads both from one pipe, and writes what comes to its own standard output.
"""

from __future__ import annotations

import io
import os
import stat
import sys

from sparkopt.blocks.jvm_errors import Py4JError

__all__ = ["is_submitted", "own_standard_error"]


def is_submitted() -> bool:
    """Whether spark-submit has started this process from its JVM."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def own_standard_error() -> None:
    """Write this process's standard error to that of the JVM which spark-submit has started it from.

    Where the system does not show that one, as other ones than Linux, both stay joined.
    """
    if not is_submitted() or not _is_joined():
        return
    try:
        above = os.open(f"/proc/{os.getppid()}/fd/2", os.O_WRONLY | os.O_APPEND)
    except OSError:
        return
    sys.stderr.flush()
    if stat.S_ISREG(os.fstat(above).st_mode) and not _appends(os.getppid()):
        sys.stderr = _ThroughJvm(above)  # in a file, the JVM would write over what comes from elsewhere
        return
    os.dup2(above, 2)
    os.close(above)


def _is_joined() -> bool:
    try:
        return os.path.sameopenfile(1, 2)
    except OSError:  # one of them is closed
        return False


def _appends(process: int) -> bool:
    """Whether a process appends to the file that is its standard error."""
    with open(f"/proc/{process}/fdinfo/2", encoding="ascii") as facts:
        flags = next(line.split()[1] for line in facts if line.startswith("flags:"))
    return bool(int(flags, 8) & os.O_APPEND)


class _ThroughJvm(io.TextIOBase):
    """Standard error that the JVM writes, as long as there is one; then this process does."""

    def __init__(self, descriptor: int) -> None:
        # here, not where text is written: that may be while pyspark is imported, or as the process ends
        from pyspark import SparkContext

        self._descriptor, self._spark = descriptor, SparkContext

    def write(self, text: str) -> int:
        """Write text."""
        try:
            self._spark._ensure_initialized()
            self._spark._jvm.java.lang.System.err.print(text)  # type: ignore[union-attr]
        except (Py4JError, OSError):
            os.write(self._descriptor, text.encode("utf-8", "replace"))
        return len(text)

    def fileno(self) -> int:
        """Return the descriptor that processes below this one inherit."""
        return 2

    def writable(self) -> bool:
        """Whether text can be written."""
        return True
