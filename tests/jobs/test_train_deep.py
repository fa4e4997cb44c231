"""The deep job as users run it: through spark-submit."""

from __future__ import annotations

import importlib.util
import json

import pandas as pd
import pytest

from sparkopt.integrations.pyfunc import _load_pyfunc
from tests.jobs.running import submit

pytestmark = pytest.mark.usefixtures("jvms")

LAUNCHER = "torch" if importlib.util.find_spec("horovod") is None else "horovod"


def test_digits_from_png_files_to_a_network(digits, tmp_path):
    options = ["--launcher", LAUNCHER, "--processes", "2", "--epochs", "8"]
    run = submit("train_deep", "--images", str(digits), "--image-size", "8", *options, "--output", str(tmp_path))
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Traceback" not in run.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["held_out"]["accuracy"] >= 0.97
    assert metrics["labels"] == [str(digit) for digit in range(10)]
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert (receipt["launcher"], receipt["processes"], receipt["epochs"]) == (LAUNCHER, 2, 8)
    assert receipt["rows"] + receipt["validation_rows"] + metrics["held_out"]["rows"] == 1797
    assert len(json.loads((tmp_path / "history.json").read_text())) == 8
    assert "held out" in (tmp_path / "receipt.txt").read_text()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    some = pd.DataFrame({"content": [path.read_bytes() for path in (digits / "7").iterdir()]})
    scored = _load_pyfunc(str(tmp_path / "model")).predict(some)
    assert (scored["prediction"] == 7).mean() > 0.95
