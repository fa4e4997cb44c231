"""Searches that end candidates early: the winner of the whole grid, for fewer passes, also where they were killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import loguniform, norm

from sparkopt.errors import IncompatibleError, ParameterError
from sparkopt.ml import CrossValidator, LogisticRegression, Pipeline, RandomizedSearch, TableFeatures
from sparkopt.ml.trials import RandomTrials, brackets
from sparkopt.objective import cross_validation
from tests.ml.search_rows import NAMES, STRENGTHS, rows, search

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table():
    return rows()


@pytest.fixture(scope="module")
def grid(table):
    """pyspark.ml's kind of search: every candidate is trained to its end."""
    own = search()
    return CrossValidator(
        estimator=own.getEstimator(),
        estimatorParamMaps=own.candidates,
        evaluator=own.getEvaluator(),
        foldCol="fold",
        numFolds=3,
    ).fit(table)


def bits(model):
    return [array.tobytes() for array in model.bestModel.arrays]


@pytest.mark.parametrize("pruner", ["none", "halving", "hyperband"])
def test_the_winner_of_the_whole_grid_is_found(table, grid, pruner):
    found = search(pruner=pruner).fit(table)
    assert found.bestModel.getRegParam() == grid.bestModel.getRegParam()
    assert bits(found) == bits(grid)
    assert len(found.trials) == len(STRENGTHS)
    best = min((trial for trial in found.trials if trial.state == "complete"), key=lambda trial: trial.metric)
    assert best.params == {"regParam": grid.bestModel.getRegParam()}
    if pruner == "none":
        np.testing.assert_allclose(found.avgMetrics, grid.avgMetrics, rtol=1e-12)
        np.testing.assert_allclose(found.stdMetrics, grid.stdMetrics, rtol=1e-9)


def test_pruned_models_drop_out_of_the_passes(table, monkeypatch):
    """Counted where blocks are evaluated, by a method that evaluates one point a step."""
    work = []
    evaluate = cross_validation.evaluate

    def counted(objective, query, blocks, *args):
        work.append(len(query.request.points))
        return evaluate(objective, query, blocks, *args)

    monkeypatch.setattr("sparkopt.objective.work.evaluate", counted)
    spent, evaluated = {}, {}
    for pruner in ("none", "halving"):
        work.clear()
        own = search(pruner=pruner)
        own.getEstimator().setOptimizer("nesterov").setStepSize(0.5)
        found = own.fit(table)
        spent[pruner] = sum(trial.passes for trial in found.trials)
        evaluated[pruner] = sum(work) - (27 + 1)  # the best model's, on all rows
        states = [trial.state for trial in found.trials]
        assert states.count("complete") == (9 if pruner == "none" else 1)
    # all models of a fold begin at the same coefficients, which are evaluated once, and take the same first step
    assert evaluated == {"none": 2 * 3 + 26 * 27, "halving": 2 * 3 + 2 * 27 + 7 * 9 + 19 * 3}
    assert spent["none"] == 9 * 3 * (27 + 1)
    assert spent["halving"] == 3 * (9 * (3 + 1) + 3 * (6 + 1) + 1 * (18 + 1))
    assert sorted(trial.passes for trial in found.trials) == [12] * 6 + [33] * 2 + [90]


