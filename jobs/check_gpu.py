#!/usr/bin/env python
"""Try on this machine's GPU what tests on CPUs cannot: make check-gpu, at most eight minutes, without a network.

Each line of the table is a check: training in three precisions beside the CPU, a plain loop's speed, NCCL, scoring,
checkpoints, steps of one's own, adapters, images; and, where there is Java, a task to which Spark gives the GPU. The
exit code is 1 if one fails. Without a CUDA (or ROCm) device it says so, and the exit code is 0.

    python jobs/check_gpu.py
    python jobs/check_gpu.py --device cpu --rows 2000    # the checks themselves, on a machine without a GPU
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from sparkopt import images
from sparkopt.deep import StepBatch, TorchEstimator, TorchModel
from sparkopt.launch import RunContext, run
from sparkopt.launch.devices import describe

ROOT = Path(__file__).parents[1]
FEATURES, CLASSES = 64, 5
LIMIT = 480.0
"""Seconds for all checks; one begins only while half a minute is left."""


@dataclass(frozen=True)
class Setting:
    """What the checks run on.

    Attributes
    ----------
    device : str
        "cuda", "rocm", or "cpu".
    count : int
        Devices of this kind here.
    rows : int
        Rows to train on.
    folder : Path
        For checkpoints and the like.
    """

    device: str
    count: int
    rows: int
    folder: Path

    @functools.cached_property
    def data(self) -> pa.Table:
        """Rows of ``CLASSES`` classes, which a network tells apart."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(self.rows, FEATURES)).astype(np.float32)
        label = (X @ rng.normal(size=(FEATURES, CLASSES))).argmax(1)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), FEATURES)
        return pa.table({"features": lists, "label": label})

    def estimator(self, **options: Any) -> TorchEstimator:
        """Return what trains a small network on the device."""
        given = {"loss": "multinomial", "epochs": 3} if "step" not in options else {"epochs": 2, "task": "classes"}
        given |= {"module": network, "optimizer": "adam", "stepSize": 0.003, "batchSize": 256, "seed": 1}
        given |= {"launcher": "local", "device": self.device}
        found = TorchEstimator(**{**given, **options})
        found.progress = False
        return found

    @property
    def torch_device(self) -> str:
        """PyTorch's name of the device."""
        return "cpu" if self.device == "cpu" else "cuda"


def network() -> nn.Module:
    """A perceptron."""
    return nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, CLASSES))


class Failed(Exception):
    """A check that did not find what it should."""


def expect(is_so: bool, what: str) -> None:
    """Fail a check unless something is so."""
    if not is_so:
        raise Failed(what)


def losses(model: TorchModel) -> np.ndarray:
    """Return the mean loss of each epoch."""
    return np.array([record["loss"] for record in model.summary.history])


def fit(setting: Setting) -> str:
    """Training in float32 has the losses of the CPU."""
    here, cpu = setting.estimator().fit(setting.data), setting.estimator(device="cpu").fit(setting.data)
    expect(setting.torch_device in here.summary.receipt.devices[0], f"trained on {here.summary.receipt.devices}")
    apart = float(np.abs(losses(here) / losses(cpu) - 1).max())
    expect(apart < 0.01, f"losses {losses(here)}, on the CPU {losses(cpu)}")
    memory = here.summary.receipt.device_memory / 2**20
    return f"loss {losses(here)[-1]:.4f}, {apart:.1e} from the CPU's; {memory:.0f} MiB of the device"


def precision(kind: str, setting: Setting) -> str:
    """Training in 16 bits ends near that in 32, and its weights stay float32."""
    full, half = setting.estimator().fit(setting.data), setting.estimator(precision=kind).fit(setting.data)
    apart = float(np.abs(losses(half) / losses(full) - 1).max())
    expect(apart < 0.1, f"losses {losses(half)}, in fp32 {losses(full)}")
    expect(all(one.dtype is torch.float32 for one in half.module.parameters()), "weights are no longer float32")
    return f"loss {losses(half)[-1]:.4f}, {apart:.1e} from fp32's"


def together(context: RunContext) -> tuple[float, str, str]:
    """Sum over the ranks by PyTorch itself; return the sum, the device, and what communicates."""
    ones = torch.ones(1000, device=context.device) * (context.rank + 1)
    torch.distributed.all_reduce(ones)
    backend = torch.distributed.get_backend_config()
    return float(ones[0]), context.device, str(backend)


def nccl(setting: Setting) -> str:
    """Ranks sum tensors on their devices."""
    found = run(together, numProc=setting.count, device=setting.device)
    total = setting.count * (setting.count + 1) / 2
    expect(all(one == total for one, _, _ in found), f"sums {found}; they should be {total}")
    expect(len({device for _, device, _ in found}) == len(found) or setting.device == "cpu", f"devices {found}")
    expect(setting.device == "cpu" or "nccl" in found[0][2], f"backend {found[0][2]}")
    return f"{setting.count} rank(s): {found[0][2]}"


