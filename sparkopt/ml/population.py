"""Penalties of features and targets that are standardised by population variances, as glmnet does."""

from __future__ import annotations

from math import sqrt

from sparkopt.blocks.moments import Moments
from sparkopt.penalties import ElasticNet, NoPenalty, Penalty

__all__ = ["by_population"]


def by_population(strength: float, l1_ratio: float, standardization: bool, moments: Moments) -> Penalty:
    """Return the elastic net that means with sample deviances what the given one means with population deviances.

    The trainer standardises by s, which divides by Σw − Σw²/Σw; glmnet and pyspark.ml's normal equations by c·s,
    which divides by Σw. In the units of the rows, coefficients w of features with deviations sⱼ and a target with
    deviation t minimise half the mean square and strength · (α Σ c·sⱼ|wⱼ| + ½(1−α) Σ c²sⱼ²wⱼ² / (c·t)): both parts
    are multiplied by c. Without standardised features sⱼ is 1: L1 does not change, and L2 is divided by c.
    """
    freedom = moments.weight - moments.weight_squares / moments.weight
    if not strength or freedom <= 0:
        return ElasticNet(strength, l1_ratio) if strength else NoPenalty()
    c = sqrt(freedom / moments.weight)
    l1, l2 = strength * l1_ratio, strength * (1 - l1_ratio)
    l1, l2 = (l1 * c, l2 * c) if standardization else (l1, l2 / c)
    return ElasticNet(l1 + l2, l1 / (l1 + l2))
