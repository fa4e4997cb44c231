"""Arithmetic with one result, to the last bit, in NumPy, in Spark's expressions and in the JVM's models.

A prediction is then the same by ``predict``, by ``transform`` on Spark Classic and Connect, and without Spark. Sums
are taken in the order of features; the exponential function is that of Java's StrictMath, which Spark's ``exp`` is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparkopt.typing import Array, Floats

__all__ = ["exp", "products", "sigmoid", "softmax", "sums_in_order"]

FULL = 1000
"""Least sums that are advanced together, by a feature at a time."""
SUMS, CHUNK = 1 << 14, 1 << 19
"""Sums that are advanced at a time, and numbers of the rows that they are of: they stay in a core's cache."""

# Constants of fdlibm's e_exp.c (Sun Microsystems, 1993): ln 2 in two parts, and the polynomial of the remainder.
LN2_HIGH, LN2_LOW, PER_LN2 = 6.93147180369123816490e-01, 1.90821492927058770002e-10, 1.44269504088896338700e00
POLYNOMIAL = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
OVERFLOWS, UNDERFLOWS = 7.09782712893383973096e02, -7.45133219101941108420e02
# It compares the upper halves of numbers: half of ln 2, one and a half, and 2⁻²⁸.
HALF_LN2, MORE_LN2, TINY = 0x3FD62E42, 0x3FF0A2B2, 0x3E300000


def sums_in_order(values: Floats) -> Floats:
    """Return the sums of rows, shape (n, k) to (n,), each taken from its first entry to its last."""
    if not values.shape[1]:
        return np.zeros(len(values))
    return np.asarray(np.add.accumulate(values, axis=1)[:, -1])


def products(X: Any, matrix: Floats) -> Floats:
    """Return ``X @ matrix.T``, shape (n, outputs), each sum in the order of features.

    Parameters
    ----------
    X : ndarray or csr_array of shape (n, features)
        Rows.
    matrix : ndarray of shape (outputs, features)
        Coefficients.
    """
    if not isinstance(X, np.ndarray):
        return np.asarray(X @ matrix.T)  # SciPy adds each row's entries in their order
    found = np.empty((len(X), len(matrix)))
    outputs, features = max(1, len(matrix)), max(1, X.shape[1])
    step = max(1, min(SUMS // outputs, CHUNK // features))
    for start in range(0, len(X), step):
        rows = X[start : start + step]
        if len(rows) * outputs >= FULL and matrix.shape[1]:
            found[start : start + step] = _by_feature(rows, matrix)
            continue
        rows = rows.astype(np.float64, copy=False)
        for output, coefficients in enumerate(matrix):
            found[start : start + step, output] = sums_in_order(rows * coefficients)
    return found


def _by_feature(X: Array, matrix: Floats) -> Floats:
    """Return the same sums, advanced by a feature at a time: of each output those of all rows side by side."""
    columns, by_feature = np.empty(X.T.shape), np.ascontiguousarray(matrix.T)[:, :, None]
    columns[:] = X.T
    total = by_feature[0] * columns[0]
    product = np.empty_like(total)
    for column, coefficients in zip(columns[1:], by_feature[1:], strict=True):
        np.multiply(coefficients, column, out=product)
        total += product
    return np.asarray(total.T)


def exp(x: Floats) -> Floats:
    """Return e^x, to the bit what Java's ``StrictMath.exp`` returns; a port of fdlibm's e_exp.c."""
    x = np.asarray(x, dtype=np.float64)
    size = (np.ascontiguousarray(x).view(np.int64) >> 32) & 0x7FFFFFFF
    inside = np.where((x > OVERFLOWS) | (x < UNDERFLOWS) | ~np.isfinite(x), 0.0, x)
    nearest = np.where(size < MORE_LN2, np.sign(inside), np.trunc(PER_LN2 * inside + np.copysign(0.5, inside)))
    k = np.where(size > HALF_LN2, nearest, 0.0)
    high, low = inside - k * LN2_HIGH, k * LN2_LOW
    rest = high - low
    square = rest * rest
    p1, p2, p3, p4, p5 = POLYNOMIAL
    c = rest - square * (p1 + square * (p2 + square * (p3 + square * (p4 + square * p5))))
    near = 1.0 - ((rest * c) / (c - 2.0) - rest)
    far = 1.0 - ((low - (rest * c) / (2.0 - c)) - high)
    found = np.ldexp(np.where(k == 0, near, far), k.astype(np.int32))
    found = np.where(size < TINY, 1.0 + inside, found)
    found = np.where(x > OVERFLOWS, np.inf, np.where(x < UNDERFLOWS, 0.0, found))
    return np.asarray(np.where(np.isnan(x), x, found))


def sigmoid(raw: Floats) -> Floats:
    """Return 1 / (1 + e^−raw) without overflow; `sparkopt.ml.expressions.sigmoid` is the same for columns."""
    small = exp(-np.abs(raw))
    return np.asarray(np.where(raw >= 0, 1.0, small) / (1.0 + small))


def softmax(raw: Floats) -> Floats:
    """Return e^raw / Σ e^raw by row; `sparkopt.ml.expressions.softmax` is the same for columns."""
    shifted = exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(shifted / sums_in_order(shifted)[:, None])