def launched(setting: Setting) -> str:
    """DistributedDataParallel in processes of their own has the losses of one process."""
    options: dict[str, Any] = {"streams": setting.count, "batchSize": max(1, 256 // setting.count)}
    ranks = setting.estimator(**options, launcher="torch", numProc=setting.count).fit(setting.data)
    one = setting.estimator(**options).fit(setting.data)
    apart = float(np.abs(losses(ranks) / losses(one) - 1).max())
    expect(apart < 0.01, f"losses {losses(ranks)}, in one process {losses(one)}")
    return f"{setting.count} process(es), losses {apart:.1e} apart"


def transform(setting: Setting) -> str:
    """Scores of the device are those of the CPU."""
    model = setting.estimator().fit(setting.data)
    found = [
        np.stack(model.setDevice(device).transform(setting.data)["probability"].to_numpy())
        for device in (setting.device, "cpu")
    ]
    apart = float(np.abs(found[0] - found[1]).max())
    expect(apart < 1e-3, f"probabilities differ by {apart:.1e}")
    return f"{len(found[0]):,} rows, probabilities {apart:.1e} apart"


def resume(setting: Setting) -> str:
    """A training that goes on from a checkpoint ends where one does that was not interrupted."""
    folder = setting.folder / "checkpoints"
    options: dict[str, Any] = {"checkpointDir": str(folder)}
    options["precision"] = "fp32" if setting.device == "cpu" else "fp16"
    setting.estimator(**options, epochs=2).fit(setting.data)
    resumed = setting.estimator(**options, epochs=4).fit(setting.data)
    whole = setting.estimator(**{**options, "checkpointDir": None}, epochs=4).fit(setting.data)
    expect(resumed.summary.receipt.resumed is not None, "it began anew")
    pairs = zip(resumed.module.parameters(), whole.module.parameters(), strict=True)
    apart = max(float((one - other).detach().abs().max()) for one, other in pairs)
    expect(apart < 1e-2, f"weights differ by {apart:.1e}")
    return f"from {resumed.summary.receipt.resumed}, weights {apart:.1e} apart"


def weigh(module: nn.Module, batch: StepBatch) -> torch.Tensor:
    """A step of one's own, on the device."""
    expect(batch.inputs[0].device == next(module.parameters()).device, f"rows are on {batch.inputs[0].device}")
    return nn.functional.cross_entropy(module(*batch.inputs), batch.label, reduction="none")


def own_step(setting: Setting) -> str:
    """A step of one's own trains as the loss does."""
    by_step, by_loss = (one.fit(setting.data) for one in (setting.estimator(step=weigh), setting.estimator(epochs=2)))
    apart = float(np.abs(losses(by_step) / losses(by_loss) - 1).max())
    expect(apart < 1e-2, f"losses {losses(by_step)} and {losses(by_loss)}")
    return f"losses {apart:.1e} from those of the loss"


class Adapted(nn.Module):
    """A layer that stays as it is, and one that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.out = nn.Linear(FEATURES, 128), nn.Linear(128, CLASSES)
        nn.init.constant_(self.base.bias, 0.1)
        with torch.no_grad():
            self.base.weight.copy_(torch.eye(128, FEATURES))
        self.base.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores."""
        found: torch.Tensor = self.out(torch.relu(self.base(x)))
        return found


def adapters(setting: Setting) -> str:
    """Weights that are trained on the device are saved without the others."""
    model = setting.estimator(module=Adapted, savedWeights="trainable").fit(setting.data)
    whole = setting.estimator(module=Adapted).fit(setting.data)
    expect(losses(model)[-1] < losses(model)[0], f"losses {losses(model)}")
    return f"{len(model.weights):,} bytes in place of {len(whole.weights):,}"


def pictures(setting: Setting) -> str:
    """Images travel as bytes and become numbers on the device."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (400, 16, 16, 1), dtype=np.uint8)
    pixels[::2, :8] = 0
    data = pa.table({"image": [images.encode(one, "png") for one in pixels], "label": np.arange(400) % 2})
    pipeline = images.Compose([images.Decode("gray"), images.Resize(16, 16)])
    module = functools.partial(scaled_convolution, 2)
    found = setting.estimator(module=module, featuresCol="image", imagePipeline=pipeline, epochs=8, batchSize=32)
    model = found.fit(data)
    expect(losses(model)[-1] < 0.8 * losses(model)[0], f"losses {losses(model)}")
    return f"loss {losses(model)[0]:.3f} to {losses(model)[-1]:.3f}"


def scaled_convolution(classes: int) -> nn.Module:
    """A network that scales the pixels itself."""
    return nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, classes))


def speed(setting: Setting) -> str:
    """An epoch beside a plain loop on tensors that are on the device already."""
    model = setting.estimator(epochs=4, batchSize=512).fit(setting.data)
    ours = min(record["seconds"] for record in model.summary.history[1:])
    X = torch.from_numpy(np.stack(setting.data["features"].to_numpy())).to(setting.torch_device)
    y = torch.from_numpy(setting.data["label"].to_numpy().copy()).to(setting.torch_device)
    module = network().to(setting.torch_device)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
    plain = []
    for _ in range(4):
        begin, order = time.perf_counter(), torch.randperm(len(y), device=y.device)
        for rows in order.split(512):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
            optimizer.step()
        float(next(module.parameters()).sum())  # waits for the device
        plain.append(time.perf_counter() - begin)
    return f"{ours:.2f} s an epoch, plain loop {min(plain[1:]):.2f} s: {ours / min(plain[1:]):.2f}x"


def by_spark(setting: Setting) -> str:
    """Spark finds the GPU by conf/gpus.py, and gives it to the task of a stage that asks for it."""
    if shutil.which("java") is None:
        return "skipped: there is no Java"
    from sparkopt.launch.session import session

    script = str(ROOT / "conf" / "gpus.py")
    gpus = {} if setting.device == "cpu" else {
        "spark.worker.resource.gpu.amount": str(setting.count),
        "spark.worker.resource.gpu.discoveryScript": script,
        "spark.executor.resource.gpu.amount": str(setting.count),
        "spark.executor.resource.gpu.discoveryScript": script,
    }  # fmt: skip
    settings = {"spark.master": f"local-cluster[1,{max(2, setting.count)},2048]", "spark.driver.memory": "1g", **gpus}
    spark = session(ROOT / "conf" / "local.conf", settings=settings)
    try:
        store = str(setting.folder / "rows")
        df = spark.createDataFrame(setting.data)
        found = setting.estimator(launcher="torch", numProc=setting.count, storePath=store)
        model = found.fit(df)
        scored = model.transform(df).where("prediction = label").count() / setting.rows
        expect(
            setting.device == "cpu" or "cuda" in model.summary.receipt.devices[0], str(model.summary.receipt.devices)
        )
        return f"{model.summary.receipt.devices[0]}: {model.summary.receipt.why}; accuracy {scored:.2f}"
    finally:
        spark.stop()


CHECKS: dict[str, Callable[[Setting], str]] = {
    "fit": fit,
    "bf16": functools.partial(precision, "bf16"),
    "fp16": functools.partial(precision, "fp16"),
    "NCCL": nccl,
    "processes": launched,
    "transform": transform,
    "checkpoint": resume,
    "own step": own_step,
    "adapters": adapters,
    "images": pictures,
    "speed": speed,
    "Spark": by_spark,
}


@dataclass
class Table:
    """Prints a line for each check as it ends."""

    failed: list[str] = field(default_factory=list)

    def line(self, name: str, result: str, seconds: float, text: str) -> None:
        """Print a line."""
        print(f"| {name:<10} | {result:<7} | {seconds:6.1f} s | {text}", flush=True)

    def run(self, name: str, check: Callable[[Setting], str], setting: Setting) -> None:
        """Run a check, and print what came of it."""
        begin = time.perf_counter()
        try:
            text = check(setting)
        except Exception as error:  # noqa: BLE001  # the table goes on
            self.failed.append(name)
            lines = str(error).strip().splitlines() or [""]
            self.line(name, "FAILED", time.perf_counter() - begin, f"{type(error).__name__}: {lines[0]}")
            if not isinstance(error, Failed):
                traceback.print_exc()
        else:
            result = "skipped" if text.startswith("skipped") else "ok"
            self.line(name, result, time.perf_counter() - begin, text)


def arguments() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description="Try on a GPU what tests on CPUs cannot.")
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto", help="cpu runs the checks without a GPU")
    parser.add_argument("--rows", type=int, default=50_000, help="rows to train on; default %(default)s")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS), help="some of the checks")
    return parser.parse_args()


def main() -> int:
    """Run the checks; return the exit code."""
    args, begin = arguments(), time.perf_counter()
    report = describe()
    devices = [one for one in report.devices if one.kind in ("cuda", "rocm")]
    if not devices and args.device != "cpu":
        print(f"There is no CUDA or ROCm device here: nothing was checked.\n{report}")
        return 0
    kind = "cpu" if args.device == "cpu" else devices[0].kind
    count = 2 if kind == "cpu" else len(devices)
    print(
        f"{kind}: {'; '.join(map(str, devices)) or 'the CPU'}. PyTorch {torch.__version__}, Python {sys.version[:6]}"
    )
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(kind, count, args.rows, Path(folder))
        for name in args.only:
            if time.perf_counter() - begin > LIMIT - 30:
                table.line(name, "skipped", 0.0, "no time was left")
            else:
                table.run(name, CHECKS[name], setting)
    print(f"{len(table.failed)} failed" + (f": {', '.join(table.failed)}" if table.failed else ""))
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
