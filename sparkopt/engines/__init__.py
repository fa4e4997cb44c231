"""Engines: where the training loop runs, and how the partitions' sums are added up."""
