#!/usr/bin/env python
"""For spark-submit: runs ``sparkopt.jobs.evaluate``, where flags and outputs are documented (or: --help)."""

import sys

from sparkopt.jobs.evaluate import main

if __name__ == "__main__" and (code := main()):  # Databricks takes any SystemExit for a failure
    sys.exit(code)
