"""Mean and standard deviation of each channel over a data set, in one pass."""

from __future__ import annotations

import numpy as np

from sparkopt.typing import Array, Floats
from sparkopt.values import dataclass

__all__ = ["ChannelMoments"]


@dataclass(frozen=True, eq=False)
class ChannelMoments:
    """Count, mean and sum of squared deviations of each channel, which can be added over images and partitions.

    Parameters
    ----------
    count : float
        Number of pixels.
    mean, deviations : ndarray of float64, shape (channels,)
        Mean, and sum of (value − mean)².

    References
    ----------
    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979,
    equation 1.5.
    """

    count: float
    mean: Floats
    deviations: Floats

    @classmethod
    def of(cls, image: Array) -> ChannelMoments:
        """Return the moments of one image of shape (height, width, channels)."""
        values = image.reshape(-1, image.shape[2])
        mean = values.mean(axis=0, dtype=np.float64)
        return cls(float(len(values)), mean, np.square(values - mean).sum(axis=0))

    def __add__(self, other: ChannelMoments) -> ChannelMoments:
        count = self.count + other.count
        shift = other.mean - self.mean
        return ChannelMoments(
            count,
            self.mean + shift * (other.count / count),
            self.deviations + other.deviations + shift**2 * (self.count * other.count / count),
        )

    @property
    def std(self) -> Floats:
        """Population standard deviation of each channel."""
        return np.sqrt(self.deviations / self.count)
