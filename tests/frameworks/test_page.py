"""The page's examples run, each framework's where it is installed."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.frameworks.conftest import Framework

PAGE = ROOT / "docs" / "guides" / "dask-and-ray.md"


def test_the_examples_of_the_page_run(framework: Framework, tmp_path, monkeypatch: pytest.MonkeyPatch):
    section = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(framework.name.capitalize())]
    blocks = re.findall(r"^```py\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rides").mkdir()
    rng = np.random.default_rng(0)
    rides = pd.DataFrame({"distance": rng.exponential(3.0, 400), "hour": rng.integers(0, 24, 400)})
    rides["tipped"] = (rides["distance"] + rng.logistic(size=400) > 2).astype(float)
    for part in range(2):
        rides[part::2].to_parquet(tmp_path / "rides" / f"part-{part}.parquet")
    names: dict[str, object] = {}
    for block in blocks:
        code = block.replace("n_workers=2", "n_workers=2, dashboard_address=':0'")
        code = code.replace(
            '"rides"', repr(str(tmp_path / "rides"))
        )  # Ray's workers have a working folder of their own
        exec(compile(code, str(PAGE), "exec"), names)
    assert names["model"].coefficients[0] > 0  # type: ignore[attr-defined]
