"""Every test is in the tier of what it needs, and no other can start a JVM."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import tiers


@pytest.mark.parametrize(
    ("fixtures", "expected"),
    [
        ([], "unit"),
        (["tmp_path", "capsys"], "unit"),
        (["rows", "spark"], "spark"),
        *((["spark", name], "system") for name in tiers.NEEDS),
    ],
    ids=str,
)
def test_the_most_expensive_fixture_decides(fixtures, expected):
    assert tiers.tier(fixtures) == expected


@pytest.mark.parametrize("where", ["here", "in another process"])
def test_no_jvm_starts_without_its_fixture(where, capfd):
    code = "from pyspark.java_gateway import launch_gateway; launch_gateway()"
    if where == "here":
        with pytest.raises(Exception, match="JAVA_GATEWAY_EXITED"):
            exec(code)
        errors = capfd.readouterr().err
    else:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        errors = done.stderr
    assert tiers.NO_JVM in errors


def test_each_has_one_tier_and_the_longest_are_last(request):
    items = request.session.items
    for item in items:
        assert sum(item.get_closest_marker(name) is not None for name in tiers.TIERS) == 1, item.nodeid
    long = ["minutes" in item.fixturenames for item in items]
    assert long == sorted(long)


@pytest.mark.parametrize("value", ["plain", pytest.param("installs", marks=tiers.needs("installs"))])
def test_a_value_of_a_parameter_can_have_a_need(request, value):
    assert ("installs" in request.fixturenames) == (value == "installs")
    assert request.node.get_closest_marker("unit" if value == "plain" else "system")
