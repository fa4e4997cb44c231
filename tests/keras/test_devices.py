"""Devices of XLA are listed by the libraries that have them: here several virtual ones of one CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
from sparkopt.launch import devices
report = devices.describe()
print([device.address for device in report.devices if device.kind == "xla"], report.absent.get("xla"))
print(report.chosen.address)
"""


def listed(flags):
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)])
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-2:]


@pytest.mark.usefixtures("minutes")
def test_devices_of_jax_are_listed_and_not_chosen(keras):
    addresses = [f"jax:cpu:{number}" for number in range(3)]
    assert listed("--xla_force_host_platform_device_count=3") == [f"{addresses} None", "cpu"]


@pytest.mark.usefixtures("minutes")
def test_a_cpu_alone_is_no_device_of_xla(keras):
    found, chosen = listed("")
    assert found.startswith("[] torch_xla is not installed; jax sees the CPU only; tensorflow")
    assert chosen == "cpu"
