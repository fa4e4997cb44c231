"""Coefficients and summaries that R, glmnet, scikit-learn and e1071 print, on the data sets of Spark's own suites.

Data and figures are facts, as Spark's Scala suites quote them; the suites' generators are in ``rows``. A tolerance is
that of the suite, or narrower where a figure has more correct digits. Every case is fitted to an optimum (``TIGHT``),
so that what differs is what is minimised, not where a solver stopped.
"""

TIGHT = {"tol": 1e-12, "maxIter": 500, "engine": "local"}
