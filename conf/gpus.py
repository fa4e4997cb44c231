#!/usr/bin/env python3
"""Name this machine's GPUs as Spark wants to hear it: {"name": "gpu", "addresses": ["0", "1"]}.

Spark calls it on the driver's and each executor's machine, where conf/gpu.conf names it. NVIDIA's are found through
nvidia-smi, AMD's through rocm-smi; CUDA_VISIBLE_DEVICES, where a cluster manager sets it, has the last word. Without
a GPU it gives no address, and Spark says that it asked for more than there are.
"""

import json
import os
import re
import shutil
import subprocess


def lines(*command: str) -> "list[str]":
    """Return what a command prints, or nothing where it is not installed or fails."""
    if shutil.which(command[0]) is None:
        return []
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    return found.stdout.split("\n") if found.returncode == 0 else []


def addresses() -> "list[str]":
    """Return the indices of the GPUs, as PyTorch counts them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [str(number) for number, name in enumerate(visible.split(",")) if name.strip() not in ("", "-1")]
    nvidia = [line.strip() for line in lines("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")]
    amd = [
        match[1] for line in lines("rocm-smi", "--showid") if (match := re.match(r"GPU\[(\d+)\].*Device ID", line))
    ]
    return [index for index in nvidia if index.isdigit()] or amd


if __name__ == "__main__":
    print(json.dumps({"name": "gpu", "addresses": addresses()}))
