"""Events: plain data on their way to the driver, and one callback call for each step there."""

from __future__ import annotations

import json
import math

import pytest

from sparkopt.deep.events import (
    EpochEnded,
    GroupChanged,
    Resumed,
    StateReady,
    StepsDone,
    from_report,
    to_report,
)
from sparkopt.deep.listeners import TimeSpent, logging_to
from sparkopt.deep.loggers import Logger
from sparkopt.deep.progress import CallbackListener, GroupLog, ReportReceiver
from sparkopt.launch.launching import Losses

STEPS = StepsDone(epoch=1, step=3, steps=5, losses=(0.5, 0.25, 0.125), rows=(8, 8, 7))
LAST = StepsDone(epoch=1, step=5, steps=5, losses=(0.1, 0.05), rows=(8, 2))
ENDED = EpochEnded(1, 5, 0.3, {"validation": 0.4, "accuracy": 0.9}, 0.01, 2.0, 0.5, 33, 0.25)
EVENTS = [STEPS, LAST, ENDED, Resumed("epoch-000001-step-000000000", 1, 0, 4), GroupChanged(1, 2, (1,))]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_arrives_as_it_was_sent(event):
    assert from_report(json.loads(json.dumps(to_report(event)))) == event


def test_what_concerns_only_the_rank_is_not_sent():
    assert to_report(StateReady(lasting=True)) is None


def test_what_elastic_ranks_report_is_an_event():
    report = {"event": "group", "size": 3, "before": 4, "lost": [2]}
    assert from_report(report) == GroupChanged(size=3, before=4, lost=(2,))


def test_each_step_is_one_call_and_the_last_one_waits_for_the_validation():
    seen = []
    listener = CallbackListener([lambda progress: seen.append((progress.max_iter, progress.record))], epochs=4)
    listener(STEPS)
    listener(LAST)
    assert [record.step for _, record in seen] == [6, 7, 8, 9]
    listener(ENDED)
    assert [(r.step, r.objective, r.rows, r.validation) for _, r in seen] == [
        (6, 0.5, 8, None),
        (7, 0.25, 8, None),
        (8, 0.125, 7, None),
        (9, 0.1, 8, None),
        (10, 0.05, 2, 0.4),
    ]
    assert all(math.isnan(record.gradient_norm) for _, record in seen)
    assert {most for most, _ in seen} == {20}
    listener(ENDED)  # an epoch that was resumed at its end has no step to report
    assert len(seen) == 5


def test_any_listener_can_stop_and_all_are_called():
    calls = []
    receiver = ReportReceiver([lambda event: calls.append(event) or True, lambda event: calls.append(event)])
    assert receiver(to_report(ENDED)) is True
    assert calls == [ENDED, ENDED]
    assert not ReportReceiver([GroupLog(Losses())])(to_report(ENDED))


def test_changes_of_the_group_are_logged_and_losses_counted(caplog):
    caplog.set_level("INFO")
    losses = Losses()
    log = GroupLog(losses)
    for event in (GroupChanged(1, 2, (1,)), Resumed("", 0, 7, 2), GroupChanged(2, 1, ()), STEPS):
        log(event)
    assert losses.survived == 1
    assert [record.getMessage() for record in caplog.records] == [
        "Rank 1 of 2 ended unexpectedly; training continues with 1.",
        "Training continues from step 7 of epoch 0, which repeats 2 steps.",
        "Training continues with 2 processes instead of 1.",
    ]


class Sheet(Logger):
    """Keeps what is logged."""

    def open(self):
        return []

    def log(self, opened, values, step):
        opened.append((step, dict(values)))
        self.lines = opened

    def close(self, opened):
        opened.append("closed")


def test_loggers_get_the_last_loss_and_each_epoch():
    sheet = Sheet()
    with logging_to([sheet]) as log:
        for event in (STEPS, StateReady(lasting=True), ENDED):
            log(event)
    epoch = {"loss": 0.3, "validation": 0.4, "accuracy": 0.9, "rate": 0.01}
    assert sheet.lines == [(8, {"step_loss": 0.125}), (10, epoch), "closed"]


def test_time_is_summed_apart_from_waiting():
    spent = TimeSpent()
    for event in (STEPS, ENDED, ENDED):
        spent(event)
    assert (spent.train, spent.validate) == (3.0, 0.5)
