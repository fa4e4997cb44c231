"""How files are read: ``--option NAME=VALUE`` and ``--type COLUMN=TYPE``, on Spark and on one machine alike.

Options have the names of Spark's readers. One machine has those that say how a CSV file is written; with another one
the job runs on Spark.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from sparkopt.errors import ParameterError, SchemaError

if TYPE_CHECKING:
    from sparkopt.machine import CsvFormat

__all__ = [
    "SPARK_TYPES",
    "arrow_types",
    "check_columns",
    "checked_options",
    "checked_types",
    "csv_format",
    "has_header",
    "on_spark_only",
    "spark_csv",
]

ALIASES = {"delimiter": "sep", "charset": "encoding"}
HERE = ("sep", "header", "nullValue", "multiLine", "encoding", "quote", "escape")
"""Options of CSV files that one machine has too."""
OF_FILES = ("pathGlobFilter", "recursiveFileLookup", "modifiedBefore", "modifiedAfter", "timeZone")
OF_TEXT = (
    "mode",
    "columnNameOfCorruptRecord",
    "dateFormat",
    "timestampFormat",
    "timestampNTZFormat",
    "enableDateTimeParsingFallback",
    "locale",
    "lineSep",
    "samplingRatio",
    "multiLine",
    "encoding",
)
OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "csv": (
            *HERE,
            *OF_TEXT,
            *OF_FILES,
            "charToEscapeQuoteEscaping",
            "comment",
            "emptyValue",
            "enforceSchema",
            "ignoreLeadingWhiteSpace",
            "ignoreTrailingWhiteSpace",
            "inferSchema",
            "maxCharsPerColumn",
            "maxColumns",
            "nanValue",
            "negativeInf",
            "positiveInf",
            "preferDate",
            "unescapedQuoteHandling",
        ),
        "json": (
            *OF_TEXT,
            *OF_FILES,
            "allowBackslashEscapingAnyCharacter",
            "allowComments",
            "allowNonNumericNumbers",
            "allowNumericLeadingZeros",
            "allowSingleQuotes",
            "allowUnquotedControlChars",
            "allowUnquotedFieldNames",
            "dropFieldIfAllNull",
            "prefersDecimal",
            "primitivesAsString",
        ),
        "parquet": (*OF_FILES, "datetimeRebaseMode", "int96RebaseMode", "mergeSchema"),
        "libsvm": (*OF_FILES, "numFeatures", "vectorType"),
    }
)
"""Options of Spark's readers, which ignore others; those of other formats are their packages' own."""
SEPARATORS = (";", "\t", "|")
"""What CSV files have in place of commas: in the name of an only column it has not been taken for what it is."""
WORDS = {"true": True, "false": False}
SPARK_TYPES: Mapping[str, str] = MappingProxyType(
    {"string": "string", "double": "double", "long": "bigint", "boolean": "boolean", "date": "date"}
)
"""Types of ``--type``, and what Spark calls them."""
ARROW_TYPES = {"string": "string", "double": "double", "long": "int64", "boolean": "bool", "date": "date32"}


def checked_options(kind: str, given: Sequence[str]) -> dict[str, str]:
    """Return the options of ``--option NAME=VALUE`` by their names as Spark spells them.

    Parameters
    ----------
    kind : str
        The format.
    given : sequence of str
        The values of the flag; of several with one name the last one counts.

    Raises
    ------
    ParameterError
        For an option that the format's reader does not have, which it would ignore, and for a value that cannot be.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ParameterError(f"--option must be NAME=VALUE, such as sep=;. Got {text!r} instead.")
        found[_spelled(kind, name.strip())] = value
    if kind == "csv":
        csv_format({name: value for name, value in found.items() if name in HERE and name != "sep"})
        has_header(found)
    return found


