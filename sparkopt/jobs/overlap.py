"""An output must not destroy what a job reads, nor be read as part of it the next time."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate

from sparkopt.errors import ParameterError
from sparkopt.io.filesystem import arrow_uri, local_path
from sparkopt.io.secrets import mask

__all__ = ["check_once", "check_output", "check_tables", "is_within", "table_of"]

DATA, MODELS, FILES = ("input",), ("model", "initial_model", "baseline"), ("config", "pipeline")
"""Flags of what a job reads, next to its source."""
WRITTEN = ("checkpoint_dir", "store_path")
"""Flags of what a job writes, next to its output."""


def check_output(args: argparse.Namespace, kind: str) -> None:
    """Refuse an output that is, holds or lies in what the job reads, where that would be lost or read.

    A job that writes files and models keeps what else is in its folder, so data may lie in there. Rows that are
    scored replace the folder. A folder within a model's is not read with it. A model that is trained further may
    replace itself.

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
    for flag, location in _data(args):
        _refuse(args.output, kind, flag, location, is_data=True)
        for name in WRITTEN:  # folders that may hold the data, but are not read with it
            if written := _given(args, name):
                _refuse(written, "folder", flag, location, is_data=True, target=f"--{name.replace('_', '-')}")
    for name in MODELS:
        if location := _given(args, name):
            _check_model(args.output, kind, name, location)
    for name in FILES:
        if kind != "folder" and (location := _given(args, name)):
            _refuse(args.output, kind, f"--{name}", location, is_data=False)


def check_once(flag: str, paths: Sequence[str]) -> None:
    """Refuse data that are named twice: they would count twice.

    Raises
    ------
    ParameterError
        Naming the path, and the folder that it is in.
    """
    known: dict[str, str] = {}
    for path in paths:
        found = _canonical(path)
        if found in known:
            raise ParameterError(f"{flag} names {mask(path)!r} twice: its rows would count twice. Leave one out.")
        known[found] = path
    for found, path in known.items():
        for folder in accumulate(found.split("/")[:-1], "{}/{}".format):
            if folder in known:
                raise ParameterError(
                    f"{flag} names {mask(path)!r}, and {mask(known[folder])!r}, which it lies in: its rows would "
                    "count twice. Leave one out."
                )


def check_tables(output: str, kind: str, name: str, folders: Sequence[str]) -> None:
    """Refuse an output that is, holds or lies in the folders of a table of the catalog.

    Parameters
    ----------
    output, kind : str
        URI of the output, and its kind.
    name : str
        The table.
    folders : sequence of str
        Where its files are.
    """
    for folder in folders:
        _refuse(output, kind, f"--table {name!r} at", folder, is_data=True)


def table_of(args: argparse.Namespace) -> str | None:
    """Return the name of the table of a catalog that the flags read; None where there is none."""
    source = getattr(args, "source", None)
    if source is not None:
        return str(source.location) if source.kind == "table" else None
    return str(args.input) if getattr(args, "input_format", "") == "table" else None


def _data(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the flag and the path of each input of rows."""
    source = getattr(args, "source", None)
    if source is not None and source.kind != "table":
        yield from ((f"--{source.kind}", path) for path in source.paths)
    for name in DATA:
        if table_of(args) is None and (location := _given(args, name)):
            yield f"--{name}", location


def _given(args: argparse.Namespace, name: str) -> str:
    """Return the value of a flag; "" where it is not given, or none of the job's."""
    return str(getattr(args, name, None) or "")


def _check_model(output: str, kind: str, name: str, location: str) -> None:
    """Compare with a model, which may lie in the folder ``model`` of a job's output, or with a baseline's metrics."""
    flag = f"--{name.replace('_', '-')}"
    folder = location.rpartition("/")[0] if location.endswith(".json") else location
    if name == "initial_model" and kind == "folder":
        return
    for place in (folder, f"{folder.rstrip('/')}/model"):
        if is_within(output, place) and is_within(place, output):
            raise _error(output, "is", flag, location)
    _refuse(output, kind, flag, location, is_data=False)


def _refuse(output: str, kind: str, flag: str, location: str, *, is_data: bool, target: str = "--output") -> None:
    folder = _fixed_part(location)
    is_inside, is_around = is_within(output, folder), is_within(folder, output)
    is_same = is_inside and is_around
    if is_same or (is_inside and is_data) or (is_around and kind != "folder"):
        raise _error(output, "is" if is_same else "lies in" if is_inside else "holds", flag, location, target)


def _error(output: str, how: str, flag: str, location: str, target: str = "--output") -> ParameterError:
    return ParameterError(
        f"{target} {mask(output)!r} {how} {flag} {mask(location)!r}, which the job reads. Give another {target}."
    )


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
