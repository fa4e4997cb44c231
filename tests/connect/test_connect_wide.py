"""A table of 20,000 columns on Spark Connect."""

from __future__ import annotations

import pytest

from tests.ml.wide import WIDTH

pytestmark = [pytest.mark.usefixtures("jvms", "minutes"), pytest.mark.timeout(1200)]


def test_twenty_thousand_columns(client, tmp_path):
    assert client("tests.connect.wide_client", tmp_path, 1100) == WIDTH
