"""Accelerators: what ``describe`` finds on machines that are played to PyTorch, and which one a process takes."""

from __future__ import annotations

import importlib.machinery
import platform
import sys
import types

import pytest
import torch

from sparkopt.errors import ParameterError
from sparkopt.launch import devices
from sparkopt.launch.devices import choose, describe


def gpus(*names: str):
    """A machine with these GPUs, whatever their maker."""
    properties = [types.SimpleNamespace(name=name, total_memory=8 << 30) for name in names]
    return {
        (torch.cuda, "is_available"): lambda: bool(names),
        (torch.cuda, "device_count"): lambda: len(names),
        (torch.cuda, "get_device_properties"): lambda number: properties[number],
    }


def tpu(kind: str):
    """Modules that answer as torch_xla does."""
    package, core, model = (types.ModuleType(name) for name in ("torch_xla", "torch_xla.core", "xla_model"))
    runtime = types.ModuleType("torch_xla.runtime")
    package.__spec__ = importlib.machinery.ModuleSpec("torch_xla", None)
    runtime.device_type, model.xla_device = lambda: kind, lambda: "xla:0"
    package.core, package.runtime, core.xla_model = core, runtime, model
    return {
        "torch_xla": package,
        "torch_xla.core": core,
        "torch_xla.core.xla_model": model,
        "torch_xla.runtime": runtime,
    }


CUDA = {(torch.version, "cuda"): "12.8", (torch.version, "hip"): None}
ROCM = {(torch.version, "cuda"): None, (torch.version, "hip"): "6.3"}
METAL = {(torch.backends.mps, "is_built"): lambda: True, (torch.backends.mps, "is_available"): lambda: True}
# What is played, torch_xla's answer, what describe finds besides the CPU, what it reports missing.
MACHINES = {
    "bare": ({}, None, [], {"cuda": "built without CUDA", "rocm": "built without ROCm", "xla": "is not installed"}),
    "NVIDIA": ({**CUDA, **gpus("H100", "H100")}, None, ["cuda:0", "cuda:1"], {"rocm": "built without ROCm"}),
    "no driver": ({**CUDA, **gpus()}, None, [], {"cuda": "the driver shows no NVIDIA GPU"}),
    "AMD": ({**ROCM, **gpus("MI300X")}, None, ["cuda:0"], {"cuda": "this PyTorch is built for ROCm"}),
    "Apple": (METAL, None, ["mps"], {"cuda": "built without CUDA"}),
    "old Mac": ({**METAL, (torch.backends.mps, "is_available"): lambda: False}, None, [], {"mps": "no Metal device"}),
    "TPU": ({}, "TPU", ["xla:0"], {"cuda": "built without CUDA"}),
    "torch_xla without one": ({}, "CPU", [], {"xla": "torch_xla sees the CPU only"}),
}


@pytest.fixture
def play(monkeypatch):
    """Make PyTorch answer as on another machine."""
    bare = {
        (torch.version, "cuda"): None,
        (torch.version, "hip"): None,
        (torch.backends.mps, "is_built"): lambda: False,
    }

    def play(answers, xla=None):
        for (place, name), answer in {**bare, **answers}.items():
            monkeypatch.setattr(place, name, answer)
        for name, module in (tpu(xla) if xla else {}).items():
            monkeypatch.setitem(sys.modules, name, module)

    return play


@pytest.mark.parametrize(("answers", "xla", "found", "absent"), MACHINES.values(), ids=MACHINES)
def test_what_is_here_and_why_it_is_taken(play, answers, xla, found, absent):
    play(answers, xla)
    report = describe()
    assert [device.address for device in report.devices] == [*found, "cpu"]
    for kind, reason in absent.items():
        assert reason in report.absent[kind]
    trainable = [address for address in found if not address.startswith("xla")]
    assert report.chosen.address == (trainable or ["cpu"])[0]
    assert str(report).startswith(f"chosen: {report.chosen}, since ")
    assert choose("auto")[0] == report.chosen.address


def test_a_process_takes_the_gpu_that_is_its_own(play):
    play({**CUDA, **gpus("H100", "H100")})
    assert choose("cuda", ("1",)) == ("cuda:1", "Spark gave GPU 1 to this task")
    assert choose("auto", (), 1) == ("cuda:1", "it is device 1 of 2 here, and Spark assigned none")
    assert choose("cpu", ("1",))[0] == "cpu"
    with pytest.raises(ParameterError, match=r"more processes on .* than accelerators \(2\)"):
        choose("auto", (), 2)
    with pytest.raises(ParameterError, match=r"Spark gave GPU 5 to this task; PyTorch sees only cuda:0, cuda:1"):
        choose("cuda", ("5",))
    play({**CUDA, **gpus("H100")})  # as CUDA_VISIBLE_DEVICES leaves one
    assert choose("cuda", ("5",))[0] == "cuda:0"


@pytest.mark.parametrize("kind", ["cuda", "rocm", "mps"])
def test_one_that_is_not_here_is_refused(play, kind):
    play({})
    with pytest.raises(ParameterError) as raised:
        choose(kind)
    assert f"device={kind!r} is not on {platform.node()}: {describe().absent[kind]}" in str(raised.value)
    assert "Spark offered this task no GPU. Here: cpu" in str(raised.value)
    assert kind in devices.KINDS