@pytest.mark.parametrize("steps", [2, 5, 11])
def test_a_search_that_was_killed_resumes(table, tmp_path, steps):
    """Killed in the first, the second and the last rung."""
    folder = str(tmp_path / "rungs")
    command = [sys.executable, "-m", "tests.ml.search_rows", folder, str(steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == -9, done.stderr[-2000:]
    kept = list(Path(folder).rglob("0-*"))
    assert len(kept) == {2: 0, 5: 1, 11: 2}[steps]
    seen = []
    whole = search().fit(table)
    found = search([lambda progress: seen.append(progress.record.step) and None], checkpointDir=folder).fit(table)
    assert bits(found) == bits(whole)
    assert found.trials == whole.trials
    assert found.avgMetrics == whole.avgMetrics
    assert not list(Path(folder).rglob("0-*"))


def test_another_search_has_a_folder_of_its_own(table, tmp_path):
    own = search(checkpointDir=str(tmp_path))
    own.clear(own.seed)
    with pytest.raises(ParameterError, match="checkpointDir needs a seed"):
        own.fit(table)

    steps = iter(range(1000))

    def stop(progress):
        if progress.model == 0 and next(steps) % 10 == 9:
            raise KeyboardInterrupt

    for factor in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            search([stop], checkpointDir=str(tmp_path), factor=factor, minIter=1).fit(table)
    assert len(list(tmp_path.iterdir())) == 2


def test_values_are_drawn_as_the_distributions_say():
    estimator = LogisticRegression()
    space = {estimator.regParam: loguniform(1e-4, 1.0), estimator.elasticNetParam: [0.0, 1.0]}
    drawn = RandomTrials(space, 1).ask(2000)
    logs = np.log10([values[estimator.regParam] for values in drawn])
    assert -4 <= logs.min() < logs.max() <= 0
    assert np.mean(logs) == pytest.approx(-2, abs=0.1)
    assert np.mean([values[estimator.elasticNetParam] for values in drawn]) == pytest.approx(0.5, abs=0.05)
    again = RandomTrials(space, 1)
    assert again.ask(3) + again.ask(5) == drawn[:8]
    assert RandomTrials(space, 2).ask(1) != drawn[:1]
    assert all(type(value) is float for values in drawn[:5] for value in values.values())


def test_a_random_search(table):
    found = search(paramDistributions={"regParam": loguniform(1e-4, 1.0)}, numTrials=12).fit(table)
    assert [trial.number for trial in found.trials] == list(range(12))
    assert found.bestModel.getRegParam() in [trial.params["regParam"] for trial in found.trials]
    assert bits(search(paramDistributions={"regParam": loguniform(1e-4, 1.0)}, numTrials=12).fit(table)) == bits(
        found
    )


def test_rungs_are_those_of_scikit_learn():
    """HalvingGridSearchCV with min_resources="exhaust": so many candidates, and so much for each."""
    for trials, most, factor in ((9, 27, 3), (27, 100, 3), (20, 64, 2), (5, 1000, 3), (1, 10, 3), (6, 2, 3)):
        ((count, rungs),) = brackets("halving", trials, most, None, factor)
        assert count == trials
        possible = 1 + int(np.log(most) / np.log(factor) + 1e-9)
        iterations = min(possible, 1 + int(np.floor(np.log(trials) / np.log(factor) + 1e-9)))
        least = most // factor ** (iterations - 1)
        candidates, expected = trials, []
        for _ in range(iterations):
            expected.append(candidates)
            candidates = int(np.ceil(candidates / factor))
        assert [trials, *[rung.keep for rung in rungs[:-1]]] == expected
        assert rungs[-1].steps == most
        assert rungs[0].steps == least


def test_brackets_are_those_of_the_paper():
    """Li et al. (2018), table 1: R = 81 and η = 3, where the trials are as many as all brackets have."""
    found = brackets("hyperband", 81 + 34 + 15 + 8 + 5, 81, 1, 3)
    assert [count for count, _ in found] == [81, 34, 15, 8, 5]
    assert [[rung.steps for rung in rungs] for _, rungs in found] == [
        [1, 3, 9, 27, 81],
        [3, 9, 27, 81],
        [9, 27, 81],
        [27, 81],
        [81],
    ]
    assert [rung.keep for rung in found[0][1]] == [27, 9, 3, 1, 0]


def test_stages_before_are_fitted_to_each_fold(table):
    own = search()
    features = TableFeatures(inputCols=NAMES, outputCol="features")
    estimator = LogisticRegression(featuresCol="features", maxIter=27, tol=0.0, optimizer="lbfgs")
    maps = [{estimator.regParam: strength} for strength in STRENGTHS]
    given = dict(estimator=Pipeline(stages=[features, estimator]), evaluator=own.getEvaluator(), foldCol="fold")
    found = RandomizedSearch(estimatorParamMaps=maps, minIter=3, seed=1, **given).fit(table)
    whole = CrossValidator(estimatorParamMaps=maps, numFolds=3, **given).fit(table)
    assert found.bestModel.stages[-1].getRegParam() == whole.bestModel.stages[-1].getRegParam()
    np.testing.assert_array_equal(found.bestModel.stages[-1].arrays[0], whole.bestModel.stages[-1].arrays[0])


def test_a_plot_is_written(table, tmp_path):
    pytest.importorskip("matplotlib")
    found = search().fit(table)
    for name in ("search.png", "search.svg"):
        found.plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    assert "logLoss" in found.metricName
    found.copy().plot(tmp_path / "copy.png")
    found.save(str(tmp_path / "found"))
    loaded = type(found).load(str(tmp_path / "found"))
    assert loaded.avgMetrics == found.avgMetrics
    assert loaded.trials == []


def test_what_cannot_be_searched_is_refused(table):
    space = {"regParam": [0.1, 1.0]}
    for options, kind, message in (
        ({"sampler": "cmaes"}, ParameterError, "sampler must be one of 'random', 'tpe'"),
        ({"pruner": "median"}, ParameterError, "pruner must be one of 'none', 'halving', 'hyperband'"),
        ({"factor": 1}, ParameterError, "factor must be a whole number >= 2"),
        ({"minIter": 0}, ParameterError, "minIter must be a whole number >= 1"),
        ({"numTrials": 0}, ParameterError, "numTrials must be a whole number >= 1"),
        ({"paramDistributions": {}}, ParameterError, "paramDistributions must be a dict"),
        ({"paramDistributions": {"regParam": 0.1}}, ParameterError, "must be a list of values, or a distribution"),
        ({"paramDistributions": {"maxIter": [3]}}, ParameterError, "maxIter is what trials are given"),
        (
            {"paramDistributions": {"miniBatchFraction": [0.5], "optimizer": ["adam"]}},
            IncompatibleError,
            "Take CrossValidator",
        ),
        ({"paramDistributions": space, "numFolds": 1}, ParameterError, "numFolds must be"),
    ):
        with pytest.raises(kind, match=message):
            search(**options).fit(table)
    with pytest.raises(ParameterError, match="either paramDistributions, or estimatorParamMaps"):
        RandomizedSearch(estimator=LogisticRegression(), evaluator=search().getEvaluator()).fit(table)
    with pytest.raises(ParameterError, match="which is no parameter: write estimator.regParam"):
        RandomizedSearch(
            estimator=LogisticRegression(), evaluator=search().getEvaluator(), paramDistributions={"regParam": [1.0]}
        ).fit(table)
    with pytest.raises(IncompatibleError, match="RandomizedSearch is not saved"):
        search().write()


OPTUNA = "optuna is not installed: pip install 'optuna>=4'"


def test_optuna_samples(table, grid):
    pytest.importorskip("optuna", reason=OPTUNA)
    space = {"regParam": loguniform(1e-4, 1.0), "standardization": [True, False]}
    found = search(paramDistributions=space, sampler="tpe", numTrials=20).fit(table)
    assert len(found.trials) == 20
    assert min(trial.metric for trial in found.trials if trial.state == "complete") < min(grid.avgMetrics) * 1.02
    again = search(paramDistributions=space, sampler="tpe", numTrials=20).fit(table)
    assert again.trials == found.trials


def test_optunas_own_samplers_and_pruners(table):
    optuna = pytest.importorskip("optuna", reason=OPTUNA)
    found = search(
        paramDistributions={"regParam": STRENGTHS},
        sampler=optuna.samplers.RandomSampler(seed=1),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=0),
        numTrials=24,
    ).fit(table)
    assert {trial.params["regParam"] for trial in found.trials} <= set(STRENGTHS)
    states = [trial.state for trial in found.trials]
    assert 0 < states.count("pruned") < 24
    assert states.count("running") == 0


def test_a_search_by_optuna_resumes(table, tmp_path):
    pytest.importorskip("optuna", reason=OPTUNA)
    options = dict(paramDistributions={"regParam": loguniform(1e-4, 1.0)}, sampler="tpe", numTrials=16)
    whole, count = search(**options).fit(table), iter(range(1000))

    def stop(progress):
        if progress.model == 0 and progress.record.step > 0 and next(count) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search([stop], checkpointDir=str(tmp_path), **options).fit(table)
    assert len(list(tmp_path.rglob("*-0-*"))) >= 2
    found = search(checkpointDir=str(tmp_path), **options).fit(table)
    assert found.trials == whole.trials
    assert bits(found) == bits(whole)


def test_what_optuna_cannot_sample_is_refused(table):
    optuna = pytest.importorskip("optuna", reason=OPTUNA)
    median, grid = optuna.pruners.MedianPruner(), optuna.samplers.GridSampler({"regParam": [1.0]})
    for options, kind, message in (
        ({"paramDistributions": {"regParam": norm()}, "sampler": "tpe"}, IncompatibleError, "which Optuna has not"),
        ({"paramDistributions": {"regParam": [1.0]}, "sampler": grid}, IncompatibleError, "give estimatorParamMaps"),
        ({"paramDistributions": {"regParam": [1.0]}, "sampler": 3}, ParameterError, "sampler must be a name, or a"),
        (
            {"paramDistributions": {"regParam": [1.0]}, "pruner": median},
            IncompatibleError,
            "needs one of its samplers",
        ),
        ({"pruner": median}, IncompatibleError, "draws from paramDistributions"),
    ):
        with pytest.raises(kind, match=message):
            search(**options).fit(table)


def test_on_spark_it_is_the_same(spark, table):
    frame = spark.createDataFrame(table.to_pandas()).coalesce(1)
    found, here = search().fit(frame), search().fit(table)
    assert [trial.state for trial in found.trials] == [trial.state for trial in here.trials]
    np.testing.assert_allclose(found.avgMetrics, here.avgMetrics, rtol=1e-9)
    np.testing.assert_allclose(found.bestModel.arrays[0], here.bestModel.arrays[0], rtol=1e-9)
