"""A store of error-feedback residuals that fails in the middle of a fit costs a warning, as checkpoints do."""

from __future__ import annotations

import numpy as np

from sparkopt.communication.error_feedback import Residuals, ResidualStore


def test_a_store_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    residuals = Residuals(
        "fit", "partition-0", str(tmp_path / "rows.arrow"), ResidualStore(str(tmp_path / "kept"), 1)
    )
    residuals.keep(1, {"error": np.ones(3)})
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["partition-0.00000001.memory"]
    (tmp_path / "kept" / "partition-0.00000001.memory").unlink()
    (tmp_path / "kept").rmdir()
    (tmp_path / "kept").write_text("not a folder")
    residuals.keep(2, {"error": np.full(3, 2.0)})
    (line,) = caplog.messages
    assert line.startswith(
        f"the error-feedback residual {tmp_path}/kept/partition-0.00000002.memory was not written: "
    )
    np.testing.assert_array_equal(residuals.before(3)["error"], 2.0)
