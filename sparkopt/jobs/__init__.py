"""Batch jobs: what ``spark-submit jobs/….py`` and the ``sparkopt`` command run."""
