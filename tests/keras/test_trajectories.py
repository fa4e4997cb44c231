"""A training with Keras, in one process or two, goes where plain Keras goes on the same batches.

Plain Keras is ``train_on_batch`` of a model that was compiled. On two ranks it takes a step of gradient descent on
each rank's batch from the same weights: the mean of what comes out, by the ranks' rows, is a step on all rows.
"""

from __future__ import annotations

import dataclasses
import functools
import threading

import numpy as np
import pytest
import torch

from sparkopt.blocks.tables import spark_schema
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.launch import LocalCommunicator, LocalLauncher, ProcessLauncher, RankInfo
from sparkopt.launch.checkpoints import module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep.rows import parted
from tests.keras import networks

ROWS, RATE = 130, 0.05
RNG = np.random.default_rng(8)
COLUMNS = {
    "x": list(RNG.normal(size=(ROWS, 5))),
    "image": [[[[v] for v in line] for line in one] for one in RNG.normal(size=(ROWS, 6, 6))],
    "user": RNG.integers(0, 20, ROWS),
    "price": RNG.random(ROWS),
    "class": RNG.integers(0, 3, ROWS),
    "value": RNG.normal(size=ROWS),
}
KINDS = {
    "mlp": (networks.mlp, "multinomial", "x", "class"),
    "regularised": (functools.partial(networks.mlp, dropout=0.3, norm=True), "multinomial", "x", "class"),
    "cnn": (networks.cnn, "multinomial", "image", "class"),
    "two inputs": (networks.two_inputs, "squared_error", ["user", "price"], "value"),
    "unbuilt": (networks.unbuilt, "squared_error", "x", "value"),
    "probabilities": (networks.probable, "sparse_categorical_crossentropy", "x", "class"),
}
ON_TWO = [kind for kind in KINDS if kind not in ("unbuilt", "probabilities")]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store for each kind."""
    rows, folder = parted(COLUMNS, [70]), tmp_path_factory.mktemp("kinds")
    schema = spark_schema(rows.schema)
    return {
        kind: write_store(rows, Fields.of(schema, features, label), str(folder / kind.replace(" ", "-"))).uri
        for kind, (_, _, features, label) in KINDS.items()
    }


def config(stores, kind):
    return TrainConfig(stores[kind], 2, 16, 2, seed=3, device="cpu")


def trained(communicator, stores, backend, kinds):
    """Train these, one after the other."""
    from sparkopt.deep.keras_backends import keras_on
    from sparkopt.deep.keras_recipe import KerasRecipe
    from sparkopt.deep.keras_worker import train_keras

    keras_on(backend).utils.set_random_seed(communicator.rank)  # what the process did before makes no difference
    found = {}
    for kind in kinds:
        build, loss, _, _ = KINDS[kind]
        recipe = KerasRecipe(build, loss, "sgd", backend, step_size=RATE)
        found[kind] = train_keras(communicator, config(stores, kind), recipe)
    return found


@pytest.fixture(scope="module")
def alone(stores, backend):
    return LocalLauncher().run(trained, stores, backend, list(KINDS))[0]


@pytest.fixture(scope="module")
def pair(stores, backend):
    return ProcessLauncher(2).run(trained, stores, backend, ON_TWO)


def batches_of(settings, rank, ranks, epoch):
    communicator = LocalCommunicator()
    communicator.info = RankInfo(rank, ranks)
    with RankDataLoader(settings, communicator, torch.device("cpu")).training(epoch, 0) as batches:
        for batch in batches:
            kinds = [np.float32 if one.is_floating_point() else np.int32 for one in batch.inputs]
            inputs = [one.numpy().astype(kind) for one, kind in zip(batch.inputs, kinds, strict=True)]
            yield inputs if len(inputs) > 1 else inputs[0], batch.target.numpy(), batch.counted


def compiled(keras, kind, seed, rank):
    """Return a model of plain Keras, whose random layers go on from this rank's seeds."""
    build, loss, _, _ = KINDS[kind]
    keras.utils.set_random_seed(seed)
    model = build()
    objects = {
        "multinomial": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "squared_error": keras.losses.MeanSquaredError(),
    }
    if not model.built:
        model.build((None, 5))
    model.compile(keras.optimizers.SGD(RATE), objects.get(loss, loss))
    kept = {id(one) for one in model.weights}
    for one in model.non_trainable_variables:
        if id(one) not in kept:
            first, count = np.asarray(keras.ops.convert_to_numpy(one.value)).tolist()
            one.assign(np.array([first + 1_000_003 * rank, count], one.dtype))
    return model


def plain_keras(keras, settings, kind, ranks):
    """Return the losses of steps and the weights at the end."""
    models = [compiled(keras, kind, settings.seed, rank) for rank in range(ranks)]
    is_trained = [any(one is v for v in models[0].trainable_weights) for one in models[0].weights]
    losses = []
    for epoch in range(settings.epochs):
        for batches in zip(*[batches_of(settings, rank, ranks, epoch) for rank in range(ranks)], strict=True):
            value, rows, sums = 0.0, sum(counted for _, _, counted in batches), None
            for model, (x, y, counted) in zip(models, batches, strict=True):
                if counted:
                    value += float(model.train_on_batch(x, y)) * counted / rows
                    part = [weight * (counted / rows) for weight in model.get_weights()]
                    sums = part if sums is None else [a + b for a, b in zip(sums, part, strict=True)]
                model.reset_metrics()
            losses.append(value)
            for model in models:
                pairs = zip(sums, model.get_weights(), is_trained, strict=True)
                model.set_weights([new if is_new else own for new, own, is_new in pairs])
        means = [np.mean(own, axis=0) for own in zip(*[model.get_weights() for model in models], strict=True)]
        for model in models:
            model.set_weights(means)
    return losses, models[0].get_weights()


