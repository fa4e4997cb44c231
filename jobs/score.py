#!/usr/bin/env python
"""For spark-submit: runs ``sparkopt.jobs.score``, which documents flags and outputs (as does --help)."""

import sys

from sparkopt.jobs.score import main

if __name__ == "__main__" and (code := main()):  # Databricks treats any SystemExit as a failure
    sys.exit(code)
