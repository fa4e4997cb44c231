"""Metadata of saved models in pyspark.ml's layout: written and read without Spark, and what shows damage to a model.

Metadata of a model have the SHA-256 of what decides about it: class, parameters and facts, and its numbers. Models
that were saved without one, by earlier versions or by pyspark.ml, are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from sparkopt.errors import CorruptDataError, SparkoptError
from sparkopt.io.filesystem import brief
from sparkopt.io.saved import FileSession

__all__ = ["DIGEST", "check_digest", "damage", "digested", "read_metadata", "write_metadata"]

DIGEST = "digest"
"""The entry of metadata that tells whether the others were altered."""
TIMESTAMP = "timestamp"  # the one entry that says nothing of the model


def digested(
    model: Any, session: Any, numbers: Iterable[bytes | memoryview], facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the facts of a model's metadata, and the digest of all of it.

    Parameters
    ----------
    model : pyspark.ml.param.Params
        The model.
    session : SparkSession or FileSession
        What writes it.
    numbers : iterable of bytes
        The rest of the model.
    facts : mapping of str to any, optional
        What metadata hold besides class, uid and parameters.
    """
    entries = {
        "class": f"{model.__module__}.{type(model).__name__}",
        "sparkVersion": session.version,
        "uid": model.uid,
        "paramMap": {param.name: value for param, value in model._paramMap.items()},
        "defaultParamMap": {param.name: value for param, value in model._defaultParamMap.items()},
        **(facts or {}),
    }
    as_read = json.loads(json.dumps(entries))  # keys of mappings are text then
    return {**(facts or {}), DIGEST: _digest(as_read, numbers)}


def check_digest(metadata: Mapping[str, Any], numbers: Iterable[bytes | memoryview]) -> None:
    """Refuse a model that is not the one that was saved, if its metadata have a digest.

    Raises
    ------
    CorruptDataError
        Where it was altered.
    """
    if DIGEST not in metadata:
        return
    entries = {name: value for name, value in metadata.items() if name not in (DIGEST, TIMESTAMP)}
    if _digest(entries, numbers) != metadata[DIGEST]:
        raise CorruptDataError("its digest is not that of its parameters and numbers")


def _digest(entries: Mapping[str, Any], numbers: Iterable[bytes | memoryview]) -> str:
    found = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
    for part in numbers:
        found.update(part)
    return found.hexdigest()


@contextmanager
def damage(path: str) -> Iterator[None]:
    """Raise whatever goes wrong while a model is read as one error that names its path.

    Raises
    ------
    CorruptDataError
        Where files were truncated or altered. Other errors of sparkopt's, of Spark and of the system pass.
    """
    try:
        yield
    except CorruptDataError as error:
        raise error if _SAVED in str(error) else _damaged(path, error) from None
    except (SparkoptError, FileNotFoundError, PermissionError):
        raise
    except _DAMAGES as error:
        raise _damaged(path, error) from None


_SAVED = "was truncated or altered after it was saved"
_DAMAGES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
    pa.ArrowException,
)


def _damaged(path: str, error: Exception) -> CorruptDataError:
    reason = brief(error) or type(error).__name__
    return CorruptDataError(f"what {path!r} holds {_SAVED}: {reason}. Save it again, or copy it again.")


def write_metadata(
    model: Any, folder: Path, facts: dict[str, Any] | None = None, numbers: Iterable[bytes | memoryview] = ()
) -> None:
    """Write class, uid, parameters and additional facts as Spark's own writer does, with a digest of all of it.

    ``numbers`` is the rest of the model, which the digest covers too.
    """
    from pyspark.ml.util import DefaultParamsWriter

    session: Any = FileSession()
    DefaultParamsWriter.saveMetadata(model, str(folder), session, digested(model, session, numbers, facts))


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """Return a saved model's metadata, written by Spark or by ``write_metadata``.

    Raises
    ------
    DataError
        Where no model was saved.
    """
    found: dict[str, Any] = json.loads(FileSession().read.text(str(Path(folder, "metadata"))).first()[0])
    return found
