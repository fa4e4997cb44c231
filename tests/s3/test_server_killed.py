"""The S3 server is killed at any moment and comes back: the same bits, and nothing is left that was not asked for."""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from sparkopt import BlockStore, Checkpointer, Columns, Stop, Table, Trainer, losses
from sparkopt.ml import LogisticRegressionModel
from sparkopt.validation import Interval
from tests.s3.faulty import FaultyServer

pytestmark = [pytest.mark.usefixtures("minutes"), pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("SPARKOPT_TEST_KILLS", "1"))
"""Kills in each phase; 20 is the full number."""
STEPS = 8
AWAY = 1.0
"""Most seconds until the server is back: less than requests are repeated for."""
PHASES = ("ingest", "first pass", "between passes", "last pass", "save", "load", "transform")


class Server:
    """A server in front of the store, which dies in one phase and comes back; the files outlive it."""

    def __init__(self, target: int) -> None:
        self.faulty, self.seconds, self.deaths = FaultyServer(target), dict[str, float](), list[str]()
        self.phase, self.current, self.begun = "", "", 0.0
        self.timer: threading.Timer | None = None

    def uri(self, path: str) -> str:
        return self.faulty.uri(f"bucket/{path}")

    def restart(self) -> None:
        self.faulty.down = True
        self.deaths.append(self.current)
        time.sleep(self.chance.random() * AWAY)
        self.faulty.down = False

    @contextmanager
    def killed_in(self, phase: str, chance: random.Random) -> Iterator[None]:
        """Die in a phase, at a random moment of what it took when nobody died."""
        self.phase, self.chance, before = phase, chance, len(self.deaths)
        yield
        if self.timer is not None:
            self.timer.join()
        assert len(self.deaths) == before + bool(phase)
        self.timer = None

    def begins(self, phase: str) -> None:
        now = time.monotonic()
        if not self.phase and self.current:
            self.seconds[self.current] = now - self.begun
        self.current, self.begun = phase, now
        if phase and phase == self.phase and self.timer is None:
            self.timer = threading.Timer(self.chance.random() * self.seconds[phase], self.restart)
            self.timer.start()


def run(server: Server) -> tuple[list[float], list[float]]:
    """Read, train with checkpoints, save, load and score, all in the store."""

    def announce(progress):
        if progress.record.step in (0, STEPS - 1):
            server.begins("between passes" if progress.record.step == 0 else "last pass")

    server.begins("ingest")
    rows = Table.of(server.uri("rows/part.parquet"))
    with BlockStore.write(rows, Columns("features", "label"), Interval(0, 1, whole=True)) as store:
        _ = store.rows
        server.begins("first pass")
        checkpointer = Checkpointer(server.uri("checkpoints"), interval=2)
        trainer = Trainer(losses.Logistic(), stop=Stop(STEPS, 0.0), checkpointer=checkpointer, callbacks=[announce])
        found = trainer.fit(store)
    server.begins("save")
    model = LogisticRegressionModel(found.coefficients.reshape(1, -1), found.intercept)
    model.write().overwrite().save(server.uri("models/one"))
    server.begins("load")
    loaded = LogisticRegressionModel.load(server.uri("models/one"))
    server.begins("transform")
    scored = loaded.transform(Table.of(server.uri("rows/part.parquet"))).to_arrow()
    server.begins("")
    return loaded.coefficients.tolist(), scored.column("prediction").to_pylist()


@pytest.fixture
def rows(store):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 4))
    columns = {"features": list(X), "label": (X[:, 0] + rng.normal(size=len(X)) > 0).astype(float)}
    with store.direct.open_output_stream("bucket/rows/part.parquet") as stream:
        parquet.write_table(pa.table(columns), stream)


def test_a_server_that_is_killed_and_comes_back_changes_nothing(store, rows, caplog):
    caplog.set_level(logging.WARNING)
    server, chance = Server(store.port), random.Random(3)
    with server.killed_in("", chance):
        calm = run(server)
    kept, threads = store.files(), {one.name for one in threading.enumerate()}
    for phase in PHASES:
        while server.deaths.count(phase) < KILLS:  # some come when the phase is over
            with server.killed_in(phase, chance):
                assert run(server) == calm, phase
            assert store.files() == kept, phase
            assert len(server.deaths) < 10 * len(PHASES) * KILLS, server.deaths
    server.faulty.close()
    deadline = time.monotonic() + 60
    while extra := {one.name for one in threading.enumerate() if one.name.startswith("sparkopt")} - threads:
        assert time.monotonic() < deadline, extra
        time.sleep(0.1)
    print(Counter(server.deaths), file=sys.stderr)
    assert not [record for record in caplog.records if "\n" in record.getMessage()]
