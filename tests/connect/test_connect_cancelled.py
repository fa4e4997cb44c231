"""A fit on Spark Connect that is interrupted ends in one line, between two passes too."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("jvms")


def test_interrupts_end_a_fit(client, tmp_path):
    found = client("tests.connect.cancel_client", tmp_path, 500)
    assert found.pop("driver another's tag") == "10 steps"
    for name, end in found.items():
        assert end.startswith("FitCancelledError: the fit was cancelled"), (name, end)
        assert "\n" not in end
