"""CsvFormat: how the text of CSV files is cut into cells."""

from __future__ import annotations

import codecs

from pyarrow import csv

from sparkopt.errors import ParameterError
from sparkopt.values import dataclass

__all__ = ["CsvFormat"]

UTF8 = "utf-8"
BY_THE_BYTE = ("ascii", "latin-1", "iso8859", "cp125", "koi8")
"""Beginnings of encodings, as Python calls them, in which a byte of a newline is nothing else."""


@dataclass(frozen=True)
class CsvFormat:
    r"""How the text of CSV files is cut into cells; the defaults are those of RFC 4180.

    Parameters
    ----------
    separator : str, default ""
        The character between two cells; "" is a tab in files that end in ``.tsv``, else a comma.
    quote : str, default '"'
        The character around cells that have separators; "" for none. Twice, within such a cell, it is itself.
    escape : str, default ""
        A character before one that is taken as it is; "" for none.
    null : str, default ""
        Cells that are missing, next to empty ones.
    multi_line : bool, default False
        Whether cells in quotes may have line ends. Such a file is one partition.
    encoding : str, default "utf-8"
        Of the text, as Python calls it.

    Examples
    --------
    >>> from sparkopt import Table
    >>> with open("prices.csv", "w", encoding="cp1254") as file:
    ...     _ = file.write("şehir;fiyat\nİzmir;2.5\nMuş;-\n")
    >>> form = CsvFormat(separator=";", null="-", encoding="cp1254")
    >>> Table.of("prices.csv", csv=form).to_arrow().to_pydict()
    {'şehir': ['İzmir', 'Muş'], 'fiyat': [2.5, None]}
    """

    separator: str = ""
    quote: str = '"'
    escape: str = ""
    null: str = ""
    multi_line: bool = False
    encoding: str = UTF8

    def __post_init__(self) -> None:
        for name, value in (("separator", self.separator), ("quote", self.quote), ("escape", self.escape)):
            if len(value.encode()) > 1 or value in ("\n", "\r"):
                raise ParameterError(f"{name} must be one character of ASCII. Got {value!r} instead.")
        try:
            object.__setattr__(self, "encoding", codecs.lookup(self.encoding).name)
        except LookupError:
            raise ParameterError(f"encoding {self.encoding!r} is not known: give one such as utf-8.") from None

    @property
    def cuts_at_lines(self) -> bool:
        """Whether a byte of a newline ends a row, so that a file can be cut there."""
        return not self.multi_line and (self.encoding == UTF8 or self.encoding.startswith(BY_THE_BYTE))

    def parsing(self, name: str) -> csv.ParseOptions:
        """Return how Arrow cuts the lines of a file of this name."""
        return csv.ParseOptions(
            delimiter=self.separator or ("\t" if ".tsv" in name.lower() else ","),
            quote_char=self.quote or False,
            escape_char=self.escape or False,
            newlines_in_values=self.multi_line,
        )

    @property
    def nulls(self) -> list[str]:
        """Cells that are missing."""
        return list(dict.fromkeys(["", self.null]))
