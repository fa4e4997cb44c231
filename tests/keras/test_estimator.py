"""KerasEstimator and KerasModel as users have them: fit, score, save, resume, and one line for what cannot work."""

from __future__ import annotations

import functools
import logging

import numpy as np
import pandas as pd
import pytest
import torch

from sparkopt import images
from sparkopt.deep import TorchEstimator
from sparkopt.errors import DataError, IncompatibleError, ParameterError, SparkoptError
from sparkopt.optim import schedules
from tests.keras import networks

RNG = np.random.default_rng(3)
X = RNG.normal(size=(150, 5)).astype(np.float32)
CLASSES = (X @ RNG.normal(size=(5, 3))).argmax(1)
VALUES = (X @ np.arange(5.0)).astype(np.float32)
FRAME = pd.DataFrame({"features": list(X)})


def estimator(keras, **options):
    from sparkopt.deep import KerasEstimator

    settings = {
        "loss": "multinomial",
        "optimizer": "sgd",
        "stepSize": 0.1,
        "epochs": 2,
        "launcher": "local",
        "seed": 5,
    }
    found = KerasEstimator(**{**settings, "module": networks.mlp, "seed": 5, **options})
    found.progress = False
    return found


@pytest.mark.usefixtures("minutes")
def test_scores_are_those_of_the_keras_model_and_survive_saving(keras, tmp_path):
    from sparkopt.deep import KerasModel

    model = estimator(keras, module=functools.partial(networks.mlp, norm=True)).fit((X, CLASSES))
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model.module(X, training=False)))
    path = str(tmp_path / "model")
    model.save(path)
    for one in (model, KerasModel.load(path)):
        scored = one.transform(FRAME)
        np.testing.assert_allclose(np.stack(scored["probability"]), expected, atol=1e-6)
        np.testing.assert_array_equal(scored["prediction"], expected.argmax(1))
    accuracy = (expected.argmax(1) == CLASSES).mean()
    assert model.evaluate((X, CLASSES)) == pytest.approx({"accuracy": accuracy})
    assert model.summary.receipt.rows == len(X)


@pytest.mark.usefixtures("minutes")
def test_a_model_without_a_name_is_loaded_with_what_builds_it(keras, tmp_path, caplog):
    from sparkopt.deep import KerasModel

    def build():
        return keras.Sequential([keras.layers.Dense(1)])

    with caplog.at_level(logging.WARNING):
        model = estimator(keras, module=build, loss="squared_error", epochs=1).fit((X, VALUES))
    assert "KerasModel.load(path, module=...)" in caplog.text
    path = str(tmp_path / "model")
    model.save(path)
    with pytest.raises(DataError, match=r"KerasModel\.load\(path, module=\.\.\.\), with the module that Keras"):
        KerasModel.load(path)
    scored = KerasModel.load(path, module=build).transform(FRAME)
    pd.testing.assert_frame_equal(scored, model.transform(FRAME))


@pytest.mark.usefixtures("minutes")
def test_probabilities_of_classes_are_those_that_the_network_gives(keras):
    chosen = {"module": networks.probable, "loss": keras.losses.SparseCategoricalCrossentropy()}
    model = estimator(keras, validationFraction=0.3, metrics={"accuracy": "accuracy"}, **chosen).fit((X, CLASSES))
    expected = keras.ops.convert_to_numpy(model.module(X))
    np.testing.assert_allclose(np.stack(model.transform(FRAME)["probability"]), expected, atol=1e-6)
    assert 0 <= model.summary.history[-1]["accuracy"] <= 1


@pytest.mark.usefixtures("minutes")
def test_a_compiled_step_is_traced_once(keras, backend):
    """150 rows in batches of 32: the last one has 22. Without compilation the layer is called in each step."""
    networks.TRACES.clear()
    estimator(keras, module=networks.counting, batchSize=32, epochs=3).fit((X, CLASSES))
    steps = [
        shape for shape in networks.TRACES if isinstance(shape[0], int) and shape[0] != 2
    ]  # 2 rows are tried first
    if backend == "torch":  # whose layers are called with made-up sizes when they are built
        assert steps[-15:] == [(32, 5), (32, 5), (32, 5), (32, 5), (22, 5)] * 3
    else:
        assert steps == [(32, 5)]


class Stop:
    """Ends training after some steps."""

    def __init__(self, step):
        self.step = step

    def __call__(self, progress):
        return progress.record.step >= self.step


@pytest.mark.usefixtures("minutes")
def test_a_training_goes_on_from_its_checkpoint_to_the_same_weights(keras, tmp_path):
    options = {
        "module": functools.partial(networks.mlp, dropout=0.3, norm=True),
        "optimizer": "adam",
        "stepSize": 0.01,
        "stepSizeSchedule": "cosine" if "cosine" in schedules.NAMES else "linear",
        "batchSize": 16,
        "checkpointInterval": 4,
        "epochs": 3,
    }
    whole = estimator(keras, **options).fit((X, CLASSES))
    folder = {"checkpointDir": str(tmp_path / "checkpoints")}
    part = estimator(keras, callbacks=[Stop(20)], **folder, **options).fit((X, CLASSES))
    assert part.summary.totalIterations < whole.summary.totalIterations
    found = estimator(keras, **folder, **options).fit((X, CLASSES))
    assert found.summary.receipt.resumed is not None
    assert found.summary.objectiveHistory == whole.summary.objectiveHistory
    assert found.weights == whole.weights
    with pytest.raises(IncompatibleError, match="optimizer"):
        estimator(keras, **folder, **{**options, "stepSize": 0.02}).fit((X, CLASSES))


