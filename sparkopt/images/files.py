"""Which files below a path are images, and which are left out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import field

import pyarrow as pa

from sparkopt.errors import DataError, ParameterError
from sparkopt.io.hadoop import CarriesSettings
from sparkopt.io.image_header import ENDINGS, is_image_name
from sparkopt.io.listing import NOT_TEXT, FileBelow, is_hidden, walk_below
from sparkopt.io.secrets import mask_uri
from sparkopt.values import dataclass

__all__ = ["FilesOmitted", "Survey", "image_files", "listed_images", "survey"]

_LOG = logging.getLogger(__name__)
_NAMES = 1024  # of a batch
LONG = 2.0
"""Seconds of listing after which its progress is shown."""


@dataclass
class Survey:
    """How many files there are below a path, and which are no images.

    Attributes
    ----------
    images : int
        Files that ``read`` takes.
    empty : int
        Those of them that hold no bytes: rows that cannot be decoded.
    left_out : dict of str to int
        The others by reason: "hidden" (it, or a folder below the path, has a name that begins with a dot or an
        underscore), "not UTF-8" (a file or folder, whose name no column can hold), "broken link" and "ending".
    first : dict of str to str
        One file of each reason.
    """

    images: int = 0
    empty: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def leave_out(self, reason: str, path: str) -> None:
        """Count a file that is left out."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        self.first.setdefault(reason, path)

    def __str__(self) -> str:
        total = self.images + sum(self.left_out.values())
        reasons = ", ".join(f"{count:,} {reason} ({self.first[reason]})" for reason, count in self.left_out.items())
        return f"{self.images:,} images, {self.empty:,} empty; left out of {total:,} files: {reasons or 'none'}"


def chosen_endings(endings: Sequence[str]) -> tuple[str, ...]:
    """Return endings in lower case, without the dot or the pattern before it.

    Raises
    ------
    ParameterError
        For a string, which would be taken for its letters, and where there are none.
    """
    are_names = not isinstance(endings, str) and all(isinstance(one, str) and one.strip(".") for one in endings)
    if not are_names or not endings:
        raise ParameterError(
            f"endings must be a list of endings, such as ('png', 'jpg'), or ('*',) for all files. Got {endings!r} "
            "instead."
        )
    return tuple("*" if one == "*" else one.removeprefix("*").removeprefix(".").lower() for one in endings)


def survey(path: str | os.PathLike[str], *, endings: Sequence[str] = ENDINGS, progress: bool = True) -> Survey:
    """Count the files below a path that ``read`` takes, and those that it leaves out, with one example a reason.

    Parameters
    ----------
    path : str or path
        A directory or a glob, as of :func:`read`.
    endings : sequence of str, optional
        As of :func:`read`.
    progress : bool, default True
        Whether to show how many there are, if that takes more than two seconds.

    Returns
    -------
    Survey
        Counted as the files are listed, so that millions need no memory.

    Raises
    ------
    DataError
        Where there is nothing.

    Examples
    --------
    >>> from sparkopt import images
    >>> images.survey("photos").images
    6
    """
    found = Survey()
    for _ in _counted(_walk_images(os.fspath(path), chosen_endings(endings), found), progress):
        pass
    return found


def image_files(path: str, endings: Sequence[str] = ENDINGS) -> list[FileBelow]:
    """Return the image files below a path, in the order of their names; what is left out is logged."""
    return list(listed_images(path, endings))


def listed_images(path: str, endings: Sequence[str] = ENDINGS, *, progress: bool = False) -> Iterator[FileBelow]:
    """Yield the files that ``image_files`` returns as they are listed; at the end what is left out is logged."""
    found = Survey()
    yield from _counted(_walk_images(path, chosen_endings(endings), found), progress)
    if found.left_out:
        _LOG.warning("%s: %s", mask_uri(path), found)


def _counted(files: Iterator[FileBelow], progress: bool) -> Iterator[FileBelow]:
    """Show the number of files, once it takes long."""
    from tqdm import tqdm

    yield from tqdm(files, desc="listing", unit=" images", delay=LONG, disable=not progress)


def _walk_images(path: str, endings: Sequence[str], found: Survey) -> Iterator[FileBelow]:
    for file in walk_below(path, found.leave_out):
        if is_image_name(file.uri, endings):
            found.images += 1
            found.empty += not file.size
            yield file
        else:
            found.leave_out("ending", file.uri)


@dataclass(frozen=True)
class FilesOmitted(CarriesSettings):
    """Image files that Spark's reader leaves out: empty ones, and a hidden one that is ``path`` itself.

    It is for ``mapInArrow`` on any one row.
    """

    path: str
    endings: tuple[str, ...]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the paths, as Spark shows them, and the lengths."""
        for _ in batches:
            pass
        files, found = list[tuple[str, int]](), Survey()
        try:
            for file in _walk_images(self.path, self.endings, found):
                if not file.size or is_hidden(file.uri.rpartition("/")[2]):
                    files.append((file.uri, file.size))
                if len(files) == _NAMES:
                    yield self._batch(files)
                    files = []
        except (DataError, ParameterError) as error:
            _LOG.warning("empty files are left out, since a worker cannot list %s: %s", mask_uri(self.path), error)
        if NOT_TEXT in found.left_out:
            _LOG.warning("%s: %s", mask_uri(self.path), found)
        yield self._batch(files)

    @staticmethod
    def _batch(files: Sequence[tuple[str, int]]) -> pa.RecordBatch:
        paths = pa.array([path for path, _ in files], pa.string())
        return pa.RecordBatch.from_arrays(
            [paths, pa.array([size for _, size in files], pa.int64())], ["path", "length"]
        )
