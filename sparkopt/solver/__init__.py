"""The training loop, what it is asked to minimise, and what it reports after each step."""
