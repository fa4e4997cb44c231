"""Saved models as files on this machine, without Spark, in pyspark.ml's layout: JSON beside the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sparkopt.errors import DataError

__all__ = ["read_metadata", "write_metadata"]


def write_metadata(model: Any, folder: Path, facts: dict[str, Any] | None = None) -> None:
    """Write class, uid and parameters, and further facts, as Spark's own writer would."""
    import pyspark
    from pyspark.ml.util import DefaultParamsWriter

    version: Any = SimpleNamespace(version=pyspark.__version__)  # all that is asked of a session
    text = DefaultParamsWriter._get_metadata_to_save(model, version, facts)
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata" / "part-00000.txt").write_text(f"{text}\n", encoding="utf-8")


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """Return what a saved model says of itself, whoever wrote it.

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
