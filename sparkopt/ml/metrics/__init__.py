"""Metrics of models on rows, from small tallies that are taken in one pass for many models."""
