"""Where a job runs: on Spark, or on this machine without it. One job, two runtimes, the same outputs.

Read ``base`` first: what jobs ask of a runtime. ``spark`` has what Spark does, ``machine`` what this machine's own
processes do; ``values`` is what metrics and charts are computed from. `sparkopt.jobs.choice` decides between them.
"""
