"""OpenCL: OpenCV's heavier operations on a GPU, or another OpenCL device, where one is and where it pays.

OpenCV chooses the device: a GPU, or what its environment variable OPENCV_OPENCL_DEVICE names, such as ``:CPU:``.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Any

import numpy as np

from sparkopt.errors import ParameterError
from sparkopt.images.opencv import cv2
from sparkopt.typing import Array
from sparkopt.values import dataclass

__all__ = ["DEVICES", "Trial", "call", "check_device", "device_name", "is_on", "running"]

DEVICES = ("cpu", "opencl", "auto")
TRIES = 3
"""Images on each side by which ``auto`` decides, after one that compiles the kernels."""
_LOG = logging.getLogger(__name__)
_thread = threading.local()
_lock = threading.Lock()
_CPU, _OPENCL = False, True


@functools.cache
def device_name() -> str | None:
    """Return the name of the OpenCL device that OpenCV takes in this process; None where there is none."""
    if not cv2.ocl.haveOpenCL():
        return None
    cv2.ocl.setUseOpenCL(True)
    if not cv2.ocl.useOpenCL():
        return None
    name: str = cv2.ocl.Device.getDefault().name()
    return name


def is_on() -> bool:
    """Whether this thread runs by OpenCL."""
    return getattr(_thread, "is_on", False)


def call(function: Callable[..., Any], image: Array, *arguments: Any, **options: Any) -> Array:
    """Return what a function of OpenCV makes of an image, by OpenCL where this thread runs there."""
    if not is_on():
        found: Array = function(image, *arguments, **options)
    else:
        there = cv2.UMat(np.ascontiguousarray(image))  # type: ignore[call-overload]  # its stubs lack arrays
        found = function(there, *arguments, **options).get()
    return found


def check_device(device: str) -> None:
    """Raise ParameterError for "opencl" where there is no device."""
    if device == "opencl" and device_name() is None:
        raise ParameterError(
            "device is 'opencl', but OpenCV finds no OpenCL device here. Install its driver (Debian's "
            "pocl-opencl-icd serves any processor, with OPENCV_OPENCL_DEVICE=:CPU:), or take device='cpu' or 'auto'."
        )


@contextmanager
def running(device: str, pipeline: Hashable, size: int) -> Iterator[None]:
    """Run the block where ``device`` says.

    Parameters
    ----------
    device : {"cpu", "opencl", "auto"}
        "auto" compares the seconds of a pipeline's first images in this process, and then stays with the faster.
    pipeline : hashable
        What is compared.
    size : int
        Bytes of what the block works on.

    Raises
    ------
    ParameterError
        For "opencl" where there is no device.
    """
    check_device(device)
    trial = _trial(pipeline) if device == "auto" else None
    there = device == "opencl" if trial is None else trial.next()
    before, begin = is_on(), time.perf_counter()
    if there:
        cv2.ocl.setUseOpenCL(True)  # a thread's own setting
    _thread.is_on = there
    try:
        yield
    finally:
        _thread.is_on = before
    if trial is not None:
        trial.add(there, time.perf_counter() - begin, size)


@functools.lru_cache(maxsize=64)
def _trial(pipeline: Hashable) -> Trial:
    trial = Trial()
    if device_name() is None:
        _LOG.info("device='auto': OpenCV finds no OpenCL device here, so the processor runs the pipeline")
        trial.chosen = _CPU
    return trial


@dataclass
class Trial:
    """A comparison of OpenCL with the processor by the first images of a pipeline.

    Attributes
    ----------
    chosen : bool or None
        Whether OpenCL is the faster; None until that is known.
    seconds : dict of bool to list of float
        Seconds a byte, with OpenCL and without.
    """

    chosen: bool | None = None
    seconds: dict[bool, list[float]] = field(default_factory=lambda: {_CPU: [], _OPENCL: []})
    is_compiled: bool = False

    def next(self) -> bool:
        """Return whether the next image runs by OpenCL."""
        if self.chosen is not None:
            return self.chosen
        return not self.is_compiled or len(self.seconds[_OPENCL]) <= len(self.seconds[_CPU])

    def add(self, is_on: bool, seconds: float, size: int) -> None:
        """Take the time of an image, and decide where there are enough of them."""
        with _lock:
            if self.chosen is not None:
                return
            if is_on and not self.is_compiled:
                self.is_compiled = True
                return
            self.seconds[is_on].append(seconds / max(size, 1))
            if min(map(len, self.seconds.values())) < TRIES:
                return
            here, there = (sorted(self.seconds[side])[TRIES // 2] for side in (_CPU, _OPENCL))
            self.chosen = there < here
            _LOG.info(
                "device='auto': %s takes %.1f ns a byte, the processor %.1f, so the %s runs the pipeline",
                device_name(), there * 1e9, here * 1e9, "former" if self.chosen else "latter",
            )  # fmt: skip