@pytest.mark.usefixtures("minutes")
def test_the_estimator_is_saved(keras, tmp_path):
    from sparkopt.deep import KerasEstimator

    first = estimator(
        keras,
        module=functools.partial(networks.mlp, dropout=0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.SGD(0.1, momentum=0.5),
        stepSize=None,
    )
    first.save(str(tmp_path / "estimator"))
    again = KerasEstimator.load(str(tmp_path / "estimator"))
    again.progress = False
    assert again.fit((X, CLASSES)).weights == first.fit((X, CLASSES)).weights


REFUSED = {
    "built already": (lambda keras: {"module": networks.mlp()}, "module is a Sequential that was built already"),
    "no function": (lambda keras: {"module": 3}, "module must be a function that builds a keras.Model"),
    "builds something else": (lambda keras: {"module": dict}, "must build a keras.Model. It builds a dict"),
    "a class of losses": (lambda keras: {"loss": keras.losses.MeanSquaredError}, "give an instance of it"),
    "no loss": (lambda keras: {"loss": "nonsense"}, "loss must be one of squared_error"),
    "no optimiser": (lambda keras: {"optimizer": "nonsense"}, "optimizer must be one of"),
    "averaged weights": (
        lambda keras: {"optimizer": keras.optimizers.SGD(0.1, use_ema=True), "stepSize": None},
        "optimizer has use_ema=True",
    ),
    "two rates": (lambda keras: {"optimizer": keras.optimizers.SGD(0.1)}, "stepSize is for optimisers with a name"),
    "a loss of the batch": (lambda keras: {"module": networks.adding}, "a layer adds a loss of its own"),
    "precision": (lambda keras: {"precision": "bf16"}, "set a dtype policy in the function that builds the model"),
    "too many classes": (lambda keras: {"module": networks.unbuilt}, "the loss takes the whole numbers 0 to 0"),
}


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_trained_is_one_line(keras, kind):
    make, message = REFUSED[kind]
    options = make(keras)
    precision = options.pop("precision", "fp32")
    with pytest.raises(SparkoptError, match=message) as raised:
        estimator(keras, **options).setPrecision(precision).fit((X, CLASSES))
    assert "\n" not in str(raised.value)


NO_IMAGES = {
    "several": ([images.FiveCrop(4, 4)], "imagePipeline has FiveCrop, which makes several images"),
    "channels first": ([images.ToCHW()], "imagePipeline has ToCHW, and where the channels of a batch are is said by"),
}


@pytest.mark.parametrize(("steps", "message"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_a_pipeline_that_gives_no_image_with_channels_last_is_refused(keras, steps, message):
    rows = pd.DataFrame({"image": [b"never decoded"] * 4, "label": [0, 1] * 2})
    pipeline = images.Compose([images.Decode(), *steps])
    with pytest.raises(ParameterError, match=message):
        estimator(keras, featuresCol="image", imagePipeline=pipeline).fit(rows)


@pytest.mark.usefixtures("minutes")
def test_batch_normalisation_of_what_are_no_rows_is_refused_where_batches_are_padded(keras, backend):
    run = estimator(keras, module=networks.timed, epochs=1)
    if backend == "torch":
        assert run.fit((X, CLASSES)).summary.totalIterations == 5
    else:
        with pytest.raises(IncompatibleError, match="cannot be told from the others"):
            run.fit((X, CLASSES))


@pytest.mark.usefixtures("minutes")
def test_torch_estimator_refuses_layers_of_keras(keras, backend):
    if backend != "torch":
        pytest.skip("layers of Keras are modules of PyTorch under that backend only")
    for module in (networks.mlp(), networks.mlp, functools.partial(torch.nn.Sequential, networks.mlp())):
        with pytest.raises(ParameterError, match=r"Take sparkopt\.deep\.KerasEstimator"):
            TorchEstimator(module=module, loss="multinomial", epochs=1, launcher="local").fit((X, CLASSES))


@pytest.mark.usefixtures("minutes")
def test_another_backend_than_the_one_of_this_process_is_refused(keras, backend):
    other = "jax" if backend != "jax" else "torch"
    with pytest.raises(IncompatibleError, match=f"imported Keras on '{backend}' already"):
        estimator(keras, backend=other).fit((X, CLASSES))


def test_without_keras_it_says_what_to_install(monkeypatch):
    import sys

    from sparkopt.deep import KerasEstimator
    from sparkopt.errors import MissingDependencyError

    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(MissingDependencyError, match=r"KerasEstimator needs Keras"):
        KerasEstimator(module=networks.mlp).fit((X, CLASSES))
