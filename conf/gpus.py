#!/usr/bin/env python3
"""Print this machine's GPUs in Spark's format: {"name": "gpu", "addresses": ["0", "1"]}.

Spark runs this script on the machines of the driver and of each executor if conf/gpu.conf names it. nvidia-smi lists
NVIDIA's GPUs, rocm-smi AMD's; CUDA_VISIBLE_DEVICES, set by some cluster managers, overrides both. Without a GPU the
list is empty, and Spark reports that it requested more than there are.
"""

import json
import os
import re
import shutil
import subprocess


def lines(*command: str) -> "list[str]":
    """Return the lines that a command prints; none where it is not installed or fails."""
    if shutil.which(command[0]) is None:
        return []
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    return found.stdout.split("\n") if found.returncode == 0 else []


def addresses() -> "list[str]":
    """Return the indices of the GPUs, in PyTorch's numbering."""
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
