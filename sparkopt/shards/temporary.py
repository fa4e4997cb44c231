"""Stores that last as long as a run: where they are written, and that they are deleted."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator
from typing import Any

from sparkopt.blocks.backend import is_connect
from sparkopt.blocks.rows import Rows
from sparkopt.errors import ParameterError
from sparkopt.io.filesystem import child_uri, local_path, resolve
from sparkopt.machine import Table
from sparkopt.machine.folders import private_folders
from sparkopt.shards.fields import Fields
from sparkopt.shards.held_out import HeldOut
from sparkopt.shards.index import Index
from sparkopt.shards.missing import RowCheck
from sparkopt.shards.owned import owned_folder
from sparkopt.shards.store import write_store

__all__ = ["absolute", "check_folder", "log_skipped", "temporary_store"]

logger = logging.getLogger(__name__)


def check_folder(folder: str | None, session: Any, others: str | None = None) -> None:
    """Refuse a run without a folder that driver and executors share, before any job.

    Parameters
    ----------
    folder : str or None
        ``storePath``.
    session : SparkSession or None
        Whose tasks read it; None is this machine.
    others : str or None, default None
        Who else reads or writes it, on other machines.

    Raises
    ------
    ParameterError
        Where it is needed, or cannot be used.
    """
    if folder:
        resolve(folder, "storePath")
    elif others is not None:
        raise ParameterError(f"storePath must be set: storage that this process and {others} share.")
    elif session is None:
        return
    elif is_connect(session):
        raise ParameterError(
            "storePath must be set on Spark Connect: storage that this process and the server's executors share, a "
            "Volume say. Rows that fit on this machine need none: give df.toArrow() in place of df."
        )
    elif not str(session.sparkContext.master).startswith("local"):
        raise ParameterError("storePath must be set on a cluster: storage that driver and executors share.")


@contextlib.contextmanager
def temporary_store(
    rows: Rows,
    fields: Fields,
    folder: str | None = None,
    held_out: HeldOut | None = None,
    check: RowCheck | None = None,
    ignored: int | None = None,
) -> Iterator[Index]:
    """Write rows to a store that is deleted at the end; see ``write_store``.

    Parameters
    ----------
    rows, fields, held_out, check, ignored
        As there.
    folder : str or None, default None
        Where; a folder of this process's own where it is None. What processes that were killed left in either is
        deleted by the next one, in a shared folder after some hours where these ran on another machine.
    """
    if isinstance(rows, Table) and rows.cluster is not None and not rows.cluster.is_here:
        check_folder(folder, None, rows.cluster.name)
    with contextlib.ExitStack() as stack:
        if folder:
            uri = stack.enter_context(owned_folder(absolute(folder), "rows"))
        else:
            uri = child_uri(str(private_folders()[0]), f"rows-{uuid.uuid4().hex}")
        index = write_store(rows, fields, uri, held_out, check, ignored)
        log_skipped(index)
        stack.callback(index.delete)
        yield index


def log_skipped(index: Index) -> None:
    """Log how many invalid rows were left out, if any were."""
    if index.skipped:
        logger.warning("%s invalid rows (null, NaN, infinity, bad images) were left out", index.skipped)


def absolute(uri: str) -> str:
    """Return a folder as executors find it, whatever their working directory is."""
    return local_path(uri) or uri
