"""Summaries of models under pyspark.ml's names: how training went, and how good the predictions are."""
