"""Where a job runs: on Spark, or on this machine without it. One job, two runtimes, the same outputs.

Read ``base`` first: what jobs ask of a runtime. ``spark`` has what Spark does, ``machine`` what this machine's own
processes do; ``values`` is what metrics and charts are computed from. `sparkopt.jobs.choice` decides between them.
"""

from __future__ import annotations

from sparkopt.jobs.runtimes.base import InputRows, Runtime
from sparkopt.jobs.runtimes.values import RowValues

__all__ = ["InputRows", "RowValues", "Runtime"]
