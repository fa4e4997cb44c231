"""Metadata of saved models in pyspark.ml's layout, as local files: written and read without Spark."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sparkopt.errors import DataError

__all__ = ["read_metadata", "write_metadata"]


def write_metadata(model: Any, folder: Path, facts: dict[str, Any] | None = None) -> None:
    """Write class, uid, parameters and additional facts as Spark's own writer does."""
    import pyspark
    from pyspark.ml.util import DefaultParamsWriter

    version: Any = SimpleNamespace(version=pyspark.__version__)  # the writer uses nothing else of a session
    text = DefaultParamsWriter._get_metadata_to_save(model, version, facts)
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata" / "part-00000.txt").write_text(f"{text}\n", encoding="utf-8")


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """Return a saved model's metadata, written by Spark or by ``write_metadata``.

    Raises
    ------
    DataError
        Where no model was saved.
    """
    for part in sorted(Path(folder, "metadata").glob("part-*")):
        text = part.read_text(encoding="utf-8")
        if text.strip():
            found: dict[str, Any] = json.loads(text)
            return found
    raise DataError(f"{str(folder)!r} holds no saved model.")
