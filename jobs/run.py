#!/usr/bin/env python
"""For spark-submit: ``jobs/run.py COMMAND flags`` runs any command of ``sparkopt`` (--help lists them)."""

import sys

from sparkopt.jobs.cli import main

if __name__ == "__main__" and (code := main()):  # Databricks treats any SystemExit as a failure
    sys.exit(code)
