"""A published fit: what was fitted, and what another program printed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SAME, STANDARDISED, RAW = (True, False), (True,), (False,)
"""Values of ``standardization`` that a figure holds for."""


class Case(NamedTuple):
    name: str
    standardization: tuple[bool, ...]
    rows: str
    options: dict[str, Any]
    intercept: Any
    """None for a fit through the origin."""
    coefficients: Any
    tolerances: tuple[float, float, float] = (1e-3, 1e-3, 0.0)
    """Of intercepts, relatively; of coefficients, relatively and absolutely. Never wider than the suite's own."""

    def __str__(self) -> str:
        kind = {SAME: "either scale", STANDARDISED: "standardised", RAW: "raw"}[self.standardization]
        return f"{self.name}, {kind}{', through the origin' if self.intercept is None else ''}"

    def fitted(self, estimator, frame, **options):
        """Yield a model for each standardization."""
        for standardization in self.standardization:
            own = {**options, **self.options, "standardization": standardization}
            yield estimator(fitIntercept=self.intercept is not None, **own).fit(frame)

    def agrees(self, intercept, coefficients):
        """Raise where a model differs from what was published."""
        expected = np.zeros_like(intercept) if self.intercept is None else self.intercept
        of_intercept, relative, absolute = self.tolerances
        np.testing.assert_allclose(intercept, expected, rtol=of_intercept, err_msg="intercept")
        np.testing.assert_allclose(coefficients, self.coefficients, rtol=relative, atol=absolute)
