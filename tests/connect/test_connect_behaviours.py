"""What pyspark.ml's own Python tests ask of its estimators, asked of ours on Spark Connect."""

from __future__ import annotations

import pytest

from tests.ml.behaviours import BEHAVIOURS

pytestmark = [pytest.mark.usefixtures("jvms"), pytest.mark.timeout(1200)]  # all of them in the first one's fixture


@pytest.fixture(scope="module")
def failures(client, tmp_path_factory):
    """What the client's behaviours raised, by name."""
    return client("tests.connect.behaviour_client", tmp_path_factory.mktemp("behaviours"), 1100)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_what_pysparks_own_tests_ask(failures, name):
    assert not failures[name], failures[name]
