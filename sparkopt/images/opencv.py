"""OpenCV, or an error that names the package to install."""

from __future__ import annotations

from sparkopt.errors import MissingDependencyError

try:
    import cv2
except ImportError as error:  # pragma: no cover - the tests' environment has OpenCV
    raise MissingDependencyError.of("sparkopt.images", "OpenCV", "images") from error

__all__ = ["cv2"]
