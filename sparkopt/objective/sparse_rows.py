"""Products with sparse rows, added to what is there: SciPy's operators return new arrays.

With millions of features, to clear such an array and to add it up costs more than the product.
"""

from __future__ import annotations

import numpy as np
import scipy  # loads scipy.sparse where it is used

from sparkopt.typing import Array, Floats

__all__ = ["add_transposed_product"]


def add_transposed_product(X: scipy.sparse.csr_array, vector: Array, total: Floats) -> None:
    """Add Xᵀ · ``vector`` to ``total``, in place.

    Parameters
    ----------
    X : csr_array of shape (n, features)
        Rows, in float64.
    vector : ndarray of shape (n,)
        In float64.
    total : ndarray of shape (features,)
        Contiguous, in float64.
    """
    # the rows of X are the columns of its transpose; SciPy calls it as ``X.T @ vector`` does
    scipy.sparse._sparsetools.csc_matvec(
        X.shape[1], X.shape[0], X.indptr, X.indices, X.data, np.ascontiguousarray(vector), total
    )
