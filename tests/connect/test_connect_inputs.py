"""On Spark Connect every source of rows times every type of features gives the one model too, that of Classic."""

from __future__ import annotations

import pytest

from tests.inputs import CELLS, SEARCHED, Expected

pytestmark = [pytest.mark.usefixtures("jvms", "minutes"), pytest.mark.timeout(1500)]  # all in the first one's fixture


@pytest.fixture(scope="module")
def expected():
    return Expected()


@pytest.fixture(scope="module")
def found(client, tmp_path_factory):
    """What the client reports."""
    return client("tests.connect.inputs_client", tmp_path_factory.mktemp("inputs"), 1400)


@pytest.mark.parametrize(("source", "kind"), CELLS)
def test_a_cell_gives_the_one_model(expected, found, source, kind):
    outcome = found[f"{source}, {kind}"]
    assert isinstance(outcome, dict), outcome
    expected.check(outcome, kind)
    assert ("searched" in outcome) == ((source, kind) in SEARCHED)
    assert outcome["reader"].startswith("spark: Spark Connect does not show which files are read")
