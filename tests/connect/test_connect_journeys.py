"""From raw files to scores by commands alone, on Spark Connect."""

from __future__ import annotations

import pytest

from tests.jobs.raw_journeys import JOURNEYS

pytestmark = [pytest.mark.usefixtures("jvms"), pytest.mark.timeout(900)]  # all of them in the first one's fixture


@pytest.fixture(scope="module")
def failures(client, tmp_path_factory):
    """What the client's journeys raised, by name."""
    return client("tests.connect.journeys_client", tmp_path_factory.mktemp("journeys"), 800)


@pytest.mark.parametrize("name", JOURNEYS)
def test_a_journey_ends_well(failures, name):
    assert not failures[name], failures[name]
