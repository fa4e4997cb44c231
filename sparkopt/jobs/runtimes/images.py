"""What preprocessing asks of its runtime: which images are missing, and what became of the others."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkopt.errors import DataError
from sparkopt.jobs.locations import JobLocation

if TYPE_CHECKING:
    from sparkopt.images import ImageKernel

__all__ = ["SPLIT", "SPLITS", "ImageRows", "ordered_names"]

SPLIT = "split"
"""The column of which a job with ``--features`` makes folders."""
SPLITS = ("train", "test")


class ImageRows(ABC):
    """The images of a job, and the table that is made of them.

    Parameters
    ----------
    options : Namespace
        The job's flags.
    kernel : ImageKernel
        What is done with an image.
    output : JobLocation
        The table.
    """

    def __init__(self, options: argparse.Namespace, kernel: ImageKernel, output: JobLocation) -> None:
        self.options, self.kernel, self.output = options, kernel, output

    @abstractmethod
    def check(self) -> None:
        """Refuse, before any work, what cannot be read."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the labels' names in order: those that the flags name, or those of all folders."""

    @abstractmethod
    def done(self) -> int:
        """Return how many images are in the table."""

    @abstractmethod
    def steps(self) -> Sequence[Any]:
        """Return the images that are missing in it, in as many steps as the flags say; none if nothing is missing."""

    @abstractmethod
    def process(self, step: Any, names: Sequence[str]) -> None:
        """Process the images of a step, and append their rows."""

    @abstractmethod
    def reasons(self) -> list[tuple[str, int, str]]:
        """Return each reason in the table, "ok" for good images, with its count and the first path."""

    @abstractmethod
    def missing(self) -> tuple[int, str]:
        """Return how many images are not in the table, and the first path: after all steps, those left out."""

    @abstractmethod
    def samples(self, count: int) -> list[tuple[str, bytes, bytes]]:
        """Return path, image and result of some good images."""


def ordered_names(found: Sequence[str], named: str) -> list[str]:
    """Return the labels' names in order: the given names, or those of all folders.

    Raises
    ------
    DataError
        For a folder that is not among the given names.
    """
    names = [name.strip() for name in named.split(",")] if named else sorted(found)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DataError(f"--input has images of {unknown[0]!r}; --labels are {', '.join(names)}.")
    return names