def check(keras, stores, kind, ranks, found):
    losses, weights = plain_keras(keras, config(stores, kind), kind, ranks)
    np.testing.assert_allclose(found.losses, losses, atol=1e-5)
    state = module_state(found.weights)
    assert len(state) == len(weights)
    for name, expected in zip(sorted(state), weights, strict=True):
        np.testing.assert_allclose(state[name].numpy(), expected, atol=1e-5)


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("kind", KINDS)
def test_one_process_goes_where_plain_keras_goes(keras, alone, stores, kind):
    check(keras, stores, kind, 1, alone[kind])


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("kind", ON_TWO)
def test_two_ranks_go_where_plain_keras_goes_on_the_joined_batches(keras, pair, stores, kind):
    check(keras, stores, kind, 2, pair[0][kind])
    assert pair[0][kind].losses == pair[1][kind].losses


ROUNDS = dict(local_steps=2, outer_optimizer="diloco")


def with_local_steps(communicator, stores, backend, changes):
    """Train the perceptron."""
    from sparkopt.deep.keras_backends import keras_on
    from sparkopt.deep.keras_recipe import KerasRecipe
    from sparkopt.deep.keras_worker import train_keras

    keras_on(backend)
    settings = dataclasses.replace(config(stores, "mlp"), **changes)
    return train_keras(
        communicator, settings, KerasRecipe(networks.mlp, "multinomial", "sgd", backend, step_size=RATE)
    )


def diloco(keras, settings, ranks):
    """Rounds of plain Keras on each rank, and Nesterov's momentum over them by NumPy: losses and weights."""
    models = [compiled(keras, "mlp", settings.seed, rank) for rank in range(ranks)]
    shared, momentum, losses = models[0].get_weights(), [0.0] * len(models[0].get_weights()), []
    for epoch in range(settings.epochs):
        steps = list(zip(*[batches_of(settings, rank, ranks, epoch) for rank in range(ranks)], strict=True))
        seen = [0] * ranks
        for step, batches in enumerate(steps, 1):
            rows, value = sum(counted for _, _, counted in batches), 0.0
            for rank, (x, y, counted) in enumerate(batches):
                if counted:
                    value += float(models[rank].train_on_batch(x, y)) * counted / rows
                    seen[rank] += counted
                models[rank].reset_metrics()
            losses.append(value)
            if step % settings.local_steps and step < len(steps):
                continue
            own = [model.get_weights() for model in models]
            moved = [
                sum(n / sum(seen) * (w - one[k]) for n, one in zip(seen, own, strict=True))
                for k, w in enumerate(shared)
            ]
            momentum = [0.9 * m + g for m, g in zip(momentum, moved, strict=True)]
            shared = [w - 0.7 * (g + 0.9 * m) for w, g, m in zip(shared, moved, momentum, strict=True)]
            for model in models:
                model.set_weights(shared)
            seen = [0] * ranks
    return losses, shared


@pytest.mark.usefixtures("minutes")
def test_local_steps_go_where_plain_keras_goes(keras, stores, backend):
    first, second = ProcessLauncher(2).run(with_local_steps, stores, backend, ROUNDS)
    losses, weights = diloco(keras, dataclasses.replace(config(stores, "mlp"), **ROUNDS), 2)
    np.testing.assert_allclose(first.losses, losses, atol=1e-5)
    state = module_state(first.weights)
    for name, expected in zip(sorted(state), weights, strict=True):
        np.testing.assert_allclose(state[name].numpy(), expected, atol=1e-5)
    assert first.losses == second.losses


@pytest.mark.usefixtures("minutes")
def test_local_steps_that_go_on_from_a_checkpoint(keras, stores, backend, tmp_path):
    """Within int8, each process with its own state of the optimiser."""
    changes = {**ROUNDS, "compression": "int8"}
    whole = ProcessLauncher(2).run(with_local_steps, stores, backend, changes)[0]
    saved = {**changes, "checkpoints": str(tmp_path)}
    ProcessLauncher(2).run(with_local_steps, stores, backend, {**saved, "epochs": 1})
    rest = ProcessLauncher(2).run(with_local_steps, stores, backend, saved)[0]
    assert rest.resumed == "epoch-000001-step-000000000"
    np.testing.assert_allclose(rest.losses, whole.losses, atol=1e-6)


@pytest.mark.parametrize("norm", [None, 1e3])
def test_rows_are_read_between_steps_that_jax_computes_on_its_threads(keras, backend, norm):
    """But where a step waits for numbers, as a clipped one does, a thread reads meanwhile."""
    from sparkopt.deep import KerasEstimator

    reading = []

    def look(progress):
        reading.append("sparkopt-read" in {thread.name for thread in threading.enumerate()})

    options = {"launcher": "local", "epochs": 1, "batchSize": 1, "prefetch": 1, "maxGradNorm": norm}
    made = KerasEstimator(module=networks.mlp, loss="multinomial", callbacks=[look], **options)
    made.progress = False
    made.fit((np.array(COLUMNS["x"], np.float32), COLUMNS["class"]))
    assert any(reading) == (backend != "jax" or norm is not None)
