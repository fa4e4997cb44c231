"""What every receipt can do: be saved as JSON and loaded, and be shown as a page."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from sparkopt.errors import DataError, ParameterError
from sparkopt.io.filesystem import STORAGE_ERRORS, brief, local_path, resolve
from sparkopt.io.secrets import mask_uri
from sparkopt.report.facts import Facts
from sparkopt.report.page import fragment, write_file, write_report

__all__ = ["BaseReceipt", "read_json"]

T = TypeVar("T", bound="BaseReceipt")


class BaseReceipt(ABC):
    """What a run cost: the base of the receipts, which are frozen dataclasses of plain data."""

    @abstractmethod
    def facts(self) -> Facts:
        """Return the contents of the report: measures, charts and notes."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, fit for JSON."""
        data: dict[str, Any] = asdict(self)  # type: ignore[call-overload]  # every receipt is a dataclass
        return data

    @classmethod
    def from_dict(cls: type[T], data: dict[str, Any]) -> T:
        """Return the receipt that ``to_dict`` was called on.

        Raises
        ------
        DataError
            Where the data is no receipt of this class.
        """
        known = fields(cls)  # type: ignore[arg-type]
        needed = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
        missing, strange = needed - data.keys(), data.keys() - {f.name for f in known}
        if missing or strange:
            names = ", ".join(sorted(missing or strange))
            fault = f"lacks {names}" if missing else f"has the unknown {names}"
            raise DataError(f"this is no {cls.__name__}: it {fault}. Give what {cls.__name__}.save wrote.")
        return cls(**data)

    def save(self, path: str | Path) -> None:
        """Write JSON, to a path or a URI."""
        write_file(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls: type[T], path: str | Path) -> T:
        """Return the receipt that ``save`` wrote.

        Raises
        ------
        DataError
            Where the file does not exist, or is no receipt of this class.
        """
        return cls.from_dict(read_json(path))

    def report(self, path: str | Path) -> Path:
        """Write a page with figures and plots; return its path.

        The page has no script and loads nothing: it can be mailed, archived and opened offline.

        Parameters
        ----------
        path : str or Path
            The file, ``report.html`` for example, or its URI. An older one is replaced.
        """
        return write_report(path, self.facts(), str(self))

    def _repr_html_(self) -> str:
        """Return the report for a notebook."""
        return fragment(self.facts(), str(self))


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file, or raise DataError; ParameterError for a URI that cannot be used."""
    try:
        local = local_path(str(path))
        data = json.loads(Path(local).read_bytes() if local is not None else resolve(str(path), "path").read())
    except STORAGE_ERRORS as error:
        reason = getattr(error, "strerror", None) or brief(error)
        raise DataError(f"cannot read {mask_uri(str(path))!r}: {reason}.") from error
    except ParameterError:  # a URI that cannot be used
        raise
    except ValueError as error:
        raise DataError(f"{str(path)!r} holds no JSON: {error}.") from error
    if not isinstance(data, dict):
        raise DataError(f"{str(path)!r} holds a JSON {type(data).__name__}, and no receipt.")
    return data
