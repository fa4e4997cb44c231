"""OpenCV, or an error that names the package to install."""

from __future__ import annotations

from sparkopt.errors import MissingDependencyError

try:
    import cv2
except ImportError as error:  # pragma: no cover - the tests' environment has OpenCV
    raise MissingDependencyError.of("sparkopt.images", "OpenCV", "images") from error

__all__ = ["cv2", "use_cores"]

_SILENT = 0


def use_cores(count: int) -> None:
    """Limit OpenCV to so many cores of this process, and its decoders' messages to none.

    Other processes use the other cores. Bad images are reported in the data; messages on stderr add nothing.
    """
    cv2.setNumThreads(count)
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(_SILENT)
    else:
        cv2.utils.logging.setLogLevel(_SILENT)
