"""From statistics to an encoder: what each column becomes, by what its values are."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sparkopt.errors import DataError
from sparkopt.features.encoder import Encoder
from sparkopt.features.encodings import CategoryEncoding, ColumnEncoding, DateEncoding, HashEncoding, NumberEncoding
from sparkopt.features.statistics import DATE, CategoryStatistics, ColumnStatistics, NumberStatistics, RawColumn
from sparkopt.values import dataclass

__all__ = ["DROP", "IMPUTE", "EncodingOptions", "fitted_encoder"]

logger = logging.getLogger(__name__)

IMPUTE = ("mean", "median", "most_frequent", "zero")
DROP = ("if_binary", "first", "none")


@dataclass(frozen=True)
class EncodingOptions:
    """How columns are encoded.

    Parameters
    ----------
    impute : {"mean", "median", "most_frequent", "zero"}
        What takes the place of missing numbers.
    indicators : bool
        Whether a feature says that a value was missing.
    min_count : int
        Rows that a category needs for a feature of its own; rarer ones share one.
    max_categories : int
        Categories from which a column is hashed.
    buckets : int
        Features of a hashed column.
    drop : {"if_binary", "first", "none"}
        Whether the first category has no feature: where there are two, always, or never.
    """

    impute: str = "mean"
    indicators: bool = True
    min_count: int = 1
    max_categories: int = 20_000
    buckets: int = 4096
    drop: str = "if_binary"


def fitted_encoder(
    columns: Sequence[RawColumn],
    statistics: Sequence[ColumnStatistics],
    options: EncodingOptions,
    terms: Sequence[tuple[str, ...]],
) -> Encoder:
    """Return the encoder for columns of these statistics.

    Parameters
    ----------
    columns : sequence of RawColumn
        The columns.
    statistics : sequence of ColumnStatistics
        Of each.
    options : EncodingOptions
        How.
    terms : sequence of tuple of str
        Which columns, and which products of them, are features.

    Raises
    ------
    DataError
        Where there are no rows, or no column has a value.
    """
    if not columns or not statistics[0].rows:
        raise DataError("there are no rows to take features from: the DataFrame or table is empty.")
    encodings = {}
    for column, found in zip(columns, statistics, strict=True):
        if found.missing == found.rows:
            logger.warning("column %r is left out: every value is missing", column.name)
        else:
            encodings[column.name] = _encoding(column, found, options)
    names = list(encodings)
    kept = [term for term in terms if all(name in encodings for name in term)]
    if not kept:
        raise DataError("there are no features: every value of every column is missing.")
    used = sorted({names.index(name) for term in kept for name in term})
    place = {names[number]: at for at, number in enumerate(used)}
    kept_terms = tuple(tuple(place[name] for name in term) for term in kept)
    return Encoder(tuple(encodings[names[number]] for number in used), kept_terms)


def _encoding(column: RawColumn, found: ColumnStatistics, options: EncodingOptions) -> ColumnEncoding:
    if isinstance(found, CategoryStatistics):
        return _category(column.name, found, options)
    indicator = options.indicators and found.missing > 0
    if column.kind == DATE:
        return DateEncoding(column.name, found.minimum, found.mean(), column.has_time, indicator)
    return NumberEncoding(column.name, _fill(found, options.impute), indicator)


def _fill(found: NumberStatistics, impute: str) -> float:
    if impute == "zero":
        return 0.0
    return {"mean": found.mean, "median": found.median, "most_frequent": found.most_frequent}[impute]()


def _category(name: str, found: CategoryStatistics, options: EncodingOptions) -> ColumnEncoding:
    missing = found.missing > 0
    if found.counts is None:
        logger.info("column %r has more than %s categories: it is hashed", name, f"{options.max_categories:,}")
        return HashEncoding(name, options.buckets, missing)
    if found.counts.num_rows == found.rows > 1000:
        logger.warning("column %r has another value in every row: is it an identifier? Then leave it out", name)
    pairs = zip(found.counts.column("value").to_pylist(), found.counts.column("count").to_pylist(), strict=True)
    counts = dict(sorted(pairs))
    kept = [value for value, count in counts.items() if count >= options.min_count]
    other = len(kept) < len(counts)
    levels = len(kept) + other + missing
    drops = options.drop == "first" or (options.drop == "if_binary" and levels == 2)
    dropped = 1 if drops and kept and levels > 1 else 0
    return CategoryEncoding(name, tuple(kept[dropped:]), tuple(kept[:dropped]), other, missing)
