"""Checkpoints: the state of a fit as a file, and the folder that keeps them."""
