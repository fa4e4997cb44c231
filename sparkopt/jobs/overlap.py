"""An output must not destroy what a job reads, nor be read as part of it the next time."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator

from sparkopt.errors import ParameterError
from sparkopt.io.filesystem import arrow_uri, local_path
from sparkopt.io.secrets import mask

__all__ = ["check_output", "is_within"]

DATA, MODELS = ("input",), ("model", "initial_model", "baseline")
"""Flags of what a job reads, next to its source."""


def check_output(args: argparse.Namespace, kind: str) -> None:
    """Refuse an output that is, holds or lies in what the job reads, where that would be lost or read.

    A job that writes files and models keeps what else is in its folder, so data may lie in there. Rows that are
    scored replace the folder. A folder within a model's is not read with it.

    Parameters
    ----------
    args : argparse.Namespace
        The flags.
    kind : str
        Of the output, as ``Job`` has it.

    Raises
    ------
    ParameterError
        Naming both flags.
    """
    for flag, location, is_data in _inputs(args):
        folder = _fixed_part(location)
        is_inside = is_within(args.output, folder)
        is_around = is_within(folder, args.output)
        is_same = is_inside and is_around
        replaces = kind != "folder"
        if is_same and not (is_data or replaces):  # a model that is trained further replaces itself
            continue
        if is_same or (is_inside and is_data) or (is_around and replaces):
            how = "is" if is_same else "lies in" if is_inside else "holds"
            raise ParameterError(
                f"--output {mask(args.output)!r} {how} {flag} {mask(location)!r}, which the job reads. Give another "
                f"--output."
            )


def _inputs(args: argparse.Namespace) -> Iterator[tuple[str, str, bool]]:
    """Yield the flag and the path of each input, and whether it is data, not a model."""
    source = getattr(args, "source", None)
    if source is not None and source.kind != "table":
        yield f"--{source.kind}", source.location, True
    for names, is_data in ((DATA, True), (MODELS, False)):
        for name in names:
            location = getattr(args, name, None)
            if isinstance(location, str) and location:
                yield f"--{name.replace('_', '-')}", location, is_data


def _fixed_part(location: str) -> str:
    """Return a path without its last folders where they are patterns."""
    head = re.split(r"[*?\[{]", location, maxsplit=1)[0]
    return head if head == location else head.rpartition("/")[0] or head


def is_within(one: str, other: str) -> bool:
    """Whether a path is ``other`` or lies in it: links are followed, and schemes of one storage are one.

    Examples
    --------
    >>> is_within("s3a://bucket/rows/scored", "s3://bucket/rows/"), is_within("/data/rows2", "/data/rows")
    (True, False)
    """
    inner, outer = _canonical(one), _canonical(other)
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _canonical(location: str) -> str:
    local = local_path(location)
    if local is not None:
        return os.path.realpath(local)
    return re.sub(r"/+$", "", arrow_uri(location).partition("?")[0])
