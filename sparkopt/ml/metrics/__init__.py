"""Metrics of models on rows, from small tallies that are taken in one pass for many models."""

from sparkopt.ml.metrics.tallies import Tally

__all__ = ["Tally"]