def _spelled(kind: str, name: str) -> str:
    if kind not in OPTIONS:
        if kind in ("images", "table"):
            raise ParameterError(f"--option {name} is for files of rows, and --{kind} is none.")
        return name
    known = {each.lower(): each for each in OPTIONS[kind]}
    found = known.get(ALIASES.get(name.lower(), name).lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = (
            f"Did you mean {known[near[0]]}?"
            if near
            else f"Its options are {', '.join(dict.fromkeys(OPTIONS[kind]))}."
        )
        raise ParameterError(f"--option {name}: the reader of {kind} files has none of this name. {hint}")
    return found


def checked_types(kind: str, given: Sequence[str]) -> dict[str, str]:
    """Return the types of ``--type COLUMN=TYPE`` by column.

    Raises
    ------
    ParameterError
        For another type, and for files whose columns have types.
    """
    found = {}
    for text in given:
        name, equals, value = text.rpartition("=")
        if not equals or value not in SPARK_TYPES:
            known = ", ".join(SPARK_TYPES)
            raise ParameterError(f"--type must be COLUMN=TYPE, with one of {known}. Got {text!r} instead.")
        if kind != "csv":
            raise ParameterError(f"--type is for CSV files; the columns of --{kind} have types.")
        found[name.strip()] = value
    return found


def check_columns(types: Mapping[str, str], options: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse CSV files that another character separates, and a type of a column that is not there.

    Raises
    ------
    SchemaError
        Naming the columns.
    """
    mark = next((mark for mark in SEPARATORS if mark in names[0]), None) if len(names) == 1 else None
    if mark is not None and "sep" not in options:
        shown = r"\t" if mark == "\t" else mark
        raise SchemaError(
            f"there is one column, {names[0]!r}: what separates columns seems to be --option 'sep={shown}'."
        )
    for name in types:
        if name not in names:
            raise SchemaError(f"--type {name}: there is no such column. Columns: {', '.join(names)}.")


def on_spark_only(kind: str, options: Mapping[str, str]) -> str:
    """Return why options can only be read by Spark, or "" where they need not be."""
    if kind in ("images", "libsvm") and set(options) <= {"numFeatures"}:
        return ""
    for name, value in options.items():
        if kind != "csv" or name not in HERE:
            return f"--option {name} is of Spark's reader"
        if name == "sep" and len(_character(value).encode()) > 1:
            return f"--option sep={value} is more than one character, which only Spark's reader takes"
    return ""


def csv_format(options: Mapping[str, str]) -> CsvFormat:
    """Return how Arrow cuts CSV files.

    Raises
    ------
    ParameterError
        For a value that cannot be.
    """
    from sparkopt.machine import CsvFormat

    multi_line = _truth(options, "multiLine", default=False)
    try:
        return CsvFormat(
            separator=_character(options.get("sep", "")),
            quote=_character(options.get("quote", '"')),
            escape=_escape(options),
            null=options.get("nullValue", ""),
            multi_line=multi_line,
            encoding=options.get("encoding", "utf-8"),
        )
    except ParameterError as error:
        raise ParameterError(f"--option {error}") from None


def has_header(options: Mapping[str, str]) -> bool:
    """Whether CSV files begin with a line of names."""
    return _truth(options, "header", default=True)


def spark_csv(paths: Iterable[str], options: Mapping[str, str]) -> dict[str, str]:
    r"""Return the options of Spark's reader of CSV files: a quote within quotes is written twice, as in RFC 4180.

    Spark's own default is a backslash before it; ``--option escape=\`` asks for that.
    """
    tabs = all(".tsv" in path.rstrip("/").rpartition("/")[2].lower() for path in paths)
    quote = options.get("quote", '"')
    own = {"header": "true", "inferSchema": "true", "escape": quote, **({"sep": "\t"} if tabs else {})}
    return {**own, **options}


def arrow_types(types: Mapping[str, str]) -> dict[str, str]:
    """Return types of ``--type`` as Arrow calls them."""
    return {name: ARROW_TYPES[kind] for name, kind in types.items()}


def _character(text: str) -> str:
    r"""Return a character as Spark's options write it: ``\t`` is a tab."""
    return {r"\t": "\t", "\\\\": "\\"}.get(text, text)


def _escape(options: Mapping[str, str]) -> str:
    """Return the escape of Arrow; the quote itself, twice, is none."""
    escape = _character(options.get("escape", ""))
    return "" if escape == options.get("quote", '"') else escape


def _truth(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = options.get(name)
    if value is None:
        return default
    if value.lower() not in WORDS:
        raise ParameterError(f"--option {name} must be true or false. Got {value!r} instead.")
    return WORDS[value.lower()]
