"""``python -m sparkopt``: the ``sparkopt`` command."""

import sys

from sparkopt.jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
