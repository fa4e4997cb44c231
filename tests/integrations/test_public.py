"""Public names come without what they may need later: a scheduler's process uses the registry."""

from __future__ import annotations

import subprocess
import sys


def test_the_registry_needs_neither_spark_nor_torch_nor_mlflow():
    code = (
        "import sys\n"
        "from sparkopt.integrations import Accepted, ModelRegistry, log_fit, log_model, refusal, save_model, widget\n"
        "print(*sys.modules.keys() & {'torch', 'pyspark', 'mlflow', 'pandas', 'cv2'})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not found.strip()
