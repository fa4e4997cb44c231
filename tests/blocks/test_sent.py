"""Functions that one message of Spark Connect does not hold."""

from __future__ import annotations

import pytest

from sparkopt.blocks import sent
from sparkopt.errors import IncompatibleError


def test_what_rows_cannot_carry_is_refused_before_any_of_it_is_sent(monkeypatch):
    monkeypatch.setattr(sent, "MOST_SENT", 10)
    refused = pytest.raises(IncompatibleError, match="^what a rank is sent has 0 MiB, and .* Send less.$")
    with refused, sent.in_parts(None, list(range(100)), ("what a rank is sent", "Send less.")):  # no session to use
        pytest.fail("it was sent")
