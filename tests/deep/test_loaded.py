"""A network is built once in a process, and not for each batch, task or call."""

from __future__ import annotations

import functools
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from torch import nn

from sparkopt.deep import TorchModel, local
from sparkopt.deep.loaded import LoadedModules
from sparkopt.launch.checkpoints import module_bytes
from tests.deep.rows import parted


class Counted(nn.Linear):
    """Notes in a file which process has built it."""

    def __init__(self, file: str) -> None:
        super().__init__(2, 1)
        with open(file, "a", encoding="utf-8") as built:
            built.write(f"{os.getpid()}\n")


def built(file):
    return file.read_text().split() if file.exists() else []


@pytest.fixture
def counted(tmp_path):
    """A model, and the file of its processes; the first line is this test's own."""
    file = tmp_path / "built"
    weights = module_bytes(Counted(str(file)).state_dict())
    file.unlink()
    return TorchModel(functools.partial(Counted, str(file)), weights, "values", (1,)), file


def rows(count=40):
    return pa.table({"features": list(np.arange(2.0 * count).reshape(count, 2))})


def test_a_process_builds_a_network_once(counted):
    model, file = counted
    table = parted(rows(), [10, 20, 30])
    for _ in range(2):
        for part in model.transform(table).partitions:
            assert sum(batch.num_rows for batch in part.batches()) == 10
    model.evaluate(rows().append_column("label", pa.array(np.zeros(40))))
    frame = pd.DataFrame({"features": [[1.0, 2.0]]})
    first, second = (local.score(model, frame)["prediction"].iloc[0] for _ in range(2))
    assert first == second
    assert len(built(file)) == 1


def test_another_model_is_another_network(counted):
    model, file = counted
    other = TorchModel(model._build, module_bytes(nn.Linear(2, 1).state_dict()), "values", (1,))
    assert model.transform(rows()) != other.transform(rows())
    assert model.transform(rows()) == model.copy().transform(rows())
    assert len(built(file)) == 2


def test_a_network_is_lent_to_one_task_at_a_time_and_forgotten_after_an_error():
    modules, key = LoadedModules(), ("model", "cpu")
    with modules.lent(key, 1, nn.Identity) as one, modules.lent(key, 1, nn.Identity) as two:
        assert one is not two
    with pytest.raises(ValueError), modules.lent(key, 1, nn.Identity):
        raise ValueError
    with modules.lent(key, 1, nn.Identity) as left:
        assert left in (one, two)


def test_what_was_used_first_is_dropped_beyond_the_bound():
    modules = LoadedModules(most=10)
    for name in "abc":
        with modules.lent((name, "cpu"), 6, nn.Identity):
            pass
    last = nn.Identity()
    with modules.lent(("c", "cpu"), 6, lambda: last) as kept:
        assert kept is not last
    with modules.lent(("a", "cpu"), 6, lambda: last) as gone:
        assert gone is last


@pytest.mark.usefixtures("minutes")
def test_a_python_worker_builds_a_network_once(spark, counted):
    """However many tasks it runs, and however often the model is applied."""
    model, file = counted
    df = spark.createDataFrame(rows(400)).repartition(16)
    for _ in range(3):
        assert model.transform(df).count() == 400
        assert len(model.transform(df).collect()) == 400
    builders = built(file)
    assert len(builders) == len(set(builders))
