"""The rows of Spark's Scala suites: the same generators, from the same seed."""

from __future__ import annotations

import math

import numpy as np

SEED = 42


class JavaRandom:
    """java.util.Random: the generator of Spark's Scala suites."""

    def __init__(self, seed: int = SEED):
        self.state, self.spare = (seed ^ 0x5DEECE66D) & ((1 << 48) - 1), None

    def bits(self, count):
        self.state = (self.state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        return self.state >> (48 - count)

    def double(self):
        return ((self.bits(26) << 27) + self.bits(27)) / (1 << 53)

    def gaussian(self):
        """Marsaglia's polar method, two at a time."""
        if self.spare is not None:
            found, self.spare = self.spare, None
            return found
        square = 0.0
        while not 0 < square < 1:
            first, second = 2 * self.double() - 1, 2 * self.double() - 1
            square = first * first + second * second
        factor = math.sqrt(-2 * math.log(square) / square)
        self.spare = second * factor
        return first * factor


FLOWERS = [-0.57997, 0.912083, -0.371077, -0.819866, 2.688191]
KINDS = [FLOWERS, [-0.16624, -0.84355, -0.048509, -0.301789, 4.170682]]
MEAN, VARIANCE = [5.843, 3.057, 3.758, 1.199], [0.6856, 0.1899, 3.116, 0.581]
"""Those of iris."""


def classes(weights, mean, variance, count):
    """Normal features, and labels of the multinomial model with these weights; the last weight is the intercept."""
    random = JavaRandom()
    X = np.array([[random.gaussian() for _ in mean] for _ in range(count)]) * np.sqrt(variance) + mean
    weights = np.array([[0.0] * (len(mean) + 1), *weights])
    margins = X @ weights[:, :-1].T + weights[:, -1]
    shares = np.exp(margins - margins.max(axis=1, keepdims=True))
    below = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
    drawn = np.array([random.double() for _ in range(count)])
    return X, np.argmax(drawn[:, None] < below, axis=1).astype(float)


def uniform(random, mean, variance):
    """Uniform features with these moments."""
    return [(random.double() - 0.5) * math.sqrt(12 * v) + m for m, v in zip(mean, variance, strict=True)]


def lines(slopes, intercept, count, variance=(0.7, 1.2)):
    """A line in two uniform features, with normal noise."""
    random, rows = JavaRandom(), []
    for _ in range(count):
        x = uniform(random, (0.9, -1.3), variance)
        rows.append([*x, np.dot(x, slopes) + intercept + 0.1 * random.gaussian()])
    table = np.array(rows)
    return table[:, :2], table[:, 2]


def sides(slopes, intercept, count):
    """Uniform features, and on which side of a plane they are, with noise."""
    random = JavaRandom()
    X = np.array([[2 * random.double() - 1 for _ in slopes] for _ in range(count)])
    noise = np.array([random.gaussian() for _ in range(count)])
    return X, (X @ slopes + intercept + 0.01 * noise > 0).astype(float)


INVERSES = {"identity": lambda eta: eta, "log": np.exp, "sqrt": np.square, "inverse": np.reciprocal}


def responses(link, noise):
    """Means that follow a generalised linear model, plus noise."""
    intercept, slopes = (0.25, [0.22, 0.06]) if link == "log" else (2.5, [2.2, 0.6])
    random = JavaRandom()
    X = np.array([uniform(random, (2.9, 10.5), (0.7, 1.2)) for _ in noise])
    return X, INVERSES[link](X @ slopes + intercept) + 0.01 * noise


def drawn(spark, family, count):
    """Draws of a family less their mean, by the classes that the suites draw with: they are Spark's own."""
    jvm = spark._jvm
    random = jvm.org.apache.spark.mllib.random
    generator, mean = {
        "gaussian": (random.StandardNormalGenerator(), 0.0),
        "poisson": (random.PoissonGenerator(1.0), 1.0),
        "gamma": (random.GammaGenerator(1.0, 1.0), 1.0),
    }[family]
    rdd = jvm.org.apache.spark.mllib.rdd
    partition = rdd.RandomRDDPartition(0, count, generator, SEED)
    values = rdd.RandomRDD.getPointIterator(partition, jvm.scala.reflect.ClassTag.Double())
    return np.array(values.mkString(" ").split(), dtype=float) - mean


def weights(spark, count):
    """The suites' column of weights, whose rows are in four partitions."""
    from pyspark.sql import functions as F

    return spark.range(count, numPartitions=4).select(F.rand(SEED)).toPandas().iloc[:, 0].to_numpy()
