"""Metadata of saved models in pyspark.ml's layout, as local files: written and read without Spark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparkopt.io.saved import FileSession

__all__ = ["read_metadata", "write_metadata"]


def write_metadata(model: Any, folder: Path, facts: dict[str, Any] | None = None) -> None:
    """Write class, uid, parameters and additional facts as Spark's own writer does."""
    from pyspark.ml.util import DefaultParamsWriter

    session: Any = FileSession()
    DefaultParamsWriter.saveMetadata(model, str(folder), session, facts)


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """Return a saved model's metadata, written by Spark or by ``write_metadata``.

    Raises
    ------
    DataError
        Where no model was saved.
    """
    found: dict[str, Any] = json.loads(FileSession().read.text(str(Path(folder, "metadata"))).first()[0])
    return found
