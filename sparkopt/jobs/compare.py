"""Show two receipts side by side: what the second run saved in time, bytes, memory and steps, and its loss.

    sparkopt compare yesterday/receipt.json today/receipt.json --html compare.html

A folder stands for the receipt.json in it, such as the output of ``sparkopt train``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparkopt.errors import DataError, ParameterError, SparkoptError
from sparkopt.io.filesystem import local_path
from sparkopt.io.secrets import mask
from sparkopt.jobs.flags import FAILURE, USAGE, Parser

if TYPE_CHECKING:
    from sparkopt.report.facts import Facts

__all__ = ["main"]

RECEIPT = "receipt.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparkopt compare a.json b.json [--html out.html]``.

    Returns
    -------
    int
        0; 1 where a file is no receipt, or the page cannot be written; 2 for a wrong flag.
    """
    flags = Parser("compare", __doc__ or "")
    flags.add_argument("first", help="a receipt.json, or the folder of one")
    flags.add_argument("second", help="another one")
    flags.add_argument("more", nargs="*", default=[], help=argparse.SUPPRESS)
    flags.add_argument("--html", metavar="FILE", help="write a page with plots there, too; an older page is replaced")
    args = flags.parse_args(argv)
    try:
        paths = _paths(args)
    except ParameterError as error:
        print(f"sparkopt compare: error: {mask(str(error))}", file=sys.stderr)
        return USAGE
    try:
        _compare(paths, args.html)
    except (SparkoptError, OSError) as error:
        print(f"sparkopt compare: error: {mask(str(error))}", file=sys.stderr)
        return FAILURE
    return 0


def _paths(args: argparse.Namespace) -> tuple[str, str]:
    """Return the two receipts; ParameterError where the command line cannot be meant so."""
    from sparkopt.jobs.overlap import is_within

    if args.more:
        raise ParameterError(f"two receipts are compared, and {2 + len(args.more)} are given.")
    if not args.first or not args.second:
        raise ParameterError("a receipt's path is empty: name a receipt.json, or the folder of one.")
    paths = _receipt(args.first), _receipt(args.second)
    if is_within(paths[0], paths[1]):
        raise ParameterError(f"both paths are the receipt {paths[0]!r}. Name another run's.")
    if args.html is None:
        return paths
    if not args.html:
        raise ParameterError("--html is empty: name a file.")
    if any(is_within(args.html, path) for path in paths):
        raise ParameterError(f"--html {args.html!r} is a receipt, which the command reads. Give another file.")
    if not args.html.lower().endswith((".html", ".htm")):
        raise ParameterError(f"--html {args.html!r} must end in .html: it is the page's file.")
    local = local_path(args.html)
    if local is not None and not Path(local).parent.is_dir():
        raise ParameterError(f"--html {args.html!r} is in a folder that does not exist. Make it, or name another.")
    return paths


def _receipt(path: str) -> str:
    """Return the file of a receipt: the path itself, or that in a folder of this machine."""
    local = local_path(path)
    return str(Path(local) / RECEIPT) if local is not None and Path(local).is_dir() else path


def _compare(paths: tuple[str, str], html: str | None) -> None:
    from sparkopt.report.comparison import Comparison

    found = Comparison(_names(*paths), *map(_facts, paths))
    print(found)
    if html:
        found.report(html)


def _facts(path: str) -> Facts:
    """Return the contents of a receipt's report; DataError names the file where it holds none."""
    from sparkopt.report.load import load_receipt

    try:
        return load_receipt(path).facts()
    except DataError as error:
        text = str(error)
        raise error if path in text else DataError(f"{path!r}: {text}") from None
    except ParameterError:  # a URI that cannot be used; it is a ValueError too
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"{path!r} is damaged: its values are none of a receipt's ({error}).") from error


def _names(first: str, second: str) -> tuple[str, str]:
    """Return the shortest ends of the paths that differ."""
    parts = Path(first).with_suffix("").parts, Path(second).with_suffix("").parts
    for count in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(part[-count:]) for part in parts]
        if ends[0] != ends[1]:
            return ends[0], ends[1]
    return "first", "second"
