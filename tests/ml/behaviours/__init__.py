"""What pyspark.ml's own Python tests ask of its estimators, asked of ours: one table, for any Spark session.

``BEHAVIOURS`` has a function for each behaviour and kind of estimator. It takes a ``World`` and raises where the
behaviour is missing. test_behaviours.py runs them on Spark Classic, tests/connect on Spark Connect.
"""

from tests.ml.behaviours import facts, field, folds, models, named, raw, refused, searches, stages  # noqa: F401  # they fill the table
from tests.ml.behaviours.kinds import World
from tests.ml.behaviours.register import BEHAVIOURS, run

__all__ = ["BEHAVIOURS", "World", "run"]
