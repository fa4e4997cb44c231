"""Outputs of models as Spark's own expressions, to the bit those of `sparkopt.ml.arithmetic`.

They are SQL: one call of the JVM takes a whole expression, where each operation on a Column takes about ten.

Spark compares NaN as the largest number and NumPy as none: where that matters, NaN is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sparkopt.values import dataclass

__all__ = [
    "FEW",
    "Formulas",
    "above",
    "argmax",
    "argmax_of_few",
    "array",
    "largest_share",
    "let",
    "number",
    "sigmoid",
    "small_power",
    "softmax",
    "softmax_of_few",
    "text",
    "twice",
]

LARGEST = float(np.finfo(np.float64).max)
FEW = 32
"""Most classes that are a column each: Spark compiles these, and interprets functions of arrays."""

TOP, POWER, TOTAL = "__sparkopt_top", "__sparkopt_power", "__sparkopt_total"


@dataclass(frozen=True)
class Formulas:
    """Output columns of raw predictions, in SQL.

    Attributes
    ----------
    outputs : dict of str to str
        By the keys of a model's outputs; Vectors as arrays of doubles.
    steps : tuple of dict of str to str, default ()
        Columns that they are computed from, by name; those of a step are computed from columns of earlier steps.
    """

    outputs: dict[str, str]
    steps: tuple[dict[str, str], ...] = ()


def number(value: float) -> str:
    """Return a literal, to the last bit."""
    if np.isnan(value):
        return "double('NaN')"
    if np.isinf(value):
        return "double('Infinity')" if value > 0 else "double('-Infinity')"
    return f"({float(value)!r}D)"


def text(value: str) -> str:
    """Return a literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def array(values: Iterable[str]) -> str:
    """Return an array."""
    return f"array({', '.join(values)})"


def above(value: str, threshold: float) -> str:
    """Return 1 where a number is above the threshold, else 0."""
    return f"CASE WHEN {value} > {number(threshold)} AND NOT isnan({value}) THEN 1D ELSE 0D END"


def small_power(raw: str) -> str:
    """Return e^−|raw|, which `sigmoid` takes."""
    return f"exp(-abs({raw}))"


def sigmoid(raw: str, small: str | None = None) -> str:
    """Return 1 / (1 + e^−raw) without overflow, given ``small_power``, or computing it at each use."""
    small = small_power(raw) if small is None else small
    return f"(CASE WHEN {raw} >= 0D THEN 1D ELSE {small} END / (1D + {small}))"


def let(name: str, value: str, result: str) -> str:
    """Return ``result``, in which ``name`` is the value: it is computed once, however often it is used."""
    return f"transform(array({value}), {name} -> {result})[0]"


def softmax(raw: str) -> str:
    """Return e^raw / Σ e^raw of an array; infinite entries count as the largest numbers there are."""
    shares = let("total", "aggregate(powers, 0D, (sum, x) -> sum + x)", "transform(powers, x -> x / total)")
    powers = let("powers", "transform(bounded, x -> exp(x - top))", shares)
    return let("bounded", f"transform({raw}, x -> {_bounded('x')})", let("top", "array_max(bounded)", powers))


def _bounded(x: str) -> str:
    return f"CASE WHEN isnan({x}) THEN {x} ELSE greatest(least({x}, {number(LARGEST)}), {number(-LARGEST)}) END"


def softmax_of_few(raw: str, count: int) -> tuple[tuple[dict[str, str], ...], list[str], str]:
    """Return what ``softmax`` does, to the bit, of an array with ``count`` entries.

    Returns
    -------
    tuple
        Steps, the entries of ``raw``, and the softmax, an array.
    """
    each = [f"{raw}[{index}]" for index in range(count)]
    top = {TOP: f"greatest({', '.join(map(_bounded, each))})"}
    powers = {f"{POWER}_{index}": f"exp({_bounded(value)} - {TOP})" for index, value in enumerate(each)}
    total = {TOTAL: " + ".join(["0D", *powers])}
    return (top, powers, total), each, array(f"{power} / {TOTAL}" for power in powers)


def argmax_of_few(values: Sequence[str]) -> str:
    """Return the position of the first largest of some columns, from 0, as a double."""
    top = f"greatest({', '.join(values)})"
    cases = [f"WHEN {value} = {top} THEN {number(index)}" for index, value in enumerate(values)]
    return f"CASE {' '.join(cases)} END"


def argmax(values: str) -> str:
    """Return the position of an array's first largest entry, from 0, as a double."""
    return f"CAST(array_position({values}, array_max({values})) - 1 AS DOUBLE)"


def largest_share(probability: str, thresholds: Sequence[float]) -> str:
    """Return the class of the largest probability / threshold; 0 / 0 is no vote."""
    of_none = f"CASE WHEN value > 0D THEN {number(np.inf)} ELSE 0D END"
    share = f"CASE WHEN isnan(value) THEN 0D WHEN limit = 0D THEN {of_none} ELSE value / limit END"
    shares = f"zip_with({probability}, {array(map(number, thresholds))}, (value, limit) -> {share})"
    return let("shares", shares, argmax("shares"))


def twice(raw: str) -> str:
    """Return a number as a value that reads it twice.

    Spark moves a filter before the projection that computes what it reads, and so computes that again, unless the
    filter reads it more than once.
    """
    return f"greatest({raw}, {raw})"
