"""What a trainer refuses before it sees rows."""

from __future__ import annotations

import pytest

from sparkopt import Trainer, losses
from sparkopt.engines import by_name
from sparkopt.errors import ParameterError


@pytest.mark.parametrize("engine", ["resident", None, type(by_name("driver"))])
def test_an_engine_is_a_value_and_no_name(engine):
    with pytest.raises(ParameterError, match=r"engine must be an Engine, such as .*by_name"):
        Trainer(losses.Logistic(), engine=engine)
    assert Trainer(losses.Logistic(), engine=by_name("resident")).engine.name == "resident"
