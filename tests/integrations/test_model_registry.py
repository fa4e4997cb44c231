"""Promotion: whole or not at all, harmless when repeated, and never of a model that was refused."""

from __future__ import annotations

import json

import pytest
from pyarrow import fs

from sparkopt.errors import DataError, ParameterError
from sparkopt.integrations import model_registry
from sparkopt.integrations.model_registry import ModelRegistry, refusal
from sparkopt.io.filesystem import Location

MONDAY, TUESDAY = "2026-11-23T00:00:00+00:00", "2026-11-24T00:00:00+00:00"


@pytest.fixture
def runs(tmp_path):
    """Makes a training job's output and an evaluation's: (content, passed) -> (candidate, evaluation)."""

    def make(content, *, passed=True):
        candidate, evaluation = tmp_path / f"run-{content}", tmp_path / f"evaluation-{content}-{passed}"
        (candidate / "model" / "data").mkdir(parents=True, exist_ok=True)
        evaluation.mkdir(exist_ok=True)
        (candidate / "model" / "data" / "part-0").write_text(content)
        (candidate / "receipt.json").write_text("{}")
        gate = {"metric": "accuracy", "passed": passed, "reason": f"gate {'' if passed else 'not '}met: {content}."}
        (evaluation / "metrics.json").write_text(json.dumps({"metrics": {"accuracy": 0.9}, "gate": gate}))
        return str(candidate), str(evaluation)

    return make


@pytest.fixture
def registry(tmp_path):
    return ModelRegistry(str(tmp_path / "models"))


def test_nothing_is_accepted_at_first(registry):
    assert registry.history() == []
    assert registry.current() is None
    assert registry.before(TUESDAY) is None


def test_what_was_accepted_is_a_copy(registry, runs, tmp_path):
    candidate, evaluation = runs("first")
    accepted = registry.promote(candidate, evaluation, MONDAY)
    (tmp_path / "run-first" / "model" / "data" / "part-0").write_text("written over")
    assert registry.current() == accepted
    system = fs.LocalFileSystem()
    assert system.open_input_stream(f"{accepted.model}/data/part-0").read() == b"first"
    assert system.open_input_stream(f"{accepted.folder}/receipt.json").read() == b"{}"
    assert json.loads(system.open_input_stream(accepted.evaluation).read())["metrics"] == {"accuracy": 0.9}


def test_a_model_may_be_files_without_folders(registry, runs, tmp_path):
    candidate, evaluation = runs("first")
    model = tmp_path / "run-first" / "model"
    (model / "data" / "part-0").rename(model / "weights")
    (model / "data").rmdir()
    accepted = registry.promote(candidate, evaluation, MONDAY)
    assert fs.LocalFileSystem().open_input_stream(f"{accepted.model}/weights").read() == b"first"


def test_the_latest_interval_is_in_use_and_reruns_start_where_the_first_run_did(registry, runs):
    monday = registry.promote(*runs("first"), MONDAY)
    tuesday = registry.promote(*runs("second"), TUESDAY)
    assert registry.current() == tuesday
    assert registry.before(TUESDAY) == monday
    again = registry.promote(*runs("third"), MONDAY)
    assert registry.current() == tuesday
    assert registry.before(TUESDAY) == again
    assert registry.history() == [monday, again, tuesday]


def test_repeating_changes_nothing(registry, runs, tmp_path):
    first = registry.promote(*runs("first"), MONDAY)
    written = (tmp_path / "models" / "accepted.json").stat().st_mtime_ns
    assert registry.promote(*runs("first"), MONDAY) == first
    assert (tmp_path / "models" / "accepted.json").stat().st_mtime_ns == written


def test_a_refused_model_is_not_promoted(registry, runs):
    registry.promote(*runs("first"), MONDAY)
    before = registry.history()
    candidate, evaluation = runs("worse", passed=False)
    assert refusal(evaluation) == "gate not met: worse."
    with pytest.raises(DataError, match="run-worse is not promoted: gate not met: worse"):
        registry.promote(candidate, evaluation, TUESDAY)
    assert registry.history() == before


def test_cut_off_while_copying_or_pointing(registry, runs, tmp_path, monkeypatch):
    """The model in use stays, and the same call made again ends as if nothing had happened."""
    first = registry.promote(*runs("first"), MONDAY)
    candidate, evaluation = runs("second")
    for owner, function in ((model_registry, "_copy"), (Location, "write")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, function, lambda *arguments: (_ for _ in ()).throw(OSError("full")))
            with pytest.raises(ParameterError, match=r"^uri='[^\n]*' cannot be used: full$"):
                registry.promote(candidate, evaluation, TUESDAY)
        assert registry.history() == [first]
        assert len(list(tmp_path.rglob("accepted/*"))) == 1  # of the copy that nothing names, nothing stays
    second = registry.promote(candidate, evaluation, TUESDAY)
    assert registry.history() == [first, second]
    assert not list(tmp_path.rglob("*.unfinished"))


def test_uris_are_as_good_as_paths(registry, runs, tmp_path):
    candidate, evaluation = (f"file://{path}" for path in runs("first"))
    accepted = ModelRegistry(f"file://{tmp_path}/models").promote(candidate, evaluation, MONDAY)
    assert accepted.model.startswith(f"file://{tmp_path}/models/accepted/20261123T000000-")
    assert registry.current() == accepted


def test_what_is_missing_is_reported(registry, runs, tmp_path):
    candidate, evaluation = runs("first")
    with pytest.raises(DataError, match="nothing/model holds no model"):
        registry.promote(str(tmp_path / "nothing"), evaluation, MONDAY)
    with pytest.raises(DataError, match="nothing/metrics.json cannot be read"):
        registry.promote(candidate, str(tmp_path / "nothing"), MONDAY)
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models" / "accepted.json").write_text("[]")
    with pytest.raises(DataError, match=r"accepted.json is not a list of accepted models"):
        registry.current()
