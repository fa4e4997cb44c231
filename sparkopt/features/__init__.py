"""Features of raw columns: text, dates, booleans and numbers with nulls become a matrix of named columns.

Statistics of all rows (``statistics``) decide how each column is encoded (``encodings``); an ``Encoder`` of all
columns is a pure function of Arrow arrays, which is saved as JSON. A ``Formula`` says which columns are used, and
which of their products. The package knows neither Spark nor estimators. Start reading in ``encoder``.
"""

from sparkopt.features.encoder import Encoder
from sparkopt.features.encodings import (
    CategoryEncoding,
    ColumnEncoding,
    DateEncoding,
    Entry,
    HashEncoding,
    NumberEncoding,
)
from sparkopt.features.fitting import EncodingOptions, fitted_encoder
from sparkopt.features.formula import Formula
from sparkopt.features.statistics import CategoryStatistics, Collect, ColumnStatistics, NumberStatistics, RawColumn

__all__ = [
    "CategoryEncoding",
    "CategoryStatistics",
    "Collect",
    "ColumnEncoding",
    "ColumnStatistics",
    "DateEncoding",
    "Encoder",
    "EncodingOptions",
    "Entry",
    "Formula",
    "HashEncoding",
    "NumberEncoding",
    "NumberStatistics",
    "RawColumn",
    "fitted_encoder",
]
