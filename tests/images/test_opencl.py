"""Pipelines by OpenCL: the processor's pixels within rounding on a device, and what happens where there is none.

The device is that of a processor (pocl), in a process of its own, since OpenCV reads OPENCV_OPENCL_DEVICE once.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparkopt import images
from sparkopt.errors import ParameterError
from sparkopt.images import opencl

ROOT = Path(__file__).parents[2]
PIPELINES = {
    "shrink": [images.Resize(97, 131)],
    "shrink a little": [images.Resize(350, 410)],
    "enlarge": [images.Resize(700, 900, "cubic")],
    "nearest": [images.Resize(97, 131, "nearest")],
    "rotate": [images.Rotate(17), images.Resize(150, 180)],
    "perspective": [images.RandomPerspective(0.3, p=1.0)],
    "training": [images.RandomResizedCrop(64, 64), images.RandomHorizontalFlip(), images.ColorJitter(0.2, 0.2, 0.2)],
    "blur": [images.GaussianBlur(1.5)],
    "median": [images.MedianBlur(5)],
    "motion": [images.MotionBlur(5)],
    "sharp": [images.Sharpness(1.8)],
    "elastic": [images.ElasticDistortion()],
    "gray": [images.Grayscale(), images.Resize(60, 70)],
    "float": [images.Rescale(1 / 255), images.Resize(60, 70), images.GaussianBlur(1.0)],
}


def photograph() -> np.ndarray:
    """Smooth, as photographs are: rounding otherwise than the processor moves a value by one level at most."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return images.functional.resize(small, 401, 503, "cubic")


def outcome(name: str, device: str) -> np.ndarray:
    return images.Compose(PIPELINES[name], device)(photograph(), np.random.default_rng(7))


def elsewhere(code: str, device: str, tmp_path: Path) -> str:
    """Run lines of Python in a process whose OpenCL device is another."""
    environment = {
        **os.environ,
        "OPENCV_OPENCL_DEVICE": device,
        "PYTHONPATH": str(ROOT),
        "POCL_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-c", code]
    found = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


def main() -> None:
    """Print the largest difference of each pipeline, and how many operations ran on the device."""
    calls = 0

    def counted(image):
        nonlocal calls
        calls += 1
        return there(image)

    there, opencl.cv2.UMat = opencl.cv2.UMat, counted
    found = {"device": opencl.device_name()}
    if found["device"] is not None:
        for name in PIPELINES:
            calls = 0
            here, other = outcome(name, "cpu"), outcome(name, "opencl")
            scale = 1 if here.dtype == np.uint8 else 255
            difference = np.abs(here.astype(float) - other.astype(float)).max() * scale
            found[name] = {"difference": difference, "calls": calls, "type": [str(here.dtype), str(other.dtype)]}
    print(json.dumps(found))


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> dict[str, dict[str, float]]:
    text = elsewhere(
        "from tests.images import test_opencl; test_opencl.main()", ":CPU:", tmp_path_factory.mktemp("pocl")
    )
    found = json.loads(text.splitlines()[-1])
    if found["device"] is None:
        pytest.skip("OpenCV finds no OpenCL device; Debian's pocl-opencl-icd is one")
    return found


@pytest.mark.parametrize("name", PIPELINES)
def test_pixels_are_the_processors_within_rounding(compared, name):
    assert compared[name]["calls"] > 0  # of OpenCL
    assert compared[name]["difference"] <= 1.001
    assert len(set(compared[name]["type"])) == 1


WITHOUT = """
from sparkopt import images
from sparkopt.errors import ParameterError
from tests.images.test_opencl import photograph
import logging; logging.basicConfig(level="INFO")
try:
    images.Compose([images.Resize(5, 5)], "opencl")(photograph())
except ParameterError as error:
    print(error)
here, there = (images.Compose([images.Resize(5, 5)], device)(photograph()) for device in ("cpu", "auto"))
print((here == there).all())
from sparkopt.launch import devices
print(devices.describe().absent["opencl"])
"""


def test_without_a_device_it_is_refused_and_auto_takes_the_processor(tmp_path):
    refused, is_equal, absent = elsewhere(WITHOUT, "disabled", tmp_path).splitlines()
    assert refused.startswith("device is 'opencl', but OpenCV finds no OpenCL device here. Install its driver")
    assert is_equal == "True"
    assert absent == "OpenCV finds no OpenCL device"


@pytest.mark.parametrize(("seconds", "chosen"), [({True: 2.0, False: 1.0}, False), ({True: 1.0, False: 2.0}, True)])
def test_auto_stays_with_the_faster(seconds, chosen, caplog, monkeypatch):
    monkeypatch.setattr(opencl, "device_name", lambda: "a device")
    trial, sides = opencl.Trial(), []
    with caplog.at_level(logging.INFO, "sparkopt.images.opencl"):
        for image in range(12):
            sides.append(trial.next())
            compiling = 100.0 if image == 0 else 1.0
            trial.add(sides[-1], seconds[sides[-1]] * compiling * 1e-3, 1000)
    assert sides[:7] == [True, True, False, True, False, True, False]
    assert sides[7:] == [chosen] * 5
    assert f"so the {'former' if chosen else 'latter'} runs the pipeline" in caplog.text


def test_the_device_is_kept_in_json():
    for device in opencl.DEVICES:
        pipeline = images.Compose([images.Decode(), images.Resize(4, 4)], device)
        assert images.Compose.from_json(pipeline.to_json()) == pipeline
    assert json.loads(images.Compose([images.Resize(4, 4)]).to_json())[0][0] == "Resize"
    with pytest.raises(ParameterError, match="device must be one of 'cpu', 'opencl', 'auto'"):
        images.Compose([], "gpu")
